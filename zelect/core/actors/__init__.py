"""One actor per message type, and the few that time, connections and the leadership need.

An actor is a function of a `Step` and what it handles. It may change the state, and adds to the step
what is to be saved, sent and published; it does no I/O, and never calls the machine.
"""
