"""Who belongs to a cluster, in worlds of the shipped machine: founding, growing, lost and old memory, slow disks.

Each is a history that once made two controllers, or none for ever.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tools.common.founded import CLUSTER_ID, founded_record
from tools.simulator.small_world import MS, World, leadership_of
from zelect.core.events import MessageReceived, PeerConnected, PeerDisconnected
from zelect.core.machine import first_state
from zelect.core.messages import Bootstrap, CommonResp, Envelope, MemberAction, MemberChange, Reset, Result
from zelect.core.step import Step
from zelect.core.succession import jitter_us

SECOND = 1000


def clusters(world: World) -> set[int]:
    """The ids of the clusters that disks hold."""
    return {saved.record.cluster_id for saved in world.disks.values()} - {0}


def winners(world: World) -> dict[int, set[int]]:
    """Who was elected in each term."""
    found: dict[int, set[int]] = {}
    for entry in world.happened("elected"):
        found.setdefault(entry.details["term"], set()).add(entry.node)
    return found


def answer_of(world: World, node: int, message: Any) -> CommonResp:
    """What `node` answers to an operator."""
    answers: list[Any] = []
    answer, world._answer = world._answer, lambda n, event, effects: answers.append(effects.answer)  # type: ignore[method-assign]
    world.feed(node, MessageReceived(Envelope("demo", 0, 0, 0, 0, message)))
    world._answer = answer  # type: ignore[method-assign]
    assert isinstance(answers[0], CommonResp)
    return answers[0]


def change(world: World, what: MemberAction, node: int, within_ms: float = 10 * SECOND) -> None:
    """What an operator does: ask the controller, and again while it says that it is busy or is none any more."""
    address = "" if what is MemberAction.REMOVE else world.settings[node].address

    def told() -> bool:
        controller = world.controller()
        if controller is None:
            return False
        return answer_of(world, controller, MemberChange(what, node, address)).result is Result.OK

    tries = int(within_ms / 50)
    for _ in range(tries):
        if told():
            return
        world.run(50)
    raise AssertionError(f"{what} {node} was never accepted\n{world.timeline()}")


def whole(world: World, members: Collection[int]) -> bool:
    """Whether these nodes, and no others, vote and belong."""
    controller = world.controller()
    if controller is None:
        return False
    record = world.state(controller).record
    return record.members == tuple(members) == record.nodes and all(
        world.state(n).may_vote(world.state(n).record) for n in members
    )


# -- founding, growing, moving


def test_r15_newcomers_that_are_a_majority_of_their_list_found_nothing() -> None:
    """One node runs, two come whose configuration has all three; there is no Redis. The same from three to seven."""
    for founders, nodes in (((1,), 3), ((1, 2, 3), 7)):
        world = World(nodes, founded=founders, lists=dict.fromkeys(founders, founders))
        world.redis.up = world.registry_up = False
        world.start()
        world.run(10 * SECOND)
        assert world.controller() in founders
        assert clusters(world) == {7}
        for n in range(len(founders) + 1, nodes + 1):
            assert world.state(n).is_new
            change(world, MemberAction.ADD, n)
        world.run_until(partial(whole, world, range(1, nodes + 1)), 20 * SECOND)
        assert clusters(world) == {7}


@pytest.mark.parametrize("redis", [True, False])
@pytest.mark.parametrize(("founders", "nodes"), [((1,), 3), ((1, 2, 3), 7)])
def test_r15_founders_that_lose_their_data_after_the_cluster_grew_join_it(
    founders: tuple[int, ...], nodes: int, redis: bool
) -> None:
    """Their configuration is as it was when they founded the cluster, so each of their list is new."""
    world = World(nodes, founded=founders, lists=dict.fromkeys(founders, founders))
    world.redis.up = world.registry_up = redis
    world.start()
    for n in range(len(founders) + 1, nodes + 1):
        change(world, MemberAction.ADD, n)
    world.run_until(partial(whole, world, range(1, nodes + 1)), 20 * SECOND)
    for n in founders:
        world.kill(n)
    world.run(10)
    for n in founders:
        world.start(n, forget=True)
    world.run_until(partial(whole, world, range(1, nodes + 1)), 20 * SECOND)
    assert clusters(world) == {7}


def test_r15_a_node_whose_list_lacks_the_controller_joins() -> None:
    world = World(3, founded=(1, 2), lists={3: (1, 3)}, priorities={2: 10})
    world.start()
    world.run_until(lambda: world.controller() == 2)
    change(world, MemberAction.ADD, 3)
    world.run_until(partial(whole, world, (1, 2, 3)), 20 * SECOND)


def test_r15_one_host_replaced_and_two_added_found_nothing() -> None:
    world = World(5, founded=(1, 2, 3), lists=dict.fromkeys((1, 2, 3), (1, 2, 3)))
    world.redis.up = world.registry_up = False
    world.start(1, 2, 3)
    world.run_until(lambda: world.controller() == 1)
    world.kill(3)
    world.start(3, forget=True)
    world.start(4, 5)
    world.run(10 * SECOND)
    assert world.controller() == 1
    assert clusters(world) == {7}
    assert all(world.state(n).is_new for n in (4, 5))


@pytest.mark.parametrize("quorum", ["static", "dynamic"])
def test_a_cluster_grows_from_one_to_five_and_shrinks_again(quorum: str) -> None:
    world = World(5, founded=(1,), lists={1: (1,)}, quorum=quorum)
    world.start()
    for n in range(2, 6):
        change(world, MemberAction.ADD, n)
    world.run_until(lambda: whole(world, range(1, 6)), 20 * SECOND)
    for n in range(5, 1, -1):
        change(world, MemberAction.REMOVE, n)
    world.run_until(lambda: whole(world, (1,)), 20 * SECOND)
    assert clusters(world) == {7}
    assert all(len(nodes) == 1 for nodes in winners(world).values())


def test_r15_new_nodes_found_one_cluster_and_wait_for_the_last_of_their_list() -> None:
    world = World(3, founded=False)
    world.start(1, 2)
    world.run(10 * SECOND)
    assert not world.happened("elected")
    world.start(3)
    world.run_until(lambda: world.controller() is not None)
    world.run(SECOND)
    assert len(clusters(world)) == 1
    assert world.state(1).record.members == (1, 2, 3)


def founding_votes(world: World) -> set[int]:
    return {n for n, saved in world.disks.items() if saved.founding}


def restart_with_list(world: World, *members: int) -> None:
    """Their configuration, or a bootstrap, names these founders now."""
    for n in members:
        if n in world.processes:
            world.kill(n)
        world.settings[n] = replace(world.settings[n], addresses={m: world.addresses[m] for m in members})
        world.start(n)


def test_r15_who_voted_to_found_a_cluster_founds_none_without_those_it_voted_with() -> None:
    """Nodes 2 and 3 voted for node 1, which won and died before anybody heard of it."""
    world = World(3, founded=False)
    world.start()
    world.run_until(lambda: founding_votes(world) == {1, 2, 3})
    winner = world.happened("pre_vote_won")[0].node
    left = sorted({1, 2, 3} - {winner})
    for n in left:
        world.cut(winner, n, one_way=True)
    world.run_until(lambda: bool(world.happened("elected")))
    world.kill(winner)
    world.heal()
    members = tuple((n, world.addresses[n]) for n in left)
    for n in left:
        world.feed(n, MessageReceived(Envelope("demo", 0, 0, 0, 0, Bootstrap(members))))
    world.run(5 * SECOND)
    restart_with_list(world, *left)
    world.run(10 * SECOND)
    assert len(clusters(world)) == 1
    assert all(world.state(n).is_new for n in left)
    restart_with_list(world, 1, 2, 3)
    world.run_until(lambda: whole(world, (1, 2, 3)), 20 * SECOND)


def test_r15_a_voter_of_a_founding_refuses_another_that_leaves_out_one_of_its_founders() -> None:
    """Only node 2 voted for node 1's founding, which may have been won for all that it knows."""
    world = World(3, founded=False)
    world.start()
    world.run_until(lambda: any(entry.details["term"] == 1 for entry in world.happened("pre_vote_won")))
    candidate = world.happened("pre_vote_won")[0].node
    left = sorted({1, 2, 3} - {candidate})
    world.cut(candidate, left[1])
    world.run_until(lambda: left[0] in founding_votes(world))
    world.kill(candidate)
    world.heal()
    assert founding_votes(world) == {candidate, left[0]}
    restart_with_list(world, *left)
    world.run(10 * SECOND)
    assert not clusters(world)
    assert "other_founding" in {entry.details.get("reason") for entry in world.happened("vote_refused", left[0])}


