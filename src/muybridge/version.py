"""The version, for whoever records it; below everything, as everything does."""

__version__ = "0.1.0"
