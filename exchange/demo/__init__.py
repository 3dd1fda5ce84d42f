"""`foldex demo`: the whole exchange through a crash, and the proof that its log holds all of it."""