def test_r15_who_hears_of_a_cluster_founds_none_with_others() -> None:
    """Nodes 1 and 2 of three lose everything, and their old configuration has only the two. Node 3 tells node 2."""
    world = World(3, founded=(1, 2, 3), lists={1: (1, 2), 2: (1, 2, 3)})
    world.start(2, 3)
    world.run(SECOND)
    world.kill(2)
    world.start(2, forget=True)
    world.run(SECOND)
    world.start(1, forget=True)
    world.run(10 * SECOND)
    assert clusters(world) == {7}


# -- lost and old memory


def test_r16_a_member_that_lost_its_data_unnoticed_elects_nobody() -> None:
    """Nodes 1 and 2 elect while 3 is away; 2 loses its data, and nobody is told; 1 is frozen. Nodes 2 and 3 alone
    must not elect in the same term."""
    world = World(3)
    world.start(1, 2)
    world.run_until(lambda: world.controller() is not None)
    world.freeze(1)
    world.kill(2)
    world.start(2, forget=True)
    world.start(3)
    world.run(10 * SECOND)
    assert all(entry.node in (1, 2) and entry.at_us < 2 * SECOND * MS for entry in world.happened("elected"))
    world.thaw(1)
    world.run_until(lambda: whole(world, (1, 2, 3)), 20 * SECOND)
    assert all(len(nodes) == 1 for nodes in winners(world).values())


