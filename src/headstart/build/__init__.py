"""Building a release: ``gather`` reads, ``plan`` decides, ``apply`` does."""

from headstart.build.apply import Built, Means, apply
from headstart.build.gather import Request, gather
from headstart.build.plan import BuildPlan, Inputs, plan
from headstart.build.staging import Stage

__all__ = ["BuildPlan", "Built", "Inputs", "Means", "Request", "Stage", "apply", "gather", "plan"]
