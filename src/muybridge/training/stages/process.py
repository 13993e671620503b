"""One process of a stage that several share, as started by torch's launcher."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch
from torch import distributed

from muybridge.checkpoints.quiet_loading import quiet_loading
from muybridge.errors import ConfigError, MuybridgeError
from muybridge.training.run import train_stage
from muybridge.training.run_file import load_run

logger = logging.getLogger("muybridge")


def main(arguments: list[str]) -> int:
    """Train the stage named in `[run file, stage, output, last step or "", *overrides]`.

    The exit codes are the command line's.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logger.setLevel(logging.INFO)
    torch.set_num_threads(1)  # processes share the cores; more threads would only wait for each other
    try:
        with quiet_loading():
            _train(arguments)
    except KeyboardInterrupt:
        return 130
    except MuybridgeError as error:
        logger.error("muybridge: %s", error)
        return 2
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
    return 0


def _train(arguments: list[str]) -> None:
    run_file, method, output, until, *overrides = arguments
    run = load_run(Path(run_file), overrides)
    for stage in run.stages:
        if stage.method == method:
            train_stage(run, stage, Path(output), _report, int(until) if until else None)
            return
    raise ConfigError(f"{run_file} has no stage {method!r}.")


def _report(stage: str, step: int, steps: int, metrics: dict[str, float]) -> None:
    logger.info("%s %d/%d  %s", stage, step, steps, "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
