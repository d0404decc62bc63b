"""The check of recorded histories: clean ones pass, and each planted violation is found."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.made_histories import LEASE_US, MS, Made, Table, made
from tools.chaos_lab.active_periods import leaderships
from tools.chaos_lab.gaps import figures
from tools.chaos_lab.histories import HistoryError, described, parse, read, timeline
from tools.chaos_lab.verdict import Verdict, check, check_history

seeds = st.integers(0, 10_000)
some = settings(max_examples=8, deadline=None)


def tables(run: Made, *events: str) -> list[tuple[str, Table]]:
    """The lines called `events`, with the file that each stands in."""
    return [
        (name, line)
        for name, lines in run.files.items()
        for line in lines
        if isinstance(line, dict) and line["event"] in events
    ]


def verdict_on(run: Made) -> Verdict:
    return check_history(run.history())


def rules(run: Made) -> set[str]:
    return {violation.rule for violation in verdict_on(run).violations}


# -- clean ----------------------------------------------------------------------------------------


@some
@given(seeds, st.sampled_from([3, 5]))
def test_a_clean_history_passes(seed: int, nodes: int) -> None:
    verdict = verdict_on(made(seed, 10, nodes))
    assert verdict.held, "\n".join(verdict.summary())
    assert verdict.worst_overlap_ms == 0
    assert not verdict.false_elections
    assert len(verdict.rounds) == 10
    assert verdict.effects["guarded"] > 10


@some
@given(seeds, st.data())
def test_torn_lines_are_counted_and_not_fatal(seed: int, data: st.DataObject) -> None:
    run = made(seed, 4)
    name = data.draw(st.sampled_from(sorted(set(run.files) - {"chaos.jsonl"})))
    content = run.contents()
    cut = data.draw(st.integers(1, len(content[name]) - 1))
    torn = data.draw(
        st.sampled_from([b'{"us": 12', b"\xff\xfe", b"[]", b"7", b'{"event": 3}', b'{"us": "x", "event": "y"}'])
    )
    history = parse({**content, name: content[name][:cut]})
    assert history.bad == {} if content[name][cut - 1 : cut + 1].count(b"\n") else sum(history.bad.values()) <= 1
    again = parse({**content, name: content[name] + torn + b"\n"})
    assert again.bad == {name: 1}
    verdict = check_history(again)
    assert verdict.held
    assert f"unreadable lines: 1 in {name}" in verdict.summary()


def test_a_directory_without_a_history_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="name a directory that a run has written"):
        read(tmp_path)
    (tmp_path / "chaos.jsonl").write_text('{"us": 1, "event": "healed", "round": 1}\n')
    with pytest.raises(HistoryError, match="does not begin with the line about the run"):
        read(tmp_path)


def test_a_history_is_read_from_the_directory_of_its_run(tmp_path: Path) -> None:
    made(3).write(tmp_path / "history")
    assert check(tmp_path).figures() == check(tmp_path / "history").figures() == verdict_on(made(3)).figures()


# -- planted violations -----------------------------------------------------------------------------

Plant = Callable[[Made, random.Random], dict[str, Any]]


def _two_winners(run: Made, dice: random.Random) -> dict[str, Any]:
    name, line = dice.choice(tables(run, "elected"))
    other = dice.choice([node for node in run.ids if name != f"node{node}.jsonl"])
    mine = dice.choice([one for file, one in tables(run, "node_started") if file == f"node{other}.jsonl"])
    again = {**line, "node": other, "incarnation": mine["incarnation"], "us": line["us"] + dice.randrange(10**6)}
    run.files[f"node{other}.jsonl"].append(again)
    return again


def _two_active(run: Made, dice: random.Random) -> dict[str, Any]:
    held = dice.choice(
        [
            leadership
            for leadership in leaderships(run.history())
            if leadership.until_us > leadership.active_since_us + 2
        ]
    )
    active_since_us = dice.randrange(held.active_since_us, held.until_us - 1)
    other = dice.choice([node for node in run.ids if node != held.node])
    started = [one for _, one in tables(run, "node_started") if one["node"] == other]
    line = {
        **dice.choice(started),
        "event": "lease",
        "us": active_since_us + 10,
        "incarnation": 1_790_000_000_000 + 10**6,
        "term": held.term + dice.choice((-1, 1, 7)),
        "active_since_us": active_since_us,
        "lapses_us": active_since_us + LEASE_US,
    }
    run.files[f"node{other}.jsonl"].append(line)
    return line


def _work_in_anothers_leadership(run: Made, dice: random.Random) -> dict[str, Any]:
    held = leaderships(run.history())
    new = dice.choice([leadership for leadership in held if any(one.term < leadership.term for one in held)])
    old = dice.choice([one for one in held if one.term < new.term])
    us = new.active_since_us + dice.randrange(5_000_000)
    value = max(one["value"] for _, one in tables(run, "unguarded")) + 1
    line = {"us": us, "us_after": us + 3_000_000, "node": old.node, "incarnation": old.incarnation, "term": old.term}
    effect: Table = {**line, "event": "unguarded", "value": value}
    run.files.setdefault(f"work{old.node}.jsonl", []).append(effect)
    return effect


def _an_older_term_accepted(run: Made, dice: random.Random) -> dict[str, Any]:
    work = [one for _, one in tables(run, "guarded")]
    newest = max(work, key=lambda one: int(one["value"]))
    older = dice.choice([one for one in work if one["term"] < newest["term"]])
    line = {**older, "us": newest["us_after"] + 10, "us_after": newest["us_after"] + 90, "value": newest["value"] + 1}
    run.files[f"work{older['node']}.jsonl"].append(line)
    return line


def _a_value_twice(run: Made, dice: random.Random) -> dict[str, Any]:
    name, line = dice.choice(tables(run, "guarded", "unguarded"))
    again = {**line, "us": line["us"] + 5, "us_after": line["us_after"] + 5}
    run.files[name].append(again)
    return again


def _values_missing(run: Made, dice: random.Random) -> dict[str, Any]:
    kind = dice.choice(("guarded", "unguarded"))
    work = sorted((one for _, one in tables(run, kind)), key=lambda one: int(one["value"]))
    begin = dice.randrange(1, len(work) - 40)
    lost = {one["value"] for one in work[begin : begin + 30]}
    for lines in run.files.values():
        lines[:] = [
            one for one in lines if not (isinstance(one, dict) and one["event"] == kind and one["value"] in lost)
        ]
    return work[begin - 1]


def _saved(change: Callable[[Table, Table], Table]) -> Plant:
    def plant(run: Made, dice: random.Random) -> dict[str, Any]:
        saved = tables(run, "saved")
        name, line = dice.choice([(name, one) for name, one in saved if one["voted_for"]])
        later = [one for file, one in saved if file == name and one["us"] > line["us"]]
        last = later[-1] if later else line
        wrong = {**last, **change(last, line), "us": last["us"] + 7}
        run.files[name].insert(run.files[name].index(last) + 1, wrong)
        return wrong

    return plant


def _never_settled(run: Made, dice: random.Random) -> dict[str, Any]:
    line = dice.choice([one for _, one in tables(run, "settled") if one["round"] >= 0])
    line["event"] = "not_settled"
    return line


def _nobody_after_healing(run: Made, dice: random.Random) -> dict[str, Any]:
    healed = dice.choice([one for _, one in tables(run, "healed")])
    for lines in run.files.values():
        for line in lines:
            if isinstance(line, dict) and line["us"] > healed["us"]:
                for name in ("us", "us_after", "active_since_us", "lapses_us"):
                    if name in line:
                        line[name] += 7_000_000
        lines[:] = [one for one in lines if not (isinstance(one, dict) and _straddles(one, healed["us"]))]
    return healed


def _straddles(line: Table, us: int) -> bool:
    """A leadership that was entered before `us` and kept until later."""
    return bool(line["event"] == "lease" and line["us"] > us and line["active_since_us"] < us + 7_000_000)


def _grows(name: str, by: float) -> Plant:
    def plant(run: Made, dice: random.Random) -> dict[str, Any]:
        node = dice.choice(run.ids)
        lines = [one for _, one in tables(run, "resources") if one["node"] == node]
        for position, line in enumerate(lines):
            line[name] += int(position * by)
        return lines[-1]

    return plant


def _left_over(run: Made, dice: random.Random) -> dict[str, Any]:
    run.chaos("leftover", pid=77, what="zombie")
    return tables(run, "leftover")[0][1]


PLANTS: dict[str, tuple[str, Plant]] = {
    "two winners of a term": ("S1", _two_winners),
    "two active": ("S2", _two_active),
    "work in another's leadership": ("S2", _work_in_anothers_leadership),
    "an older term accepted": ("S3", _an_older_term_accepted),
    "a value given twice": ("counter", _a_value_twice),
    "values missing": ("counter", _values_missing),
    "the saved term falls": ("saved", _saved(lambda last, line: {"term": last["term"] - 1})),
    "another vote": (
        "saved",
        _saved(lambda last, line: {"voted_for": (last["voted_for"] or 1) % 3 + 1, "term": line["term"]}),
    ),
    "an older record": ("saved", _saved(lambda last, line: {"record": [0, 0, 0]})),
    "never settled": ("L1", _never_settled),
    "nobody active after the healing": ("L1", _nobody_after_healing),
    "a process left over": ("leftover", _left_over),
}
QUIET_PLANTS: dict[str, tuple[str, Plant]] = {
    "descriptors": ("growth", _grows("fds", 0.5)),
    "threads": ("growth", _grows("threads", 0.2)),
    "memory": ("growth", _grows("rss_kb", 700)),
    "a busy loop": ("busy", _grows("cpu_ms", 500)),
}


@pytest.mark.parametrize("name", PLANTS)
@some
@given(seeds, seeds)
def test_a_planted_violation_is_found(name: str, seed: int, where: int) -> None:
    rule, plant = PLANTS[name]
    run = made(seed, 8, fault=lambda run, number: ("kill", "freeze", "leave", "cut")[number % 4])
    line = plant(run, random.Random(where))
    found = [one for one in verdict_on(run).violations if one.rule == rule]
    assert found, f"{rule} not found"
    shown = [shown for violation in found for shown in violation.lines]
    assert any(one.us == line["us"] and one.event == line["event"] for one in shown), "the slice shows it"
    assert all(len(violation.lines) < 20 for violation in found), "and little else"


@pytest.mark.parametrize("name", QUIET_PLANTS)
@some
@given(seeds, seeds)
def test_growth_and_busy_loops_are_found(name: str, seed: int, where: int) -> None:
    rule, plant = QUIET_PLANTS[name]
    run = made(seed, 40, fault=lambda run, number: "redis_killed")
    assert verdict_on(run).held
    line = plant(run, random.Random(where))
    found = verdict_on(run).violations
    assert {one.rule for one in found} == {rule}
    assert f"node {line['node']} (pid {line['pid']})" in found[0].text


# -- what proves nothing ------------------------------------------------------------------------------


def test_one_sample_out_of_line_is_no_growth() -> None:
    run = made(1, 40, fault=lambda run, number: "redis_killed")
    for _, line in tables(run, "resources")[-2:]:
        line.update(fds=900, threads=80, rss_kb=900_000)
    assert verdict_on(run).held


def test_an_effect_that_was_allowed_before_a_freeze_proves_nothing() -> None:
    """The look at the lease and the effect lie somewhere between the two moments."""
    run = made(2, 4, fault=lambda run, number: "freeze")
    old, new = leaderships(run.history())[:2]
    late = {"us": old.until_us - 10, "us_after": new.active_since_us + 100 * MS, "term": old.term}
    line = {**late, "node": old.node, "incarnation": old.incarnation, "event": "unguarded"}
    values = [one for _, one in tables(run, "unguarded")]
    run.files[f"work{old.node}.jsonl"].append({**line, "value": max(one["value"] for one in values) + 1})
    assert verdict_on(run).held
    run.files[f"work{old.node}.jsonl"].append({**line, "us": new.active_since_us + 1, "value": 10**4})
    assert "S2" in rules(run)


def test_values_whose_writer_died_may_be_missing_but_no_more() -> None:
    run = made(4, 6, fault=lambda run, number: "kill")
    processes = len(tables(run, "node_started"))
    work = sorted((one for _, one in tables(run, "guarded")), key=lambda one: int(one["value"]))

    def without(count: int) -> Made:
        lost = [one["value"] for one in work[5 : 5 + count]]
        fresh = made(4, 6, fault=lambda run, number: "kill")
        for lines in fresh.files.values():
            lines[:] = [
                one
                for one in lines
                if not (isinstance(one, dict) and one["event"] == "guarded" and one["value"] in lost)
            ]
        return fresh

    assert verdict_on(without(processes)).held
    assert rules(without(processes + 1)) == {"counter"}


def test_the_resources_own_order_counts_where_it_is_known() -> None:
    run = made(5, 4, fault=lambda run, number: "kill")
    lines = sorted((one for _, one in tables(run, "guarded")), key=lambda one: int(one["value"]))
    items = [{"event": "accepted", "kind": "guarded", "term": one["term"], "node": one["node"]} for one in lines]
    run.files["resource.jsonl"] = [*items]
    assert verdict_on(run).held
    items[3], items[-1] = items[-1], items[3]
    run.files["resource.jsonl"] = [*items]
    assert rules(run) == {"S3", "counter"}
    assert verdict_on(run).stale_effects == 0
    run.files["resource.jsonl"] = [{**one, "kind": "unguarded"} for one in items]
    verdict = verdict_on(run)
    late = sum(one["term"] < items[3]["term"] for one in items[4:])
    assert verdict.stale_effects == late > 0
    assert rules(run) == {"counter"}, "which is no violation by itself"


def test_a_flushed_counter_begins_again() -> None:
    run = Made(6)
    run.start(*run.ids)
    run.elect(1, run.ids, "start")
    run.leading(300 * MS)
    run.chaos("settled", round=-1, controller=1, term=1, took_ms=1.0)
    run.strike(0, "redis_flushed")
    run.values = {"guarded": 0, "unguarded": 0}
    run.leading(300 * MS)
    assert verdict_on(run).held
    tables(run, "fault_began")[0][1]["fault"] = "redis_frozen"
    assert "counter" in rules(run), "nothing else makes it begin again"


def test_overlaps_under_forged_refusals_are_reported_apart() -> None:
    run = Made(7)
    run.start(*run.ids)
    run.elect(1, run.ids, "start")
    run.leading(200 * MS)
    run.chaos("settled", round=-1, controller=1, term=1, took_ms=1.0)
    run.chaos("round_began", round=0)
    run.strike(0, "refuse_alive", 1, forged=True)
    old_lapses_us = run.lapses_us
    run.elect(2, (2, 3), "death")
    active_since_us = run.active_since_us
    run.wait(LEASE_US)
    run.chaos("healed", round=0)
    verdict = verdict_on(run)
    assert verdict.held
    assert verdict.worst_overlap_ms == 0
    assert verdict.worst_forged_overlap_ms == (old_lapses_us - active_since_us) / 1000
    tables(run, "fault_began")[0][1].update(fault="cut", detail={})
    assert rules(run) == {"S2"}
    assert verdict_on(run).worst_overlap_ms == verdict.worst_forged_overlap_ms


def test_leadership_that_was_suspended_is_no_leadership_meanwhile() -> None:
    run = Made(8)
    run.start(*run.ids)
    run.elect(1, run.ids, "start")
    run.wait(50 * MS)
    run.note(1, "lease_ended")
    ended_us = run.now_us
    run.wait(30 * MS)
    run.lease()
    resumed_us = run.now_us
    run.wait(100 * MS)
    run.finish()
    first, second = leaderships(run.history())
    assert (first.until_us, second.active_since_us) == (ended_us, resumed_us)
    assert first.holder == second.holder


# -- gaps and elections --------------------------------------------------------------------------------


def test_gaps_are_counted_from_what_ended_leadership() -> None:
    kinds = ("kill", "leave", "freeze", "cut")
    verdict = verdict_on(made(9, 40, fault=lambda run, number: kinds[number % 4]))
    ranges = {"kill": (1.5, 12), "leave": (0.5, 5), "freeze": (500, 570), "cut": (500, 540)}
    for kind, (least, most) in ranges.items():
        gaps = [gap.ms for gap in verdict.gaps if gap.kind == kind]
        assert len(gaps) == 10
        assert least < min(gaps) <= max(gaps) < most, kind
    assert all(gap.published_us is not None and gap.published_us > gap.ended_us for gap in verdict.gaps)


def test_an_election_without_a_fault_is_false() -> None:
    run = made(10, 3, fault=lambda run, number: "redis_killed")
    quiet_us = tables(run, "round_ended")[-1][1]["us"]
    _, first = tables(run, "elected")[0]
    run.files["node2.jsonl"].append(
        {**first, "node": 2, "us": quiet_us + 5, "term": run.term + 1, "incarnation": run.incarnations[2]}
    )
    assert [line.us for line in verdict_on(run).false_elections] == [quiet_us + 5]


def test_percentiles() -> None:
    spread = figures(range(1, 101))
    assert (spread.count, spread.p50, spread.p99, spread.max) == (100, 50, 99, 100)
    assert figures([5.0]).p99 == 5.0


# -- what people see -----------------------------------------------------------------------------------


@some
@given(st.sampled_from(sorted(PLANTS)), seeds)
def test_the_slice_fits_80_columns(name: str, seed: int) -> None:
    rule, plant = PLANTS[name]
    run = made(seed, 8, fault=lambda run, number: ("kill", "freeze", "leave", "cut")[number % 4])
    plant(run, random.Random(seed))
    verdict = verdict_on(run)
    assert not verdict.held
    assert f"{len(verdict.violations)} violations" == verdict.summary()[-1]
    for violation in verdict.violations:
        head, *shown = described(violation, 80)
        assert head.startswith(f"{violation.rule}: ")
        assert shown
        assert max(map(len, shown)) <= 80
    assert rule in {one["rule"] for one in verdict.figures()["violations"]}


def test_a_timeline_counts_from_its_first_line() -> None:
    run = made(11, 1)
    lines = run.history().facts("lease")[:2]
    first, second = timeline(lines)
    assert first.split()[:2] == ["0.000", "ms"]
    assert float(second.split()[0]) == (lines[1].us - lines[0].us) / 1000
    assert "lapses_us=" in first
