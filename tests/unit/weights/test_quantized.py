"""Weights in 8 bits with scales beside them, and packings that are refused by name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from muybridge.errors import CheckpointError
from muybridge.weights.files import read_weights

F8 = torch.float8_e4m3fn
WEIGHT = torch.tensor([[1.0, -2.0], [3.0, 4.0], [0.0, 8.0]])


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ({"x.scale_weight": torch.tensor(0.5), "x.scale_input": torch.ones(1)}, WEIGHT * 0.5),
        ({"x.weight_scale": torch.tensor([[1.0], [2.0], [3.0]])}, WEIGHT * torch.tensor([[1.0], [2.0], [3.0]])),
        ({"x.weight_scale": torch.tensor([2.0]).bfloat16(), "x.input_scale": torch.ones(1)}, WEIGHT * 2),
    ],
)
@pytest.mark.parametrize("dtype", [F8, torch.float8_e5m2, torch.int8])
def test_scales_are_multiplied_in(
    tmp_path: Path, beside: dict[str, Tensor], expected: Tensor, dtype: torch.dtype
) -> None:
    marker = {"scaled_fp8": torch.zeros(2).to(F8), "x.bias": torch.ones(3)}
    save_file({"x.weight": WEIGHT.to(dtype)} | beside | marker, tmp_path / "w.safetensors")
    found = read_weights(tmp_path / "w.safetensors")
    assert found.keys() == {"x.weight", "x.bias"}
    assert torch.equal(found["x.weight"], expected)


def test_eight_bits_without_scales_and_scales_of_something_else_stay(tmp_path: Path) -> None:
    state = {
        "x.weight": WEIGHT.to(F8),
        "y.weight": WEIGHT,
        "y.weight_scale": torch.ones(1),
        "y.input_scale": torch.ones(1),
    }
    save_file(state, tmp_path / "w.safetensors")
    found = read_weights(tmp_path / "w.safetensors")
    assert found.keys() == state.keys()
    assert found["x.weight"].dtype == F8


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"x.weight": torch.zeros(8, 1).byte(), "x.weight.absmax": torch.ones(1)},
            r"as by bitsandbytes \(x.weight.absm",
        ),
        ({f"{i}.qweight": torch.zeros(1, dtype=torch.int32) for i in range(9)}, r"GPTQ.*2\.qweight and 6 more\)"),
        ({"x.weight._data": torch.zeros(1).char()}, "as by quanto"),
        ({"x.weight": torch.zeros(2, 2).to(F8), "x.weight_scale_inv": torch.ones(1, 1)}, "a scale for every block"),
        ({"x.weight": torch.zeros(2, 8).byte(), "x.weight_scale": torch.ones(1)}, r"has x.weight as \[2, 8\] in uint8"),
        ({"x.weight": torch.zeros(2, 8).to(F8), "x.weight_scale": torch.ones(2, 4)}, r"with a scale of \[2, 4\]"),
    ],
)
def test_other_packings_are_named(tmp_path: Path, state: dict[str, Tensor], message: str) -> None:
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=message):
        read_weights(tmp_path / "w.safetensors")


@pytest.mark.skipif(importlib.util.find_spec("gguf") is not None, reason="the package that reads GGUF is here")
def test_gguf_without_its_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.ckpt").write_bytes(b"GGUF\x03" + b"\0" * 64)
    with pytest.raises(CheckpointError, match=r"is a GGUF file.*pip install gguf.*in place of GGUF"):
        read_weights(tmp_path / "w.ckpt")


def test_gguf_is_read(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    values = torch.linspace(-1, 1, 64).view(2, 32)
    writer = gguf.GGUFWriter(tmp_path / "w.gguf", "sd1")
    writer.add_tensor("plain", values.numpy())
    writer.add_tensor(
        "packed",
        gguf.quants.quantize(values.numpy(), gguf.GGMLQuantizationType.Q8_0),
        raw_dtype=gguf.GGMLQuantizationType.Q8_0,
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_weights(tmp_path / "w.gguf")
    assert torch.equal(found["plain"], values)
    assert found["packed"].shape == values.shape
    assert torch.allclose(found["packed"].float(), values, atol=0.01)
    (tmp_path / "w.gguf").write_bytes((tmp_path / "w.gguf").read_bytes()[:60])
    with pytest.raises(CheckpointError, match="is a GGUF file that is damaged"):
        read_weights(tmp_path / "w.gguf")


@pytest.mark.parametrize("stored", [torch.int8, F8])
def test_weights_with_scales_take_the_precision_that_is_asked_for(tmp_path: Path, stored: torch.dtype) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"x.weight": torch.ones(2, 8).to(stored), "x.weight_scale": torch.tensor(0.5)}, path)
    found = read_weights(path, torch.bfloat16)
    assert found["x.weight"].dtype == torch.bfloat16
    assert torch.equal(found["x.weight"].float(), torch.full((2, 8), 0.5))
