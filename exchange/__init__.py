"""The exchange: the aggregate that holds the rules, and the processes around it."""
