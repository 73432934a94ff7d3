"""Whether this machine's clock can be right, judged by what was signed. Everything here is UTC.

A clock that is behind lets old statements live for ever, and one that is ahead lets good ones die. Nothing that
comes from a network tells the time without being believed first; but what a trusted key has signed was not
signed in the future. So a clock before such a moment is wrong, here or where it was signed, and in both cases
nothing can be said about what has expired. A clock that is ahead cannot be told from a late hour, so complaints
about an expiry name both times.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from headstart.errors import TrustError

RELEASED: Final = datetime(2026, 11, 1, tzinfo=UTC)
"""No right clock shows an earlier time: this Headstart was not written yet. Moved on with each release."""
TOLERANCE: Final = timedelta(hours=1)
"""How far two clocks may be apart before it matters: an expiry lives as much longer."""
_HINT: Final = (
    "set this machine's clock (timedatectl); a release that is named by its digest starts all the same"
)


def time_text(time: datetime) -> str:
    """A time in its one spelling, such as 2026-11-22T20:15:00Z."""
    return time.replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def clock_complaint(now: datetime, *, signed: datetime, what: str) -> str:
    """Why the clock cannot be right; nothing where it can.

    Args:
        now: what it says.
        signed: when something that is believed was signed.
        what: that, for the sentence.
    """
    if now >= signed - TOLERANCE:
        return ""
    return (
        f"this machine's clock says {time_text(now)}, and {what} was signed on {time_text(signed)}: "
        "one of the two clocks is wrong"
    )


def own_complaint(now: datetime) -> str:
    """Why the clock cannot be right, by what this program knows alone; nothing where it can."""
    if now >= RELEASED - TOLERANCE:
        return ""
    return f"this machine's clock says {time_text(now)}, and this Headstart is of {time_text(RELEASED)}"


def check_clock(complaint: str) -> None:
    """Refuse to judge an expiry by a clock that there is a complaint about.

    Raises:
        TrustError: there is.
    """
    if complaint:
        raise TrustError(complaint, hint=_HINT)


def check_expiry(now: datetime, *, expires: datetime, what: str, hint: str) -> None:
    """Refuse what has expired.

    Raises:
        TrustError: it has, naming both times.
    """
    if now >= expires:
        raise TrustError(
            f"{what} expired on {time_text(expires)}, and this machine's clock says {time_text(now)}", hint=hint
        )
