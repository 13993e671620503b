"""The command line: thin fronts on `service`. Nothing here imports torch before a command needs it."""
