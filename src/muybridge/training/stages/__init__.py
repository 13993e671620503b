"""Stages of a training run: each a file with its settings, what it trains, and what comes of it."""
