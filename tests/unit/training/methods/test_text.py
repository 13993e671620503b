"""What the text encoders are taught by pictures."""

from __future__ import annotations

import pytest
import torch
from tests.unit.training.methods.test_denoise import TEXT, generator, image_batch, train
from tests.unit.training.methods.test_denoise_video import batch_of as video_batch
from tests.unit.training.methods.test_denoise_video import small_text_encoder as small_t5
from tests.unit.training.methods.test_denoise_video import train as train_t5
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from muybridge.training.methods.text import ContrastiveT5Method, ContrastiveTextMethod


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


def test_accuracy_with_clip_is_about_the_nearest_caption():
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    config = CLIPConfig(text_config=TEXT, vision_config=vision.to_dict(), projection_dim=8)
    method = ContrastiveTextMethod(CLIPModel(config))
    batch = image_batch()
    twice = {name: value[:1].repeat(2, *[1] * (value.ndim - 1)) for name, value in batch.items()}

    train(method, batch, steps=30)
    with torch.no_grad():
        learned, ambiguous = method(batch, generator()), method(twice, generator())

    assert float(learned["accuracy"]) == 1.0
    assert float(learned["loss"]) < 0.3
    assert float(ambiguous["accuracy"]) == 0.5
    assert float(ambiguous["loss"]) == pytest.approx(float(torch.tensor(2.0).log()), abs=1e-4)


def test_accuracy_with_t5_is_about_the_nearest_caption():
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=8,
    )
    method = ContrastiveT5Method(small_t5(), CLIPVisionModelWithProjection(vision))
    batch = video_batch(1)
    twice = {name: value[:1].repeat(2, *[1] * (value.ndim - 1)) for name, value in batch.items()}

    train_t5(method, batch, steps=30)
    with torch.no_grad():
        learned, ambiguous = method(batch, generator()), method(twice, generator())

    assert float(learned["accuracy"]) == 1.0
    assert float(learned["loss"]) < 0.3
    assert float(ambiguous["accuracy"]) == 0.5
