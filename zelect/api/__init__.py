"""A node inside a program: the Python interface (docs/embedding.md)."""

from __future__ import annotations

from zelect.api.leadership import Leadership, LeadershipLost
from zelect.api.node import LeadershipIterator, Node, NodeFailed
from zelect.client.observer import ControllerUnknown, Observer
from zelect.client.published import Seen
from zelect.system.child import ChildFailed

__all__ = [
    "ChildFailed",
    "ControllerUnknown",
    "Leadership",
    "LeadershipIterator",
    "LeadershipLost",
    "Node",
    "NodeFailed",
    "Observer",
    "Seen",
]
