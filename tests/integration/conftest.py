"""A whole EasyAnimate of tiny random networks, of the classes that real models have."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from tests import tiny_models

from muybridge.pipelines import EasyAnimatePipeline


@pytest.fixture(scope="session")
def make_easyanimate() -> Callable[..., EasyAnimatePipeline]:
    """A maker of pipelines that are all the same, for 8 frames of 32 x 32."""
    return partial(tiny_models.make_easyanimate, num_layers=6)
