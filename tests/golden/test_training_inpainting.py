"""Equality of what a transformer is told in training with the original trainer, on what that gave."""

from __future__ import annotations

from typing import Any

import torch
from tests.golden.test_easyanimate_pipeline import case, error, pipeline  # noqa: F401  # fixtures
from torch import Tensor

from muybridge.pipelines import EasyAnimatePipeline
from muybridge.pipelines.easyanimate.learning import conditions, latents
from muybridge.training.inpainting import Mask
from muybridge.training.methods.denoise import TrainedNetworks


def test_masks_are_those_of_the_recorded_draws(golden: Any) -> None:
    tensors, _ = golden("train_easyanimate_v3_masks")
    compared = 0
    for name, rows in tensors.items():
        if not name.endswith(".draws"):
            continue
        shape = name.removeprefix("inputs/").removesuffix(".draws")
        frames, height, width = (int(part) for part in shape.split(".")[-1].split("x"))
        boxes = tensors[f"outputs/{shape}.box"]
        for row, box in zip(rows[:60].tolist(), boxes[:60].tolist(), strict=True):
            kind, across, down, wide, high, known, start, end = row
            mask = Mask(kind, (down, across), (high, wide), known, start, end).draw(frames, height, width)
            assert box_of(mask) == box, (name, row)
            compared += 1
    assert compared >= 180


def box_of(mask: Tensor) -> list[int]:
    if not mask.any():
        return [-1] * 6 + [0]
    where = mask.nonzero()
    ends = [(int(axis.min()), int(axis.max()) + 1) for axis in where.T]
    return [*(value for pair in ends for value in pair), int(mask.sum())]


def test_what_is_told_of_clips_is_what_the_trainer_makes(golden: Any, pipeline: EasyAnimatePipeline) -> None:  # noqa: F811
    tensors, meta = golden("train_easyanimate_v3_batch")
    pipeline.vae.register_to_config(scaling_factor=meta["scaling_factor_used"])
    networks = TrainedNetworks(
        pipeline.backbone, pipeline.text_encoder, pipeline.vae, pipeline.image_encoder, pipeline.image_processor
    )
    batch = {
        "pixels": tensors["inputs/pixel_values"],
        "unknown": tensors["inputs/mask"][:, :, 0].bool(),
        "picture": tensors["inputs/clip_index"],
        "picture_counts": torch.tensor([True, False, True]),
    }

    with torch.no_grad():
        told, video = conditions(networks, batch), latents(networks, batch)
        silent = conditions(networks, {**batch, "nothing_given": tensors["outputs/0.t2v_flag"] == 0})

    assert error(video, tensors["outputs/latents"]) <= 1e-4
    assert error(told["inpaint_latents"], tensors["outputs/never_zeroed.inpaint_latents"]) <= 1e-4
    assert error(silent["inpaint_latents"], tensors["outputs/0.inpaint_latents"]) <= 1e-4
    # The original cuts colours off where this package rounds, so its own are given here.
    frames = tensors["outputs/clip_pixel_values_uint8"].movedim(-1, 1).float() / 127.5 - 1
    with torch.no_grad():
        pictures = {**batch, "pixels": frames[:, None].expand(-1, 8, -1, -1, -1)}
        told = conditions(networks, pictures)
    assert error(told["clip_encoder_hidden_states"], tensors["outputs/clip_encoder_hidden_states"]) <= 1e-4
    assert told["clip_attention_mask"].tolist() == [[1.0] * 8, [0.0] * 8, [1.0] * 8]
