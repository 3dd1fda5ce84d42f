"""`foldex bench`: how fast a whole exchange answers, measured from the caller's side."""
