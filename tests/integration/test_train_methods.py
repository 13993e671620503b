"""Every way to train a model that exists: its run file for two steps on a shipped model, and what comes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from muybridge import load_pipeline
from muybridge.checkpoints.locate import locate_model
from muybridge.checkpoints.motion_files import read_motion
from muybridge.errors import CheckpointError, ConfigError
from muybridge.training.run import run_training
from muybridge.vae import AutoencoderKLMagvit

RUNS = Path(__file__).resolve().parents[2] / "runs"
SMALL = {"num_frames": 2, "num_inference_steps": 2, "seed": 1, "output_type": "latent"}


def trained(tmp_path_factory: pytest.TempPathFactory, name: str, *settings: str) -> Path:
    """A run of two steps."""
    output = tmp_path_factory.mktemp("runs") / name
    run_training(RUNS / f"{name}.yaml", list(settings), output)
    return output


def tiny(*stages: str) -> list[str]:
    values = ("steps=2", "batch_size=1", "processes=1", "log_every=1", "warmup_steps=0", "mixed_precision=no")
    return [
        f"{stage}{value}" for stage in (f"{stage}." if stage else "" for stage in stages or ("",)) for value in values
    ]


def header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.fixture(scope="module")
def animatediff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stages = ("domain-adapter", "motion-adapter")
    more = ["domain-adapter.rank=4", "motion-adapter.num_frames=2", "motion-adapter.whole_clip_share=0"]
    return trained(tmp_path_factory, "animatediff", *tiny(*stages), *more)


@pytest.fixture(scope="module")
def motion_lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory, "motion-lora", *tiny(), "rank=2", "num_frames=2", "about.author=nobody")


def test_the_two_stages_leave_files_that_other_programs_read(animatediff: Path) -> None:
    ours = load_file(animatediff / "motion-adapter/exported/motion_adapter/diffusion_pytorch_model.safetensors")
    file = load_file(animatediff / "animatediff.safetensors")
    theirs = diffusers.MotionAdapter.from_pretrained(animatediff / "animatediff-diffusers")

    spelled = {key.replace(".temporal_transformer", ""): value for key, value in file.items()}
    assert spelled.keys() >= ours.keys()
    assert all(torch.equal(value, spelled[key]) for key, value in ours.items())
    name = "down_blocks.0.motion_modules.0.proj_out.weight"
    assert torch.equal(theirs.state_dict()[name], ours[name])
    assert float(ours[name].abs().max()) > 0


def test_what_another_stage_was_built_on_gets_no_more_steps(animatediff: Path) -> None:
    stages = ("domain-adapter", "motion-adapter")
    more = ["domain-adapter.rank=4", "motion-adapter.num_frames=2", "motion-adapter.whole_clip_share=0"]
    with pytest.raises(ConfigError, match="'motion-adapter' has begun with what came out of it"):
        run_training(RUNS / "animatediff.yaml", [*tiny(*stages), *more, "domain-adapter.steps=3"], animatediff)


def test_the_domain_adapter_is_in_the_published_layout_and_frozen(animatediff: Path) -> None:
    beside = load_file(animatediff / "animatediff-domain-adapter.safetensors")
    assert all(".processor.to_" in key and "motion" not in key for key in beside)
    assert "down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_v_lora.up.weight" in beside
    pipeline = load_pipeline(animatediff / "model")
    assert not pipeline.get_list_adapters()
    pipeline.load_lora_weights(animatediff / "animatediff-domain-adapter.safetensors", weight=0.5)


@pytest.mark.slow
def test_modules_go_on_from_a_file_or_from_the_models_own(animatediff: Path, tmp_path: Path) -> None:
    run_file = RUNS / "custom-motion.yaml"
    text = run_file.read_text()
    own = tmp_path / "own.yaml"
    own.write_text(text[: text.index("    motion:")] + "    start: own\n    num_frames: 2\n")
    once = [*tiny(), "steps=1", "learning_rate=1e-9", "other_learning_rate=1e-9", "whole_clip_share=0"]

    file = str(animatediff / "animatediff-diffusers")
    for start, before in (
        ("own", load_pipeline("demo/animatediff").motion_adapter),
        (file, read_motion(file).adapter),
    ):
        output = tmp_path / Path(start).name
        run_training(own, [*once, f"start={start}"], output)
        name = "down_blocks.0.motion_modules.0.proj_out.weight"
        after = load_file(output / "motion-adapter/exported/motion_adapter/diffusion_pytorch_model.safetensors")
        torch.testing.assert_close(after[name], before.state_dict()[name].float(), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_before_training_is_what_the_modules_began_as_and_still_is_after_a_pause(tmp_path: Path) -> None:
    text = (RUNS / "custom-motion.yaml").read_text()
    own = tmp_path / "own.yaml"
    own.write_text(text[: text.index("    evaluation:")] + "    start: own\n    num_frames: 2\n")
    looks = ["learning_rate=0.02", "whole_clip_share=0", "evaluation.every=1"]
    assert run_training(own, [*tiny(), *looks], tmp_path / "run", None, until=1) is None
    run_training(own, [*tiny(), *looks], tmp_path / "run")

    log = (tmp_path / "run/motion-adapter/log.jsonl").read_text().splitlines()
    first, middle, last = (json.loads(line) for line in log)
    for level in ("t350", "t550", "t750"):
        loss, gap = f"held_out_loss/{level}", f"adapter_gap/{level}"
        assert first[gap] == 0
        for later in (middle, last):
            assert later[loss] != first[loss]
            assert later[loss] * (1 + later[gap]) == pytest.approx(first[loss], rel=1e-5)  # as it is logged


@pytest.mark.slow
def test_an_image_model_learns_to_move(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(locate_model("demo/animatediff"), tmp_path / "stills"))
    for name in ("motion_adapter", "keyframe_control"):
        shutil.rmtree(folder / name)
    unet = json.loads((folder / "unet/config.json").read_text())
    unet |= {"_class_name": "UNet2DConditionModel"}
    (folder / "unet/config.json").write_text(json.dumps({k: v for k, v in unet.items() if k != "motion_adapter"}))
    index = json.loads((folder / "model_index.json").read_text())
    parts = {name: index[name] for name in ("scheduler", "text_encoder", "vae")}
    parts |= {"tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", **parts}))
    settings = [*tiny("domain-adapter", "motion-adapter"), "motion-adapter.num_frames=2", "domain-adapter.rank=2"]
    bases = [f"{stage}.base={folder}" for stage in ("domain-adapter", "motion-adapter")]

    run_training(RUNS / "animatediff.yaml", [*settings, *bases], tmp_path / "run")

    pipeline = load_pipeline(tmp_path / "run/model")
    assert pipeline.scheduler.config["beta_schedule"] == "linear"
    assert pipeline.backbone.motion_adapter is not None


def test_a_motion_lora_is_in_the_published_layout_and_says_what_it_is(motion_lora: Path) -> None:
    file = motion_lora / "motion-lora.safetensors"
    assert all(".temporal_transformer.transformer_blocks.0.attention_blocks." in key for key in load_file(file))
    said = header(file)
    assert said["ss_network_dim"] == "2"
    assert said["ss_base_model_version"] == "sd_v1"
    assert said["modelspec.author"] == "nobody"
    assert said["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert said["modelspec.hash_sha256"] == f"0x{said['sshs_model_hash']}"
    assert (said["ss_resolution"], said["modelspec.resolution"]) == ("(64, 64)", "64x64")
    assert said["ss_optimizer"].startswith("muon(")
    assert len(said["ss_sd_model_hash"]) == 8
    pipeline = load_pipeline("demo/animatediff")
    pipeline.load_lora_weights(file)
    assert pipeline.get_active_adapters() == ["motion_lora"]


def test_sketches_change_what_the_model_makes(tmp_path_factory: pytest.TempPathFactory) -> None:
    output = trained(tmp_path_factory, "sparse-control", *tiny(), "num_frames=2", "whole_clip_share=0")
    pipeline = load_pipeline(output / "model")
    pipeline.set_progress_bar_config(disable=True)
    sketch = torch.zeros(64, 64, 3, dtype=torch.uint8).numpy()
    sketch[20:22] = 255

    plain, drawn = (pipeline("a red circle", sketches=given, **SMALL) for given in (None, {0: sketch}))

    assert float((plain - drawn).abs().max()) > 1e-4


def test_a_transformer_learns_its_motion_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    output = trained(tmp_path_factory, "transformer", *tiny(), "train=transformer_blocks.1.attn_temporal")

    before = load_pipeline("demo/easyanimate").backbone.state_dict()
    after = load_file(output / "transformer/exported/transformer/diffusion_pytorch_model.safetensors")
    changed = {name for name, value in after.items() if not torch.equal(value, before[name].float())}
    assert changed
    assert all(name.startswith("transformer_blocks.1.attn_temporal.") for name in changed)
    assert load_pipeline(output / "model").backbone.motion_adapter is not None


def test_a_distilled_model_runs_in_four_steps(tmp_path_factory: pytest.TempPathFactory) -> None:
    output = trained(
        tmp_path_factory, "distil", *tiny(), "rank=2", "layers=spatial", "num_frames=2", "whole_clip_share=0"
    )

    pipeline = load_pipeline("demo/animatediff")
    pipeline.set_progress_bar_config(disable=True)
    how = {**SMALL, "scheduler": "lcm", "num_inference_steps": 4, "guidance_scale": 1.0}
    plain = pipeline("a red circle", **how)
    pipeline.load_lora_weights(output / "distil.safetensors")
    changed = pipeline("a red circle", **how)

    assert changed.isfinite().all()
    assert float((plain - changed).abs().max()) > 1e-4


def test_a_transformer_is_distilled_too(tmp_path: Path) -> None:
    text = (RUNS / "distil.yaml").read_text()
    run_file = tmp_path / "distil.yaml"
    kept = [line for line in text.splitlines() if line.split(":")[0].strip() not in ("num_frames", "whole_clip_share")]
    run_file.write_text("\n".join(kept))
    settings = ["base=demo/easyanimate", "layers=attn1.to_q", "rank=2", "steps=1"]

    file = run_training(run_file, [*tiny(), *settings], tmp_path / "run")

    assert all(key.startswith("transformer.") for key in load_file(file))


def test_a_decoder_is_trained_against_discriminators(tmp_path_factory: pytest.TempPathFactory) -> None:
    output = trained(tmp_path_factory, "autoencoder", *tiny(), "loss.adversarial.start=1", "num_frames=1")

    log = (output / "autoencoder/log.jsonl").read_text().splitlines()
    assert "discriminator_loss" not in log[0]
    assert "discriminator_loss" in log[1]
    before = load_pipeline("demo/easyanimate").vae.state_dict()
    pipeline = load_pipeline("demo/easyanimate", vae=str(output / "vae"))
    after = pipeline.vae.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in changed)


@pytest.mark.slow
def test_a_video_vae_begins_as_one_of_pictures(tmp_path_factory: pytest.TempPathFactory) -> None:
    more = ["base=demo/animatediff", "kind=slice", "train=all", "loss.adversarial=null", "steps=1"]
    output = trained(tmp_path_factory, "autoencoder", *tiny(), *more)

    vae = AutoencoderKLMagvit.from_pretrained(output / "vae")
    assert vae.config["slice_compression_vae"]
    assert vae.config["scaling_factor"] != 1.0


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("motion-lora", ["camera=dolly"], "camera"),
        ("motion-lora", ["camera_extent=[0.5,0.2]"], "the smaller first"),
        ("motion-lora", ["camera=null"], "camera_extent is of a camera move"),
        ("motion-lora", ["objective.min_snr=5"], "timestep_shift and objective both"),
        ("motion-lora", ["num_frames=20"], "has 16 frames"),
        ("domain-adapter", ["base=demo/easyanimate"], "a domain adapter is for models with a U-Net"),
        ("animatediff", ["motion-adapter.start=own"], "leave motion out, or start"),
        ("animatediff", ["motion-adapter.motion.config.trained_frames=null"], "motion.config.trained_frames"),
        (
            "animatediff",
            ["motion-adapter.domain_adapter=null"],
            "makes two models, by its stages domain-adapter and motion-adapter",
        ),
        ("transformer", ["base=demo/animatediff"], "has a U-Net, and this stage is for transformers"),
        ("transformer", ["train=nowhere"], "matches 'nowhere'; use one of all, motion"),
        ("transformer", ["train=(all"], "no regular expression"),
        ("transformer", ["layouts=[original]"], "cannot be written in the original's layout"),
        ("distil", ["guidance=[0.5,2]"], "two scales of at least 1"),
        ("distil", ["timestep_shift=2"], "distilled against itself"),
        ("distil", ["solver_steps=50"], "multiple of them"),
        ("distil", ["phases=1"], "give phases, or leave target out"),
        ("distil", ["base=demo/easyanimate"], "leave num_frames and whole_clip_share out"),
        ("autoencoder", ["loss.adversarial.start=2000"], "there are 1000 steps"),
        ("autoencoder", ["kind=image"], "is of the kind slice, and cannot be trained as image"),
        ("lora", ["train.text_encoder_2={}"], "has no text_encoder_2"),
        ("lora", ["train.backbone.layers=motion"], "both say which layers learn"),
    ],
)
def test_what_is_refused(name: str, change: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, CheckpointError), match=message):
        run_training(RUNS / f"{name}.yaml", change, tmp_path / "run")
    assert not list(tmp_path.glob("run/*/training_state.pt"))
