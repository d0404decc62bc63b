"""Quorums, tallies and records against a dumb twin that counts all possibilities."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.records import made_record
from zelect.core.quorum import NO_RECORD, WITNESS, Outcome, Record, Witness, follows, has_quorum, quorum_size, tally

W = Witness("key", "run", "repl")
OTHER_W = Witness("other", "run", "repl")


def records(most: int = 5) -> list[Record]:
    """Every record over nodes 1 to `most` with at least one member, with and without a witness."""
    nodes = range(1, most + 1)
    groups = [group for size in nodes for group in combinations(nodes, size)]
    return [made_record(1, 1, group, witness, belong=range(1, 7)) for group in groups for witness in (None, W)]


def majorities(voters: tuple[int, ...]) -> list[set[int]]:
    """All groups of more than half, counted out."""
    sizes = range(len(voters) + 1)
    return [set(group) for size in sizes for group in combinations(voters, size) if 2 * len(group) > len(voters)]


def neighbours(record: Record) -> list[Record]:
    """Every record one change away."""
    adding = [record.with_member(node, 9) for node in range(1, 7) if node not in record.members]
    removing = [record.without_member(node) for node in record.members if len(record.members) > 1]
    witness = [record.with_witness(None if record.witness else W)]
    return adding + removing + witness


@pytest.mark.parametrize(
    ("voters", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4), (8, 5), (9, 5), (101, 51)]
)
def test_a_quorum_is_more_than_half(voters: int, needed: int) -> None:
    assert quorum_size(range(voters)) == needed


@pytest.mark.parametrize("record", records(), ids=lambda record: str(record.voters))
def test_any_two_quorums_of_a_record_share_a_voter(record: Record) -> None:
    mine = majorities(record.voters)
    assert all(has_quorum(record.voters, group) for group in mine)
    assert all(a & b for a in mine for b in mine)


@pytest.mark.parametrize("record", records(4), ids=lambda record: str(record.voters))
def test_any_two_quorums_of_records_one_change_apart_share_a_voter(record: Record) -> None:
    for after in neighbours(record):
        assert after.differs_by_one_from(record)
        assert record.differs_by_one_from(after) or set(after.members) == set(record.members)
        assert all(a & b for a in majorities(record.voters) for b in majorities(after.voters))


def test_quorums_of_records_two_changes_apart_may_share_no_voter() -> None:
    """Why changes come one at a time, and why {1, 2, 3} never becomes {1, 2, W} in one step."""
    for before, after in (
        (made_record(1, 1, (1, 2, 3)), made_record(1, 2, (1, 2), W)),
        (made_record(1, 1, (1, 2), W), made_record(1, 2, (1, 2), OTHER_W)),
        (made_record(1, 1, (1, 2, 3, 4, 5)), made_record(1, 2, (1, 2, 3))),
    ):
        assert not after.differs_by_one_from(before)
        # The other witness knows nothing of the votes of the first: it is somebody else.
        unknown = {WITNESS: -1} if after.witness == OTHER_W else {}
        others = [{unknown.get(voter, voter) for voter in group} for group in majorities(after.voters)]
        assert any(not a & b for a in majorities(before.voters) for b in others)


def test_another_epoch_of_a_member_is_two_changes() -> None:
    before = made_record(1, 1, (1, 2, 3), epochs=(10, 20, 30))
    assert not replace(before, version=2, epochs=(10, 20, 31)).differs_by_one_from(before)
    out = before.without_member(3)
    assert out.differs_by_one_from(before)
    assert out.with_member(3, 31).differs_by_one_from(out)


def test_who_belongs_and_has_no_vote_makes_no_difference_to_the_voters() -> None:
    """To add a node, or to move it, changes no quorum; to remove one takes its vote along (R10)."""
    before = made_record(1, 1, (1, 2, 3))
    after = before.with_address(4, "tcp://127.0.0.1:7104").with_address(3, "tcp://elsewhere:7103")
    assert after.differs_by_one_from(before)
    assert (after.voters, after.nodes, after.version) == (before.voters, (1, 2, 3, 4), 3)
    assert dict(after.addresses)[3] == "tcp://elsewhere:7103"
    without = after.without_node(3)
    assert (without.members, without.nodes, without.version) == ((1, 2), (1, 2, 4), 4)
    assert without.differs_by_one_from(after)
    outsider = after.without_node(4)
    assert (outsider.members, outsider.nodes) == ((1, 2, 3), (1, 2, 3))
    assert outsider.without_node(9).nodes == (1, 2, 3)


groups = st.sets(st.integers(0, 7), max_size=8)


@settings(deadline=None)
@given(groups.filter(bool), groups)
def test_has_quorum_agrees_with_a_plain_count(voters: set[int], group: set[int]) -> None:
    assert has_quorum(voters, group) is (group & voters in majorities(tuple(voters)))


@settings(deadline=None)
@given(groups.filter(bool), st.dictionaries(st.integers(0, 7), st.booleans()))
def test_tally_agrees_with_trying_all_remaining_answers(voters: set[int], answers: dict[int, bool]) -> None:
    open_ = [voter for voter in voters if voter not in answers]
    ends = set()
    for mask in range(1 << len(open_)):
        granted = {voter for voter, yes in answers.items() if yes} & voters
        granted |= {voter for at, voter in enumerate(open_) if mask >> at & 1}
        ends.add(2 * len(granted) > len(voters))
    expected = Outcome.PENDING if len(ends) == 2 else Outcome.WON if True in ends else Outcome.LOST
    assert tally(voters, answers) is expected


def test_ids_that_are_no_voters_do_not_count() -> None:
    assert not has_quorum((1, 2, 3), (1, 4, 5, 6))
    assert tally((1, 2, 3), {1: True, 4: True, 5: True}) is Outcome.PENDING
    assert tally((1, 2, 3), {4: False, 5: False, 6: False}) is Outcome.PENDING


def test_the_witness_is_a_voter_only_where_the_record_names_it() -> None:
    assert made_record(1, 1, (1, 2)).voters == (1, 2)
    assert made_record(1, 1, (1, 2), W).voters == (WITNESS, 1, 2)
    assert not has_quorum(made_record(1, 1, (1, 2)).voters, (1, WITNESS))
    assert has_quorum(made_record(1, 1, (1, 2), W).voters, (1, WITNESS))


# -- epochs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config_term", [0, 1])
@pytest.mark.parametrize(
    ("known", "epoch", "counts"), [(10, 10, True), (10, 11, False), (10, 9, False), (10, 0, False), (0, 10, False)]
)
def test_only_the_epoch_that_is_named_has_a_voting_right(
    config_term: int, known: int, epoch: int, counts: bool
) -> None:
    """Whoever proposed or wrote the record: no epoch votes that it does not name (R16)."""
    assert made_record(config_term, 1, (1, 2), epochs=(known, 5)).counts(1, epoch) is counts


def test_a_record_is_only_proposed_until_somebody_was_elected_with_it() -> None:
    proposed = made_record(0, 0, (1, 2, 3))
    assert proposed.proposed
    assert not proposed.rewritten(1).proposed
    assert not made_record(0, 1, (1, 2, 3)).proposed, "an operator forced it"
    assert NO_RECORD.proposed
    assert NO_RECORD.voters == NO_RECORD.nodes == ()


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        ((), {1: 1}, True),
        (((1, 1), (2, 2)), {1: 1, 2: 2}, True),
        (((1, 1), (2, 2)), {1: 1, 2: 3}, True),
        (((1, 1), (2, 2)), {1: 1, 2: 2, 3: 3}, True),
        (((1, 1), (2, 2)), {1: 1, 2: 1}, False),
        (((1, 1), (2, 2)), {1: 1, 3: 3}, False),
        (((1, 1),), {}, False),
    ],
)
def test_which_list_of_founders_follows_an_earlier_one(
    earlier: tuple[tuple[int, int], ...], later: dict[int, int], expected: bool
) -> None:
    assert follows(earlier, later) is expected


@pytest.mark.parametrize(
    ("addresses", "problem"),
    [
        (((1, "a"), (2, "b")), "each member has an address"),
        (((2, "b"), (1, "a"), (3, "c")), "ascending order"),
        (((1, "a"), (1, "b"), (2, "b"), (3, "c")), "distinct nodes"),
    ],
)
def test_a_record_has_one_address_for_each_node(addresses: tuple[tuple[int, str], ...], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Record(1, 1, (1, 2, 3), addresses=addresses)


def test_a_node_that_is_no_voter_has_no_voting_right() -> None:
    for epoch in (0, 3, 7):
        assert not made_record(1, 1, (1, 2)).counts(3, epoch)


def test_an_epoch_is_never_replaced_without_being_removed() -> None:
    record = made_record(1, 1, (1, 2, 3), epochs=(10, 20, 30))
    assert record.rewritten(5) == replace(record, config_term=5, version=2)
    assert record.without_member(1).with_member(1, 11).epochs == (11, 20, 30)


@settings(deadline=None)
@given(st.dictionaries(st.integers(1, 9), st.integers(0, 99), min_size=2), st.data())
def test_each_member_keeps_its_epoch(epochs: dict[int, int], data: st.DataObject) -> None:
    members = tuple(sorted(epochs))
    record = made_record(1, 1, members, epochs=tuple(epochs[m] for m in members))
    gone = data.draw(st.sampled_from(members))
    without = record.without_member(gone)
    assert without.epoch_of(gone) == -1
    assert all(without.epoch_of(m) == epochs[m] for m in members if m != gone)
    again = without.with_member(gone, 1000)
    assert again.members == members
    assert again.epoch_of(gone) == 1000
    assert all(again.epoch_of(m) == epochs[m] for m in members if m != gone)
    assert record.id < without.id < again.id


def test_each_change_makes_a_newer_record() -> None:
    record = made_record(3, 7, (1, 2, 3), W, 1, (1, 2, 3), belong=range(1, 7))
    moved = record.with_address(3, "tcp://elsewhere:1"), record.without_node(3)
    for after in (*neighbours(record), *moved, record.rewritten(4)):
        assert after.id > record.id
        assert (after.generation, after.cluster_id) == (record.generation, record.cluster_id)


def test_generation_goes_before_term_and_term_before_version() -> None:
    ids = [
        made_record(9, 9, (1,), None, 0).id,
        made_record(0, 1, (1,), None, 1).id,
        made_record(1, 0, (1,), None, 1).id,
    ]
    assert ids == sorted(ids)
