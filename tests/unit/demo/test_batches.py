"""Training batches of the toy world, and the tiny models they are for."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

from muybridge.demo import models, render, world
from muybridge.demo.batches import ClipBatches, StillBatches, to_pixels, tokenize

TOKENIZER = models.make_tokenizer()


def texts(ids: torch.Tensor) -> list[str]:
    return cast("list[str]", TOKENIZER.batch_decode(ids, skip_special_tokens=True))


def held_out_words(text: str) -> bool:
    """Whether a caption that names shape, colour and motion plainly is of a held-out combination."""
    return any(all(word in text for word in triple) for triple in world.HELD_OUT_TRIPLES)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_pixels_are_centred_and_channels_first():
    frames = np.zeros((2, 4, 6, 3), np.uint8)
    frames[1] = 255

    pixels = to_pixels(frames)

    assert pixels.shape == (2, 3, 4, 6)
    assert pixels.dtype == torch.float32
    assert pixels[0].unique().tolist() == [-1]
    assert pixels[1].unique().tolist() == [1]


def test_stills_have_the_promised_shapes():
    batch = StillBatches(3, seed=1, tokenizer=TOKENIZER)(0)

    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "pixels": (3, 3, render.FRAME_SIZE, render.FRAME_SIZE),
        "input_ids": (3, models.MAX_TOKENS),
    }
    assert batch["pixels"].abs().max() <= 1
    assert StillBatches(3, seed=1)(0).keys() == {"pixels"}


def test_clips_have_the_promised_shapes():
    batch = ClipBatches(2, 5, seed=1, tokenizer=TOKENIZER)(0)

    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "pixels": (2, 5, 3, render.FRAME_SIZE, render.FRAME_SIZE),
        "input_ids": (2, models.MAX_TOKENS),
        "frame_positions": (5,),
    }


@pytest.mark.parametrize(
    "make",
    [lambda seed: StillBatches(2, seed, TOKENIZER, 0.1), lambda seed: ClipBatches(2, 4, seed, TOKENIZER)],
    ids=["stills", "clips"],
)
def test_a_batch_is_a_function_of_seed_and_index(make):
    batches = make(5)
    batches(0)

    assert same(batches(7), make(5)(7))
    assert not same(batches(7), batches(8))
    assert not same(batches(7), make(6)(7))


def test_captions_belong_to_their_pictures():
    """A red thing has more red in it than a blue thing."""
    batches = StillBatches(64, seed=2, tokenizer=TOKENIZER)
    batch = batches(0)
    redness: dict[str, list[float]] = {"red": [], "blue": []}
    for text, pixels in zip(texts(batch["input_ids"]), batch["pixels"], strict=True):
        for colour, values in redness.items():
            if colour in text.split():
                values.append(float((pixels[0] - pixels[2]).max()))

    assert min(redness["red"]) > max(redness["blue"])


def test_held_out_combinations_are_never_shown():
    assert held_out_words("a purple circle growing") or any(
        held_out_words(f"a {colour} {shape} {motion}") for shape, colour, motion in world.HELD_OUT_TRIPLES
    )
    seen = [text for i in range(8) for text in texts(StillBatches(128, 3, TOKENIZER)(i)["input_ids"])]
    seen += [text for i in range(30) for text in texts(ClipBatches(8, 1, 3, TOKENIZER)(i)["input_ids"])]

    assert not [text for text in seen if held_out_words(text)]


def test_dropped_captions_are_empty():
    batches = StillBatches(200, seed=4, tokenizer=TOKENIZER, caption_dropout=0.5)

    share = np.mean([text == "" for text in texts(batches(0)["input_ids"])])

    assert share == pytest.approx(0.5, abs=0.12)
    assert "" not in texts(StillBatches(50, 4, TOKENIZER)(0)["input_ids"])


@pytest.mark.parametrize("num_frames", [1, 4, 8, 9, 16])
def test_positions_are_regular_and_inside_the_clip(num_frames):
    batches = ClipBatches(1, num_frames, seed=5, tokenizer=TOKENIZER)
    strides = set()
    for index in range(20):
        positions = batches(index)["frame_positions"]
        strides |= set(positions.diff().tolist())
        assert positions.min() >= 0
        assert positions.max() < render.CLIP_FRAMES

    expected = set() if num_frames == 1 else {1.0, 2.0} if num_frames <= 8 else {1.0}
    assert strides == expected


def test_positions_say_which_frames_are_shown():
    """A still clip is the same everywhere; a whole clip is 16 frames in order."""
    batches = ClipBatches(4, 8, seed=6, tokenizer=TOKENIZER, whole_clip_share=1.0)

    batch = batches(0)

    assert batch["pixels"].shape[:2] == (2, render.CLIP_FRAMES)
    assert batch["frame_positions"].tolist() == list(range(render.CLIP_FRAMES))


def test_a_share_of_the_batches_has_whole_clips():
    batches = ClipBatches(2, 8, seed=7, tokenizer=TOKENIZER, whole_clip_share=0.3)

    whole = np.mean([len(batches(index)["frame_positions"]) == render.CLIP_FRAMES for index in range(60)])

    assert 0.15 < whole < 0.5


def test_short_captions_are_padded_with_the_end_token():
    ids = tokenize(TOKENIZER, ["a red circle", ""])[:, :6].tolist()

    start, end = TOKENIZER.bos_token_id, TOKENIZER.eos_token_id
    words = cast("list[int]", TOKENIZER.convert_tokens_to_ids(["a", "red", "circle"]))
    assert ids == [[start, *words, end, end], [start, end, end, end, end, end]]
    assert TOKENIZER.pad_token_id == end


def test_the_tokenizer_ignores_case_and_marks_foreign_words():
    ids = TOKENIZER(["A RED circle", "a fuchsia circle"], add_special_tokens=False).input_ids

    assert ids[0] == TOKENIZER("a red circle", add_special_tokens=False).input_ids
    assert ids[1][1] == TOKENIZER.unk_token_id


@pytest.mark.parametrize(
    ("make", "millions"),
    [
        (models.make_vae, 0.8),
        (lambda: models.make_clip(TOKENIZER), 1.1),
        (lambda: models.text_tower(models.make_clip(TOKENIZER)), 0.4),
        (models.make_unet, 4.1),
    ],
    ids=["vae", "clip", "text", "unet"],
)
def test_models_are_as_small_as_their_docstrings_say(make, millions):
    model: nn.Module = make()

    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


def test_the_text_tower_is_the_clip_s():
    clip = models.make_clip(TOKENIZER).eval()
    ids = tokenize(TOKENIZER, ["a red circle", "a large blue ring"])

    with torch.no_grad():
        states = models.text_tower(clip).eval()(input_ids=ids).last_hidden_state
        expected = clip.text_model(input_ids=ids).last_hidden_state

    assert torch.equal(states, expected)


def test_the_models_fit_together():
    vae, unet = models.make_vae(), models.make_unet()

    assert vae.config["latent_channels"] == unet.config["in_channels"] == unet.config["out_channels"]
    assert render.FRAME_SIZE // 2 ** (len(vae.config["block_out_channels"]) - 1) == unet.config["sample_size"]
    assert unet.config["cross_attention_dim"] == models.TEXT_WIDTH
    assert TOKENIZER.model_max_length == models.MAX_TOKENS


def test_the_scheduler_ends_in_pure_noise():
    scheduler = models.make_scheduler()

    assert float(scheduler.alphas_cumprod[-1]) == pytest.approx(0, abs=1e-6)
    assert scheduler.config["prediction_type"] == "v_prediction"
