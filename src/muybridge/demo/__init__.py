"""A toy world of captioned clips, the tiny models trained on it, and how well they do."""
