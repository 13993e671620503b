"""One process of a stage that several share, as started by torch's launcher."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch

from muybridge.errors import ConfigError
from muybridge.service.runs import load_run
from muybridge.service.training import train_stage

logger = logging.getLogger("muybridge")


def _report(stage: str, step: int, steps: int, metrics: dict[str, float]) -> None:
    logger.info("%s %d/%d %s", stage, step, steps, " ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


def main(arguments: list[str]) -> int:
    """Train the stage named in `[run file, stage, output, *overrides]`."""
    run_file, method, output, *overrides = arguments
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run = load_run(Path(run_file), overrides)
    chosen = [stage for stage in run.stages if stage.method == method]
    if not chosen:
        raise ConfigError(f"{run_file} has no stage {method!r}.")
    torch.set_num_threads(1)  # processes share the cores; more threads would only wait for each other
    try:
        train_stage(chosen[0], Path(output), _report)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
