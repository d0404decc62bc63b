--------------------------------- MODULE Trace ---------------------------------
(* Recorded histories against the specification: TLC accepts a history when it is a behaviour of MembershipLease.

   tools/spec_check/traces.py makes a module `Histories` that extends this one and defines `Traces`, the histories of
   whole clusters, each a sequence of steps in the order of their times.  A step says what a node showed after it: its
   durable state and role, an acknowledgement, how far its lease reaches.  It must be an instance of an action of
   the specification.  What is not recorded may happen at any time: messages get lost or arrive late, promises end
   (but not before a lease that rests on them), a process is killed between its save and the note of it, and
   Redis carries out what it was asked.  A history that TLC cannot follow to its end is rejected. *)
EXTENDS MembershipLease, Sequences
CONSTANTS Traces      \* each: what every node had saved in the beginning (first), and the steps
VARIABLES which,    \* the history that is followed
          at,       \* its next step
          spare,    \* actions that were taken since the last step and are part of the next one
          proven,   \* controllers that have become active since they won: a quorum had saved their record
          asked,    \* what Redis was asked, in order: the identity of the witness, and the message
          ran,      \* what of it is known to have been carried out
          mute,     \* nodes that run on an older copy of their data, and have not noticed it yet
          was       \* was[v]: the process that v was before it started again, and what it had promised
promises == <<promise, was>>
trace_vars == <<lease_vars, which, at, spare, proven, asked, ran, mute, was>>

Steps == Traces[which].steps
First == Traces[which].first
TraceInit ==
  /\ which \in 1..Len(Traces)
  /\ epoch = [n \in Node |-> First[n].epoch] /\ term = [n \in Node |-> First[n].term]
  /\ voted_for = [n \in Node |-> First[n].vote] /\ record = [n \in Node |-> First[n].record]
  /\ founding = [n \in Node |-> First[n].founding]
  /\ role = [n \in Node |-> "follower"] /\ answers = [n \in Node |-> {}]
  /\ witness = [identity |-> 1, term |-> 0, voted_for |-> Nobody, record |-> NoRecord]
  /\ sent = {} /\ up = Node /\ winners = {} /\ faults = [loss |-> 0, flush |-> 0, reset |-> 0, lies |-> 0]
  /\ lease = [n \in Node |-> {}] /\ promise = [n \in Node |-> Nobody] /\ won = [n \in Node |-> NotWon]
  /\ named = {} /\ fresh = [n \in Node |-> {}] /\ barrier = [n \in Node |-> {}]
  /\ at = 1 /\ spare = 0 /\ proven = {} /\ asked = <<>> /\ ran = {} /\ mute = {}
  /\ was = [n \in Node |-> <<Nobody, Nobody>>]

\* The witness's answer counts until everybody that it voted for since has waited for it.
WitnessStands(l) == witness.voted_for = Me(l) \/ Me(l) \in named \/ \E d \in Node : Me(l) \in barrier[d]
\* A promise may end when no lease rests on it.
MayEnd(v) == \A n \in Node : (promise[v] \in {Me(n), Grace} /\ lease[n] # {}) => Me(v) \notin lease[n]
Unbound(v, p) == promise[v] \in {Nobody, p} \/ MayEnd(v)
SeenTerms == {m.term : m \in sent} \cup {First[n].term : n \in Node}
SeenRecords == {m.record : m \in sent} \cup {First[n].record : n \in Node} \cup AllRecords

Calm == UNCHANGED <<named, fresh>>
\* A process that starts again is bound to all (R4); its answers from before may be on their way, and count until it
\* promises somebody else.
Promises(v, p) == /\ promise' = [promise EXCEPT ![v] = p]
                  /\ was' = [was EXCEPT ![v] = IF p = Grace THEN (IF promise[v] = Grace THEN @ ELSE <<Me(v), promise[v]>>)
                                                ELSE IF @[2] = p THEN @ ELSE <<Nobody, Nobody>>]
Promised(v, l) == \/ v = Me(v[1]) /\ promise[v[1]] = Me(l)
                  \/ was[v[1]] = <<v, Me(l)>>
Waits(n) == barrier' = [barrier EXCEPT ![n] = {}]
\* It saves because of a PING, which it answers.
Acknowledges(n, s) == /\ \E m \in sent : m.kind = "PING" /\ m.from[1] = s.ack /\ m.term = s.term /\ Acknowledge(n, m) /\ Promises(n, m.from)
                      /\ Deposed /\ Calm /\ UNCHANGED <<barrier, proven>>
