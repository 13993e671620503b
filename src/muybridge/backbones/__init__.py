"""Denoising networks of image models with places for motion modules. The families do not import each other."""
