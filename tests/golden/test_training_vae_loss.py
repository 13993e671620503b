"""Equality of the VAE's losses with EasyAnimate's trainer, on the numbers that it gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.golden.test_easyanimate_transformer import error
from torch import Tensor, nn

from muybridge.training.losses.discriminators import FrameDiscriminator, VideoDiscriminator
from muybridge.training.losses.perceptual import Lpips
from muybridge.training.losses.settings import AdversarialSettings, PerceptualSettings, VAELossSettings
from muybridge.training.losses.vae import VAELoss, as_frames, kl_divergence

CASE = "train_easyanimate_vae_loss"
ELEMENTS = 3 * 32 * 32
UNUSED = ("filt", "conv_norm_out.weight", "conv_norm_out.bias")
GENERATOR_RUNS = (
    "gen_slice",
    "gen_slice_before_start",
    "gen_slice_at_start",
    "gen_mag",
    "gen_decoder_only",
    "gen_image",
)


@dataclass
class Latents:
    mean: Tensor
    logvar: Tensor


@dataclass
class Recorded:
    """What was given, and the VAE's last layer on it."""

    tensors: dict[str, Tensor]
    last_layer: Tensor
    posterior: Latents

    def videos(self, run: str) -> tuple[Tensor, Tensor]:
        """Pixels and their reconstruction; of pictures for the runs with pictures."""
        shown = slice(1) if run.endswith("image") else slice(None)
        pixels, hidden = (self.tensors[f"inputs/{name}"].float()[:, :, shown] for name in ("video", "h"))
        made = F.conv3d(hidden, self.last_layer, self.tensors["inputs/last_layer_bias"].float(), padding=1)
        return (pixels[:, :, 0], made[:, :, 0]) if run.endswith("image") else (pixels, made)


def recorded(tensors: dict[str, Tensor]) -> Recorded:
    posterior = Latents(
        tensors["inputs/posterior_mean"].clone().requires_grad_(),
        tensors["inputs/posterior_logvar"].clone().requires_grad_(),
    )
    return Recorded(tensors, tensors["inputs/last_layer_weight"].clone().requires_grad_(), posterior)