def test_r16_every_member_may_lose_its_data_one_after_the_other() -> None:
    world = World(3)
    world.start()
    world.run_until(lambda: world.controller() is not None)
    for n in (3, 2, 1):
        world.kill(n)
        world.start(n, forget=True)
        world.run_until(lambda: whole(world, (1, 2, 3)), 20 * SECOND)
    assert clusters(world) == {7}
    assert world.state(1).record.epochs != (1, 2, 3)


def copy_of(world: World, n: int) -> tuple[Any, int]:
    return world.disks[n], world.saves.get(n, 0)


def test_r16_an_older_copy_is_noticed_by_what_others_remember() -> None:
    world = World(3)
    copy = copy_of(world, 3)
    world.start()
    world.run_until(lambda: world.controller() is not None)
    world.run(SECOND)
    world.kill(3)
    world.restore(3, copy)
    world.run(100)
    assert world.happened("older_copy_found", 3)
    assert world.state(3).saved.epoch > 3
    world.run_until(lambda: whole(world, (1, 2, 3)), 20 * SECOND)


def test_r16_an_older_copy_in_another_file_is_noticed_by_itself() -> None:
    world = World(3)
    copy = copy_of(world, 3)
    world.start()
    world.run_until(lambda: world.controller() is not None)
    world.kill(3)
    world.restore(3, copy, noticed=True)
    assert world.state(3).is_new
    world.run_until(lambda: whole(world, (1, 2, 3)), 20 * SECOND)


def test_r16_an_older_copy_that_nobody_notices_breaks_s1_by_one_vote() -> None:
    """The limit that docs/operating.md forbids to touch: node 2 votes twice in term 1, because the copy of its disk
    is older than its vote, and node 3, the only one it hears, never heard how often node 2 had saved."""
    world = World(3, quorum="static")
    world.registry_up = False
    copy = copy_of(world, 2)
    world.start(1, 2)
    world.run_until(lambda: bool(world.happened("elected")))
    world.run(1)
    world.freeze(1)
    world.kill(2)
    world.restore(2, copy)
    world.start(3)
    world.run_until(lambda: len(world.happened("elected")) == 2)
    assert winners(world) == {1: {1, world.happened("elected")[1].node}}


# -- slow disks


