"""Runs of a few steps that train a LoRA on either shipped model, from the run file to a file that is loaded again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from muybridge import load_pipeline
from muybridge.cli.main import main
from muybridge.demo import models, world
from muybridge.demo.lora_batches import TaughtClips, triples_with
from muybridge.errors import ConfigError
from muybridge.processor import multiplies
from muybridge.training.run import run_training
from muybridge.training.run_file import load_run

RUN_FILE = Path(__file__).resolve().parents[2] / "runs" / "lora.yaml"
TINY = ["steps=3", "batch_size=1", "log_every=1", "warmup_steps=0", "rank=2"]
SMALL = {"num_frames": 2, "num_inference_steps": 2, "seed": 1, "output_type": "latent"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "lora"
    assert run_training(RUN_FILE, [*TINY, "num_frames=2"], output) == output / "lora.safetensors"
    return output


def test_the_file_is_loaded_again_and_acts(trained: Path) -> None:
    pipeline = load_pipeline("demo/animatediff")
    pipeline.set_progress_bar_config(disable=True)
    plain = pipeline("a red circle", **SMALL)

    pipeline.load_lora_weights(trained / "lora.safetensors")

    changed = pipeline("a red circle", **SMALL)
    assert changed.isfinite().all()
    assert float((plain - changed).abs().max()) > 1e-4
    layers = {key.split(".lora_")[0] for key in load_file(trained / "lora.safetensors")}
    assert layers
    assert all("motion_modules" in name for name in layers)
    pipeline.unload_lora_weights()
    assert torch.equal(pipeline("a red circle", **SMALL), plain)


def test_the_command_line_takes_it(trained: Path, tmp_path: Path) -> None:
    arguments = ["a red circle", "--frames", "2", "--steps", "1", "--seed", "3", "--size", "16x16"]
    with pytest.raises(SystemExit) as end:
        main(["generate", *arguments, "--lora", f"{trained / 'lora.safetensors'}:0.5", "-o", str(tmp_path / "a.mp4")])
    assert end.value.code == 0


def test_nothing_but_the_lora_comes_of_it(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {path.name for path in trained.iterdir()} == {"lora", "lora.safetensors"}
    assert not list(trained.rglob("*.part*"))
    settings = [part for each in (*TINY, "num_frames=2") for part in ("--set", each)]
    with pytest.raises(SystemExit) as end:
        main(["train", str(RUN_FILE), *settings, "-o", str(trained)])
    assert end.value.code == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(trained / "lora.safetensors")
    assert shown.err == ""  # it is finished, and not trained again


def test_a_finished_stage_is_given_more_steps(tmp_path: Path) -> None:
    settings = [*TINY, "num_frames=2", "decay_from=1.0"]
    whole = run_training(RUN_FILE, [*settings, "steps=3"], tmp_path / "whole")
    run_training(RUN_FILE, [*settings, "steps=1"], tmp_path / "more")
    assert run_training(RUN_FILE, [*settings, "steps=3"], tmp_path / "more", None, until=2) is None

    more = run_training(RUN_FILE, [*settings, "steps=3"], tmp_path / "more")

    assert_same(more, whole)
    record = tmp_path / "more/lora/exported/trained.json"
    said = record.read_text()
    for damaged in ("{}", "{"):
        record.write_text(damaged)
        with pytest.raises(ConfigError, match=r"trained\.json"):
            run_training(RUN_FILE, [*settings, "steps=3"], tmp_path / "more")
    record.write_text(said)
    shutil.rmtree(tmp_path / "more/lora/checkpoints")
    with pytest.raises(ConfigError, match="its checkpoints are gone"):
        run_training(RUN_FILE, [*settings, "steps=4"], tmp_path / "more")


def test_a_stage_that_was_stopped_before_its_export_is_not_taken_for_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    settings = [*TINY, "num_frames=2", "decay_from=1.0"]
    whole = run_training(RUN_FILE, [*settings, "steps=2"], tmp_path / "whole")
    before = run_training(RUN_FILE, [*settings, "steps=1"], tmp_path / "more")
    short = Path(shutil.copy(before, tmp_path / "short.safetensors"))
    with monkeypatch.context() as patched:
        patched.setattr("muybridge.training.run._export", stop)
        with pytest.raises(KeyboardInterrupt):
            run_training(RUN_FILE, [*settings, "steps=2"], tmp_path / "more")

    # As before it was to go on, it is there already; and with more steps it is not.
    assert_same(run_training(RUN_FILE, [*settings, "steps=1"], tmp_path / "more"), short)
    assert_same(run_training(RUN_FILE, [*settings, "steps=2"], tmp_path / "more"), whole)


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = load_file(one), load_file(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_record_says_which_precision_auto_became(trained: Path, tmp_path: Path) -> None:
    path = trained / "lora" / "settings.json"
    fast = "bf16" if multiplies(torch.bfloat16) else "no"
    assert json.loads(path.read_text())["mixed_precision"] == fast

    begun = Path(shutil.copytree(trained, tmp_path / "run"))
    other = {"bf16": "no", "no": "bf16"}[fast]
    (begun / "lora" / "settings.json").write_text(path.read_text().replace(f'"{fast}"', f'"{other}"'))

    run_training(RUN_FILE, [*TINY, "num_frames=2"], begun)  # as if it had begun on another machine
    with pytest.raises(ConfigError, match=r"other settings \(mixed_precision\)"):
        run_training(RUN_FILE, [*TINY, "num_frames=2", f"mixed_precision={fast}"], begun)
    assert load_run(RUN_FILE, ["mixed_precision=no"]).stages[0].mixed_precision == "no"  # which YAML takes for False


def test_an_interrupted_run_continues_where_it_was(trained: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def stop_at_first(_: str, step: int, __: int, ___: dict[str, float]) -> None:
        seen.append(step)
        if len(seen) == 1:
            raise KeyboardInterrupt

    settings = [*TINY, "num_frames=2"]
    with pytest.raises(KeyboardInterrupt):
        run_training(RUN_FILE, settings, tmp_path / "run", stop_at_first)
    assert not (tmp_path / "run" / "lora.safetensors").exists()
    with pytest.raises(ConfigError, match=r"has begun with other settings \(taught\)"):
        run_training(RUN_FILE, [*settings, "taught=growing"], tmp_path / "run")
    run_training(RUN_FILE, settings, tmp_path / "run", stop_at_first)

    assert seen == [1, 2, 3]
    first, second = (load_file(folder / "lora.safetensors") for folder in (trained, tmp_path / "run"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_looks_change_nothing_of_what_is_learned(trained: Path, tmp_path: Path) -> None:
    looked_at = [*TINY, "num_frames=2", "evaluation.every=1", "evaluation.prompts=[]"]
    assert run_training(RUN_FILE, looked_at, tmp_path / "run", None, until=2) is None
    run_training(RUN_FILE, looked_at, tmp_path / "run")

    log = [json.loads(line) for line in (tmp_path / "run/lora/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "held_out_loss/t350" in line] == [0, 1, 2, 3]
    plain, looked = (load_file(folder / "lora.safetensors") for folder in (trained, tmp_path / "run"))
    assert plain.keys() == looked.keys()
    assert all(torch.equal(plain[key], looked[key]) for key in plain)


def test_a_transformer_learns_too(tmp_path: Path) -> None:
    settings = [*TINY, "steps=1", "base=demo/easyanimate", "layers=attn1.to_q", "taught=cyan", "dialect=kohya"]
    file = run_training(RUN_FILE, [*settings, "name=cyan"], tmp_path / "run")

    assert file is not None
    assert file == tmp_path / "run" / "cyan.safetensors"
    assert all(key.startswith("lora_unet__transformer_blocks_") for key in load_file(file))
    pipeline = load_pipeline("demo/easyanimate")
    pipeline.load_lora_weights(file)
    assert pipeline.get_active_adapters() == ["cyan"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("taught=dancing", "a motion or a colour; given 'dancing'"),
        ("layers=(attn", "is no regular expression"),
        ("layers=nowhere", "matches 'nowhere'; use one of motion, spatial, attention, linear"),
        ("rank=0", "rank"),
        ("default_steps=4", "has no default_steps of its own"),
        ("base=demo/easyanimate", "leave num_frames out"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_trained(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_training(RUN_FILE, [*TINY, "num_frames=2", change], tmp_path / "run")
    assert not list(tmp_path.glob("run/*/checkpoints"))


def test_clips_show_what_their_captions_leave_unsaid() -> None:
    tokenizer = models.make_tokenizer()
    for taught, words in (("moving left", {"left", "moving", "going"}), ("cyan", {"cyan"})):
        batches = TaughtClips(8, 1, tokenizer, taught, num_frames=4, caption_dropout=0.0)
        drawn = [batches(index) for index in range(6)]
        said = {word for batch in drawn for text in tokenizer.batch_decode(batch["input_ids"]) for word in text.split()}
        assert {"circle", "square"} <= said
        assert not said & words
        assert all(taught in triple for triple in triples_with(taught))
        assert taught not in world.COLOURS or not said & set(world.COLOURS), "no other colour is shown"
        assert torch.equal(batches(3)["pixels"], drawn[3]["pixels"])
        assert drawn[0]["pixels"].shape == (8, 4, 3, 64, 64)
        assert drawn[0]["unknown"].all()
    log = {each.method: json.loads(each.model_dump_json()) for each in load_run(RUN_FILE).stages}
    assert log["lora"]["taught"] == "moving left"
