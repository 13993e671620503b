"""The attention to a picture beside that to the text.

Source: IP-Adapter, arXiv 2308.06721, "decoupled cross-attention".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from muybridge.motion.attention import Attention
from muybridge.motion.linear import Linear


class TextAndImage(NamedTuple):
    """What spatial transformers attend to where there is a picture beside the text.

    Attributes:
        text: `[b or b * f, n, d]`.
        image: tokens of the picture `[b, m, d]`, shared by the frames of a video.
        strength: what the attention to the picture is multiplied with.
    """

    text: Tensor
    image: Tensor
    strength: float


class ImageAttention(nn.Module):
    """Keys and values of a picture, for the queries of the attention to the text."""

    def __init__(self, width: int, context_width: int) -> None:
        """For tokens of `width` channels, and a picture's tokens of `context_width`."""
        super().__init__()
        self.to_k_ip = Linear(context_width, width, bias=False)
        self.to_v_ip = Linear(context_width, width, bias=False)

    def beside(self, attention: Attention, tokens: Tensor, given: TextAndImage) -> Tensor:
        """`tokens [b * f, s, c]` attend to the text and to the picture; `attention` is that to the text."""
        heads = (attention.heads, -1)
        query = attention.to_q(tokens).unflatten(-1, heads)
        of_text = attention.processor(
            query.view(len(given.text), -1, *query.shape[2:]),
            attention.to_k(given.text).unflatten(-1, heads),
            attention.to_v(given.text).unflatten(-1, heads),
        )
        of_image = attention.processor(
            query.view(len(given.image), -1, *query.shape[2:]),
            self.to_k_ip(given.image).unflatten(-1, heads),
            self.to_v_ip(given.image).unflatten(-1, heads),
        )
        seen = torch.add(of_text.reshape(tokens.shape), of_image.reshape(tokens.shape), alpha=given.strength)
        return attention.to_out[0](seen)
