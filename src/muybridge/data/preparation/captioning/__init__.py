"""Captions by models: what is asked, who answers, and what is wrong with an answer."""
