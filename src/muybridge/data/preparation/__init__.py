"""From raw videos and pictures to a set for training: stages, recipes of them, and what becomes of each record."""
