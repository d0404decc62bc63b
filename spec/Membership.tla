------------------------------ MODULE Membership ------------------------------
(* Who belongs to a zelect cluster, who may vote in it, and who is elected: rules R1, R2, R8, R10-R12,
   R15 and R16, without time.  MembershipLease.tla adds promises and leases (R3-R5, R7).  Read it from
   the top: state, founding, election, how the record travels and changes, faults, what must hold.

   Names are those of zelect/core: `Saved` is epoch, term, voted_for, record and founding of one node;
   README.md has a table of which action is which function.

   What is left out: time, pre-votes and the order of succession (no safety rests on them), and who is
   permitted to send what.  A vote request and its grant are one step here, and so are a PING and its
   acknowledgement.  With Late, requests and PINGs that were once sent may be answered at any later time,
   as in a real network; without, only while their sender still stands by them.  An answer may be
   counted at any later time in both.  A message may be lost: a step need not happen.

   `Off` names the rules that are switched off: each of them is a mutant. *)
EXTENDS Integers, FiniteSets, TLC
CONSTANTS Node,        \* node ids
          Lists,       \* Lists[n]: the lists of members by which n may found (configuration, or zelect bootstrap)
          Founded,     \* the members of a cluster that exists already; {}: all nodes are new
          WithWitness, \* whether the witness is one of the voters of that cluster
          MaxTerm, MaxVersion, MaxLoss, MaxFlush, MaxReset, MaxLies,
          Late,        \* whether old requests and PINGs may still arrive
          Off,         \* rules switched off
          Policy,      \* FALSE: a controller may try any change; TRUE: only those of R11, and nodes die and return
          Deaths       \* with Policy: at "any" time, or only when the voters have "settled"
VARIABLES epoch,       \* durable: the storage epoch; a node that loses its state begins a new one
          term,        \* durable: the current term
          voted_for,   \* durable: the vote of that term, given to a node with its epoch
          record,      \* durable: the voter record, NoRecord in a new node
          founding,    \* durable: the list of the newest founding that this node voted on
          role,        \* "follower", "candidate" or "elected"
          answers,     \* the voters that granted this candidate their vote, or acknowledged this controller's record
          witness,     \* the voter in Redis: identity, term, vote and record
          sent,        \* with Late: all requests and PINGs ever sent
          up,          \* the nodes that run
          winners,     \* history: every election won
          faults       \* history: how many faults there were of each kind
vars == <<epoch, term, voted_for, record, founding, role, answers, witness, sent, up, winners, faults>>

On(rule) == rule \notin Off
Nobody == <<"nobody", 0>>
Me(n) == <<n, epoch[n]>>                   \* a voter is a node with its storage epoch (R16) ...
Witness(k) == <<"witness", k>>             \* ... or the witness with its identity (R12)
IsWitness(v) == v[1] = "witness"
NoRecord == [cluster_id |-> Nobody, generation |-> 0, config_term |-> 0, version |-> 0, voters |-> {}]
IsNew(n) == record[n] = NoRecord
Newer(a, b) == \/ a.generation > b.generation
               \/ a.generation = b.generation /\ a.config_term > b.config_term
               \/ a.generation = b.generation /\ a.config_term = b.config_term /\ a.version > b.version
Newest(S) == CHOOSE r \in S : \A s \in S : ~Newer(s, r)
Quorum(S, voters) == 2 * Cardinality(S \cap voters) > Cardinality(voters)
Ids(voters) == {v[1] : v \in voters}
HasWitness(r) == \E v \in r.voters : IsWitness(v)
SameCluster(mine, r) == mine = NoRecord \/ mine.cluster_id = r.cluster_id
AllRecords == {record[n] : n \in Node} \cup {witness.record}
OldRecord == [NoRecord EXCEPT !.cluster_id = <<"old", 0>>, !.version = 1,
                              !.voters = {<<m, 0>> : m \in Founded} \cup (IF WithWitness THEN {Witness(1)} ELSE {})]