def weights(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    start = f"weights/{part}."
    return {k.removeprefix(start): v.float() for k, v in tensors.items() if k.startswith(start)}


def lpips(tensors: dict[str, Tensor]) -> Lpips:
    state = weights(tensors, "perceptual_loss")
    return Lpips(state, state)


def loss_of(tensors: dict[str, Tensor], settings: dict[str, float]) -> VAELoss:
    """The loss, with the recorded discriminators, which are narrower than ours can be."""
    adversarial = AdversarialSettings(weight=settings["disc_weight"], start=int(settings["disc_start"]))
    judge = VAELoss(
        VAELossSettings(
            l1=settings["l1_loss_weight"],
            l2=settings["l2_loss_weight"],
            kl=settings["kl_weight"],
            perceptual=PerceptualSettings(weight=settings["perceptual_weight"]),
            adversarial=adversarial,
        ),
        lpips(tensors),
    )
    judge.discriminators = nn.ModuleList([FrameDiscriminator(8), VideoDiscriminator((32, 32, 64))])
    for network, part in zip(judge.discriminators, ("discriminator", "discriminator3d"), strict=True):
        state = {k: v for k, v in weights(tensors, part).items() if not k.endswith(UNUSED)}
        missing = network.load_state_dict(state, strict=False)
        assert not missing.unexpected_keys
        assert all(key.split(".")[-1].startswith(("running", "num_batches")) for key in missing.missing_keys)
    return judge


@pytest.mark.parametrize("run", GENERATOR_RUNS)
def test_the_loss_of_the_vae_equals_the_original(golden: Any, run: str) -> None:
    tensors, meta = golden(CASE)
    how = meta["runs"][run]
    given = recorded(tensors)
    judge = loss_of(tensors, how["settings"])
    pixels, made = given.videos(run)

    terms = judge.generator(pixels, made, given.posterior, given.last_layer, how["global_step"])
    (terms["loss"] * ELEMENTS).backward()

    found = {name: value.detach() for name, value in terms.items()}
    wanted = {k.removeprefix(f"outputs/{run}."): v for k, v in tensors.items() if k.startswith(f"outputs/{run}.")}
    perceptual = found["perceptual"] * how["settings"]["perceptual_weight"]
    assert error(found["reconstruction"] + perceptual, wanted["rec_loss_mean"]) <= 1e-5
    assert error((found["reconstruction"] + perceptual) * ELEMENTS, wanted["nll_loss"]) <= 1e-5
    assert error(found["kl"], wanted["kl_loss"]) <= 1e-5
    assert error(found["loss"] * ELEMENTS, wanted["loss"]) <= 1e-4
    assert error(given.last_layer.grad, wanted["grad_last_layer"]) <= 3e-3  # type: ignore[arg-type]
    assert error(given.posterior.mean.grad, wanted["grad_posterior_mean"]) <= 1e-4  # type: ignore[arg-type]
    assert error(given.posterior.logvar.grad, wanted["grad_posterior_logvar"]) <= 1e-4  # type: ignore[arg-type]
    assert all(parameter.grad is None for parameter in judge.parameters())
    assert ("adversarial" in found) == (how["logged"]["disc_factor"] == 1)
    if "adversarial" in found:
        assert error(found["adversarial"], wanted["g_loss"]) <= 1e-5
        assert error(found["adversarial_weight"], wanted["d_weight"]) <= 1e-4


@pytest.mark.parametrize("run", ["disc_slice", "disc_image"])
def test_the_loss_of_the_discriminators_equals_the_original(golden: Any, run: str) -> None:
    tensors, meta = golden(CASE)
    given = recorded(tensors)
    judge = loss_of(tensors, meta["runs"][run]["settings"])

    terms = judge.discriminator(*given.videos(run))
    terms["discriminator_loss"].backward()

    assert given.last_layer.grad is None
    assert error(terms["discriminator_loss"].detach(), tensors[f"outputs/{run}.loss"]) <= 1e-5
    logged = meta["runs"][run]["logged"]
    frames, videos = judge.discriminators
    parameters = {f"discriminator.{name}": p for name, p in frames.named_parameters()}
    parameters |= {f"discriminator3d.{name}": p for name, p in videos.named_parameters()}
    for key, wanted in tensors.items():
        if key.startswith(f"outputs/{run}.grad."):
            gradient = parameters[key.removeprefix(f"outputs/{run}.grad.")].grad
            assert gradient is not None
            assert error(gradient, wanted) <= 4e-4, key  # five times what float64 differs by
    if run == "disc_image":
        assert float(terms["verdict_on_real"]) == pytest.approx(logged["logits_real"], rel=1e-4)


def test_verdicts_distances_and_divergences_equal_the_original(golden: Any) -> None:
    tensors, meta = golden(CASE)
    given = recorded(tensors)
    judge = loss_of(tensors, meta["settings"]["slice"])
    pixels, made = given.videos("")
    frames, videos = judge.discriminators
    high = [tensors[f"inputs/high.posterior_{name}"] for name in ("mean", "logvar")]
    with torch.no_grad():
        assert error(made, tensors["outputs/reconstruction"]) <= 1e-5
        distances = lpips(tensors)(as_frames(pixels), as_frames(made))
        assert error(distances, tensors["outputs/perceptual_per_frame"]) <= 1e-5
        assert error(frames(as_frames(made)), tensors["outputs/logits2d_fake"]) <= 1e-5
        assert error(videos(pixels), tensors["outputs/logits3d_real"]) <= 1e-5
        assert error(videos(made), tensors["outputs/logits3d_fake"]) <= 1e-5
        assert error(videos(made[:, :, :1]), tensors["outputs/logits3d_fake_one_frame"]) <= 1e-5
        divergence = kl_divergence(given.posterior.mean, given.posterior.logvar)
        assert error(divergence, tensors["outputs/posterior_kl"]) <= 1e-5
        assert error(kl_divergence(*high), tensors["outputs/high.posterior_kl"]) <= 1e-5


def test_full_size_discriminators_have_the_original_layers(golden: Any) -> None:
    _, meta = golden(CASE)
    with torch.device("meta"):
        own = {"discriminator": FrameDiscriminator(), "discriminator3d": VideoDiscriminator()}
    for part, network in own.items():
        keys = meta["full_size_discriminator_keys"][part]
        wanted = {name: tuple(shape) for name, shape in keys.items() if not name.endswith(UNUSED)}
        assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == wanted
