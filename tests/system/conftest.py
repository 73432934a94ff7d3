"""Fixtures that tests with a real Julia share."""

from juliahelp import julia

__all__ = ["julia"]