Init == /\ epoch = [n \in Node |-> 0] /\ term = [n \in Node |-> 0] /\ voted_for = [n \in Node |-> Nobody]
        /\ record = [n \in Node |-> IF n \in Founded THEN OldRecord ELSE NoRecord]
        /\ founding = [n \in Node |-> {}]
        /\ role = [n \in Node |-> "follower"] /\ answers = [n \in Node |-> {}]
        /\ witness = [identity |-> 1, term |-> 0, voted_for |-> Nobody, record |-> NoRecord]
        /\ sent = {} /\ up = Node /\ winners = {}
        /\ faults = [loss |-> 0, flush |-> 0, reset |-> 0, lies |-> 0]

\* A vote request: what the candidate has saved when it asks.  A PING: what the controller has saved when it sends it.
Request(c) == [kind |-> "VOTING", from |-> Me(c), term |-> term[c], record |-> record[c], founding |-> founding[c]]
Ping(l) == [kind |-> "PING", from |-> Me(l), term |-> term[l], record |-> record[l], founding |-> {}]
Requests == {Request(c) : c \in {c \in up : role[c] = "candidate"}} \cup {m \in sent : m.kind = "VOTING"}
Pings == {Ping(l) : l \in {l \in up : role[l] = "elected"}} \cup {m \in sent : m.kind = "PING"}
Send(m) == sent' = IF Late THEN sent \cup {m} ELSE sent
\* An answer helps only whom asked, while it stands by what it said.
Stands(m) == LET c == m.from[1] IN
  Me(c) = m.from /\ term[c] = m.term /\ record[c] = m.record /\ role[c] = (IF m.kind = "PING" THEN "elected" ELSE "candidate")
Answered(voter, m) == IF Stands(m) THEN [answers EXCEPT ![m.from[1]] = @ \cup {voter}] ELSE answers
\* A node that votes for somebody, or follows somebody, is no candidate and no controller any more.
Yields(v, m) == /\ role' = [role EXCEPT ![v] = "follower"]
                /\ answers' = [Answered(Me(v), m) EXCEPT ![v] = {}]

\* Who has a record belongs to a cluster; what it voted on to found one is over.
Takes(v, r) == record' = [record EXCEPT ![v] = r] /\ founding' = [founding EXCEPT ![v] = IF r = record[v] THEN @ ELSE {}]
FreeToVote(t, vote, m) == t < m.term \/ (t = m.term /\ vote \in {Nobody, m.from})          \* R2: one vote in a term
Campaigns(n) == /\ term[n] < MaxTerm
                /\ term' = [term EXCEPT ![n] = @ + 1] /\ voted_for' = [voted_for EXCEPT ![n] = Me(n)]
                /\ role' = [role EXCEPT ![n] = "candidate"] /\ answers' = [answers EXCEPT ![n] = {Me(n)}]
Wins(n) == /\ role' = [role EXCEPT ![n] = "elected"]
           /\ winners' = winners \cup {<<record'[n].generation, term[n], Me(n)>>}

---------------------------------------------------------------------------------------------------------------
\* FOUNDING (R15): an election among new nodes that needs the vote of *every* member of the candidate's list.  The
\* request names each member with its storage epoch (known from the pre-vote), so that votes from before and after
\* a loss don't add up.
Follows(earlier, later) == \A m \in earlier : \E k \in later : k[1] = m[1] /\ (On("foundEpoch") => k[2] >= m[2])
FoundCampaignFor(n, list) ==
  /\ n \in up /\ IsNew(n) /\ n \in Ids(list) /\ (On("bound") => Follows(founding[n], list))
  /\ founding' = [founding EXCEPT ![n] = list]
  /\ Campaigns(n) /\ Send([Request(n) EXCEPT !.term = @ + 1, !.founding = list])
  /\ UNCHANGED <<epoch, record, witness, up, winners, faults>>
