"""The rules. Deterministic, synchronous, integers only: no I/O, no clock, no randomness, no float.

`decide_frame` turns a frame of commands into groups of events; `Exchange.apply` is the only code that
changes state. Imports `events` and itself, nothing else.
"""
