"""Honest texts and answers, from which those for the readers are made."""

from __future__ import annotations

import json
from dataclasses import asdict

from tools.simulator.small_world import World
from zelect.core.quorum import Record
from zelect.devcluster.control import Processes, ProcessState
from zelect.devcluster.layout import ChildMark, ClusterPlan, Control
from zelect.redis.witness_record import RecordTexts
from zelect.status.codec import plain
from zelect.status.election import stream_fields
from zelect.status.report import RedisReport, encode, report_of


def honest_texts() -> dict[str, list[str]]:
    """By the names of `readers.JSON_READERS`."""
    world = World(3)
    world.start()
    world.run_until(lambda: world.controller() == 1)
    reports, entries = [], []
    for node in (1, 2):
        status = world.processes[node].machine.status(world.now_us)
        redis = RedisReport("redis://127.0.0.1:6379/0", "up", 1, "")
        report = report_of(
            status,
            cluster="demo",
            address=f"tcp://127.0.0.1:710{node}",
            redis=redis,
            counters={"received": 5},
            reload_problem="",
            began_us=0,
        )
        reports.append(encode(report))
        if status.trace is not None:
            votes, trace = stream_fields(status.trace)
            fields = {"id": "1", "term": "7", "previous": "2", "reason": "death", "gap_ms": "252.000"}
            entries.append(json.dumps({**fields, "votes": votes, "trace": trace}))
    record: Record = world.state(1).record
    control = Control(7, "1234", 20_000, "secret", (ChildMark(8, "1235"), ChildMark(9, "1236")))
    processes = Processes(7, "redis://127.0.0.1:1/0", None, (ProcessState(1, 8, "ended", -9, True),))
    return {
        "report": reports,
        "election": entries,
        "voter record": [RecordTexts("demo").write(record).partition(":")[2]],
        "registry entry": [
            '{"address":"tcp://127.0.0.1:7101","role":"follower","status":"running","term":3,"seen_ms":5}'
        ],
        "control file": [json.dumps(plain(control))],
        "processes": [json.dumps(processes.as_json())],
        "plan": [json.dumps(asdict(ClusterPlan("demo", 3, 7101, "", 20_000)))],
    }


def _bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


def honest_answers() -> list[bytes]:
    """As Redis sends them: arrays of texts, an error, a number, nothing."""
    texts = (
        ("done", "1", "3", "1", "3", "", "", "", ""),
        ("", "4", "run", "replid", "", "", "0", "", "", ""),
        ("hset nodes yes,info - no", "0", "noeviction", "1", "1", "tcp://127.0.0.1:7101", "5", "7", "1", "{}"),
    )
    return [
        *(b"*%d\r\n" % len(one) + b"".join(map(_bulk, one)) for one in texts),
        b"-NOAUTH Authentication required.\r\n",
        b"-ERR unknown command 'AUTH', with args beginning with: 'secret'\r\n",
        b":7\r\n",
        b"$-1\r\n",
        b"*2\r\n*1\r\n$1\r\na\r\n*0\r\n",
    ]
