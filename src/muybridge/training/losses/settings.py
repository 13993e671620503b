"""The terms of a VAE's loss, as a run file names them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from muybridge.training.settings import Settings


class PerceptualSettings(Settings):
    """How the likeness of two pictures is judged, besides their pixels."""

    kind: Literal["lpips", "encoder", "differences"] = "encoder"
    """lpips needs two files, as no package contains the network. The others do without: encoder compares features of
    the VAE's own encoder as it was before training, differences those of neighbouring pixels."""
    weight: float = Field(default=1.0, ge=0)
    features: str | None = None
    """Of lpips: a file of VGG16's weights, such as torchvision's vgg16-397923af.pth."""
    heads: str | None = None
    """Of lpips: a file of the weights of its features, such as weights/v0.1/vgg.pth of the package lpips."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        files = (self.features, self.heads)
        if self.kind == "lpips" and None in files:
            raise ValueError(
                "lpips needs two files: features, VGG16's weights such as torchvision's vgg16-397923af.pth, and heads, "
                "such as weights/v0.1/vgg.pth of the package lpips. The kinds encoder and differences need none"
            )
        if self.kind != "lpips" and files != (None, None):
            raise ValueError(f"features and heads are files of lpips; given for {self.kind}. Leave them out")
        return self


class AdversarialSettings(Settings):
    """Discriminators of frames and of videos, which learn beside the VAE to tell what it makes from what is real."""

    weight: float = Field(default=0.5, gt=0)
    """Of how strongly they pull at the VAE, as a share of how the other terms do."""
    start: int = Field(default=50_001, ge=0)
    """The first step that they take part in; best once the reconstruction no longer improves."""
    width: int = Field(default=64, ge=32, multiple_of=32)
    """Channels of their first layers."""


class VAELossSettings(Settings):
    """Weights as EasyAnimate trained its VAE of slices; `l2=0.1` for MagViT, `l1=0, l2=1` for a decoder alone."""

    l1: float = Field(default=1.0, ge=0)
    l2: float = Field(default=0.0, ge=0)
    kl: float = Field(default=1e-6, ge=0)
    """Of the divergence summed over a video, beside errors summed over a frame."""
    perceptual: PerceptualSettings = PerceptualSettings()
    adversarial: AdversarialSettings | None = None
    """None for no discriminators."""

    @model_validator(mode="after")
    def _judge(self) -> Self:
        if not (self.l1 or self.l2):
            raise ValueError("l1 and l2 are both 0, so nothing would hold the pixels to those of the video; give one")
        return self
