"""The one table of faults, by family."""

from __future__ import annotations

import os
import shutil
import sys

from tools.breaking import boards, cuts, machines, processes, strangers
from tools.breaking.fault import Fault, Host

__all__ = ["FAMILIES", "TABLE", "this_host"]

FAMILIES: dict[str, tuple[Fault, ...]] = {
    "processes": processes.FAULTS,
    "links": cuts.FAULTS,
    "machine": machines.FAULTS,
    "redis": boards.FAULTS,
    "hostile": strangers.FAULTS,
}
TABLE: dict[str, Fault] = {fault.name: fault for family in FAMILIES.values() for fault in family}
"""Every kind of fault by its name."""

_TOOLS = ("strace", "mount", "umount", "ip", "nft", "ss", "iptables-restore")


def this_host(links: bool, spaces: bool = False) -> Host:
    """What can be done on this machine."""
    tools = frozenset(tool for tool in _TOOLS if shutil.which(tool))
    return Host(
        root=os.geteuid() == 0,
        linux=sys.platform.startswith("linux"),
        tools=tools,
        links=links or spaces,
        spaces=spaces,
    )
