"""The first value that is not a number is named, described, saved and replayed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from muybridge.debug import Anomaly, AnomalyGuard, replay_anomaly
from muybridge.errors import ConfigError, InputFileError, NonFiniteError
from muybridge.motion import MotionContext, TemporalConfig, TemporalMotionModule

STEPS = [torch.tensor(801), torch.tensor(601), torch.tensor(401)]


def run(net: nn.Module, x: Tensor) -> Tensor:
    for step in STEPS:
        x = net(x, step)
    return x


def of(guard: AnomalyGuard) -> Anomaly:
    assert guard.anomaly is not None
    return guard.anomaly


def saved(anomaly: Anomaly) -> Path:
    assert anomaly.reproduction is not None
    return anomaly.reproduction


def found(net: nn.Module, x: Tensor, **settings) -> Anomaly:
    guard = AnomalyGuard(net, **settings)
    with pytest.raises(NonFiniteError) as error, guard, torch.no_grad():
        run(net, x)
    assert str(guard.anomaly) == str(error.value)
    return of(guard)


def test_a_nan_in_a_weight_is_found_in_the_innermost_module(net, x):
    with torch.no_grad():
        net.blocks[1].second.weight[3, 2] = torch.nan

    anomaly = found(net, x)

    assert (anomaly.module, anomaly.label) == ("blocks.1.second", "blocks.1.second (Linear)")
    assert (anomaly.kind, anomaly.direction, anomaly.arose) == ("NaN", "forward", "inside")
    assert anomaly.step == "step 1 (timestep 801)"
    assert [each.non_finite for each in anomaly.weights] == [1 / 64, 0.0]
    assert anomaly.outputs[0].non_finite == pytest.approx(4 / 32)
    assert anomaly.inputs[0].non_finite == 0
    assert anomaly.inputs[0].maximum == pytest.approx(float(torch.tanh(_into_second(net, x)).max()))


def _into_second(net, x):
    with torch.no_grad():
        return net.blocks[1].first(x + net.blocks[0](x))


def test_the_step_is_counted(net, x):
    def steps() -> None:
        for step in [STEPS[0], STEPS[0], STEPS[1]]:  # two branches of guidance in one step
            net(x, step)
        net.head.bias.fill_(torch.inf)
        net(x, timestep=STEPS[2])

    guard = AnomalyGuard(net)
    with pytest.raises(NonFiniteError, match=r"step 3 \(timestep 401\)"), guard, torch.no_grad():
        steps()
    assert of(guard).kind == "infinite"


def test_what_comes_from_between_modules_is_said_to(net, x):
    net.blocks[2].divisor = 0.0
    anomaly = found(net, x)
    assert (anomaly.module, anomaly.arose, anomaly.kind) == ("blocks.2.second", "before", "infinite")


def test_an_overflow_is_found_before_it_is_infinite(net, x):
    half = net.to(torch.float16)
    with torch.no_grad():
        half.blocks[0].second.bias[5] = 62_000.0
    anomaly = found(half, x.half())
    assert (anomaly.module, anomaly.kind) == ("blocks.0.second", "overflow")
    assert anomaly.outputs[0].maximum == pytest.approx(62_000, rel=0.01)
    assert anomaly.outputs[0].non_finite == 0
    with AnomalyGuard(half, overflow_share=1.0), torch.no_grad():
        half.blocks[0](x.half())


def test_the_value_that_masks_are_made_of_is_no_overflow():
    class Mask(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.masked_fill(x < 0, torch.finfo(x.dtype).min)

    x = torch.tensor([1.0, -1.0], dtype=torch.float16)
    with AnomalyGuard(Mask()):
        Mask()(x)
    mask = Mask()
    with pytest.raises(NonFiniteError, match="overflow"), AnomalyGuard(mask):
        mask(torch.tensor([65_000.0, -1.0], dtype=torch.float16))


def test_results_and_gradients_stay_the_same(net, x):
    plain = run(net, x)
    plain.sum().backward()
    expected = {name: weight.grad.clone() for name, weight in net.named_parameters()}
    net.zero_grad()
    with AnomalyGuard(net, copy_inputs=True) as guard:
        watched = run(net, x)
        watched.sum().backward()
    assert torch.equal(plain, watched)
    assert all(torch.equal(weight.grad, expected[name]) for name, weight in net.named_parameters())
    assert guard.anomaly is None
    assert not any(weight._backward_hooks for weight in net.parameters())


class Root(nn.Module):
    """Fine forward at zero, infinite backward."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=0).sqrt()


