"""Memory of each module, and over time."""

from __future__ import annotations

import json
import mmap
import sys

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from muybridge.debug import MemoryWatch
from muybridge.debug.memory_watch import execution_device
from muybridge.errors import ConfigError

ROWS, WIDTH = 64, 32
TENSOR = ROWS * WIDTH * 4


def stack(layers: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(layers)))


def watch(net: nn.Module, grad: bool = False, device: str = "cpu"):
    watching = MemoryWatch(net)
    x = torch.zeros(ROWS, WIDTH, device=device)
    with torch.set_grad_enabled(grad), watching:
        y = net(x)
        del y
    return watching.report()


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("layers", [2, 5])
def test_the_peak_of_a_stack_is_the_analytic_one(layers, device):
    report = watch(stack(layers).to(device), device=device)
    peaks = {module.module: (module.peak_bytes, module.added_bytes) for module in report.modules}
    # At inference a layer's input lives while its output is made, and what is before goes.
    assert peaks["0"] == (TENSOR, TENSOR)
    assert peaks[str(layers - 1)] == (2 * TENSOR, TENSOR)
    assert peaks[""] == (2 * TENSOR, 2 * TENSOR)
    assert report.peak_bytes == 2 * TENSOR


def test_training_keeps_what_the_backward_pass_needs():
    report = watch(stack(5), grad=True)
    # Each layer keeps its input for the gradient of its weights; the last output is the fifth.
    assert report.peak_bytes == 5 * TENSOR
    assert report.modules[-1].peak_bytes == 5 * TENSOR


def test_an_inner_peak_is_not_lost_in_the_outer_one():
    class Wide(nn.Module):
        def forward(self, x):
            return x.repeat(1, 8).sum(-1, keepdim=True) + x

    net = nn.Sequential(Wide(), nn.Linear(WIDTH, WIDTH))
    report = watch(net)
    peaks = {module.module: module.peak_bytes for module in report.modules}
    assert peaks["0"] >= 8 * TENSOR
    assert peaks[""] == peaks["0"] == report.peak_bytes
    assert peaks["1"] == 2 * TENSOR
    assert report.largest(1)[0].module in {"", "0"}


def test_the_timeline_is_ordered_and_saved(tmp_path):
    report = watch(stack(2))
    assert [(each.module, each.event) for each in report.timeline] == [
        ("", "start"),
        ("0", "start"),
        ("0", "end"),
        ("1", "start"),
        ("1", "end"),
        ("", "end"),
    ]
    times = [each.seconds for each in report.timeline]
    assert times == sorted(times)
    assert [each.values["tensors"] for each in report.timeline] == [0, 0, TENSOR, TENSOR, 2 * TENSOR, TENSOR]
    assert all(each.values["resident"] > 2**20 for each in report.timeline)
    paths = report.save(tmp_path)
    assert json.loads(paths[0].read_text())["peak_bytes"] == 2 * TENSOR
    with Image.open(paths[1]) as picture:
        assert picture.width > 100
    assert "2.00" not in str(report).splitlines()[0]
    assert "peak of the run: 0.02 MiB of tensors" in str(report)


def test_the_process_itself_can_be_measured():
    net = stack(1)
    before = MemoryWatch(net, measure="device")
    with before, torch.no_grad():
        net(torch.zeros(1, WIDTH))
    watching = MemoryWatch(net, measure="device")
    # 256 MiB that are written to, and that no allocator has kept from before.
    with watching, torch.no_grad(), mmap.mmap(-1, 2**28) as held:
        for start in range(0, 2**28, mmap.PAGESIZE):
            held[start] = 1
        net(torch.zeros(1, WIDTH))
    report = watching.report()
    assert report.measure == "resident"
    if sys.platform == "linux":
        assert report.peak_bytes - before.report().peak_bytes > 200 * 2**20


def test_results_stay_the_same(net, x):
    plain = net(x, torch.ones(()))
    with MemoryWatch(net):
        assert torch.equal(net(x, torch.ones(())), plain)


def test_an_error_inside_ends_it(net, x):
    watching = MemoryWatch(net)
    with pytest.raises(RuntimeError), watching:
        net(x[:, :3], torch.ones(()))
    assert not watching.active
    assert _get_current_dispatch_mode() is None
    assert watching.report().modules == []


def test_settings_are_checked(net):
    with pytest.raises(ConfigError, match="'tensors' or 'device'"):
        MemoryWatch(net, measure="all")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="CUDA"):
        MemoryWatch(net, snapshot="here")
    with MemoryWatch(net) as watching, pytest.raises(ConfigError, match="has ended"):
        watching.report()


class Offloaded:
    """A pipeline whose weights wait on the CPU for their turn on a GPU."""

    _execution_device = torch.device("cuda")

    def __init__(self, net: nn.Module) -> None:
        self.components = {"unet": net}


def test_a_pipeline_knows_better_than_its_weights_where_it_computes(net, tmp_path):
    assert execution_device(Offloaded(net)) == torch.device("cuda")
    MemoryWatch(Offloaded(net), snapshot=tmp_path / "snapshot.pickle")  # refused for what computes on a CPU
    assert execution_device({"vae": nn.Identity(), "unet": net}) == torch.device("cpu")
    assert execution_device(stack(1).to("meta")) == torch.device("meta")
    assert execution_device(nn.Identity()) == torch.device("cpu")


@pytest.mark.gpu
def test_a_snapshot_that_cannot_be_written_ends_the_history(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    (tmp_path / "file").write_text("")
    watching = MemoryWatch(stack(1).cuda(), snapshot=tmp_path / "file" / "snapshot.pickle")
    with pytest.raises(OSError, match="file"), watching:
        pass
    events = len(torch.cuda.memory._snapshot().get("device_traces", [[]])[0])
    held = torch.zeros(2**24, device="cuda")
    assert len(torch.cuda.memory._snapshot().get("device_traces", [[]])[0]) == events
    del held


@pytest.mark.gpu
def test_cuda_peaks_and_snapshot(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    net = stack(3).cuda()
    watching = MemoryWatch(net, measure="device", snapshot=tmp_path / "snapshot.pickle")
    with watching, torch.no_grad():
        net(torch.zeros(ROWS, WIDTH, device="cuda"))
    report = watching.report()
    assert report.measure == "allocated"
    assert next(m for m in report.modules if m.module == "").added_bytes >= 2 * TENSOR
    assert (tmp_path / "snapshot.pickle").stat().st_size > 0
