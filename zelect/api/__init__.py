"""A node inside a program: the Python interface (docs/embedding.md)."""

from __future__ import annotations

from zelect.api.child import ChildFailed
from zelect.api.node import Node, NodeFailed
from zelect.api.observer import Observer, Seen
from zelect.api.office import Office, OfficeLost

__all__ = ["ChildFailed", "Node", "NodeFailed", "Observer", "Office", "OfficeLost", "Seen"]
