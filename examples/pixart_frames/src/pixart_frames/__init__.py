"""PixArt frame by frame, with motion modules between the frames: a family of models in a package of its own."""
