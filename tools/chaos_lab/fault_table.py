"""The one table of faults, by family."""

from __future__ import annotations

import os
import shutil
import sys

from tools.chaos_lab import hostile_faults, link_faults, machine_faults, process_faults, redis_faults
from tools.chaos_lab.fault import Fault, Host

FAMILIES: dict[str, tuple[Fault, ...]] = {
    "processes": process_faults.FAULTS,
    "links": link_faults.FAULTS,
    "machine": machine_faults.FAULTS,
    "redis": redis_faults.FAULTS,
    "hostile": hostile_faults.FAULTS,
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
