"""Who is told of a run besides its log."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from muybridge.errors import ConfigError
from muybridge.training.placement import make_accelerator
from muybridge.training.trackers import chosen_trackers, finish_trackers, flattened, start_trackers


def test_unknown_and_missing_ones_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no tracker 'paper'. There are: .*tensorboard.*wandb"):
        chosen_trackers(["paper"])
    with pytest.raises(ConfigError, match="clearml is not installed: pip install clearml"):
        chosen_trackers(["clearml"])


def test_tensorboard_is_the_default_where_it_is_installed() -> None:
    assert chosen_trackers(None) == (["tensorboard"] if find_spec("tensorboard") else [])
    assert chosen_trackers(()) == []


def test_settings_become_one_level() -> None:
    nested = {"steps": 3, "schedule": {"name": "plateau", "decay_from": None}, "debug": [], "compile": True}
    flat = {"steps": 3, "schedule.name": "plateau", "schedule.decay_from": "None", "debug": "[]", "compile": True}
    assert flattened(nested) == flat


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="not installed")
@pytest.mark.filterwarnings("ignore")
def test_tensorboard_is_told(tmp_path: Path) -> None:
    accelerator = make_accelerator(chosen_trackers(["tensorboard"]), str(tmp_path))
    start_trackers(accelerator, "run", {"schedule": {"name": "plateau"}})
    accelerator.log({"loss": 1.0}, step=1)
    finish_trackers(accelerator)
    assert list((tmp_path / "trackers" / "run").glob("events.out.tfevents.*"))


def test_without_trackers_nothing_is_written(tmp_path: Path) -> None:
    accelerator = make_accelerator([], str(tmp_path))
    start_trackers(accelerator, "run", {})
    accelerator.log({"loss": 1.0}, step=1)
    finish_trackers(accelerator)
    assert list(tmp_path.iterdir()) == []
