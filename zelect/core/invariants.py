"""The rules of the election as assertions (docs/protocol.md, R1 to R16), on in production too.

A node that finds one of its own rules broken must not go on, because whatever it says next could
make a second controller. `RuleBroken` is therefore never caught; it ends the process. It always means
a bug in zelect, never bad input: what a peer, Redis or a file gets wrong is refused, counted and
changes nothing.

There are two kinds. `check` runs after every step and looks at the state that the step leaves behind; each
invariant is a function below, named after its rule, with its source. `require` is for what is known only at
the moment of a decision, such as that a quorum granted the vote; it is called where that is decided.

Sources: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (2014), here
"Raft"; Ongaro's dissertation (2014), here "thesis"; Schultz, Dardik and Tripakis, "Design and
Analysis of a Logless Dynamic Reconfiguration Protocol" (OPODIS 2021), here "logless".
"""

from __future__ import annotations

from collections.abc import Callable

from zelect.core.effects import PublishController
from zelect.core.quorum import WITNESS
from zelect.core.state import Campaign, LeaderState, Promise, Role
from zelect.core.step import Step
from zelect.core.timing import MAX_TERM


class RuleBroken(Exception):
    """One of the numbered rules does not hold: a bug in zelect; the node must end."""


def require(holds: bool, rule: str, text: str) -> None:
    """Raise `RuleBroken` naming `rule` (such as ``"R2"``) unless `holds`."""
    if not holds:
        raise RuleBroken(f"{rule}: {text}")


def check(step: Step) -> None:
    """Check every invariant that `step` could have broken; after a routine heartbeat that is only the lease's."""
    state = step.state
    leader_state, campaign = state.leader_state, state.campaign
    if leader_state is not None:
        r5_a_lease_ends_in_time(step, leader_state)
    if step.routine:
        return
    require(
        (state.role is Role.ELECTED) == (leader_state is not None),
        "R6",
        "an elected node, and no other, has a leadership",
    )
    if state.saved is not step.saved_before:
        for saved in WHEN_SAVED:
            saved(step)
    if state.promise is not step.promise_before and step.promise_before is not None:
        r3_a_promise_ends_early_only_by_proof(step, step.promise_before)
    if campaign is not None:
        for asking in WHILE_CAMPAIGNING:
            asking(step, campaign)
    if leader_state is not None:
        for leading in WHILE_ELECTED:
            leading(step, leader_state)
    if step.intents:
        r13_only_an_active_controller_is_published(step)


def r1_nothing_saved_goes_back(step: Step) -> None:
    """The durable state is a node's memory of what it must not contradict (Raft, figure 2: persistent state)."""
    before, saved = step.saved_before, step.state.saved
    require(saved.term >= before.term, "R1", "the term never goes back")
    require(saved.incarnation == before.incarnation, "R1", "a running process keeps its incarnation")


def r2_a_vote_is_never_changed(step: Step) -> None:
    """At most one vote in a term (Raft, 5.2: first come, first served)."""
    before, saved = step.saved_before, step.state.saved
    kept = saved.term > before.term or before.voted_for in (0, saved.voted_for)
    require(kept, "R2", f"the vote of term {saved.term} was given to {before.voted_for} and does not change")


def r4_no_vote_in_the_grace_period(step: Step) -> None:
    """Promises are not saved, so a restarted node must wait as long as one that it may have given lasts (thesis, 4.2.3
    and 6.4.1). To acknowledge a controller that was elected without this node elects nobody (R10)."""
    before, saved, leader = step.saved_before, step.state.saved, step.state.controller
    voted = saved.voted_for and (saved.term, saved.voted_for) != (before.term, before.voted_for)
    acknowledges = leader is not None and (leader.term, leader.id) == (saved.term, saved.voted_for)
    over = step.now_us >= step.state.grace_until_us
    require(not voted or acknowledges or over, "R4", "no vote in the grace period")


def r16_a_new_epoch_begins_without_record(step: Step) -> None:
    """A storage epoch stands for what was saved in it: another one knows nothing of that, and none is used twice."""
    before, saved = step.saved_before, step.state.saved
    if saved.epoch != before.epoch:
        require(saved.epoch > before.epoch, "R16", "a storage epoch grows")
        new = not saved.founding and not saved.record.cluster_id
        require(new, "R16", "a new storage epoch begins without record")


def r15_a_record_stays_in_its_cluster(step: Step) -> None:
    """A node joins a cluster once, by a record that names it, or founds it (R15)."""
    before, saved = step.saved_before.record, step.state.saved.record
    if saved.cluster_id == before.cluster_id or step.state.saved.epoch != step.saved_before.epoch:
        return
    require(not before.cluster_id, "R15", "who belongs to a cluster never changes to another")
    require(step.state.may_vote(saved) or saved.generation > 0, "R15", "a new node joins by a record that names it")


def r10_whoever_has_a_record_has_its_term(step: Step) -> None:
    """In an older term it could vote for a second controller of the term in which the record was written
    (spec/Membership.tla, rule "recTerm")."""
    saved = step.state.saved
    require(saved.term >= saved.record.config_term, "R10", "a node that has a record has at least its term")


