"""One actor per message type, and the few that time, links and the leadership need.

An actor is a function of a `Turn` and what it handles. It may change the state, and adds to the
turn what shall be saved, sent and published; it never touches the world.
"""
