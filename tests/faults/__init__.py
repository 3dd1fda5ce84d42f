"""Faults done to real processes on a real server, and what must hold after each; see `__main__`."""
