"""Raw videos in, a set of clips to train on out: stages, what runs them, and an account of it."""
