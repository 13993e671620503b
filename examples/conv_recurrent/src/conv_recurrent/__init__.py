"""The motion module `conv_recurrent` for Muybridge."""

from conv_recurrent.motion import ConvRecurrentConfig, ConvRecurrentMotionModule

__all__ = ["ConvRecurrentConfig", "ConvRecurrentMotionModule"]
