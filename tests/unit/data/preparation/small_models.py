"""Models of pictures and text with random weights, as small as transformers makes them, saved as folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

SIDE = 28
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
_TEMPLATE = (
    "{% for turn in messages %}{{ turn['role'] }}:"
    "{% if turn['content'] is string %}{{ turn['content'] }}{% else %}{% for part in turn['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def letters_tokenizer(**settings: Any) -> PreTrainedTokenizerFast:
    """A token for each letter."""
    letters = [chr(code) for code in range(32, 127)] + ["\n"]
    vocabulary = {token: place for place, token in enumerate((*_SPECIAL, *letters))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    named = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=["<image>"], **named, **settings
    )


def _vision() -> dict[str, Any]:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {**sizes, "image_size": SIDE, "patch_size": 14}


def _text(vocabulary: int) -> dict[str, Any]:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return {**sizes, "vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _image_settings() -> dict[str, Any]:
    return {"size": {"height": SIDE, "width": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}


def write_clip(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = letters_tokenizer(model_max_length=24)
    text = {**_text(len(tokenizer)), "max_position_embeddings": 24}
    CLIPModel(CLIPConfig(text_config=text, vision_config=_vision(), projection_dim=16)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(**_image_settings()).save_pretrained(folder)
    return folder


def write_siglip(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = letters_tokenizer(model_max_length=24)
    text = {**_text(len(tokenizer)), "max_position_embeddings": 24, "projection_size": 32}
    SiglipModel(SiglipConfig(text_config=text, vision_config=_vision())).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def write_llava(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = letters_tokenizer(chat_template=_TEMPLATE)
    text = LlamaConfig(**_text(len(tokenizer)), num_key_value_heads=2, max_position_embeddings=4096)
    image = int(tokenizer.convert_tokens_to_ids("<image>"))  # type: ignore[arg-type]
    config = LlavaConfig(vision_config=CLIPVisionConfig(**_vision()), text_config=text, image_token_index=image)
    config.image_seq_length = 4
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor = LlavaProcessor(
        CLIPImageProcessorPil(**_image_settings()),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=_TEMPLATE,
        num_additional_image_tokens=1,
    )
    processor.save_pretrained(folder)
    return folder


def write_language_model(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = letters_tokenizer(chat_template=_TEMPLATE)
    config = LlamaConfig(**_text(len(tokenizer)), num_key_value_heads=2, max_position_embeddings=8192)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
