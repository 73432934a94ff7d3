"""What would go wrong on this node, and what to do about it.

``gather`` looks and changes nothing; ``diagnose`` judges what it found, and looks at nothing.
"""

from headstart.doctor.finding import Finding, Grade, worst
from headstart.doctor.gather import Case, gather
from headstart.doctor.here import judge_node
from headstart.doctor.there import judge_sources
from headstart.nodefacts import Facts

__all__ = ["Case", "Finding", "Grade", "diagnose", "gather", "worst"]


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Everything that there is to say of a node, in a fixed order, the good with the bad."""
    return (*judge_node(facts), *judge_sources(facts))