@pytest.mark.parametrize("founded", [True, False], ids=["founded", "new"])
@pytest.mark.parametrize(("disk_ms", "within_ms"), [(0, 50), (20, 500), (50, 1000), (100, 2000), (500, 10_000)])
def test_r8_rounds_follow_the_disk(disk_ms: int, within_ms: int, founded: bool) -> None:
    """A controller is elected, and replaced when it dies, however long a save takes."""
    world = World(3, founded=founded)
    world.save_us = dict.fromkeys(world.settings, disk_ms * MS)
    world.start()
    world.run_until(lambda: world.controller() is not None, within_ms)
    world.run(2 * SECOND)
    world.run_until(lambda: world.controller() is not None, within_ms)
    killed = world.controller()
    assert killed is not None
    world.kill(killed)
    world.run_until(lambda: world.controller() not in (None, killed), within_ms)


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_r8_candidates_with_slow_disks_do_not_get_in_each_others_way_for_ever(nodes: int, seed: int) -> None:
    world = World(nodes, seed=seed)
    world.save_us = dict.fromkeys(world.settings, SECOND * MS)
    world.start()
    world.run_until(lambda: world.controller() is not None, 30 * SECOND)


def test_r7_a_sole_member_is_active_however_long_its_save_takes() -> None:
    """The lease counts from a PING after the save, which alone decides and takes longer than a lease."""
    world = World(1)
    world.save_us = {1: 600 * MS}
    world.start()
    world.run_until(lambda: world.controller() == 1, 5 * SECOND)
    world.run(5 * SECOND)
    assert world.controller() == 1


def test_r9_a_connection_of_a_node_that_does_not_belong_says_nothing() -> None:
    """A newcomer connects before it is added, and a removed member closes its connections later."""
    world = World(2, founded=(1,), lists={1: (1,)})
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.feed(1, PeerConnected(2, 2))
    world.feed(1, PeerDisconnected(2, 2))
    assert world.controller() == 1


def test_r8_failed_candidates_with_slow_disks_spread_their_turns_wider() -> None:
    world = World(3)
    world.start()
    world.run(5)
    state = world.state(2)
    step = Step(world.settings[2], state, world.now_us, 0)
    widest = {}
    for save_us in (0, 500 * MS):
        state.save_us = save_us
        turns = []
        for state.attempts in range(4, 24):
            turns.append(jitter_us(step))
        widest[save_us] = max(turns)
    assert widest[0] <= 16 * step.timing.stagger_us < 2 * SECOND * MS < widest[500 * MS] < 9 * SECOND * MS


def test_r16_the_answers_of_a_member_that_lost_its_data_renew_no_lease() -> None:
    world = World(3, quorum="static")
    world.start()
    world.run_until(lambda: world.controller() == 1)
    world.run(300)
    world.kill(3)
    world.cut(1, 2)
    world.start(3, forget=True)
    world.run(SECOND)
    assert world.controller() is None


# -- what a second look found: a quorum lives, and yet ...


def _without_redis(world: World) -> None:
    world.redis.up = world.registry_up = False


@pytest.mark.parametrize("listed", [(1, 2, 3), (3, 4)])
def test_l1_a_member_that_was_away_while_the_others_changed_takes_part_again(listed: tuple[int, ...]) -> None:
    """Of {1, 2, 3} node 3 is away, 4 takes the place of another, the third dies: 3 and 4 don't know each other."""
    world = World(4, founded=(1, 2, 3), lists=dict.fromkeys((1, 2, 3), (1, 2, 3)), quorum="static")
    world.start()
    world.run_until(lambda: world.controller() in (1, 2))
    world.kill(3)
    change(world, MemberAction.ADD, 4)
    world.run(3 * SECOND)
    change(world, MemberAction.REMOVE, 3 - (world.controller() or 0))
    world.run(SECOND)
    world.kill(1, 2)
    world.settings[3] = replace(world.settings[3], addresses={n: world.addresses[n] for n in listed})
    world.start(3)
    world.run_until(lambda: world.controller() in (3, 4), 20 * SECOND)


