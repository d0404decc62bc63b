---------------------------- MODULE MembershipLease ----------------------------
(* Promises and leases (R3, R4, R5, R7) over Membership, with time abstracted: a lease is the set of voters whose
   answers it rests on (empty: not active).  It may end at any moment; the promise of a voter that it rests on may not
   end before it, which is what lease_ms < election_timeout_ms, counted from the send time, buys.
   S2: never two leases at once.

   R7 in two forms.  With the rule "slow" a winner becomes active only by acknowledgements of its own record.
   Without it a granted vote is a promise too, and the votes of the win start the lease. *)
EXTENDS Membership
VARIABLES lease,       \* lease[n]: the voters that the lease of n rests on
          promise,     \* promise[v]: the process that v promised to, Nobody, or Grace (restarted: bound to all)
          won,         \* won[n]: the votes that n won with, while their lease may still begin, and the voters of that record
          named,       \* the witness has no clock: whom it acknowledged last, and voted for since
          fresh,       \* fresh[n]: voters that promised n after the answers that its lease rests on
          barrier      \* barrier[c]: the processes whose lease c must wait out, because the witness named them
lease_vars == <<vars, lease, promise, won, named, fresh, barrier>>
Grace == <<"grace", 0>>
NotWon == [votes |-> {}, voters |-> {}]
Live(p) == \E n \in Node : Me(n) = p /\ lease[n] # {}
\* A promise binds until its time is over, or its controller is proven dead: then it may end at once (PromiseEnds).
Free(v, p) == promise[v] \in {Nobody, p} \/ ~On("promise")
\* Who is no longer elected, or another process, is no longer active (it looks before it acts).
Deposed == /\ lease' = [n \in Node |-> IF role'[n] = "elected" /\ epoch'[n] = epoch[n] THEN lease[n] ELSE {}]
           /\ won' = [n \in Node |-> IF role'[n] = "elected" THEN won[n] ELSE NotWon]
LeaseInit == /\ Init /\ lease = [n \in Node |-> {}] /\ promise = [n \in Node |-> Nobody] /\ won = [n \in Node |-> NotWon]
             /\ named = {} /\ fresh = [n \in Node |-> {}] /\ barrier = [n \in Node |-> {}]
LCampaign(n) == /\ Campaign(n) /\ Free(n, Me(n)) /\ Deposed /\ promise' = [promise EXCEPT ![n] = Me(n)]
                /\ barrier' = [barrier EXCEPT ![n] = {}] /\ UNCHANGED <<named, fresh>>
LGrant(v, m) == /\ Grant(v, m) /\ Free(v, m.from) /\ Deposed /\ UNCHANGED <<named, barrier, fresh>>
                /\ promise' = IF On("votePromise") THEN [promise EXCEPT ![v] = m.from] ELSE promise
\* The witness names whom it acknowledged last and whom it voted for since; the winner waits for their leases.
LGrantWitness(m) == /\ GrantWitness(m) /\ Deposed /\ UNCHANGED <<promise, fresh>>
                    /\ barrier' = IF On("barrier") /\ Stands(m)
                                  THEN [barrier EXCEPT ![m.from[1]] = @ \cup (named \ {m.from})] ELSE barrier
                    /\ named' = IF ~On("voteNamed") THEN named ELSE IF On("keepNamed") THEN named \cup {m.from} ELSE {m.from}
LWin(c) == /\ Win(c) /\ UNCHANGED <<lease, promise, named, barrier, fresh>>
           /\ won' = IF On("slow") THEN won ELSE [won EXCEPT ![c] = [votes |-> answers[c], voters |-> record[c].voters]]
LAcknowledge(v, m) == /\ Acknowledge(v, m) /\ Deposed /\ promise' = [promise EXCEPT ![v] = m.from]
                      /\ fresh' = IF Stands(m) THEN [fresh EXCEPT ![m.from[1]] = @ \cup {v}] ELSE fresh
                      /\ UNCHANGED <<named, barrier>>
\* A new node that the record does not name yet promises too, and takes nothing (R15).
LPromise(v, m) == /\ v \in up /\ m.kind = "PING" /\ IsNew(v) /\ Me(v) \notin m.record.voters /\ term[v] = m.term
                  /\ promise' = [promise EXCEPT ![v] = m.from] /\ UNCHANGED <<vars, lease, won, named, fresh, barrier>>
LAcknowledgeWitness(m) == /\ AcknowledgeWitness(m) /\ (\A p \in barrier[m.from[1]] : ~Live(p))   \* not asked while it waits
                          /\ named' = {m.from} /\ barrier' = [barrier EXCEPT ![m.from[1]] = {}]
                          /\ UNCHANGED <<lease, promise, won, fresh>>
