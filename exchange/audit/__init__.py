"""Looking at a log from outside: rebuilding the state from it, and reading what is in it."""
