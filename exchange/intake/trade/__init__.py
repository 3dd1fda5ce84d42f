"""What an account asks for itself: orders, positions, margin, what it holds and what became of it."""
