"""An asyncio poller: one of three replicas takes orders off a queue, and the others wait.

    python examples/poller.py conf/n1.toml             # and n2, n3, on every machine
    redis-cli RPUSH '{orders}:waiting' a b c           # something to do; the braces belong to the name

The coroutine is cancelled before the lease ends. What it writes is fenced.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import redis.asyncio

import zelect

# Takes and records an order in one step, which happens as a whole, or not at all once a newer term was seen.
TAKE = """
local order = redis.call('LPOP', KEYS[1])
if order then redis.call('RPUSH', KEYS[2], order .. ' ' .. ARGV[1]) end
return order
"""


async def poll(leadership: zelect.Leadership, url: str) -> None:
    """Take the orders in `waiting`, one after the other, and record in `done` who took them."""
    async with redis.asyncio.Redis.from_url(url) as client:
        queue = zelect.AsyncFencedRedis(client, "orders", leadership)
        take = queue.register_script(TAKE)
        try:
            while True:
                order = await take([queue.key("waiting"), queue.key("done")], [f"{leadership.term} {leadership.node}"])
                await asyncio.sleep(0.05 if order is None else 0.001)
        finally:
            await queue.aclose()


async def main(path: str) -> None:
    """Wait for each leadership of this node, and poll in it."""
    async with zelect.Node(path) as node:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, node.ask_to_stop)
        async for leadership in node.campaign():
            await leadership.run(poll(leadership, node.config.redis.url))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python poller.py CONFIG, a node's configuration")
    try:
        asyncio.run(main(sys.argv[1]))
    except zelect.ConfigError as error:
        sys.exit(str(error))
