"""One scheduler among three replicas: APScheduler with its jobs in Redis, running on the active node.

    pip install zelect 'apscheduler>=3.11,<4'
    python examples/scheduler.py conf/n1.toml          # and n2, n3, on every machine

Every replica runs this program. The schedule is in Redis, so the next active replica goes on where the
one before stopped; each run of a job is fenced, so one that was frozen in the middle can't write after
another replica has taken over.
"""

from __future__ import annotations

import signal
import sys

import redis
from apscheduler.jobstores.redis import RedisJobStore
from apscheduler.schedulers.background import BackgroundScheduler

import zelect

CURRENT: dict[str, zelect.Leadership] = {}
"""This process's leadership. A job that is kept in Redis can't carry it along."""


def tick(url: str) -> None:
    """The job. It records who ran it, where a real one would send an invoice."""
    leadership = CURRENT["leadership"]
    leadership.check()
    with redis.Redis.from_url(url) as client:
        ledger = zelect.FencedRedis(client, "ledger", leadership)
        ledger.rpush(ledger.key("ticks"), f"{leadership.term} {leadership.node}")


def schedule(leadership: zelect.Leadership, url: str) -> None:
    """Run the scheduler as long as leadership lasts."""
    CURRENT["leadership"] = leadership
    options = redis.Redis.from_url(url).connection_pool.connection_kwargs
    store = RedisJobStore(host=options["host"], port=options["port"], db=options["db"])
    scheduler = BackgroundScheduler(jobstores={"default": store}, timezone="UTC")
    scheduler.add_job(tick, "interval", seconds=0.2, args=[url], id="tick", replace_existing=True, max_instances=1)
    scheduler.start()
    try:
        while True:
            leadership.sleep(1.0)  # raises LeadershipLost when leadership is lost
    finally:
        # Waits for the job that runs: until it has ended, this node does not hand its leadership over.
        scheduler.shutdown(wait=True)


def main(path: str) -> None:
    """Wait for each leadership of this node, and schedule in it."""
    with zelect.Node(path) as node:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: node.ask_to_stop())
        for leadership in node.campaign():
            leadership.run(schedule, leadership, node.config.redis.url)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scheduler.py CONFIG, a node's configuration")
    try:
        main(sys.argv[1])
    except zelect.ConfigError as error:
        sys.exit(str(error))
