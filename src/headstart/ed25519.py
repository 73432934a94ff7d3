"""Ed25519 verification in plain Python (RFC 8032), for nodes that have nothing but the standard library.

Theory of operation. A signature is a point R and a number S; it holds when [S]B = R + [h]A, where A is the
key, B the curve's base point and h = SHA-512(R, A, message). Here [S]B - [h]A is computed and its encoding
compared with the bytes of R, so a second encoding of the same point never passes. There are no secrets on this
side, hence nothing needs constant time; one verification takes a few milliseconds.

Stricter than the RFC asks: a key of small order (for which anybody can make signatures) is no key.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from headstart.errors import CorruptError

KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64

_P: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_ONE: Final = pow(2, (_P - 1) // 4, _P)
_TOP_BIT: Final = 1 << 255

# x, y, z, t with X = x/z, Y = y/z, XY = t/z (RFC 8032 section 5.1.4)
_Point = tuple[int, int, int, int]
_IDENTITY: Final[_Point] = (0, 1, 1, 0)


@dataclass(frozen=True, slots=True)
class Ed25519PublicKey:
    """A public key: the 32 bytes of RFC 8032."""

    raw: bytes

    def __post_init__(self) -> None:
        point = _decode(self.raw) if len(self.raw) == KEY_SIZE else None
        if point is None or _is_identity(_double(_double(_double(point)))):
            raise CorruptError(f"{self.raw[:40].hex()!r} is no Ed25519 public key")

    @property
    def keyid(self) -> str:
        """SHA-256 of the key, in hexadecimal: how signatures refer to it."""
        return hashlib.sha256(self.raw).hexdigest()

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether ``signature`` (64 bytes, any others are none) is this key's over ``message``."""
        if len(signature) != SIGNATURE_SIZE:
            return False
        encoded, s = signature[:32], int.from_bytes(signature[32:], "little")
        point = _decode(self.raw)
        if s >= _ORDER or point is None:
            return False
        h = int.from_bytes(hashlib.sha512(encoded + self.raw + message).digest(), "little") % _ORDER
        x, y, z, t = point
        return _encode(_multiply_and_add(s, _BASE, h, (_P - x, y, z, _P - t))) == encoded


def _add(p: _Point, q: _Point) -> _Point:
    a = (p[1] - p[0]) * (q[1] - q[0]) % _P
    b = (p[1] + p[0]) * (q[1] + q[0]) % _P
    c = 2 * p[3] * q[3] * _D % _P
    d = 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _double(p: _Point) -> _Point:
    a = p[0] * p[0] % _P
    b = p[1] * p[1] % _P
    h = a + b
    e = h - (p[0] + p[1]) ** 2
    g = a - b
    f = 2 * p[2] * p[2] + g
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _is_identity(p: _Point) -> bool:
    return p[0] % _P == 0 and (p[1] - p[2]) % _P == 0


def _multiples(p: _Point) -> list[_Point]:
    table = [_IDENTITY]
    for _ in range(15):
        table.append(_add(table[-1], p))
    return table


def _multiply_and_add(m: int, p: _Point, n: int, q: _Point) -> _Point:
    """[m]P + [n]Q for m, n < 2**256: both at once, four bits at a time (Straus)."""
    of_p, of_q = _multiples(p), _multiples(q)
    total = _IDENTITY
    for shift in range(252, -4, -4):
        total = _double(_double(_double(_double(total))))
        total = _add(_add(total, of_p[m >> shift & 15]), of_q[n >> shift & 15])
    return total


def _encode(p: _Point) -> bytes:
    inverse = pow(p[2], -1, _P)
    x, y = p[0] * inverse % _P, p[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decode(raw: bytes) -> _Point | None:
    """The point of an encoding, or None: y not below p, no such point, or x = 0 with a sign (section 5.1.3)."""
    number = int.from_bytes(raw, "little")
    sign, y = number >> 255, number & (_TOP_BIT - 1)
    if y >= _P:
        return None
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * v**3 * pow(u * v**7, (_P - 5) // 8, _P) % _P
    if v * x * x % _P != u:
        x = x * _ROOT_OF_MINUS_ONE % _P
        if v * x * x % _P != u:
            return None
    if x == 0 and sign:
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _base_point() -> _Point:
    point = _decode((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))
    assert point is not None  # noqa: S101 - the RFC's constant; only a typing error here could make it fail
    return point


_BASE: Final = _base_point()
