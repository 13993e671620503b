"""Files and folders whatever is in them: written whole or not at all, read as settings, faults in plain words."""
