"""What if: a recorded log run again with something changed, and what became of everybody in both runs."""
