"""The bundled server as Sentinel, watching one master."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path
from types import TracebackType

from tools.common.checkout import ToolError
from tools.common.raw_redis import call
from zelect.devcluster.bundled_server import find_server
from zelect.devcluster.layout import HOST, find_port
from zelect.system.parent_death import prefix

_READY_S = 10.0


class Sentinel:
    """One Sentinel in `directory` that fails over from the master on `port` after 0.3 s of silence."""

    def __init__(self, directory: Path, port: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._port = find_port()
        conf = directory / "sentinel.conf"
        lines = (
            f"port {self._port}",
            f"bind {HOST}",
            f"dir {directory}",
            f"sentinel monitor registry {HOST} {port} 1",
            "sentinel down-after-milliseconds registry 300",
            "sentinel failover-timeout registry 3000",
        )
        conf.write_text("\n".join(lines) + "\n")
        with (directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                (*prefix(), str(find_server()), str(conf), "--sentinel"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> Sentinel:
        end = time.monotonic() + _READY_S
        while True:
            with contextlib.suppress(OSError, ToolError):
                self.master()
                return self
            if time.monotonic() > end:
                self.close()
                raise ToolError("Sentinel does not answer")
            time.sleep(0.02)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def master(self) -> int:
        """The port of the master, as Sentinel has it."""
        return int(call(self._port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "registry")[1])

    def knows(self, port: int) -> bool:
        """Whether Sentinel has found the replica on `port` and talked to it."""
        return any(
            str(port).encode() in entry and b"slave" in entry
            for entry in call(self._port, "SENTINEL", "REPLICAS", "registry")
        )
