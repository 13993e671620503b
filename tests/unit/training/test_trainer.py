"""The training loop: it learns, stops, goes on, and refuses what it cannot go on with."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from muybridge.errors import CheckpointError, ConfigError, NonFiniteError, OutputError, TrainingError
from muybridge.processor import multiplies
from muybridge.training.checkpoints import CHECKPOINTS_FOLDER, STATE_FILE, Checkpoint, Checkpoints
from muybridge.training.optimizers import OptimizerName, OptimizerSettings
from muybridge.training.origin import Origin, digest_of_models
from muybridge.training.schedules import ScheduleSettings
from muybridge.training.sharing import check_parameters
from muybridge.training.state import WHOLE_FILE
from muybridge.training.trainer import LOG_FILE, Trainer, TrainerConfig

CONFIG = TrainerConfig(
    steps=12,
    schedule=ScheduleSettings(warmup_steps=2),
    log_every=1,
    mixed_precision="no",
    learning_rate=0.05,
    trackers=(),
)


class Regression(nn.Module):
    """A small method: a network learns a fixed linear map from noisy samples."""

    def __init__(self, width: int = 8, poisoned_from: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))
        self.poisoned_from = poisoned_from
        self.calls = 0

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        self.calls += 1
        inputs = batch["inputs"]
        noisy = inputs + 0.01 * torch.randn(inputs.shape, generator=generator)
        error = self.layers(noisy) - inputs[:, :2].flip(1)
        loss = error.float().square().mean()
        if self.poisoned_from is not None and self.calls > self.poisoned_from:
            loss = loss * float("nan")
        return {"loss": loss, "largest_error": error.detach().abs().max()}


def samples(index: int) -> dict[str, Tensor]:
    return {"inputs": torch.randn(16, 4, generator=torch.Generator().manual_seed(index))}


def trainer(folder: Path, config: TrainerConfig = CONFIG, method: nn.Module | None = None) -> Trainer:
    return Trainer(Regression() if method is None else method, samples, config, folder)


def state_in(folder: Path) -> dict[str, Any]:
    def read(found: Checkpoint) -> dict[str, Any]:
        return found.facts | torch.load(found.folder / WHOLE_FILE, weights_only=True)

    return Checkpoints(folder).newest(read) or {}


def log_in(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / LOG_FILE).read_text().splitlines()]


def stop_after(step: int, stop: Callable[[], None]) -> Callable[[int, int, dict[str, float]], None]:
    def progress(done: int, _: int, __: dict[str, float]) -> None:
        if done == step:
            stop()

    return progress


def interrupt() -> None:
    raise KeyboardInterrupt


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def test_the_loss_falls_and_is_logged(tmp_path):
    seen: list[tuple[int, int]] = []

    trainer(tmp_path / "new", replace(CONFIG, steps=60)).fit(lambda step, steps, _: seen.append((step, steps)))

    log = log_in(tmp_path / "new")
    assert [line["step"] for line in log] == list(range(1, 61))
    names = {"step", "seconds", "loss", "largest_error", "gradient_norm", "learning_rate", "clipped"}
    assert log[0].keys() == names
    assert [line["learning_rate"] for line in log[:3]] == [0.025, 0.05, 0.05]
    assert log[-1]["loss"] < 0.3 * log[0]["loss"]
    assert [line["seconds"] for line in log] == sorted(line["seconds"] for line in log)
    assert seen == [(step, 60) for step in range(1, 61)]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {LOG_FILE, CHECKPOINTS_FOLDER}


def test_only_every_so_manieth_step_is_logged(tmp_path):
    trainer(tmp_path, replace(CONFIG, log_every=5)).fit()

    assert [line["step"] for line in log_in(tmp_path)] == [5, 10, 12]


def test_both_precisions_work_in_one_program(tmp_path):
    for precision in ("bf16", "no"):
        trainer(tmp_path / precision, replace(CONFIG, steps=2, mixed_precision=precision)).fit()

    full, mixed = (state_in(tmp_path / name)["parameters"] for name in ("no", "bf16"))
    assert not equal(full, mixed)
    assert all(value.dtype == torch.float32 for value in mixed.values())


def test_auto_is_what_is_fast_here_and_stays_what_it_began_with(tmp_path):
    fast = "bf16" if multiplies(torch.bfloat16) else "no"
    other = {"bf16": "no", "no": "bf16"}[fast]
    auto = replace(CONFIG, steps=1, mixed_precision="auto")
    for name, precision in (("new", "auto"), ("begun", other)):
        trainer(tmp_path / name, replace(auto, mixed_precision=precision)).fit()

    assert state_in(tmp_path / "new")["settings"]["mixed_precision"] == fast
    assert trainer(tmp_path / "begun", auto).config.mixed_precision == other
    assert trainer(tmp_path / "new", replace(auto, mixed_precision=fast)).config.mixed_precision == fast
    with pytest.raises(ConfigError, match="mixed_precision"):
        trainer(tmp_path / "new", replace(auto, mixed_precision=other))


def test_resuming_equals_not_stopping(tmp_path):
    trainer(tmp_path / "whole").fit()

    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "parts").fit(stop_after(5, interrupt))
    assert state_in(tmp_path / "parts")["step"] == 5
    trainer(tmp_path / "parts").fit()

    whole, parts = state_in(tmp_path / "whole"), state_in(tmp_path / "parts")
    for name in ("step", "settings", "metrics", "parameters", "optimizers", "ema"):
        assert equal(whole[name], parts[name]), name
    assert [line["step"] for line in log_in(tmp_path / "parts")] == list(range(1, 13))


def test_the_average_is_what_is_handed_out(tmp_path):
    run = trainer(tmp_path)
    run.fit()
    weight = next(run.method.parameters())
    live = weight.detach().clone()

    with run.ema.applied():
        average = weight.detach().clone()

    assert not torch.equal(average, live)
    assert torch.equal(average, state_in(tmp_path)["ema"]["average"]["layers.0.weight"])


@pytest.fixture
def _signals_are_heard() -> Iterator[None]:
    """Where the tests run in the background of a shell, SIGINT comes to them ignored."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals_are_heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_step_and_save(tmp_path, number):
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path).fit(stop_after(3, lambda: os.kill(os.getpid(), number)))

    assert state_in(tmp_path)["step"] == 3
    assert {each: signal.getsignal(each) for each in before} == before