\* One action of node n that changes what it has saved, towards what it shows in step s.
Saves(n, s) ==
  \/ /\ s.vote = Me(n) /\ Campaign(n) /\ Unbound(n, Me(n)) /\ Deposed /\ Promises(n, Me(n)) /\ Waits(n)
     /\ Calm /\ UNCHANGED proven
  \/ /\ s.vote = Me(n) /\ IsNew(n)
     /\ \E list \in {s.founding, s.record.voters} : list # {} /\ FoundCampaignFor(n, list)
     /\ Unbound(n, Me(n)) /\ Deposed /\ Promises(n, Me(n)) /\ Waits(n) /\ Calm /\ UNCHANGED proven
  \/ /\ \E m \in sent : /\ m.from = s.vote /\ m.term = s.term /\ m.kind = "VOTING"
                        /\ Unbound(n, m.from) /\ (Grant(n, m) \/ FoundGrant(n, m)) /\ Promises(n, m.from)
     /\ Deposed /\ Calm /\ UNCHANGED <<barrier, proven>>
  \/ /\ s.record.config_term = term[n] /\ (Win(n) \/ FoundWinAs(n, s.record.cluster_id))
     /\ proven' = proven \ {n} /\ UNCHANGED <<lease, promises, won, barrier>> /\ Calm
  \/ s.record \in SeenRecords /\ Learn(n, s.record) /\ Deposed /\ Calm /\ UNCHANGED <<promises, barrier, proven>>
  \/ s.term \in SeenTerms /\ AdoptTerm(n, s.term) /\ Deposed /\ Calm /\ UNCHANGED <<promises, barrier, proven>>
  \/ /\ s.record.config_term = term[n] /\ s.record.version = record[n].version + 1 /\ n \in proven    \* it became active
     /\ OneVoterApart(record[n].voters, s.record.voters) /\ ChangeTo(n, s.record.voters)
     /\ UNCHANGED <<lease, promises, won, barrier, proven>> /\ Calm
  \/ /\ s.record.generation > record[n].generation /\ ResetTo(n, s.record.generation, s.record.voters)
     /\ UNCHANGED faults /\ Deposed /\ Calm /\ UNCHANGED <<promises, barrier, proven>>
Shows(n, s) == /\ term' = [term EXCEPT ![n] = s.term] /\ voted_for' = [voted_for EXCEPT ![n] = s.vote]
               /\ record' = [record EXCEPT ![n] = s.record] /\ founding' = [founding EXCEPT ![n] = s.founding]
Same(n, s) == term[n] = s.term /\ voted_for[n] = s.vote /\ record[n] = s.record /\ founding[n] = s.founding
Quiet == UNCHANGED <<asked, ran, mute>>

\* A node that runs on an older copy of its data may adopt terms, nothing else.
Save(s) == /\ s.node \in mute => s.record = record[s.node] /\ s.vote = Nobody
           /\ (IF s.ack = "" THEN Saves(s.node, s) ELSE Acknowledges(s.node, s))
           /\ Shows(s.node, s) /\ role'[s.node] = s.role /\ Quiet
\* Some steps of a node are several actions at once: a lone node campaigns and wins; a term comes with a record.
Part(s) == /\ s.do \in {"save", "start"} /\ s.parts /\ spare < 2 /\ ~Same(s.node, s) /\ Saves(s.node, s) /\ Quiet
\* The state is gone, or put away as an older copy: a new storage epoch (R16).
Lost(s) == /\ s.epoch > epoch[s.node] /\ s.record = NoRecord /\ s.founding = {}
           /\ \/ s.term \in SeenTerms \cup {0} /\ s.vote = Nobody
              \/ s.term = term[s.node] /\ s.vote = voted_for[s.node]
           /\ Forget(s.node, s.epoch, s.term, s.vote, NoRecord) /\ Deposed
           /\ Promises(s.node, Grace) /\ Waits(s.node) /\ Calm /\ UNCHANGED <<proven, asked, ran>> /\ mute' = mute \ {s.node}
\* What the node of step s had saved at an earlier time.
Saved(s) == {First[s.node]} \cup {Steps[i] : i \in {i \in 1..at-1 : Steps[i].do \in {"save", "start", "lost"} /\ Steps[i].node = s.node}}
\* Its data are an older copy: what came after is lost, and it must notice before it votes or takes a record (R16).
Older(s) == /\ s.epoch < epoch[s.node] \/ (s.epoch = epoch[s.node] /\ ~Same(s.node, s))
            /\ \E d \in Saved(s) : d.epoch = s.epoch /\ d.term = s.term /\ d.vote = s.vote /\ d.record = s.record
            /\ s.founding = {} /\ Forget(s.node, s.epoch, s.term, s.vote, s.record) /\ Deposed
            /\ Promises(s.node, Grace) /\ Waits(s.node) /\ Calm /\ UNCHANGED <<proven, asked, ran>> /\ mute' = mute \cup {s.node}
\* A process starts with what was saved; it may have promised anything (R4).
Start(s) == \/ s.epoch = epoch[s.node] /\ Same(s.node, s) /\ Quiet /\ UNCHANGED proven
               /\ IF promise[s.node] = Grace THEN UNCHANGED <<lease_vars, was>> ELSE Restart(s.node) /\ Promises(s.node, Grace)
            \/ Lost(s) \/ Older(s)
\* A PING is answered whose record is saved already.
Ack(s) == /\ s.node \notin mute /\ \E m \in sent : /\ m.kind = "PING" /\ m.from[1] = s.ack /\ m.term = s.term /\ m.record = record[s.node]
                             /\ Acknowledge(s.node, m) /\ Promises(s.node, m.from)
          /\ UNCHANGED <<term, voted_for, record, founding>> /\ Deposed /\ Calm /\ Quiet /\ UNCHANGED <<barrier, proven>>
