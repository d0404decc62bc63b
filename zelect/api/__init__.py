"""A node inside a program: the Python interface (docs/embedding.md)."""

from __future__ import annotations

from zelect.api.leadership import Leadership, LeadershipLost
from zelect.api.node import Node, NodeFailed
from zelect.client.observer import Observer, Seen
from zelect.system.child import ChildFailed

__all__ = ["ChildFailed", "Leadership", "LeadershipLost", "Node", "NodeFailed", "Observer", "Seen"]
