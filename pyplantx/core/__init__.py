"""The pure logic: traces, replays and the scheduler. Standard library only, no I/O, no clocks."""
