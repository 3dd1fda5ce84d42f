"""The margin calculator: an account described in a file, judged by the aggregate's own functions."""
