"""Which mode: what a book needs on price paths, each position for itself or all of them in one pool."""
