"""What a program is told of its node's leadership: in a thread, by shared memory, by hooks."""
