"""The whole exchange in one thread under a seed: its processes, a log that fails them, and who checks."""
