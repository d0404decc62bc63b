"""Units for systemd: a node, and a command that runs on the active node."""

from __future__ import annotations

_UNIT = """\
# {about}
# Written by 'zelect init'. %i is the node's id: systemctl enable --now {name}@1
[Unit]
Description=zelect node %i{what}
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={start}
ExecReload={program} reload --id %i
Environment=ZELECT_CONFIG=/etc/zelect/zelect.toml
User=zelect
Group=zelect
StateDirectory=zelect
StateDirectoryMode=0700
Restart=on-failure
RestartSec=1
TimeoutStopSec=30
WatchdogSec=30
LimitNOFILE=16384

# A node writes its state below /var/lib/zelect and nowhere else, and needs no privilege.
CapabilityBoundingSet=
LockPersonality=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectSystem=strict
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0077

[Install]
WantedBy=multi-user.target
"""

NODE, RUN = "zelect@.service", "zelect-run@.service"


def units(program: str) -> dict[str, str]:
    """Their texts by file name. `program`: the path of the command zelect on the hosts."""
    about = "A node, and a command that runs while the node is active. Put your command behind the two dashes."
    return {
        NODE: _unit(program, "A node of the election, without a job.", "zelect", "", "node --id %i"),
        RUN: _unit(program, about, "zelect-run", " and its job", "run --id %i -- /usr/bin/sleep infinity"),
    }


def _unit(program: str, about: str, name: str, what: str, command: str) -> str:
    return _UNIT.format(about=about, name=name, what=what, start=f"{program} {command}", program=program)