class Rooted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(4, 4, bias=False)
        self.root = Root()
        self.after = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.root(self.before(x)))


def make_rooted() -> Rooted:
    torch.manual_seed(0)
    net = Rooted()
    with torch.no_grad():
        net.before.weight.zero_()
    return net


def test_a_gradient_is_traced_to_its_module(tmp_path):
    net = make_rooted()
    guard = AnomalyGuard(net, folder=tmp_path)
    with pytest.raises(NonFiniteError, match=r"root \(Root\), backward"), guard:
        net(torch.ones(2, 4)).sum().backward()
    anomaly = of(guard)
    assert (anomaly.module, anomaly.direction, anomaly.arose) == ("root", "backward", "inside")
    assert anomaly.outputs[0].non_finite == 0
    assert anomaly.inputs[0].non_finite > 0
    replay = replay_anomaly(saved(anomaly), net)
    assert replay.gradients["input/0"].non_finite > 0
    assert replay.statistics[0].non_finite == 0


def test_a_loss_is_not_blamed_on_a_layer():
    net = make_rooted()
    guard = AnomalyGuard(net)
    with pytest.raises(NonFiniteError, match="after after"), guard:
        (net(torch.ones(2, 4)).sum() * torch.tensor(float("nan"))).backward()
    assert (of(guard).module, of(guard).arose) == ("after", "after")


def test_backward_can_be_left_out():
    net = make_rooted()
    with AnomalyGuard(net, backward=False):
        net(torch.ones(2, 4)).sum().backward()
    assert not torch.isfinite(net.before.weight.grad).all()  # pyright: ignore[reportArgumentType]


def test_autograds_own_mode_goes_with_it():
    class Bad(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self) -> Tensor:
            return (self.weight.sqrt() * torch.zeros(3)).sum()  # 0 * inf backward

    bad = Bad()
    caught = pytest.raises(NonFiniteError, match="SqrtBackward0")
    with pytest.warns(UserWarning, match="SqrtBackward0"), caught, AnomalyGuard(bad, autograd=True):
        bad().backward()
    assert not torch.is_anomaly_enabled()


def test_the_call_is_saved_and_replayed(net, x, tmp_path):
    with torch.no_grad():
        net.blocks[1].second.weight[0, 0] = torch.nan
    anomaly = found(net, x, folder=tmp_path)
    assert saved(anomaly) == tmp_path / "anomaly-blocks.1.second.json"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "anomaly-blocks.1.second.json",
        "anomaly-blocks.1.second.safetensors",
    ]
    assert json.loads(saved(anomaly).read_text())["kind"] == "NaN"
    tensors = load_file(tmp_path / "anomaly-blocks.1.second.safetensors")
    assert set(tensors) == {"input/0", "state/weight", "state/bias", "recorded/output"}

    with torch.no_grad():
        net.blocks[1].second.weight.nan_to_num_()
    kept = net.blocks[1].second.weight.clone()
    for target in (net, net.blocks[1].second):
        replay = replay_anomaly(saved(anomaly), target)
        assert replay.identical
        assert replay.statistics[0].non_finite == anomaly.outputs[0].non_finite
    assert torch.equal(net.blocks[1].second.weight, kept)


def test_the_layout_in_memory_is_replayed_too(tmp_path):
    class Strides(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.new_tensor(x.stride()) / 0

    net = Strides()
    guard = AnomalyGuard(net, folder=tmp_path)
    x = torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last)
    with pytest.raises(NonFiniteError), guard:
        net(x)
    strides: list[tuple[int, ...]] = []
    net.register_forward_pre_hook(lambda _module, args: strides.append(args[0].stride()))
    assert replay_anomaly(saved(of(guard)), net).identical
    assert strides == [x.stride()]


