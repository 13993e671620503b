"""Stages that train the shipped models from nothing, and the toy world as a set of clips for stages of other models."""
