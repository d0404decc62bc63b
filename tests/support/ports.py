"""Free TCP ports; the tools take theirs from there too."""

from __future__ import annotations

from tools.common.ports import free_port, free_ports

__all__ = ["free_port", "free_ports"]