LAdoptTerm(v, t) == AdoptTerm(v, t) /\ Deposed /\ UNCHANGED <<promise, named, barrier, fresh>>
\* A lease begins, or is renewed: it rests on answers whose promise still stands; with "carried" only on answers to PINGs
\* that carried the record in force.  The code renews by any promise of a voter (core/lease.py).
\* The witness's answer counts until somebody else, named later, has waited for it.
StillWitness(l) == witness.voted_for = Me(l) \/ named = {Me(l)} \/ \E d \in Node \ {l} : role[d] = "candidate" /\ Me(l) \in barrier[d]
Standing(S, l) == {v \in S : IF IsWitness(v) THEN v = Witness(witness.identity) /\ StillWitness(l)
                             ELSE v = Me(v[1]) /\ (promise[v[1]] = Me(l) \/ ~On("votePromise"))}
Active(l) == /\ role[l] = "elected" /\ (\A p \in barrier[l] : ~Live(p))
             /\ \E a \in {<<answers[l], record[l].voters>>, <<won[l].votes, won[l].voters>>}
                        \cup (IF On("carried") \/ lease[l] = {} THEN {} ELSE {<<record[l].voters, record[l].voters>>}) :
                  /\ Quorum(Standing(a[1], l), a[2]) /\ lease' = [lease EXCEPT ![l] = Standing(a[1], l)] /\ lease' # lease
             /\ fresh' = [fresh EXCEPT ![l] = IF lease'[l] = Standing(answers[l], l) THEN {} ELSE @]     \* votes are older than answers
             /\ UNCHANGED <<vars, promise, won, named, barrier>>
\* A change makes older answers worthless: a lease is begun or renewed by voters of the record in force.
LChange(l) == Change(l) /\ won' = [won EXCEPT ![l] = NotWon] /\ UNCHANGED <<lease, promise, named, barrier, fresh>>
LLearn(v, r) == Learn(v, r) /\ Deposed /\ UNCHANGED <<promise, named, barrier, fresh>>
LLose(n) == Lose(n) /\ Deposed /\ promise' = [promise EXCEPT ![n] = Nobody] /\ barrier' = [barrier EXCEPT ![n] = {}] /\ UNCHANGED <<named, fresh>>
LFlush == (Flush \/ \E l \in Node : CreateWitness(l)) /\ named' = {} /\ UNCHANGED <<lease, promise, won, barrier, fresh>>
\* A lying witness also denies whom it acknowledged.
LLie == Lie /\ named' \in {named, {}} /\ UNCHANGED <<lease, promise, won, barrier, fresh>>
LeaseEnds(n) == lease[n] # {} /\ lease' = [lease EXCEPT ![n] = {}] /\ UNCHANGED <<vars, promise, won, named, barrier, fresh>>
PromiseEnds(v) == /\ promise[v] # Nobody
                  /\ \A n \in Node : (promise[v] \in {Me(n), Grace} /\ lease[n] # {}) => Me(v) \notin lease[n] /\ v \notin fresh[n]
                  /\ promise' = [promise EXCEPT ![v] = Nobody] /\ UNCHANGED <<vars, lease, won, named, barrier, fresh>>
\* A restart forgets promise and role; the grace period (R4) binds instead.
Restart(n) == /\ promise[n] # Grace
              /\ role' = [role EXCEPT ![n] = "follower"] /\ answers' = [answers EXCEPT ![n] = {}]
              /\ UNCHANGED <<epoch, term, voted_for, record, founding, witness, sent, up, winners, faults, named, fresh>> /\ Deposed
              /\ promise' = [promise EXCEPT ![n] = IF On("grace") THEN Grace ELSE Nobody] /\ barrier' = [barrier EXCEPT ![n] = {}]
LeaseNext == \/ \E n \in Node : \/ LCampaign(n) \/ LWin(n) \/ LChange(n) \/ LLose(n)
                                \/ Active(n) \/ LeaseEnds(n) \/ PromiseEnds(n) \/ Restart(n)
             \/ \E v \in Node : \/ \E m \in Requests : LGrant(v, m)
                                \/ \E m \in Pings : Useful(v, m) /\ LAcknowledge(v, m)
                                \/ ~On("carried") /\ \E m \in Pings : promise[v] # m.from /\ LPromise(v, m)
                                \/ \E r \in Known : LLearn(v, r)
                                \/ On("adopt") /\ \E t \in Terms : LAdoptTerm(v, t)
             \/ \E m \in Requests : LGrantWitness(m)
             \/ \E m \in Pings : Witness(witness.identity) \notin answers[m.from[1]] /\ LAcknowledgeWitness(m)
             \/ LFlush \/ LLie
LeaseSpec == LeaseInit /\ [][LeaseNext]_lease_vars
S2 == \A a, b \in Node : lease[a] # {} /\ lease[b] # {} => a = b
NeverByWitness == ~\E n \in Node : Witness(witness.identity) \in lease[n]
NeverByVotes == ~\E n \in Node : lease[n] # {} /\ answers[n] = {Me(n)}
===============================================================================
