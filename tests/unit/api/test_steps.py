"""A coroutine looks at its leadership before each step."""

from __future__ import annotations

import asyncio

import pytest

from zelect.api.steps import Steps


def test_no_step_is_taken_after_the_loss_and_cleaning_up_is_not_disturbed() -> None:
    lost, done = [False], list[str]()

    async def job() -> None:
        try:
            for step in ("first", "second", "third"):
                done.append(step)
                await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            done.append("cleaned up")

    async def main() -> None:
        steps = Steps(job(), lambda: lost[0])
        task = asyncio.create_task(steps)
        await asyncio.sleep(0)
        lost[0] = True
        with pytest.raises(asyncio.CancelledError):
            await task
        assert steps.cancelled

    asyncio.run(main())
    assert done == ["first", "cleaned up"]
