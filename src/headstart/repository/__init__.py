"""Repositories from the writer's side: create one, publish to one, name its states and go back to one."""

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
from headstart.repository.rollback import ChannelAction, RollbackPlan, plan_rollback, roll_back
from headstart.repository.state import Repository, Settings, Tagging
from headstart.repository.tags import TagAction, TagPlan, adding, change_tags, moving, removing

__all__ = [
    "Action",
    "AllKeys",
    "Channel",
    "ChannelAction",
    "Means",
    "Plan",
    "Published",
    "Repository",
    "RollbackPlan",
    "Settings",
    "Step",
    "TagAction",
    "TagPlan",
    "Tagging",
    "adding",
    "change_tags",
    "create",
    "moving",
    "plan",
    "plan_rollback",
    "publish",
    "publish_tree",
    "refuse_storage",
    "removing",
    "roll_back",
]