def test_an_ignored_signal_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        trainer(tmp_path).fit(stop_after(3, lambda: os.kill(os.getpid(), signal.SIGINT)))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)

    assert state_in(tmp_path)["step"] == 12


def test_training_works_outside_the_main_thread(tmp_path):
    thread = threading.Thread(target=lambda: trainer(tmp_path).fit())

    thread.start()
    thread.join()

    assert state_in(tmp_path)["step"] == 12


def test_states_are_written_from_time_to_time(tmp_path):
    run = trainer(tmp_path, replace(CONFIG, checkpoint_seconds=1e-9), Regression(poisoned_from=7))

    with pytest.raises(TrainingError):
        run.fit()

    assert state_in(tmp_path)["step"] == 7


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_state(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path).fit(stop_after(4, interrupt))
    before = contents(tmp_path / CHECKPOINTS_FOLDER)

    with pytest.raises(TrainingError, match=r"Step 6: loss nan.*learning rate"):
        trainer(tmp_path, method=Regression(poisoned_from=2)).fit()

    assert contents(tmp_path / CHECKPOINTS_FOLDER) == before


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    trainer(tmp_path).fit()
    again = trainer(tmp_path)

    again.fit()

    assert again.method.calls == 0
    assert [line["step"] for line in log_in(tmp_path)] == list(range(1, 13))


def test_steps_may_be_added(tmp_path):
    trainer(tmp_path).fit()

    trainer(tmp_path, replace(CONFIG, steps=14, log_every=2, checkpoint_seconds=9.0)).fit()

    assert state_in(tmp_path)["step"] == 14


def test_other_settings_are_refused_by_name(tmp_path):
    trainer(tmp_path, replace(CONFIG, steps=1)).fit()

    with pytest.raises(ConfigError, match=r"learning_rate, seed.*another output folder"):
        trainer(tmp_path, replace(CONFIG, seed=5, learning_rate=1.0))


@pytest.mark.parametrize("other", [Regression(width=9), nn.Sequential(Regression())], ids=["shapes", "names"])
def test_the_state_of_another_model_is_refused(tmp_path, other):
    trainer(tmp_path, replace(CONFIG, steps=1)).fit()

    with pytest.raises(ConfigError, match="another model"):
        trainer(tmp_path, method=other)


