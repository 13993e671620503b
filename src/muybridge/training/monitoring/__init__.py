"""Whether training learns: what is measured on the way, and what is made of a run's folder.

Reading, reports and the terminal view of a run need no torch; what measures networks does.
"""