FoundCampaign(n) == \E members \in Lists[n] : FoundCampaignFor(n, {Me(m) : m \in members})
FoundGrant(v, m) == /\ v \in up /\ v # m.from[1] /\ m.kind = "VOTING" /\ m.record = NoRecord /\ v \in Ids(m.founding)
                    /\ On("newOnly") => IsNew(v)                              \* who has a record refuses to found
                    /\ On("foundEpoch") => Me(v) \in m.founding
                    /\ On("sameList") => Ids(m.founding) \in Lists[v]
                    /\ On("bound") => Follows(founding[v], m.founding)        \* bound to the voters that it voted on
                    /\ FreeToVote(term[v], voted_for[v], m)
                    /\ term' = [term EXCEPT ![v] = m.term] /\ voted_for' = [voted_for EXCEPT ![v] = m.from]
                    /\ founding' = [founding EXCEPT ![v] = m.founding]
                    /\ Yields(v, m) /\ UNCHANGED <<epoch, record, witness, sent, up, winners, faults>>
FoundWinAs(c, id) ==
  /\ c \in up /\ role[c] = "candidate" /\ IsNew(c) /\ id \notin {r.cluster_id : r \in AllRecords}
  /\ IF On("unanimous") THEN Ids(answers[c]) = Ids(founding[c])
                        ELSE 2 * Cardinality(Ids(answers[c])) > Cardinality(founding[c])
  /\ LET all == answers[c] \cup {Me(m) : m \in Ids(founding[c]) \ Ids(answers[c])}   \* the epochs that voted
         new == [NoRecord EXCEPT !.cluster_id = id, !.config_term = term[c], !.version = 1, !.voters = all]
     IN Takes(c, new) /\ Send([Ping(c) EXCEPT !.record = new])
  /\ Wins(c) /\ answers' = [answers EXCEPT ![c] = {Me(c)}]
  /\ UNCHANGED <<epoch, term, voted_for, witness, up, faults>>
FoundWin(c) == FoundWinAs(c, <<c, epoch[c], term[c]>>)                               \* a fresh, random cluster id

---------------------------------------------------------------------------------------------------------------
\* ELECTION (R2, R10, R12).  Only who stands in its own record with its own epoch may be a candidate.
Campaign(n) == /\ n \in up /\ ~IsNew(n) /\ Me(n) \in record[n].voters
               /\ Campaigns(n) /\ Send([Request(n) EXCEPT !.term = @ + 1])
               /\ UNCHANGED <<epoch, record, founding, witness, up, winners, faults>>
\* A node grants when the candidate's record names it with its epoch, and is not older than its own.  It saves term,
\* vote and record before it answers (R1).
Grant(v, m) == /\ v \in up /\ v # m.from[1] /\ m.kind = "VOTING" /\ m.record # NoRecord
               /\ Me(v) \in m.record.voters /\ SameCluster(record[v], m.record)
               /\ FreeToVote(term[v], voted_for[v], m)
               /\ On("voteRecord") => ~Newer(record[v], m.record)
               /\ term' = [term EXCEPT ![v] = m.term] /\ voted_for' = [voted_for EXCEPT ![v] = m.from]
               /\ Takes(v, m.record)
               /\ Yields(v, m) /\ UNCHANGED <<epoch, witness, sent, up, winners, faults>>
\* The witness follows the same rules, and keeps the record.
GrantWitness(m) == /\ m.kind = "VOTING" /\ m.record # NoRecord /\ Witness(witness.identity) \in m.record.voters
                   /\ FreeToVote(witness.term, witness.voted_for, m)
                   /\ On("witnessRecord") => ~Newer(witness.record, m.record)
                   /\ witness' = [witness EXCEPT !.term = m.term, !.voted_for = m.from, !.record = m.record]
                   /\ answers' = Answered(Witness(witness.identity), m)
                   /\ UNCHANGED <<epoch, term, voted_for, record, founding, role, sent, up, winners, faults>>
