"""Weights that are converted while they are read: the same bits, and never two whole copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from muybridge.debug.tensor_memory import TensorMemory
from muybridge.errors import CheckpointError
from muybridge.weights import precision
from muybridge.weights.files import read_weights
from muybridge.weights.loading import is_finite, load_folder
from muybridge.weights.precision import convert_, wanted

WEIGHTS = {f"layer.{index}.weight": torch.randn(64, 8) for index in range(6)} | {"steps": torch.arange(3)}


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_AT_ONCE", 3 * 64 * 8 * 4)


def save_safetensors(path: Path) -> None:
    save_file(WEIGHTS, path)


def save_zip(path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "epoch": 1}, path)


def save_legacy(path: Path) -> None:
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [save_safetensors, save_zip, save_legacy])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_the_bits_of_a_file_read_whole_and_then_converted(
    tmp_path: Path, save: Callable[[Path], None], dtype: torch.dtype
) -> None:
    save(path := tmp_path / "w.ckpt")
    plain, found = read_weights(path), read_weights(path, dtype)
    assert list(found) == list(plain)
    assert all(
        torch.equal(value, plain[key].to(dtype) if key != "steps" else plain[key]) for key, value in found.items()
    )
    assert {value.dtype for value in found.values()} == {dtype, torch.int64}


def test_a_rule_names_what_is_converted(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "w")

    def rule(state: Mapping[str, Tensor]) -> dict[str, torch.dtype]:
        return {key: torch.float16 for key, value in state.items() if value.ndim == 2 and not key.startswith("layer.1")}

    found = read_weights(tmp_path / "w", rule)
    assert found["layer.0.weight"].dtype == torch.float16
    assert torch.equal(found["layer.1.weight"], WEIGHTS["layer.1.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_pickle_that_is_written_over_leaves_what_was_read(tmp_path: Path, dtype: torch.dtype) -> None:
    save_zip(path := tmp_path / "w.ckpt")
    found = read_weights(path, dtype)
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(found["layer.5.weight"], WEIGHTS["layer.5.weight"].to(dtype))


def test_scaled_weights_are_multiplied_before_they_are_rounded(tmp_path: Path) -> None:
    packed = torch.randn(4, 8).to(torch.float8_e4m3fn)
    file = {"a.weight": packed, "a.scale_weight": torch.tensor(0.37), "b.weight": torch.randn(3, 3)}
    save_file(file, tmp_path / "w")
    found = read_weights(tmp_path / "w", torch.bfloat16)
    assert found.keys() == {"a.weight", "b.weight"}
    assert torch.equal(found["a.weight"], (packed.float() * 0.37).bfloat16())
    assert torch.equal(found["b.weight"], file["b.weight"].bfloat16())


def test_a_mapped_file_is_mapped_anew_for_every_group() -> None:
    state = {key: value.clone() for key, value in WEIGHTS.items()}
    readings: list[int] = []

    def again() -> Mapping[str, Tensor]:
        readings.append(sum(value.numel() > 0 for key, value in state.items() if key != "steps"))
        return WEIGHTS

    convert_(state, wanted(state, torch.bfloat16), again)
    assert readings == [0, 3]  # nothing of the first mapping is held any more
    assert all(torch.equal(state[key], WEIGHTS[key].bfloat16()) for key in WEIGHTS if key != "steps")


def save_vae(folder: Path) -> Any:
    AutoencoderKL(block_out_channels=(32,), norm_num_groups=4).save_pretrained(folder)
    return AutoencoderKL.from_pretrained, "AutoencoderKL", "torch_dtype"


def save_t5(folder: Path) -> Any:
    config = T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=64)
    T5EncoderModel(config).save_pretrained(folder, max_shard_size="20KB")
    return T5EncoderModel.from_pretrained, "T5EncoderModel", "dtype"


class Copies(TensorMemory):
    """Counts tensors with memory of their own: not those on the meta device or of a mapped file."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        making = func.__name__.startswith(("_to_copy", "clone", "empty", "copy_", "mul"))
        return super().__torch_dispatch__(func, types, args, kwargs) if making else func(*args, **(kwargs or {}))

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage.device.type != "meta":
            super()._count(storage)


@pytest.mark.parametrize("save", [save_vae, save_t5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_folder_takes_no_more_than_its_model_and_has_the_bits_of_its_library(
    tmp_path: Path, save: Callable[[Path], Any], dtype: torch.dtype
) -> None:
    loader, name, keyword = save(tmp_path)
    with Copies() as memory:
        loaded = load_folder(loader, tmp_path, name, {keyword: dtype})
    sizes = [value.numel() for value in loaded.parameters()]
    whole = 0 if dtype == torch.float32 else sum(value.nbytes for value in loaded.parameters())
    assert memory.peak_bytes <= whole + 4 * max(sizes)

    theirs = loader(tmp_path, **{keyword: dtype})
    assert loaded.training == theirs.training
    own, other = (dict(getattr(model.config, "to_dict", lambda m=model: m.config)()) for model in (loaded, theirs))
    assert {**own, "_name_or_path": Path(own["_name_or_path"])} == {**other, "_name_or_path": tmp_path}
    for key, value in theirs.state_dict().items():
        assert loaded.state_dict()[key].dtype == value.dtype, key  # T5 keeps some in float32
        assert torch.equal(loaded.state_dict()[key], value), key
    assert [parameter.requires_grad for parameter in loaded.parameters()] == [
        parameter.requires_grad for parameter in theirs.parameters()
    ]


def test_whole_numbers_in_place_of_weights_are_refused(tmp_path: Path) -> None:
    loader, name, keyword = save_vae(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    found = read_weights(path)
    save_file({key: value.clone().to(torch.int8) for key, value in found.items()}, tmp_path / "new")
    (tmp_path / "new").replace(path)
    with pytest.raises(CheckpointError, match="quantized without the scales"):
        load_folder(loader, tmp_path, name, {keyword: torch.float16})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_one_value_that_is_no_number_is_found_anywhere(bad: float, dtype: torch.dtype) -> None:
    for size, place in ((1, 0), (7, 6), (100_003, 50_000), (100_003, 100_002)):
        tensor = torch.randn(size).to(dtype)
        assert is_finite(tensor)
        tensor[place] = bad
        assert not is_finite(tensor)
        assert not is_finite(tensor.flip(0)[::1])
    assert is_finite(torch.empty(0, dtype=dtype))
