"""Equality of the training objective with the original trainers, on the numbers that they gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from tests.golden.test_easyanimate_transformer import error, published_folder
from torch import Tensor, nn

from muybridge.backbones.dit import Transformer3DModel
from muybridge.backbones.dit.published import PUBLISHED_KEYS
from muybridge.training.objective.diffusion import DiffusionObjective
from muybridge.training.objective.draws import draw_noise, draw_timesteps, share_noise
from muybridge.training.objective.settings import ObjectiveSettings
from muybridge.training.objective.variance import PosteriorTables

NOISE_RUNS = ("eps", "eps_snr5", "eps_snr1_sd", "v", "v_snr5", "offset", "offset_v_snr")
EASYANIMATE_RUNS = ("inpaint", "inpaint_t0", "inpaint_clip_dropped", "inpaint_snr", "normal", "size128")
TRANSFORMER_INPUTS = (
    "encoder_hidden_states",
    "encoder_attention_mask",
    "inpaint_latents",
    "clip_encoder_hidden_states",
    "clip_attention_mask",
)


def scheduler(settings: dict[str, Any], prediction_type: Any = "epsilon") -> DDIMScheduler:
    levels = {k: v for k, v in settings.items() if k.startswith(("beta", "num_train"))}
    return DDIMScheduler(**levels, prediction_type=prediction_type, clip_sample=False)


def easyanimate_objective(snr_loss: bool = False) -> DiffusionObjective:
    levels = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
    settings = ObjectiveSettings(timesteps="logit-normal", learned_range=True, snr_loss=snr_loss)
    return DiffusionObjective(scheduler(levels), settings)


def assert_gradient_norms(parameters: dict[str, nn.Parameter], recorded: Tensor) -> None:
    """Those of `parameters` by the original's names; see section 7 of the recorded cases for the limits."""
    norms = torch.stack([parameters[name].grad.norm() for name in sorted(parameters)])  # type: ignore[union-attr]
    assert norms.shape == recorded.shape
    allowed = (1e-3 * recorded).clamp(min=1e-6 * float(recorded.max()))
    assert ((norms - recorded).abs() <= allowed).all()


@pytest.mark.parametrize("run", NOISE_RUNS)
def test_noise_losses_equal_the_public_trainer(golden: Any, run: str) -> None:
    tensors, meta = golden("train_noise_losses")
    how = meta["runs"][run]
    given = {k.removeprefix("inputs/"): v for k, v in tensors.items()}
    recorded = {k.removeprefix(f"outputs/{run}."): v for k, v in tensors.items() if k.startswith(f"outputs/{run}.")}
    levels = scheduler(meta["schedulers"][how["scheduler"]], how["prediction_type"])
    objective = DiffusionObjective(levels, ObjectiveSettings(min_snr=how.get("snr_gamma")))
    noise = given["raw_noise"] + how.get("noise_offset", 0.0) * given["raw_offset"]
    output = given[f"{run}.model_pred"].requires_grad_()

    drawn = objective.show(given["latents"], noise, given["timesteps"])
    loss = objective.loss(drawn, output)["loss"]
    (gradient,) = torch.autograd.grad(loss, output)

    assert error(drawn.noisy, recorded["noisy_latents"]) <= 1e-5
    assert error(drawn.target, recorded["target"]) <= 1e-5
    assert error(loss.detach(), recorded["loss"]) <= 1e-5
    assert error(gradient, recorded["grad_model_pred"]) <= 1e-4
    if "weights" in recorded:
        weights = objective.min_snr_weights(given["timesteps"], how["snr_gamma"])
        assert error(weights, recorded["weights"]) <= 1e-5


@pytest.mark.parametrize("name", ["sd", "animatediff", "easyanimate"])
def test_signal_to_noise_equals_the_public_trainer(golden: Any, name: str) -> None:
    tensors, meta = golden("train_noise_losses")
    objective = DiffusionObjective(scheduler(meta["schedulers"][name]))
    found = objective.signal_to_noise(tensors["inputs/table_timesteps"])
    torch.testing.assert_close(found, tensors[f"outputs/table.{name}.snr"], rtol=1e-5, atol=0)


