"""The job as a command under `zelect run`: it never looks at a lease, and relies on being ended in time.

python -m tools.chaos_lab.command_job
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tools.chaos_lab.job import AGAIN_S, EVERY_S, KINDS, Counters
from tools.chaos_lab.worker_setup import CHAOS, NAME, read_setups
from zelect.system.clock import now_us


def main() -> None:
    """Raise the counters in the term that the environment names, until somebody ends it."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # of the storm, which goes on to the command
    node, term = int(os.environ["ZELECT_NODE"]), int(os.environ["ZELECT_TERM"])
    setup = read_setups(Path(os.environ[CHAOS]))[node]
    counters = Counters(NAME, node, 0, setup.job, Path(setup.history))
    counters.write(now_us(), term, "work_began", os.getpid())
    while True:
        if counters.connect():
            for kind in KINDS:
                counters.effect(kind, now_us(), term)
        time.sleep(EVERY_S if counters.connect() else AGAIN_S)


if __name__ == "__main__":
    main()
