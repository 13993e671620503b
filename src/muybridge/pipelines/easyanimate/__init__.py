"""EasyAnimate: everything that is true of this family alone."""