@pytest.mark.parametrize("redis", [True, False])
def test_a_member_of_which_all_others_were_exchanged_finds_them(redis: bool) -> None:
    world = World(5, founded=(1, 2, 3), lists=dict.fromkeys((1, 2, 3), (1, 2, 3)))
    world.redis.up = world.registry_up = redis
    world.start()
    world.run_until(lambda: world.controller() is not None)
    world.kill(3)
    for n in (4, 5):
        change(world, MemberAction.ADD, n)
        world.run(5 * SECOND)
    for n in (1, 2):
        world.kill(n)
        world.run(5 * SECOND)
        change(world, MemberAction.REMOVE, n)
        world.run(5 * SECOND)
    world.start(3)
    world.run_until(partial(whole, world, (3, 4, 5)), 20 * SECOND)


def test_l2_an_old_record_in_redis_adds_nobody_to_the_founders() -> None:
    """All of four lose their data, Redis keeps theirs; three are started again, with lists of three."""
    world = World(4, lists=dict.fromkeys((1, 2, 3), (1, 2, 3)))
    world.start()
    world.run(5 * SECOND)
    world.kill(1, 2, 3, 4)
    world.registry = (0, world.registry[1])
    world.start(1, 2, 3, forget=True)
    world.run_until(lambda: world.controller() is not None, 20 * SECOND)
    assert world.state(1).record.nodes == (1, 2, 3)
    assert world.state(1).term > 1, "terms go on from the one in Redis (S3)"


def test_l2_a_controller_in_redis_that_is_none_is_not_waited_for_without_end() -> None:
    world = World(3, founded=False)
    world.registry = (77, 3)
    world.start()
    world.run_until(lambda: world.controller() is not None, 20 * SECOND)


@pytest.mark.parametrize("registry", [(0, 10**6), (2, 10**6)])
def test_l2_a_term_in_redis_deposes_nobody(registry: tuple[int, int]) -> None:
    """Node 3 lost its data and hears of a far term in Redis. Later it is the first to campaign."""
    world = World(3, quorum="static", priorities={3: 10})
    world.start()
    world.run_until(lambda: world.controller() is not None)
    world.run(SECOND)
    world.kill(3)
    world.run_until(lambda: world.controller() in (1, 2))
    world.run(SECOND)
    world.history.clear()
    term = world.state(1).term
    world.registry = registry
    world.start(3, forget=True)
    world.run_until(partial(whole, world, (1, 2, 3)), 20 * SECOND)
    assert not world.happened("stopped_being_active")
    assert world.state(1).term == term
    world.kill(world.controller() or 1)
    world.run_until(lambda: world.controller() == 3, 20 * SECOND)
    assert world.state(3).term == term + 1


def test_r15_who_is_told_of_a_lost_cluster_may_be_bootstrapped_without_a_restart() -> None:
    world = World(3)
    _without_redis(world)
    world.start()
    world.run(2 * SECOND)
    world.kill(1, 2)
    world.start(1, 2, forget=True)
    world.run(5 * SECOND)
    bootstrap = Bootstrap(tuple((n, world.addresses[n]) for n in (1, 2)))
    refused = answer_of(world, 1, bootstrap)
    assert (refused.result, refused.detail) == (Result.FORBIDDEN, "node 1 hears of a cluster that exists already")
    world.kill(3)
    world.run(SECOND)
    assert [answer_of(world, n, bootstrap).result for n in (1, 2)] == [Result.OK, Result.OK]
    world.run_until(lambda: world.controller() is not None, 20 * SECOND)


@pytest.mark.parametrize(("quorum", "nodes", "dead"), [("static", 3, 3), ("dynamic", 2, 0)])
def test_l1_no_removal_leaves_voters_that_are_no_quorum(quorum: str, nodes: int, dead: int) -> None:
    """The operator removes the living one by mistake; or shrinks two and a witness while Redis is away."""
    world = World(nodes, quorum=quorum)
    world.start()
    world.run(5 * SECOND)
    controller = world.controller() or 1
    if dead:
        world.kill(3 if controller != 3 else 1)
    else:
        _without_redis(world)
    world.run(5 * SECOND)
    (other,) = set(world.processes) - {controller}
    answer = answer_of(world, controller, MemberChange(MemberAction.REMOVE, other, ""))
    assert answer.result is Result.FORBIDDEN
    assert "too few of the voters answer" in answer.detail
    world.run(5 * SECOND)
    assert world.controller() == controller


