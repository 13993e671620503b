"""The second text encoder of Stable Diffusion XL and its tokenizer, as parts of a pipeline folder."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerBase

from muybridge.checkpoints.parts import load_named, part_folder
from muybridge.types import SettingsView
from muybridge.weights.loading import load_folder


def load_second_text_encoder(folder: Path, dtype: torch.dtype) -> CLIPTextModelWithProjection:
    """The CLIP text encoder with projection in `folder/text_encoder_2`."""
    path = part_folder(folder, "text_encoder_2")
    return load_folder(
        CLIPTextModelWithProjection.from_pretrained, path, "CLIPTextModelWithProjection", {"dtype": dtype}
    )


def load_second_tokenizer(folder: Path, index: SettingsView) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder/tokenizer_2`, of the class that the `model_index.json` names."""
    return load_named(transformers, PreTrainedTokenizerBase, folder, "tokenizer_2", index)