\* The code differs: who has a newer record of the same leadership than the PING, which came late, answers that it has it, and
\* does not save its vote.
AckLate(s) == LET n == s.node IN
  /\ n \notin mute /\ voted_for[n] = Nobody
  /\ \E m \in sent : /\ m.kind = "PING" /\ m.from[1] = s.ack /\ m.term = s.term /\ m.term = term[n] /\ m.record = record[n]
                    /\ \E late \in sent : late.kind = "PING" /\ late.from = m.from /\ late.term = m.term /\ Newer(m.record, late.record)
                    /\ Yields(n, m) /\ Promises(n, m.from)
  /\ UNCHANGED <<epoch, term, voted_for, record, founding, witness, sent, up, winners, faults>>
  /\ Deposed /\ Calm /\ Quiet /\ UNCHANGED <<barrier, proven>>
Promise(s) == /\ \E m \in sent : m.kind = "PING" /\ m.from[1] = s.ack /\ m.term = s.term /\ LPromise(s.node, m) /\ Promises(s.node, m.from)
              /\ Quiet /\ UNCHANGED proven
\* The lease of an elected node is renewed, by promises to it of a quorum of the record in force; the first time a
\* quorum has saved that record (R7).  Nobody else is active (S2).
Lease(s) == LET l == s.node IN
  /\ role[l] = "elected" /\ (\A p \in barrier[l] : ~Live(p))
  /\ Committed(l) \/ l \in proven
  /\ s.on \subseteq {v \in record[l].voters : IF IsWitness(v) THEN v = Witness(witness.identity) /\ WitnessStands(l)
                                              ELSE Promised(v, l)}
  /\ Quorum(s.on, record[l].voters)
  /\ lease' = [lease EXCEPT ![l] = s.on] /\ S2'
  /\ proven' = proven \cup {l} /\ Quiet /\ UNCHANGED <<vars, promises, won, named, fresh, barrier>>
\* It became active, and its lease was over before it could note that.
Begun(s) == /\ role[s.node] = "elected" /\ (Committed(s.node) \/ s.node \in proven)
            /\ proven' = proven \cup {s.node} /\ Quiet /\ UNCHANGED <<lease_vars, was>>
\* It lapsed, was given up, or its process is dead.
End(s) == /\ lease' = [lease EXCEPT ![s.node] = {}]
          /\ UNCHANGED <<vars, promises, won, named, fresh, barrier, proven>> /\ Quiet

\* Redis is asked, carries it out at some time or never, and answers.
Ask(s) == /\ role[s.node] = (IF s.kind = "VOTING" THEN "candidate" ELSE "elected")
          /\ asked' = Append(asked, [identity |-> s.identity, m |-> IF s.kind = "VOTING" THEN Request(s.node) ELSE Ping(s.node)])
          /\ UNCHANGED <<lease_vars, proven, ran, mute, was>>
Run(a) == /\ a.identity = witness.identity
          /\ IF a.m.kind = "VOTING" THEN LGrantWitness(a.m) ELSE LAcknowledgeWitness(a.m)
          /\ ran' = ran \cup {a} /\ UNCHANGED <<proven, asked, mute, was>>
Told(s) == LET a == asked[s.number] IN \/ a \in ran /\ UNCHANGED <<lease_vars, proven, asked, ran, mute, was>>
                                       \/ Run(a)
                                       \* It was asked in the step in which it ceased to be a voter, and counts for nothing.
                                       \/ /\ a.m.kind = "PING" /\ Witness(a.identity) \notin a.m.record.voters
                                          /\ UNCHANGED <<lease_vars, proven, asked, ran, mute, was>>
Created(s) == /\ NewWitness(s.identity, s.term, s.record) /\ named' = {}
              /\ Quiet /\ UNCHANGED <<lease, promises, won, fresh, barrier, proven>>

Step(s) == CASE s.do = "save" -> Save(s) [] s.do = "start" -> Start(s) [] s.do = "lost" -> Lost(s) [] s.do = "ack" -> Ack(s) \/ AckLate(s)
             [] s.do = "promise" -> Promise(s)
             [] s.do = "lease" -> Lease(s) [] s.do = "active" -> Begun(s) [] s.do = "end" -> End(s)
             [] s.do = "ask" -> Ask(s) [] s.do = "told" -> Told(s) [] s.do = "created" -> Created(s)
TraceNext == /\ at <= Len(Steps) /\ which' = which
             /\ \/ Step(Steps[at]) /\ at' = at + 1 /\ spare' = 0
                \/ Part(Steps[at]) /\ at' = at /\ spare' = spare + 1
                \/ /\ Steps[at].do = "told" /\ \E i \in 1..Len(asked) : asked[i] \notin ran /\ Run(asked[i])
                   /\ at' = at /\ spare' = spare
TraceSpec == TraceInit /\ [][TraceNext]_trace_vars
\* Tells how far each history was followed.
Followed == PrintT(IF at > Len(Steps) THEN <<"accepted", which>> ELSE <<"reached", which, at>>)
================================================================================
