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
)
from headstart.repository.publish_tree import (
    OURS,
    TreePublished,
    Wanted,
    delete_path,
    publish_tree,
)
from headstart.repository.rollback import ChannelAction, RollbackPlan, plan_rollback, roll_back
from headstart.repository.state import Repository, Settings, Tagging
from headstart.repository.tags import TagAction, TagPlan, adding, change_tags, moving, removing

__all__ = [
    "OURS",
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
    "TreePublished",
    "Wanted",
    "adding",
    "change_tags",
    "create",
    "delete_path",
    "moving",
    "plan",
    "plan_rollback",
    "publish",
    "publish_tree",
    "refuse_storage",
    "removing",
    "roll_back",
]
