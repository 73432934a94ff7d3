"""Repositories from the writer's side: create one, publish to one."""

from headstart.repository.create import AllKeys, create, refuse_storage
from headstart.repository.publish import (
    Action,
    Channel,
    Means,
    Plan,
    Published,
    Step,
    plan,
    publish,
    publish_tree,
)
from headstart.repository.state import Repository, Settings

__all__ = [
    "Action",
    "AllKeys",
    "Channel",
    "Means",
    "Plan",
    "Published",
    "Repository",
    "Settings",
    "Step",
    "create",
    "plan",
    "publish",
    "publish_tree",
    "refuse_storage",
]