def test_what_is_drawn_equals_easyanimate(golden: Any) -> None:
    tensors, _ = golden("train_easyanimate_v3_objective")
    settings = ObjectiveSettings(timesteps="logit-normal", shared_noise=0.5, noise_sharing="mixing")

    timesteps = draw_timesteps(settings, 64, 1000, torch.Generator().manual_seed(4100))
    assert torch.equal(timesteps, tensors["outputs/timesteps_drawn"].long())

    raw, recorded = tensors["inputs/raw_noise"], tensors["outputs/shared_noise"]
    assert error(share_noise(raw, 0.5, preserving=False), recorded) <= 1e-5
    assert error(draw_noise(settings, raw.shape, torch.Generator().manual_seed(4101)), recorded) <= 1e-5


def test_tables_equal_easyanimate(golden: Any) -> None:
    tensors, _ = golden("train_easyanimate_v3_objective")
    tables = PosteriorTables(torch.linspace(0.0001, 0.02, 1000))  # float32, as schedulers have it
    names = {
        "alphas_cumprod": tables.alphas_cumprod,
        "log_betas": tables.log_betas,
        "posterior_variance": tables.variance,
        "posterior_log_variance_clipped": tables.log_variance,
        "posterior_mean_coef1": tables.clean_weight,
        "posterior_mean_coef2": tables.noisy_weight,
    }
    for name, table in names.items():
        assert error(table[tensors["inputs/table_timesteps"]], tensors[f"outputs/table.{name}"]) <= 1e-5, name


@pytest.mark.parametrize("run", EASYANIMATE_RUNS)
def test_the_terms_of_the_loss_equal_easyanimate(golden: Any, run: str) -> None:
    tensors, meta = golden("train_easyanimate_v3_objective")
    how = meta["runs"][run]
    source = how.get("inputs_of_run", run)
    objective = easyanimate_objective(how["snr_loss"])
    latents, noise = tensors[f"inputs/{source}.latents"], tensors[f"inputs/{source}.noise"]
    output, recorded = tensors[f"outputs/{run}.model_output"], tensors[f"outputs/{run}.vb"]

    drawn = objective.show(latents, noise, tensors[f"inputs/{run}.timesteps"])
    terms = objective.loss(drawn, output)

    first_step = 0 in how["timesteps"]  # its value hangs on rounding
    assert error(drawn.noisy, tensors[f"outputs/{run}.x_t"]) <= 1e-5
    assert error(terms["mse"], tensors[f"outputs/{run}.mse"].mean()) <= 1e-5
    assert error(terms["vb"], recorded.mean()) <= (1e-4 if first_step else 1e-5)
    assert error(terms["loss"], tensors[f"outputs/{run}.loss"]) <= (1e-4 if first_step else 1e-5)


@pytest.mark.parametrize("run", ["inpaint", "size128"])
def test_gradients_of_the_transformer_equal_easyanimate(golden: Any, tmp_path: Path, run: str) -> None:
    tensors, meta = golden("train_easyanimate_v3_objective")
    how = meta["runs"][run]
    weights, case = golden(how["weights_from"])
    model = Transformer3DModel.from_pretrained(published_folder(tmp_path / "transformer", weights, case["config"]))
    given = {k.removeprefix(f"inputs/{run}."): v for k, v in tensors.items() if k.startswith(f"inputs/{run}.")}
    sizes = {k.removeprefix("added_cond."): v for k, v in given.items() if k.startswith("added_cond.")}
    told = {name: given[name] for name in TRANSFORMER_INPUTS if name in given}
    objective = easyanimate_objective()

    drawn = objective.show(given["latents"], given["noise"], given["timesteps"])
    output = model(
        drawn.noisy,
        drawn.timesteps,
        **told,
        added_cond_kwargs=sizes or {"resolution": None, "aspect_ratio": None},
    ).sample
    loss = objective.loss(drawn, output)["loss"]
    loss.backward()

    own = dict(model.named_parameters())
    names = {k.removeprefix("weights/") for k in weights if k.startswith("weights/")}
    parameters = {name: own[new] for name in names if (new := PUBLISHED_KEYS.rename(name)) is not None}
    assert error(output.detach(), tensors[f"outputs/{run}.model_output"]) <= 1e-5
    assert error(loss.detach(), tensors[f"outputs/{run}.loss"]) <= 1e-5
    assert_gradient_norms(parameters, tensors[f"outputs/{run}.grad_norm_of_each_parameter"])
    for key, recorded in tensors.items():
        if key.startswith(f"outputs/{run}.grad."):
            gradient = parameters[key.removeprefix(f"outputs/{run}.grad.")].grad
            assert gradient is not None
            assert error(gradient, recorded) <= 1e-4, key