def test_l1_a_cut_before_the_controller_freezes_makes_the_next_one_no_slower() -> None:
    took_ms = []
    for cut_s in (0, 30):
        world = World(3)
        world.start()
        world.run(3 * SECOND)
        world.kill(3)
        world.run(5 * SECOND)
        head = world.controller() or 1
        other = 3 - head
        if cut_s:
            world.cut(head, other)
            world.run(cut_s * SECOND)
        world.freeze(head)
        took_ms.append(world.run_until(partial(lambda w, n: w.controller() == n, world, other), 60 * SECOND))
    assert took_ms[1] < 1.5 * took_ms[0]


# -- what users' trials left


def _reset_to(world: World, n: int, generation: int) -> None:
    """An operator makes node `n` the only voter."""
    state = world.state(n)
    forced = replace(
        state.record,
        config_term=0,
        version=state.record.version + 1,
        generation=generation,
        members=(n,),
        epochs=(state.saved.epoch,),
        witness=None,
    )
    assert answer_of(world, n, Reset(forced, join=False)).result is Result.OK


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("listed", [(1, 2, 3), (1, 2, 3, 4)], ids=["unlisted", "listed"])
def test_r15_a_removed_node_that_still_runs_keeps_nobody_from_founding(
    listed: tuple[int, ...], restarted: bool
) -> None:
    """Node 4 was removed and not stopped. The others lose everything, Redis too."""
    world = World(4, lists=dict.fromkeys((1, 2, 3), listed))
    world.start()
    world.run(3 * SECOND)
    assert world.controller() in (1, 2, 3)
    change(world, MemberAction.REMOVE, 4)
    world.run(5 * SECOND)
    assert 4 not in world.state(4).record.nodes
    world.kill(1, 2, 3)
    _without_redis(world)
    if restarted:
        world.kill(4)
        world.start(4)
    world.start(1, 2, 3, forget=True)
    world.run(5 * SECOND)
    if listed == (1, 2, 3, 4):
        assert not any(world.state(n).hears_of_cluster() for n in (1, 2, 3))
        bootstrap = Bootstrap(tuple((n, world.addresses[n]) for n in (1, 2, 3)))
        assert {answer_of(world, n, bootstrap).result for n in (1, 2, 3)} == {Result.OK}
    world.run_until(lambda: world.controller() is not None, 20 * SECOND)
    assert {world.state(n).record.members for n in (1, 2, 3)} == {(1, 2, 3)}
    assert clusters(world) - {7}


def test_r15_a_removed_node_is_added_again() -> None:
    world = World(3)
    world.start()
    world.run(3 * SECOND)
    node = 3 if world.controller() != 3 else 1
    change(world, MemberAction.REMOVE, node)
    world.run(5 * SECOND)
    change(world, MemberAction.ADD, node)
    world.run_until(partial(whole, world, (1, 2, 3)), 20 * SECOND)


def test_r12_a_cluster_that_is_founded_again_gets_the_witness_of_one_that_was_reset() -> None:
    """All lose their data after a reset; Redis keeps the witness, which is of a later generation."""
    world = World(3)
    world.start()
    world.run(2 * SECOND)
    world.kill(2, 3)
    world.run(100)
    _reset_to(world, 1, 1_796_000_000_000)
    world.run_until(lambda: world.controller() == 1, 20 * SECOND)
    world.start(2)
    world.run(2 * SECOND)
    assert answer_of(world, 2, Reset(world.state(1).record, join=True)).result is Result.OK
    world.run_until(lambda: world.state(1).record.witness is not None and len(world.state(1).members) == 2, 20 * SECOND)
    assert world.redis.memory is not None
    assert world.redis.memory.record_id[0] > 0
    world.kill(1, 2)
    world.registry = (0, world.registry[1])
    world.start(1, 2, 3, forget=True)
    world.run_until(partial(whole, world, (1, 2, 3)), 20 * SECOND)
    world.kill(3 if world.controller() != 3 else 2)
    world.run_until(lambda: world.state(world.controller() or 1).record.witness is not None, 20 * SECOND)
    world.run(SECOND)
    world.kill(world.controller() or 1)
    world.run_until(lambda: world.controller() is not None, 20 * SECOND)


