------------------------------- MODULE Instances -------------------------------
\* Who is configured with which list, and which nodes are interchangeable, for the models of tools/spec_check/models.py.
EXTENDS MembershipLease
CONSTANTS n1, n2, n3, n4, n5, n6, n7
Nowhere == [n \in Node |-> {}]                                                        \* nobody founds: the cluster exists
Everybody == [n \in Node |-> {Node}]                                                  \* the same file everywhere
Small == {n1, n2, n3}
Bootstrap12 == [n \in Node |-> IF n = n3 THEN {Node} ELSE {{n1, n2}, Node}]           \* zelect bootstrap --members 1,2
Grow1to3 == [n \in Node |-> IF n = n1 THEN {{n1}, Node} ELSE {Node}]                  \* one node, then a file with three
Grow3to5 == [n \in Node |-> CASE n \in {n1, n2} -> {Small} [] n = n3 -> {Small, Node} [] OTHER -> {Node}]
Grow3to7 == Grow3to5                                                                  \* n3 has lost its data and has the new file
Overlapping == [n \in Node |-> CASE n = n1 -> {Small} [] n = n4 -> {{n2, n3, n4}} [] OTHER -> {Small, {n2, n3, n4}}]
SymmAll == Permutations(Node)
Symm12 == Permutations({n1, n2})
Symm23 == Permutations({n2, n3})
Symm12_45 == Permutations({n1, n2}) \cup Permutations({n4, n5})
Symm12_4567 == Permutations({n1, n2}) \cup Permutations({n4, n5, n6, n7})
\* Without promises and leases.
Plain == LeaseInit /\ [][Next /\ UNCHANGED <<lease, promise, won, named, fresh, barrier>>]_lease_vars
================================================================================