def test_a_motion_module_is_replayed_with_its_context(tmp_path):
    torch.manual_seed(0)
    module = TemporalMotionModule(TemporalConfig(num_heads=2, norm_groups=4), 8)
    nn.init.normal_(module.proj_out.weight)

    class Site(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.site = module

        def forward(self, features: Tensor, context: MotionContext) -> Tensor:
            return self.site(features, context)

    site = Site().eval()
    features = torch.randn(1, 3, 2, 2, 8)
    context = MotionContext(torch.arange(3.0), strength=1e38)
    guard = AnomalyGuard(site, folder=tmp_path)
    with pytest.raises(NonFiniteError), guard, torch.no_grad():
        site(features * 1e3, context)
    assert of(guard).module == "site"
    assert replay_anomaly(saved(of(guard)), site).identical


def test_in_place_changes_of_the_input_are_said(tmp_path):
    class Grows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.div_(0.0)

    net = Grows()
    guard = AnomalyGuard(net)
    with pytest.raises(NonFiniteError, match="copy_inputs"), guard:
        net(torch.ones(3))
    assert of(guard).inputs_changed
    assert of(guard).arose == "inside"
    guard = AnomalyGuard(net, copy_inputs=True, folder=tmp_path)
    with pytest.raises(NonFiniteError), guard:
        net(torch.ones(3))
    assert of(guard).inputs[0].maximum == 1
    assert replay_anomaly(saved(of(guard)), net).identical


def test_wrong_files_and_targets_are_refused(net, x, tmp_path):
    with pytest.raises(InputFileError, match="cannot be read"):
        replay_anomaly(tmp_path / "none.json", net)
    with torch.no_grad():
        net.head.weight[0] = torch.inf
    path = saved(found(net, x, folder=tmp_path))
    with pytest.raises(ConfigError, match="no module 'head'"):
        replay_anomaly(path, net.blocks[0])
    (tmp_path / "anomaly-head.json").write_text('{"format": "other"}')
    with pytest.raises(InputFileError, match="not the reproduction"):
        replay_anomaly(path, net)
    (Path(path)).write_text("{")
    with pytest.raises(InputFileError, match="cannot be read"):
        replay_anomaly(path, net)


def test_only_classes_of_ours_are_made_from_a_file(net, x, tmp_path):
    with torch.no_grad():
        net.head.weight[0] = torch.inf
    path = saved(found(net, x, folder=tmp_path))
    content = json.loads(path.read_text())
    content["args"] = [{"dataclass": "subprocess:Popen", "fields": {"args": {"value": "false"}}}]
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="subprocess:Popen"):
        replay_anomaly(path, net)


def test_settings_are_checked(net):
    with pytest.raises(ConfigError, match="overflow_share"):
        AnomalyGuard(net, overflow_share=0)
    with pytest.raises(ConfigError, match="no networks"):
        AnomalyGuard({})
    with AnomalyGuard(net) as guard, pytest.raises(ConfigError, match="in use"):
        guard.__enter__()


def test_autocast_of_the_call_is_replayed_though_backward_runs_outside(tmp_path):
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.weight).sqrt()

    net = Product()
    guard = AnomalyGuard(net, folder=tmp_path)
    with guard:
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(torch.ones(2, 4)).sum()
        with pytest.raises(NonFiniteError, match="backward"):
            loss.backward()
    assert json.loads(saved(of(guard)).read_text())["autocast"] == "bfloat16"
    replay = replay_anomaly(saved(of(guard)), net)
    assert replay.output.dtype == torch.bfloat16
    assert replay.gradients["weight weight"].non_finite == 1


def test_autocast_forward_is_replayed(tmp_path):
    net = nn.Linear(4, 4)
    with torch.no_grad():
        net.bias.fill_(torch.inf)
    guard = AnomalyGuard(net, folder=tmp_path)
    with pytest.raises(NonFiniteError), guard, torch.autocast("cpu", torch.bfloat16):
        net(torch.ones(2, 4))
    replay = replay_anomaly(saved(of(guard)), net)
    assert (replay.identical, replay.output.dtype) == (True, torch.bfloat16)


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_bad_gradient_from_outside_is_known_for_each_input(wrong, tmp_path):
    class Joins(nn.Module):
        def forward(self, one: Tensor, other: Tensor) -> Tensor:
            return torch.cat([one, other])

    net = Joins()
    guard = AnomalyGuard(net, folder=tmp_path)
    one, other = (torch.ones(1, requires_grad=True) * 1 for _ in range(2))
    factors = torch.ones(2)
    factors[wrong] = torch.nan
    with guard, pytest.raises(NonFiniteError, match="after Joins"):
        (net(one, other) * factors).sum().backward()
    assert of(guard).arose == "after"
    assert "gradient/output" in load_file(saved(of(guard)).with_suffix(".safetensors"))


def test_torch_takes_no_module_for_a_hooked_one_afterwards() -> None:
    with AnomalyGuard(nn.Sequential(nn.Linear(2, 2))):
        pass

    assert not nn.modules.module._has_any_global_hook()
