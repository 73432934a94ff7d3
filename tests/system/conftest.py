"""Fixtures that tests with a real Julia share."""

from juliahelp import julia, stocked

__all__ = ["julia", "stocked"]
