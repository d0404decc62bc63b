"""One node as a process of its own."""

from __future__ import annotations

import contextlib
import sys

from zelect.config.loading import Config
from zelect.node.leadership.hooks import Hooks
from zelect.node.loop import NodeLoop
from zelect.node.storage.data_dir import DataDirError, StartAgain
from zelect.node.storage.vote_store import VoteStoreError
from zelect.node.transport.connection_limits import raise_descriptor_limit
from zelect.security.zap_authenticator import AuthenticatorFailed
from zelect.system.log import setup
from zelect.system.service_manager import ServiceManager
from zelect.system.signals import SignalPipe
from zelect.system.sockets import CannotBind


def run(config: Config) -> int:
    """Run the node of `config` until SIGTERM or SIGINT; returns the exit code: 0 after a graceful leave,
    3 when durable state cannot be used, 4 when the address cannot be bound or the authenticator has failed.
    Errors go to standard error. Raises `ConfigError` for a file that `config` names and that cannot be
    used."""
    raise_descriptor_limit()
    log = setup(config.log.level, config.log.format, config.log.file, config.node.id, config.cluster.name)
    try:
        while True:
            with contextlib.suppress(StartAgain):
                node = NodeLoop(config, log)
                node.manager = ServiceManager.from_environment()
                with Hooks(config, node.handle, log):
                    return node.run(SignalPipe(last=True))
    except (VoteStoreError, DataDirError) as error:
        print(f"zelect: {error}", file=sys.stderr)
        return 3
    except (CannotBind, AuthenticatorFailed) as error:
        print(f"zelect: {error}", file=sys.stderr)
        return 4