class Payload:
    """Would make a file when unpickled by a careless reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_state_that_would_run_code_is_refused(tmp_path):
    trap = tmp_path / "trap"
    torch.save({"step": 1, "parameters": Payload(trap)}, tmp_path / STATE_FILE)

    with pytest.raises(CheckpointError, match=STATE_FILE):
        trainer(tmp_path)

    assert not trap.exists()


def old_state(folder: Path, config: TrainerConfig = CONFIG) -> dict[str, Any]:
    """What version 0.1 wrote for a run that was interrupted."""
    with pytest.raises(KeyboardInterrupt):
        trainer(folder, config).fit(stop_after(5, interrupt))
    new = state_in(folder)
    names = ("steps", "learning_rate", "other_learning_rate", "ema_decay", "max_gradient_norm", "seed")
    old = {name: new["settings"][name] for name in (*names, "log_every", "mixed_precision", "checkpoint_seconds")}
    old |= {name: new["settings"]["schedule"][name] for name in ("warmup_steps", "decay_from")}
    shutil.rmtree(folder / CHECKPOINTS_FOLDER)
    return {name: new[name] for name in ("step", "seconds", "parameters", "optimizers", "ema")} | {"config": old}


def test_a_run_of_version_0_1_goes_on(tmp_path):
    trainer(tmp_path / "whole").fit()
    torch.save(old_state(tmp_path / "old"), tmp_path / "old" / STATE_FILE)

    with pytest.raises(ConfigError, match="schedule"):
        trainer(tmp_path / "old", replace(CONFIG, schedule=ScheduleSettings(warmup_steps=3)))
    trainer(tmp_path / "old").fit()

    assert equal(state_in(tmp_path / "whole")["parameters"], state_in(tmp_path / "old")["parameters"])
    assert not (tmp_path / "old" / STATE_FILE).exists()


@pytest.mark.parametrize("kind", ["truncated", "garbage", "empty", "incomplete", "list"])
def test_a_damaged_state_of_version_0_1_is_refused(tmp_path, kind):
    path = tmp_path / STATE_FILE
    torch.save(old_state(tmp_path), path)
    if kind in ("incomplete", "list"):
        torch.save({"step": 1} if kind == "incomplete" else [1], path)
    else:
        path.write_bytes({"truncated": path.read_bytes()[:900], "garbage": b"not a state", "empty": b""}[kind])

    with pytest.raises(CheckpointError, match="delete the file"):
        trainer(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(OutputError, match="another"):
        trainer(tmp_path / "file" / "run").fit()


def test_nothing_trainable_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="frozen"):
        trainer(tmp_path, method=Regression().requires_grad_(False))


class Exact(Regression):
    """Without noise, so that a batch is as good as its parts."""

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        del generator
        error = self.layers(batch["inputs"]) - batch["inputs"][:, :2].flip(1)
        return {"loss": error.float().square().mean(), "rows": torch.tensor(float(len(error)))}


def test_accumulated_batches_are_one_large_batch(tmp_path):
    def joined(index: int) -> dict[str, Tensor]:
        return {"inputs": torch.cat([samples(3 * index + part)["inputs"] for part in range(3)])}

    large = Trainer(Exact(), joined, CONFIG, tmp_path / "large")
    parts = Trainer(Exact(), samples, replace(CONFIG, accumulate=3), tmp_path / "parts")
    large.fit()
    parts.fit()

    for one, other in zip(large.method.parameters(), parts.method.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
    for one, other in zip(log_in(tmp_path / "large"), log_in(tmp_path / "parts"), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert other["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4)
        assert (one["rows"], other["rows"]) == (48, 16)


def test_float16_scales_the_loss_and_goes_on(tmp_path):
    config = replace(CONFIG, mixed_precision="fp16")
    trainer(tmp_path / "whole", config).fit()
    trainer(tmp_path / "parts", config).fit(until=5)
    trainer(tmp_path / "parts", config).fit()

    whole, parts = state_in(tmp_path / "whole"), state_in(tmp_path / "parts")
    assert whole["scaler"] == parts["scaler"]
    assert equal(whole["parameters"], parts["parameters"])
    assert log_in(tmp_path / "whole")[-1]["loss"] < log_in(tmp_path / "whole")[0]["loss"]


def test_a_step_of_float16_that_overflows_is_left_out(tmp_path):
    class Overflowing(Regression):
        def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
            values = super().forward(batch, generator)
            first = next(self.layers.parameters())
            large = 3e37 if self.calls == 1 else 0
            return values | {"loss": values["loss"] + (first - first.detach()).sum() * large}

    run = trainer(tmp_path, replace(CONFIG, steps=1, mixed_precision="fp16"), Overflowing())
    before = [p.detach().clone() for p in run.method.parameters()]
    run.fit()
    assert all(torch.equal(p, old) for p, old in zip(run.method.parameters(), before, strict=True))
    assert state_in(tmp_path)["scaler"]["scale"] == 32768.0
    method = Overflowing()
    method.calls = 1
    again = trainer(tmp_path, replace(CONFIG, steps=2, mixed_precision="fp16"), method)
    again.fit()
    assert not torch.equal(next(iter(again.method.parameters())), before[0])


def test_without_an_average_the_weights_are_handed_out(tmp_path):
    run = trainer(tmp_path, replace(CONFIG, ema_decay=0.0))
    run.fit()
    live = [p.detach().clone() for p in run.method.parameters()]
    with run.evaluated():
        assert all(torch.equal(p, old) for p, old in zip(run.method.parameters(), live, strict=True))
    assert state_in(tmp_path)["ema"]["average"] == {}


def test_the_place_of_the_average_may_change(tmp_path):
    trainer(tmp_path / "whole").fit()
    trainer(tmp_path / "parts", replace(CONFIG, ema_device="cpu")).fit(until=6)
    trainer(tmp_path / "parts").fit()
    assert equal(state_in(tmp_path / "whole")["ema"], state_in(tmp_path / "parts")["ema"])


def test_a_pause_is_no_other_run(tmp_path):
    trainer(tmp_path / "whole").fit()
    for until in (3, 3, 7, 99):
        trainer(tmp_path / "parts").fit(until=until)
    whole, parts = state_in(tmp_path / "whole"), state_in(tmp_path / "parts")
    assert equal(whole["parameters"], parts["parameters"])
    assert whole["metrics"] == parts["metrics"]


def test_what_is_no_tensor_is_handed_on_and_named_when_the_loss_is_no_number(tmp_path):
    def named(index: int) -> dict[str, Any]:
        return samples(index) | {"ids": [f"clip {index}"], "files": [f"{index}.mp4", "b.mp4"]}

    run = Trainer(Regression(poisoned_from=3), named, replace(CONFIG, accumulate=2), tmp_path)
    message = (
        r"Step 1: loss nan, in batch 2 \(ids clip 2; files 2.mp4, b.mp4\) and batch 3 \(ids clip 3; .*\). "
        r"Values became NaN in Regression, forward, training step 1"
    )
    with pytest.raises(TrainingError, match=message):
        run.fit()


def test_the_guard_names_the_batch_too(tmp_path):
    def named(index: int) -> dict[str, Any]:
        return samples(index) | {"files": [f"{index}.mp4"]}

    run = Trainer(Regression(poisoned_from=1), named, replace(CONFIG, debug=("anomaly",)), tmp_path)
    with pytest.raises(NonFiniteError, match=r"(?s)Values became NaN in Regression.*It was in batch 1 \(files 1.mp4\)"):
        run.fit()


def test_a_rate_of_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="learning_rate must be above 0, as nothing is learned"):
        trainer(tmp_path, replace(CONFIG, learning_rate=0.0))


def test_two_runs_in_one_folder_are_refused(tmp_path):
    def second(*_: object) -> None:
        with pytest.raises(OutputError, match="Another program trains"):
            trainer(tmp_path).fit()

    trainer(tmp_path, replace(CONFIG, log_every=12)).fit(second)


def test_a_base_that_has_changed_is_refused(tmp_path):
    (tmp_path / "base").write_bytes(b"a")
    first = Origin(digest_of_models([tmp_path / "base"]), "clips")
    run = tmp_path / "run"
    Trainer(Regression(), samples, CONFIG, run, first).fit(until=2)
    Trainer(Regression(), samples, CONFIG, run, replace(first, data=None)).fit(until=3)
    (tmp_path / "base").write_bytes(b"b")
    with pytest.raises(ConfigError, match="the model it builds on has changed since it began"):
        Trainer(Regression(), samples, CONFIG, run, replace(first, base=digest_of_models([tmp_path / "base"])))
    with pytest.raises(ConfigError, match="the clips have changed"):
        Trainer(Regression(), samples, CONFIG, run, replace(first, data="others"))


def test_a_broken_checkpoint_costs_the_steps_since_the_one_before(tmp_path, caplog):
    trainer(tmp_path / "whole").fit()
    trainer(tmp_path / "parts").fit(until=4)
    trainer(tmp_path / "parts").fit(until=8)
    state = tmp_path / "parts" / CHECKPOINTS_FOLDER / "step-8" / WHOLE_FILE
    state.write_bytes(state.read_bytes()[:-100])

    again = trainer(tmp_path / "parts")
    assert again.step == 4
    assert "going on from step-4" in caplog.text
    again.fit()

    assert equal(state_in(tmp_path / "whole")["parameters"], state_in(tmp_path / "parts")["parameters"])
    assert [line["step"] for line in log_in(tmp_path / "parts")] == list(range(1, 13))


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path):
    trainer(tmp_path).fit(until=4)
    before = contents(tmp_path / CHECKPOINTS_FOLDER)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = trainer(tmp_path)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
        with pytest.raises(OutputError, match="The one of step 4 is kept"):
            run.fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert contents(tmp_path / CHECKPOINTS_FOLDER) == before


def test_another_way_to_share_out_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="sharding is none, fsdp2 or deepspeed; given horovod"):
        trainer(tmp_path, replace(CONFIG, sharding="horovod"))  # type: ignore[arg-type]


def test_what_deepspeed_needs_is_said(tmp_path, monkeypatch):
    config = replace(CONFIG, sharding="deepspeed", optimizer=OptimizerSettings(name="adamw"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'muybridge\[deepspeed\]'"):
        trainer(tmp_path, config)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(ConfigError, match="sharding deepspeed goes with the optimizer adamw; given muon"):
        trainer(tmp_path, replace(config, optimizer=OptimizerSettings()))
    with pytest.raises(ConfigError, match="debug: gradients does not see"):
        trainer(tmp_path, replace(config, debug=("gradients",)))


@pytest.mark.parametrize("sharding", ["fsdp2", "deepspeed"])
def test_single_numbers_are_not_shared_out(sharding):
    method = nn.Module()
    method.scale = nn.Parameter(torch.zeros(()))
    with pytest.raises(ConfigError, match="single numbers, as scale is"):
        check_parameters(method, replace(CONFIG, sharding=sharding))


def test_what_does_not_go_with_shared_out_weights_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="fp16"):
        trainer(tmp_path, replace(CONFIG, sharding="fsdp2", mixed_precision="fp16"))
    assert trainer(tmp_path, replace(CONFIG, sharding="fsdp2")).step == 0  # one process has all of them


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("prodigy", "prodigyopt"),
        ("schedule-free", "schedulefree"),
        pytest.param(
            "adamw8bit",
            "torchao",
            marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")],  # it compiles its step
        ),
    ],
)
def test_optimizers_of_libraries_go_on_as_if_nothing_had_been(tmp_path: Path, name: OptimizerName, package: str):
    if importlib.util.find_spec(package) is None or (name == "adamw8bit" and shutil.which("g++") is None):
        pytest.skip(f"{package}, or what it needs, is not installed")
    rate = 1.0 if name == "prodigy" else 0.05
    schedule = ScheduleSettings(name="constant", warmup_steps=2)
    config = replace(
        CONFIG, steps=6, learning_rate=rate, optimizer=OptimizerSettings(name=name), schedule=schedule, ema_decay=0.0
    )

    def wide() -> Trainer:
        return trainer(tmp_path, config, Regression(width=256))  # 8 bits are for 4096 numbers and more

    run = Trainer(Regression(width=256), samples, config, tmp_path / "whole")
    before = [p.detach().clone() for p in run.method.parameters()]
    run.fit()
    assert all(not torch.equal(a, b) for a, b in zip(before, run.method.parameters(), strict=True))
    wide().fit(until=3)
    again = wide()
    assert again.step == 3
    again.fit()
    expected, found = run.method.state_dict(), again.method.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    with run.evaluated(), again.evaluated():
        assert all(torch.equal(a, b) for a, b in zip(run.method.parameters(), again.method.parameters(), strict=True))