\* The winner rewrites the record in its own term (R10).
Win(c) == /\ c \in up /\ role[c] = "candidate" /\ ~IsNew(c) /\ Quorum(answers[c], record[c].voters)
          /\ record' = IF On("rewrite") THEN [record EXCEPT ![c].config_term = term[c], ![c].version = @ + 1] ELSE record
          /\ Wins(c) /\ answers' = [answers EXCEPT ![c] = IF On("rewrite") THEN {Me(c)} ELSE @]
          /\ Send([Ping(c) EXCEPT !.record = record'[c]])
          /\ UNCHANGED <<epoch, term, voted_for, founding, witness, up, faults>>
\* Whoever hears of a higher term adopts it (R6), and has not voted in it yet.
AdoptTerm(v, t) == /\ v \in up /\ t > term[v]
                   /\ term' = [term EXCEPT ![v] = t] /\ voted_for' = [voted_for EXCEPT ![v] = Nobody]
                   /\ role' = [role EXCEPT ![v] = "follower"] /\ answers' = [answers EXCEPT ![v] = {}]
                   /\ UNCHANGED <<epoch, record, founding, witness, sent, up, winners, faults>>

---------------------------------------------------------------------------------------------------------------
\* THE RECORD TRAVELS, AND CHANGES (R10).
\* To acknowledge a PING is to save its record, its term, and its sender as the one voted for in it, unless the vote of
\* that term was given.  A node that has no vote acknowledges too; its answer does not count.
Acknowledge(v, m) ==
  /\ v \in up /\ v # m.from[1] /\ m.kind = "PING" /\ SameCluster(record[v], m.record) /\ ~Newer(record[v], m.record)
  /\ On("joinNamed") => (IsNew(v) => Me(v) \in m.record.voters)
  /\ On("ackTerm") => term[v] <= m.term
  /\ LET t == IF term[v] < m.term THEN m.term ELSE term[v]
         vote == IF term[v] < t THEN Nobody ELSE voted_for[v] IN
     /\ voted_for' = [voted_for EXCEPT ![v] = IF On("ackVote") /\ t = m.term /\ vote = Nobody THEN m.from ELSE vote]
     /\ term' = [term EXCEPT ![v] = t]
  /\ Takes(v, m.record)
  /\ Yields(v, m) /\ UNCHANGED <<epoch, witness, sent, up, winners, faults>>
AcknowledgeWitness(m) ==
  /\ m.kind = "PING" /\ Witness(witness.identity) \in m.record.voters
  /\ witness.term <= m.term /\ ~Newer(witness.record, m.record)
  /\ witness' = [witness EXCEPT !.term = m.term, !.record = m.record,
                                !.voted_for = IF witness.term < m.term THEN m.from ELSE @]
  /\ answers' = Answered(Witness(witness.identity), m)
  /\ UNCHANGED <<epoch, term, voted_for, record, founding, role, sent, up, winners, faults>>
\* Anybody may take a newer record of its cluster from anybody, the witness included; a new node only one that names it.
Learn(v, r) == /\ v \in up /\ r # NoRecord /\ SameCluster(record[v], r) /\ Newer(r, record[v])
               /\ On("joinNamed") => (IsNew(v) => Me(v) \in r.voters)
               /\ Takes(v, r)
               /\ role' = [role EXCEPT ![v] = "follower"] /\ answers' = [answers EXCEPT ![v] = {}]
               /\ IF On("recordTerm") /\ term[v] < r.config_term           \* whoever has a record has at least its term
                  THEN term' = [term EXCEPT ![v] = r.config_term] /\ voted_for' = [voted_for EXCEPT ![v] = Nobody]
                  ELSE UNCHANGED <<term, voted_for>>
               /\ UNCHANGED <<epoch, witness, sent, up, winners, faults>>

\* A quorum of the voters of the current record has it, in the controller's own term.
Committed(l) == Quorum(answers[l], record[l].voters)
ChangeTo(l, voters) == /\ l \in up /\ role[l] = "elected" /\ record[l].version < MaxVersion
                       /\ On("commit") => Committed(l)
                       /\ record' = [record EXCEPT ![l].voters = voters, ![l].version = @ + 1]
                       /\ answers' = [answers EXCEPT ![l] = {Me(l)}]
                       /\ Send([Ping(l) EXCEPT !.record = record'[l]])
                       /\ UNCHANGED <<epoch, term, voted_for, founding, role, witness, up, winners, faults>>
\* All records that differ in one voter.
OneVoterApart(a, b) == Cardinality((a \ b) \cup (b \ a)) <= 1 /\ Cardinality(Ids(a)) = Cardinality(a)
Joinable(v, r) == IsNew(v) \/ SameCluster(record[v], r)
OneMore(l) == {record[l].voters \cup {Me(v)} : v \in {v \in up : v \notin Ids(record[l].voters) /\ Joinable(v, record[l])}}
OneLess(l) == {record[l].voters \ {v} : v \in record[l].voters \ {Me(l)}}
WitnessMore(l) == IF HasWitness(record[l]) THEN {} ELSE {record[l].voters \cup {Witness(witness.identity)}}
WitnessLess(l) == {record[l].voters \ {v} : v \in {v \in record[l].voters : IsWitness(v)}}
\* Mutants: a new epoch in the place of the lost one, a new witness in the place of the old one, two voters at once.
Swap(l) == {(record[l].voters \ {v}) \cup {Me(v[1])} : v \in {v \in record[l].voters : ~IsWitness(v) /\ v # Me(v[1])}}
SwapWitness(l) == {(record[l].voters \ {v}) \cup {Witness(witness.identity)} : v \in {v \in record[l].voters : IsWitness(v)}}
Two(l) == {m \cup {Me(v)} : m \in OneMore(l), v \in {v \in Node : v \notin Ids(record[l].voters)}}
          \cup {m \ {x} : m \in OneLess(l), x \in record[l].voters \ {Me(l)}}
\* R11: what the controller works towards.  The witness goes in before a member goes out, out after one came in.
Wanted(l) ==
  LET r == record[l]
      M == {v \in r.voters : ~IsWitness(v)}
      odd == Cardinality(M) % 2 = 1
      lost == {m \in M : m[1] \in up /\ m # Me(m[1])}
      gone == {m \in M : m[1] \in Node \ up}
  IN CASE HasWitness(r) /\ Witness(witness.identity) \notin r.voters -> WitnessLess(l)
       [] lost # {} /\ odd /\ ~HasWitness(r) /\ On("witnessFirst") -> WitnessMore(l)
       [] lost # {} -> {r.voters \ {m} : m \in lost}
       [] OneMore(l) # {} -> OneMore(l)
       [] gone # {} /\ Cardinality(M) > 2 /\ ~odd -> {r.voters \ {m} : m \in gone}
       [] gone # {} /\ Cardinality(M) > 2 /\ HasWitness(r) -> {r.voters \ {m} : m \in gone}
       [] gone # {} /\ Cardinality(M) > 2 -> WitnessMore(l)
       [] ~odd /\ ~HasWitness(r) -> WitnessMore(l)
       [] odd /\ HasWitness(r) -> WitnessLess(l)
       [] OTHER -> {}
Allowed(l) == IF Policy THEN Wanted(l)
              ELSE OneMore(l) \cup OneLess(l) \cup WitnessMore(l) \cup (IF On("swap") THEN {} ELSE Swap(l))
                   \cup (IF On("swapWitness") THEN {} ELSE SwapWitness(l)) \cup (IF On("oneVoter") THEN {} ELSE Two(l))
Change(l) == \E voters \in Allowed(l) : ChangeTo(l, voters)

---------------------------------------------------------------------------------------------------------------
\* THE OPERATOR forces new voters on a cluster that lost its quorum (zelect members reset): the only record that is
\* written without a quorum.  It begins a new generation, whose terms say nothing about those of another one.
ResetTo(n, g, voters) == /\ n \in up /\ ~IsNew(n) /\ g > record[n].generation
                         /\ record' = [record EXCEPT ![n].generation = g, ![n].config_term = 0,
                                                     ![n].version = @ + 1, ![n].voters = voters]
                         /\ role' = [role EXCEPT ![n] = "follower"] /\ answers' = [answers EXCEPT ![n] = {}]
                         /\ UNCHANGED <<epoch, term, voted_for, founding, witness, sent, up, winners>>
Reset(n) == /\ faults.reset < MaxReset /\ faults' = [faults EXCEPT !.reset = @ + 1]
            /\ \E V \in SUBSET up : n \in V /\ ResetTo(n, IF On("freshGeneration") THEN faults'.reset ELSE 1, {Me(v) : v \in V})

---------------------------------------------------------------------------------------------------------------
\* FAULTS.  S1 presupposes that most voters of the newest record keep their memory.
Holds(v, e, k) == IF IsWitness(v) THEN v[2] = k ELSE v[2] = e[v[1]]
MostKeep(e, k) == LET R == Newest(AllRecords).voters IN R = {} \/ ~On("mostKeep") \/ Quorum({v \in R : Holds(v, e, k)}, R)
Forget(n, e, t, vote, r) ==
                      /\ epoch' = [epoch EXCEPT ![n] = e] /\ term' = [term EXCEPT ![n] = t]
                      /\ voted_for' = [voted_for EXCEPT ![n] = vote]
                      /\ record' = [record EXCEPT ![n] = r] /\ founding' = [founding EXCEPT ![n] = {}]
                      /\ role' = [role EXCEPT ![n] = "follower"] /\ answers' = [answers EXCEPT ![n] = {}]
                      /\ faults' = [faults EXCEPT !.loss = @ + 1] /\ UNCHANGED <<witness, sent, up, winners>>
\* All state is gone, and nobody is told.  The node begins a new epoch (R16).  An older copy that is noticed is the same,
\* save that the node keeps its term and vote; that binds it more.
Settled == \E l \in up : role[l] = "elected" /\ Committed(l) /\ Wanted(l) = {} /\ \A n \in Node : term[n] <= term[l]
Lose(n) == /\ faults.loss < MaxLoss /\ (Policy /\ Deaths = "settled" => Settled)
           /\ (term[n] > 0 \/ ~IsNew(n))
           /\ LET e == IF On("epoch") THEN epoch[n] + 1 ELSE epoch[n] IN
              MostKeep([epoch EXCEPT ![n] = e], witness.identity) /\ Forget(n, e, 0, Nobody, NoRecord)
\* Mutants of R16: an older copy passes for the node: from just before its vote, or from the founding.
OldCopy(n) == /\ faults.loss < MaxLoss /\ n \in Founded
              /\ \/ ~On("copyVote") /\ Forget(n, epoch[n], term[n], Nobody, record[n])
                 \/ ~On("copyOld") /\ Forget(n, epoch[n], 0, Nobody, OldRecord)
\* Redis restarts without its data, fails over or is flushed: another identity, which remembers nothing.
NewWitness(k, t, r) == /\ witness' = [identity |-> k, term |-> t, voted_for |-> Nobody, record |-> r]
                       /\ faults' = [faults EXCEPT !.flush = @ + 1]
                       /\ UNCHANGED <<epoch, term, voted_for, record, founding, role, answers, sent, up, winners>>
Flush == /\ faults.flush < MaxFlush /\ (witness.term > 0 \/ witness.record # NoRecord)
           /\ LET k == IF On("identity") THEN witness.identity + 1 ELSE witness.identity IN
              MostKeep(epoch, k) /\ NewWitness(k, 0, NoRecord)
\* A controller creates a new witness before it adds it: one that remembers the controller's term and record.
CreateWitness(l) == /\ faults.flush < MaxFlush /\ role[l] = "elected" /\ ~HasWitness(record[l])
                    /\ MostKeep(epoch, witness.identity + 1) /\ NewWitness(witness.identity + 1, term[l], record[l])
\* A Redis that lies goes on as the same witness, but denies its vote and whatever record it likes to.  It can't invent a
\* record: with keys each carries a MAC.
Lie == /\ faults.lies < MaxLies /\ faults' = [faults EXCEPT !.lies = @ + 1]
       /\ \E r \in AllRecords \cup {NoRecord} : witness' = [witness EXCEPT !.voted_for = Nobody, !.record = r]
       /\ UNCHANGED <<epoch, term, voted_for, record, founding, role, answers, sent, up, winners>>
Die(n) == /\ Policy /\ n \in up /\ (Deaths = "settled" => Settled)
          /\ up' = up \ {n} /\ role' = [role EXCEPT ![n] = "follower"] /\ answers' = [answers EXCEPT ![n] = {}]
          /\ UNCHANGED <<epoch, term, voted_for, record, founding, witness, sent, winners, faults>>
Return(n) == /\ n \notin up /\ up' = up \cup {n}
             /\ UNCHANGED <<epoch, term, voted_for, record, founding, role, answers, witness, sent, winners, faults>>

\* A second acknowledgement of the same PING would change nothing.
Useful(v, m) == Me(v) \notin answers[m.from[1]]
Terms == {term[n] : n \in up} \cup {witness.term}
Known == {record[n] : n \in up} \cup (IF On("handout") THEN {witness.record} ELSE {})
Next == \/ \E n \in Node : \/ FoundCampaign(n) \/ FoundWin(n) \/ Campaign(n) \/ Win(n) \/ Change(n)
                           \/ Reset(n) \/ CreateWitness(n) \/ Lose(n) \/ OldCopy(n) \/ Die(n) \/ Return(n)
        \/ \E v \in Node : \/ \E m \in Requests : FoundGrant(v, m) \/ Grant(v, m)
                           \/ \E m \in Pings : Useful(v, m) /\ Acknowledge(v, m)
                           \/ \E r \in Known : Learn(v, r)
                           \/ On("adopt") /\ \E t \in Terms : AdoptTerm(v, t)
        \/ \E m \in Requests : GrantWitness(m)
        \/ \E m \in Pings : Witness(witness.identity) \notin answers[m.from[1]] /\ AcknowledgeWitness(m)
        \/ Flush \/ Lie
Spec == Init /\ [][Next]_vars

---------------------------------------------------------------------------------------------------------------
\* WHAT MUST HOLD.
S1 == \A a, b \in winners : (a[1] = b[1] /\ a[2] = b[2]) => a = b                    \* one controller a term (and generation)
OneCluster == \A u, v \in Node : IsNew(u) \/ IsNew(v) \/ record[u].cluster_id = record[v].cluster_id
OneContent == \A r, s \in AllRecords :
  (r.cluster_id = s.cluster_id /\ r.generation = s.generation /\ r.config_term = s.config_term /\ r.version = s.version) => r = s
\* Could the nodes A, with the witness, elect somebody?  They share the newest record that one of them can get.
CanElect(A) == LET R == Newest({record[n] : n \in A} \cup (IF On("handout") THEN {witness.record} ELSE {}))
                   yes == {Me(n) : n \in A} \cup (IF Newer(witness.record, R) THEN {} ELSE {Witness(witness.identity)})
               IN Quorum(yes, R.voters) /\ \E n \in A : Me(n) \in R.voters
\* L1: with the witness, "dynamic" is never less available than a static majority of nodes with their data ...
L1Static == \A A \in SUBSET {n \in Node : epoch[n] = 0} : 2 * Cardinality(A) > Cardinality(Node) => CanElect(A)
\* ... and after single deaths, one of those that the newest record names is enough.
L1Single == (\E n \in up : Me(n) \in Newest(AllRecords).voters) => CanElect(up)

\* Reachability checks ("violated" when the model can do what it should).
NeverAlone == ~\E l \in Node : role[l] = "elected" /\ HasWitness(record[l]) /\ Cardinality(up) = 1 /\ Committed(l)
NeverReadmitted == ~\E l \in Node : role[l] = "elected" /\ Committed(l) /\ \E m \in record[l].voters : ~IsWitness(m) /\ m[2] > 0
NeverReset == ~\E l \in Node : role[l] = "elected" /\ Committed(l) /\ record[l].generation > 0
Symm == Permutations(Node)
===============================================================================
