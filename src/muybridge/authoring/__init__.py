"""For authors of motion modules: the checks of the contract, packages to begin with, sizes of kinds."""
