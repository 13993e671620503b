"""Training loops, what they optimise, and what they save. Knows no data set."""