def r10_a_record_is_never_replaced_by_an_older_one(step: Step) -> None:
    """Records are ordered by (generation, config term, version); the newer one is right (logless, section 4)."""
    before, saved = step.saved_before, step.state.saved
    newer = saved.record.id >= before.record.id or saved.epoch > before.epoch
    require(newer, "R10", "no older voter record replaces a newer one")


def r14_terms_stay_in_bounds(step: Step) -> None:
    """Redis scripts hold terms as doubles, which are exact up to 2^53."""
    require(step.state.term <= MAX_TERM, "R14", "terms stay below 2^53")


def r3_a_promise_ends_early_only_by_proof(step: Step, promise: Promise) -> None:
    """A promise to another node's leadership is what its lease rests on (thesis, 6.4.1). It ends before
    its time only by a newer controller's PING or by proof that this one no longer acts (R9)."""
    state = step.state
    now = state.promise
    if now is not None and (now.to == promise.to or now.term > promise.term):
        return
    if promise.to == step.me or step.now_us >= promise.until_us:
        return
    peer = state.peers.get(promise.to)
    dead = peer is not None and peer.dead and not peer.connected  # R9: a dead process has no connections
    gone = dead or (peer is not None and (peer.offline or peer.incarnation > promise.incarnation))
    handed_over = state.handed_over.get(promise.to, 0) >= promise.term
    require(gone or handed_over, "R3", f"the promise to node {promise.to} ended early, without proof")


def r2_a_candidate_voted_for_itself(step: Step, campaign: Campaign) -> None:
    """A vote request is sent in a term that the candidate entered and voted in (Raft, 5.2); a pre-vote
    request asks about the next term and changes nothing (thesis, 9.6)."""
    state = step.state
    if campaign.pre:
        require(campaign.term_sought == state.term + 1, "R3", "a pre-vote asks about the next term")
    else:
        voted = campaign.term_sought == state.term and state.saved.voted_for == step.me
        require(voted, "R2", "a candidate has voted for itself in the term it seeks")


def r8_only_a_follower_without_controller_campaigns(step: Step, campaign: Campaign) -> None:
    """A node that follows a controller disturbs no election, nor does one that left or has no voting right."""
    state = step.state
    free = state.controller is None and not state.leaving and state.may_vote(campaign.record)
    require(free, "R8", "a node that follows a controller, leaves, or is not a voter does not campaign")
    founds = campaign.record.proposed == state.is_new
    require(founds, "R15", "only new nodes found a cluster")


def r12_the_witness_answers_only_when_asked(step: Step, campaign: Campaign) -> None:
    """The witness counts where the record names one, and is asked last."""
    if WITNESS in campaign.answers:
        counts = campaign.witness_asked and WITNESS in step.state.voters
        require(counts, "R12", "the witness's answer counts only where it is a voter and was asked")


def r5_a_lease_ends_in_time(step: Step, leader_state: LeaderState) -> None:
    """The lease counts from the send time of a PING, which is never in the future (thesis, 6.4.1)."""
    if leader_state.lease_lapses_us > step.now_us + step.timing.lease_us:
        raise RuleBroken("R5: a lease ends within lease_ms from now")


def r6_a_leadership_belongs_to_the_present_term(step: Step, leader_state: LeaderState) -> None:
    """A higher term ends a leadership (Raft, 5.1), and so does leaving; a leader follows nobody."""
    state = step.state
    present = leader_state.term == state.term and not state.leaving and state.controller is None
    require(present, "R6", "a leadership belongs to the current term of a node that follows no other and stays")
    require(state.saved.voted_for == step.me, "R2", "a winner voted for itself")


def r7_active_only_with_a_record_of_this_term(step: Step, leader_state: LeaderState) -> None:
    """Elected is not active: first the record of this term and the end of earlier promises (logless, section 5;
    for promises the same argument as for leases in thesis, 6.4.1)."""
    if leader_state.active_since_us:
        require(
            step.state.record.config_term == leader_state.term,
            "R7",
            "an active node has its own record",
        )
        require(step.now_us >= leader_state.promises_end_us, "R7", "no promise to another is left")


def r13_only_an_active_controller_is_published(step: Step) -> None:
    """Redis is sent only what is true at this moment, and never decides it."""
    for intent in step.intents:
        if isinstance(intent, PublishController):
            active = step.state.active(step.now_us) and intent.term == step.state.term
            require(active, "R13", "only an active controller is published")


WHEN_SAVED: tuple[Callable[[Step], None], ...] = (
    r1_nothing_saved_goes_back,
    r2_a_vote_is_never_changed,
    r4_no_vote_in_the_grace_period,
    r10_a_record_is_never_replaced_by_an_older_one,
    r10_whoever_has_a_record_has_its_term,
    r15_a_record_stays_in_its_cluster,
    r16_a_new_epoch_begins_without_record,
    r14_terms_stay_in_bounds,
)

WHILE_CAMPAIGNING: tuple[Callable[[Step, Campaign], None], ...] = (
    r2_a_candidate_voted_for_itself,
    r8_only_a_follower_without_controller_campaigns,
    r12_the_witness_answers_only_when_asked,
)

WHILE_ELECTED: tuple[Callable[[Step, LeaderState], None], ...] = (
    r6_a_leadership_belongs_to_the_present_term,
    r7_active_only_with_a_record_of_this_term,
)