class _TwoClusters(World):
    """Who is active in the first one."""

    @property
    def active(self) -> list[int]:
        return [n for n in super().active if self.state(n).record.cluster_id == CLUSTER_ID]


@pytest.mark.parametrize("lists_the_others", [True, False])
@pytest.mark.parametrize(("quorum", "nodes"), [("static", 3), ("dynamic", 2)])
def test_r16_a_replacement_that_founded_a_cluster_of_its_own_has_no_vote(
    quorum: str, nodes: int, lists_the_others: bool
) -> None:
    """A new host with the id of the last node founded another cluster before it reached the others."""
    world = _TwoClusters(nodes, quorum=quorum, priorities={1: 10})
    world.start()
    world.run(3 * SECOND)
    world.kill(nodes)
    if not lists_the_others:
        world.settings[nodes] = replace(world.settings[nodes], addresses={nodes: world.addresses[nodes]})
    record = founded_record({nodes: world.addresses[nodes]}, {nodes: nodes + 1})
    world.disks[nodes] = replace(first_state(world.settings[nodes], nodes + 1), record=replace(record, cluster_id=99))
    world.start(nodes)
    world.run_until(lambda: nodes not in world.state(1).members, 20 * SECOND)
    assert world.state(1).record.nodes == tuple(range(1, nodes + 1))
    world.run(5 * SECOND)
    assert world.state(1).members == tuple(range(1, nodes))
    assert 1 in world.active
    world.kill(nodes)
    world.settings[nodes] = replace(world.settings[nodes], addresses=world.addresses)
    world.start(nodes, forget=True)
    world.run_until(partial(whole, world, range(1, nodes + 1)), 20 * SECOND)


def test_r16_a_member_of_another_cluster_takes_no_vote_from_a_living_one() -> None:
    """Its answers name an id of this cluster, whose node lives."""
    world = leadership_of(1, nodes=2)
    world.run(5 * SECOND)
    assert world.state(1).record.witness is not None
    world.feed(1, MessageReceived(Envelope("demo", 2, 1, 0, 1, CommonResp(6, Result.OTHER_CLUSTER, ""), 0, 99)))
    assert world.state(1).peers[2].foreign
    world.run(5 * SECOND)
    assert not world.state(1).peers[2].foreign
    assert not world.happened("voters_changed")[1:]


def test_r10_a_members_address_is_not_given_to_another() -> None:
    """Node 3 says by mistake that it is where node 2 is."""
    world = World(3, quorum="static")
    world.start()
    world.run(2 * SECOND)
    world.kill(3)
    world.settings[3] = replace(world.settings[3], addresses={**world.addresses, 3: world.addresses[2]})
    world.start(3)
    world.run(5 * SECOND)
    head = world.controller() or 1
    assert dict(world.state(head).record.addresses) == world.addresses
    assert dict(world.state(head).addresses) == world.addresses
    assert world.happened("address_refused", head)
    assert "2" in world.state(3).peers[head].complaint


def test_r10_two_members_may_change_places() -> None:
    world = World(3, quorum="static", priorities={1: 10})
    world.start()
    world.run(2 * SECOND)
    world.kill(2, 3)
    swapped = {1: world.addresses[1], 2: world.addresses[3], 3: world.addresses[2]}
    for n in (2, 3):
        world.settings[n] = replace(world.settings[n], addresses=swapped)
    world.start(2, 3)
    world.run_until(lambda: dict(world.state(1).record.addresses) == swapped, 20 * SECOND)


def test_r10_a_member_that_lives_at_its_address_is_not_replaced() -> None:
    world = leadership_of(1)
    moved = MemberChange(MemberAction.REPLACE, 3, "tcp://127.0.0.1:7133")
    answer = answer_of(world, 1, moved)
    assert answer.result is Result.FORBIDDEN
    assert "node 3 answers at tcp://127.0.0.1:7103" in answer.detail
    world.kill(3)
    world.run(SECOND)
    assert answer_of(world, 1, moved).result is Result.OK
