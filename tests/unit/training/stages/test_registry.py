"""Stages and sets of clips of one's own, by name in a run file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
import yaml
from pydantic import Field
from torch import Tensor, nn

from muybridge.errors import ConfigError
from muybridge.training.data import ClipsWanted, TrainingData
from muybridge.training.run import run_training
from muybridge.training.run_file import load_run
from muybridge.training.stages import registry
from muybridge.training.stages.registry import register_data, register_stage, stage_classes, training_data
from muybridge.training.stages.stage import LastStage, RunSettings, Stage, StageWork, exported_part


@pytest.fixture(autouse=True)
def _only_here(monkeypatch: pytest.MonkeyPatch) -> None:
    stage_classes()
    monkeypatch.setattr(registry, "_STAGES", dict(registry._STAGES))
    monkeypatch.setattr(registry, "_DATA", dict(registry._DATA))


class Line(nn.Module):
    """A straight line through numbers."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([slope]))

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": (self.slope * batch["x"] - batch["y"]).square().mean()}

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "slope.txt").write_text(str(self.slope.item()))


class LineStage(LastStage):
    """Fit a line."""

    parts: ClassVar[tuple[str, ...]] = ("line",)
    product: ClassVar[str] = "a line"
    has_defaults: ClassVar[bool] = False

    method: Literal["line"]
    start: float = Field(default=0.0, ge=0)

    def prepare(self, output: Path, data: TrainingData) -> StageWork:
        line = Line(self.start)
        wanted = ClipsWanted(self.batch_size, self.seed, tokenizer=None, caption_dropout=0.0)  # type: ignore[arg-type]
        return StageWork(line, data.clips(wanted), lambda: {"line": line})

    def publish(self, run: RunSettings, output: Path) -> Path:
        return exported_part(output, self.method, "line").rename(output / run.name)


class Numbers:
    """Numbers and their doubles."""

    def clips(self, wanted: ClipsWanted) -> Any:
        def batch(index: int) -> dict[str, Tensor]:
            x = torch.arange(1.0, 1 + wanted.batch_size) + index
            return {"x": x, "y": 2 * x}

        return batch


def written(folder: Path, **changes: Any) -> Path:
    stages = [{"method": "line", "steps": 3, "batch_size": 2, "warmup_steps": 0}]
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"name": "fit", "data": "numbers", "stages": stages, **changes}))
    return path


def test_a_stage_and_its_clips_need_no_more_than_their_names(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(ConfigError, match=r"must be one of 'vae'.*'lora' \(given 'line'\)"):
        load_run(path)
    register_stage(LineStage)
    with pytest.raises(
        ConfigError, match=r"data: must be 'demo-world' or the path of a folder of clips \(given 'numbers'\)"
    ):
        load_run(path)
    register_data("numbers")(Numbers)  # type: ignore[type-var]

    made = run_training(path, ["start=1"], tmp_path / "out")

    assert made == tmp_path / "out" / "fit"
    assert float((made / "slope.txt").read_text()) > 1
    with pytest.raises(ConfigError, match=r"line\.start: must be at least 0"):
        load_run(path, ["start=-1"])
    with pytest.raises(ConfigError, match="makes a line, which has no default_steps of its own"):
        load_run(path, ["default_steps=3"])


def test_a_name_is_given_once() -> None:
    class Other(LineStage):
        pass

    register_stage(LineStage)
    register_stage(LineStage)
    with pytest.raises(ConfigError, match=r"a stage 'line' already, LineStage of .*Other of .* needs another name"):
        register_stage(Other)
    with pytest.raises(ConfigError, match="a set of clips 'demo-world' already, DemoWorld of"):
        register_data("demo-world")(Numbers)  # type: ignore[type-var]


def test_a_stage_must_say_its_name() -> None:
    class Nameless(LineStage):
        method: str  # type: ignore[assignment]

    with pytest.raises(ConfigError, match="Nameless must name its method"):
        register_stage(Nameless)


def test_shipped_stages_come_first_and_in_their_order() -> None:
    register_stage(LineStage)

    methods = [registry.method_of(cls) for cls in stage_classes()]

    assert methods[:4] == ["vae", "text", "image", "motion"]
    assert methods[-2:] == ["lora", "line"]
    assert all(issubclass(cls, Stage) for cls in stage_classes())


def test_unknown_clips_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no set of clips 'mine'\. There are: demo-world"):
        training_data("mine")
