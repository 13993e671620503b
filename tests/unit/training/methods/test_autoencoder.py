"""VAEs on clips: frames for one of pictures, discriminators that begin late, and runs that go on exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.unit.training.methods.test_denoise import small_vae as picture_vae
from tests.unit.training.methods.test_denoise_video import small_vae as video_vae
from torch import Tensor

from muybridge.training.losses.settings import AdversarialSettings, PerceptualSettings, VAELossSettings
from muybridge.training.methods.autoencoder import AutoencoderMethod, NumberedSteps
from muybridge.training.trainer import Trainer, TrainerConfig
from muybridge.vae.magvit.inflating import inflated_vae

LATE = VAELossSettings(adversarial=AdversarialSettings(start=2, width=32), perceptual=PerceptualSettings(weight=0.0))


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


def clips(index: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(index)
    return {"pixels": torch.rand(1, 8, 3, 32, 32, generator=generator) * 2 - 1}


@pytest.mark.parametrize("make", [picture_vae, video_vae])
def test_discriminators_begin_when_they_should(make) -> None:
    method = AutoencoderMethod(make(), LATE).train()
    batches = NumberedSteps(clips, batches_per_step=2)

    terms = [method(batches(index), torch.Generator().manual_seed(0)) for index in (3, 4)]

    assert "discriminator_loss" not in terms[0]
    assert "discriminator_loss" in terms[1]
    terms[1]["loss"].backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)


def test_the_decoder_alone_leaves_latents_as_they_are() -> None:
    vae = video_vae()
    method = AutoencoderMethod(vae, VAELossSettings(l1=0, l2=1), decoder_only=True)
    learning = {name for name, p in method.named_parameters() if p.requires_grad}
    assert learning
    assert all(name.startswith(("vae.decoder.", "vae.post_quant_conv.")) for name in learning)


def test_a_run_that_goes_on_is_the_same_with_discriminators(tmp_path: Path) -> None:
    def trained(folder: Path, stop: int | None = None) -> dict[str, Tensor]:
        torch.manual_seed(0)
        method = AutoencoderMethod(picture_vae(), LATE)
        trainer = Trainer(
            method, NumberedSteps(clips, 1), TrainerConfig(steps=4, mixed_precision="no", log_every=1), folder
        )

        def progress(step: int, *_: object) -> None:
            if step == stop:
                raise KeyboardInterrupt

        if stop is None:
            trainer.fit()
        else:
            with pytest.raises(KeyboardInterrupt):
                trainer.fit(progress)
        return {name: p.detach().clone() for name, p in method.named_parameters() if p.requires_grad}

    whole = trained(tmp_path / "whole")
    trained(tmp_path / "parts", stop=3)
    parts = trained(tmp_path / "parts")

    assert any("discriminators" in name for name in whole)
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


@pytest.mark.parametrize("in_slices", [True, False])
def test_a_video_vae_begins_as_one_of_pictures(in_slices: bool) -> None:
    images = picture_vae().eval()
    videos = inflated_vae(images, in_slices).eval()
    pixels = clips(0)["pixels"][:, :1]

    with torch.no_grad():
        wanted = images.encode(pixels[:, 0]).latent_dist.mean  # type: ignore[union-attr]
        found = videos.encode(pixels.transpose(1, 2)).latent_dist.mean[:, :, 0]  # type: ignore[union-attr]

    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert videos.config["slice_compression_vae"] is in_slices
