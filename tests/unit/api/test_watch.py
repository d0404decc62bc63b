"""The watcher of a node's leadership, by a handle that the test changes."""

from __future__ import annotations

import threading

import pytest

from tests.support.waiting import wait_until
from zelect.api.health import JobHealth
from zelect.api.leadership import Leadership
from zelect.api.watch import Callbacks, LeadershipWatcher
from zelect.core.lease import Lease
from zelect.node.leadership.handle import Controller, NodeHandle
from zelect.system.clock import now_us


class Stand:
    """A watcher, and the handle of a node that is made active at will."""

    def __init__(self, callbacks: Callbacks | None = None, rest_s: float = 10.0) -> None:
        self.handle = NodeHandle()
        health = JobHealth(None, 1.0, 0.0)
        self.watcher = LeadershipWatcher(self.handle, 100_000, callbacks or Callbacks(), health, False, rest_s)

    def elect(self, term: int, lease_ms: int = 60_000) -> None:
        at_us = now_us()
        self.handle.update(Lease(term, at_us, at_us + lease_ms * 1000), Controller(1, term, 2, "death"))

    def end(self) -> None:
        self.handle.ask_to_leave()
        self.handle.close()
        self.watcher.join()


def test_each_leadership_is_another_with_the_next_number() -> None:
    stand = Stand()
    for number, term in enumerate((3, 5), 1):
        stand.elect(term)
        leadership = wait_until(lambda: stand.watcher.leadership)
        assert leadership is not None
        assert (leadership.number, leadership.term, leadership.reason) == (number, term, "death")
        stand.handle.withdraw()
        wait_until(lambda: stand.watcher.leadership is None)
        assert leadership.lost
    stand.end()


def test_a_lease_that_runs_out_ends_the_leadership_before() -> None:
    stand, ended_us = Stand(), list[int]()
    stand.elect(3, lease_ms=400)
    leadership = wait_until(lambda: stand.watcher.leadership)
    assert leadership is not None
    leadership.when_lost(lambda: ended_us.append(now_us()))
    wait_until(lambda: ended_us)
    assert ended_us[0] < leadership.lapses_us
    stand.end()


def test_callbacks_enclose_a_job() -> None:
    calls, go_on = list[str](), threading.Event()

    def elected(leadership: Leadership) -> None:
        calls.append(f"elected {leadership.term}")
        go_on.wait()

    def lost(leadership: Leadership) -> None:
        calls.append(f"lost {leadership.term}")

    stand = Stand(Callbacks(elected, lost, lambda controller: calls.append(f"controller {controller.id}")))
    stand.elect(3)
    wait_until(lambda: {"elected 3", "controller 1"} <= set(calls))
    stand.handle.withdraw()
    wait_until(lambda: "lost 3" in calls)
    assert stand.handle.has_jobs_in(3), "on_elected has not returned"
    go_on.set()
    wait_until(lambda: not stand.handle.has_jobs)
    stand.end()


def test_a_callback_that_exits_does_not_end_the_watch(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []

    def leave(*arguments: object) -> None:
        calls.append("called")
        raise SystemExit("enough")

    stand = Stand(Callbacks(leave, leave, leave))
    stand.elect(3)
    wait_until(lambda: len(calls) == 3, what="of the election, of the controller, and of the end, as the first failed")
    stand.handle.update(None, Controller(2, 4, 1, ""))
    wait_until(lambda: len(calls) == 4, what="and of the next controller")
    assert "enough" in capsys.readouterr().err
    stand.end()


def test_a_callback_that_fails_gives_the_leadership_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Instead of a controller that does nothing: another member is to lead."""
    calls: list[str] = []

    def begin(leadership: Leadership) -> None:
        calls.append("elected")
        raise OSError("no route to the database")

    stand = Stand(Callbacks(begin, lambda leadership: calls.append("lost")))
    stand.elect(3)
    wait_until(lambda: calls == ["elected", "lost"])
    wait_until(lambda: not stand.handle.healthy and not stand.handle.has_jobs)
    assert stand.watcher.leadership is None
    assert "no route" in capsys.readouterr().err
    stand.end()


def test_who_resigns_rests_and_leads_again_where_nobody_took_over() -> None:
    stand = Stand()
    stand.elect(3)
    first = wait_until(lambda: stand.watcher.leadership)
    assert first is not None
    with pytest.raises(ValueError, match="positive"):
        first.resign(0)
    assert not first.lost
    first.resign(0.2)
    assert first.lost
    wait_until(lambda: not stand.handle.healthy)
    assert stand.watcher.leadership is None
    again = wait_until(lambda: stand.watcher.leadership)
    assert again is not None
    assert (again.term, again.number) == (3, 2)
    wait_until(lambda: stand.handle.healthy)
    first.resign()
    assert not again.lost
    stand.end()


def test_a_leadership_that_no_loop_asks_for_any_more_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    stand = Stand(rest_s=0.2)
    stand.watcher.loop_began()
    stand.elect(3)
    first = wait_until(lambda: stand.watcher.leadership)
    assert first is not None
    assert stand.handle.register_job(3)
    stand.watcher.loop_ended()
    for _ in range(50):  # a job runs
        assert not stand.watcher._is_idle
        first.sleep(0.01)
    stand.handle.unregister_job(3)
    for _ in range(50):  # somebody uses it
        first.check()
        first.sleep(0.01)
    wait_until(lambda: first.lost, what="nobody does")
    assert "leadership_given_up" in caplog.text
    wait_until(lambda: not stand.handle.healthy)
    stand.handle.withdraw()
    stand.elect(4)
    first.resign()
    assert stand.watcher.leadership is None, "nobody asks"
    stand.watcher.loop_began()
    wait_until(lambda: stand.handle.healthy and stand.watcher.leadership)
    stand.end()


def test_a_program_that_never_asks_only_votes_and_keeps_its_leadership() -> None:
    stand = Stand(rest_s=0.2)
    stand.elect(3)
    leadership = wait_until(lambda: stand.watcher.leadership)
    assert leadership is not None
    assert not leadership._lost.wait(0.5)
    assert stand.handle.healthy
    stand.end()


def test_subscribers_are_called_until_they_raise() -> None:
    stand, calls = Stand(), list[str]()

    def closed() -> None:
        calls.append("closed")
        raise RuntimeError("Event loop is closed")

    stand.watcher.subscribe(closed)
    stand.watcher.subscribe(lambda: calls.append("open"))
    stand.elect(3)
    wait_until(lambda: "open" in calls)
    stand.handle.withdraw()
    wait_until(lambda: calls.count("open") >= 2)
    assert calls.count("closed") == 1
    stand.end()
