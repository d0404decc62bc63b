"""One leadership, by a lease that the test sets: it ends in time, for functions and for coroutines."""

from __future__ import annotations

import asyncio

import pytest

import zelect
from zelect.core.lease import Lease
from zelect.node.leadership.handle import Controller, NodeHandle
from zelect.system.clock import now_us


class Stand:
    """The handle of a node whose lease the test sets."""

    def __init__(self, left_ms: int, margin_ms: int = 100) -> None:
        self.handle, self.margin_us = NodeHandle(), margin_ms * 1000
        self.handle.lease = Lease(3, 1, now_us() + left_ms * 1000)

    def leadership(self) -> zelect.Leadership:
        assert self.handle.lease is not None
        return zelect.Leadership(self.handle, self.margin_us, self.handle.lease, Controller(1, 3, 2, "death"), 1)


def test_leadership_ends_a_margin_before_its_lease_and_for_ever() -> None:
    stand = Stand(10_000)
    leadership = stand.leadership()
    assert 9_000 < leadership.remaining_ms <= 9_900
    stand.handle.lease = Lease(3, 1, now_us() + 99_000)
    assert leadership.remaining_ms == 0
    with pytest.raises(zelect.LeadershipLost):
        leadership.check()
    stand.handle.lease = Lease(3, 1, now_us() + 10_000_000)
    assert leadership.lost, "renewed too late for this one"
    assert stand.leadership().remaining_ms > 0


@pytest.mark.parametrize("lease", [None, Lease(4, 1, 2**60), Lease(3, 2, 2**60)])
def test_another_lease_is_not_this_leadership(lease: Lease | None) -> None:
    stand = Stand(10_000)
    leadership = stand.leadership()
    stand.handle.lease = lease
    assert leadership.lost


def test_a_late_event_loop_is_cancelled_that_much_earlier() -> None:
    leadership = Stand(10_000).leadership()
    leadership.loop_delay_us = 60_000
    assert 9_000 < leadership.remaining_ms <= 9_840
    leadership.loop_delay_us = 10_000_000
    assert 9_000 < leadership.remaining_ms <= 9_800, "by the margin again at most"


def test_who_is_called_at_a_loss_is_called_once() -> None:
    leadership, calls = Stand(10_000).leadership(), list[str]()
    leadership.when_lost(lambda: calls.append("before"))
    leadership.lose()
    leadership.lose()
    leadership.when_lost(lambda: calls.append("after"))
    assert calls == ["before", "after"]


async def _boom() -> None:
    raise ZeroDivisionError


def _boom_now() -> None:
    raise ZeroDivisionError


async def _meets(what: str) -> None:
    """Something is thrown into the job, and is none of its leadership's business."""
    if what == "task":
        with pytest.raises(ZeroDivisionError):
            await asyncio.create_task(_boom())
    elif what == "thread":
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(_boom_now)
    else:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)


@pytest.mark.parametrize("what", ["task", "thread", "timeout"])
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
def test_what_is_thrown_into_a_coroutine_does_not_take_its_end_away(what: str, told: bool) -> None:
    """`told`: somebody notices the loss; else only the look at the clock before each step does."""

    async def main() -> list[bool]:
        stand = Stand(60_000)
        leadership, steps = stand.leadership(), list[bool]()

        async def job() -> None:
            await _meets(what)
            while len(steps) < 1000:
                steps.append(leadership.lost)
                if len(steps) == 3:
                    stand.handle.lease = None
                    if told:
                        leadership.lose()
                await asyncio.sleep(0)

        await leadership.run(job())
        assert not stand.handle.has_jobs
        return steps

    assert asyncio.run(main()) == [False] * 3


def test_a_failure_that_arrives_after_the_loss_cancels_the_coroutine() -> None:
    async def main() -> list[str]:
        stand, seen = Stand(60_000), list[str]()
        leadership = stand.leadership()

        async def job() -> None:
            async def late() -> None:
                stand.handle.lease = None
                raise ZeroDivisionError

            try:
                await asyncio.create_task(late())
            except BaseException as error:
                seen.append(type(error).__name__)
                await asyncio.sleep(0)
                seen.append("cleaned up")
                raise

        await leadership.run(job())
        return seen

    assert asyncio.run(main()) == ["CancelledError", "cleaned up"]


def test_an_async_function_is_a_coroutine_and_one_that_only_makes_it_is_refused() -> None:
    async def main() -> None:
        stand = Stand(60_000)
        leadership = stand.leadership()

        async def job(value: int) -> int:
            assert stand.handle.has_jobs
            await asyncio.sleep(0)
            return value

        assert await leadership.run(job, 7) == 7
        with pytest.raises(TypeError, match="give run the coroutine itself"):
            leadership.run(lambda: job(7))
        assert not stand.handle.has_jobs

    asyncio.run(main())


def test_a_coroutine_that_is_cancelled_twice_keeps_leadership_until_it_has_ended() -> None:
    async def main() -> list[bool]:
        stand, seen = Stand(60_000), list[bool]()
        leadership, begun = stand.leadership(), asyncio.Event()

        async def job() -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.sleep(60)
                for _ in range(10):
                    await asyncio.sleep(0)
                    seen.append(stand.handle.has_jobs)
                raise

        outer = asyncio.ensure_future(leadership.run(job()))
        await begun.wait()
        for _ in range(2):
            outer.cancel()
            for _ in range(4):
                await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await outer
        assert not stand.handle.has_jobs
        return seen

    assert asyncio.run(main()) == [True] * 10


def test_sleep_ends_with_leadership() -> None:
    leadership = Stand(250).leadership()
    began_us = now_us()
    with pytest.raises(zelect.LeadershipLost):
        leadership.sleep(60)
    assert now_us() - began_us < 30_000_000
    longer = Stand(60_000).leadership()
    longer.sleep(0.01)
