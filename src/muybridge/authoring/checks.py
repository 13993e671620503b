"""The contract of motion modules, checked: every promise that a kind makes, on a site of either backbone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from muybridge.authoring import check_gradients as gradients
from muybridge.authoring import check_running as running
from muybridge.authoring import check_values as values
from muybridge.authoring.check_subjects import Finding, Status, Subject, make_subjects, registered_name
from muybridge.errors import ConfigError
from muybridge.motion import MotionModule, Origin, kind_origin
from muybridge.motion.registry import make_config
from muybridge.types import SettingsDict, SettingsView


@dataclass(frozen=True)
class CheckResult:
    """One line of the table.

    Attributes:
        name: of the check.
        status: "not applicable" also where a check that it builds on has failed.
        detail: a sentence with the figures.
    """

    name: str
    status: Status
    detail: str


@dataclass(frozen=True)
class MotionCheckReport:
    """What the checks of a kind have found.

    Attributes:
        kind: its name.
        origin: the package that it comes from.
        results: in order.
    """

    kind: str
    origin: Origin
    results: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no check has failed."""
        return not self.failures

    @property
    def failures(self) -> list[str]:
        """Names of the checks that have failed."""
        return [result.name for result in self.results if result.status == "failed"]

    def with_result(self, result: CheckResult) -> MotionCheckReport:
        """The report with one more line."""
        return replace(self, results=(*self.results, result))

    def to_dict(self) -> SettingsDict:
        """Plain values."""
        return {
            "kind": self.kind,
            "package": self.origin.package,
            "version": self.origin.version,
            "passed": self.passed,
            "checks": [asdict(result) for result in self.results],
        }

    def __str__(self) -> str:
        names = [max(len(getattr(result, part)) for result in self.results) for part in ("name", "status")]
        lines = [f"{r.name.ljust(names[0])}  {r.status.ljust(names[1])}  {r.detail}" for r in self.results]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Check:
    name: str
    run: Callable[[Subject], Finding]
    needs: tuple[str, ...] = ("shape",)
    both: bool = True  # or at the U-Net's site alone, where the backbone makes no difference


_CHECKS = (
    _Check("builds", values.check_build, ()),
    _Check("shape", values.check_shape, ("builds",)),
    _Check("dtype", values.check_dtype),
    _Check("device", values.check_device, both=False),
    _Check("input unchanged", values.check_input),
    _Check("deterministic", values.check_determinism),
    _Check("identity at start", values.check_identity),
    _Check("strength", values.check_strength, ("input unchanged", "deterministic")),
    _Check("gradients", gradients.check_gradients),
    _Check("numerical gradient", gradients.check_numerical_gradient, ("dtype", "deterministic")),
    _Check("number of frames", running.check_frames),
    _Check("batch", values.check_batch, ("deterministic",)),
    _Check("frame order", values.check_order, ("deterministic",)),
    _Check("causality", values.check_causality, ("deterministic",)),
    _Check("bfloat16", values.check_bfloat16, ("dtype", "deterministic", "number of frames")),
    _Check("compile", running.check_compile, ("deterministic",), both=False),
    _Check("saved and loaded", running.check_saving, ("deterministic",), both=False),
    _Check("cost", running.check_cost, both=False),
)
CHECK_NAMES = tuple(check.name for check in _CHECKS)
"""All checks, in the order in which they run."""


def check_motion_module(
    motion: str | type[MotionModule],
    config: SettingsView | None = None,
    only: Collection[str] | None = None,
) -> MotionCheckReport:
    """Check everything that a motion module must keep to. On the CPU; takes some seconds.

    Weights and inputs are drawn from fixed seeds, so that the verdicts repeat; only times differ.

    Args:
        motion: a kind, or a class that is registered.
        config: its settings, where the defaults do not suit widths of 32 and 64 channels.
        only: names of checks; all if not given. What they build on runs too.

    Raises:
        ConfigError: an unknown kind, setting or check, or a class that is not registered. What a module does wrong is
            never raised: it stands in the report.
    """
    kind = motion if isinstance(motion, str) else registered_name(motion)
    make_config(kind, dict(config or {}))
    chosen = _chosen(only)
    subjects = make_subjects(kind, dict(config or {}))
    results: dict[str, CheckResult] = {}
    for check in _CHECKS:
        if check.name in chosen:
            results[check.name] = _result(check, subjects, results)
    return MotionCheckReport(kind, kind_origin(kind), tuple(results.values()))


def _chosen(only: Collection[str] | None) -> set[str]:
    names = set(CHECK_NAMES if only is None else only)
    if unknown := sorted(names - set(CHECK_NAMES)):
        raise ConfigError(f"There is no check {', '.join(unknown)}. Checks: {', '.join(CHECK_NAMES)}.")
    for check in reversed(_CHECKS):  # what a check needs stands before it
        if check.name in names:
            names.update(check.needs)
    return names


def _result(check: _Check, subjects: Sequence[Subject], before: Mapping[str, CheckResult]) -> CheckResult:
    for need in check.needs:
        if before[need].status != "passed":
            return CheckResult(check.name, "not applicable", f"waits for {need!r} to pass")
    found = {subject.label: _found(check, subject) for subject in (subjects if check.both else subjects[:1])}
    status = _worst([finding.status for finding in found.values()])
    details = {label: finding.detail for label, finding in found.items() if finding.status == status}
    if len(set(details.values())) == 1 and (len(details) == len(subjects) or not check.both):
        return CheckResult(check.name, status, next(iter(details.values())))
    return CheckResult(check.name, status, "; ".join(f"{label}: {detail}" for label, detail in details.items()))


def _worst(statuses: Sequence[Status]) -> Status:
    order: tuple[Status, ...] = ("failed", "passed", "reported", "not applicable")
    return min(statuses, key=order.index)


def _found(check: _Check, subject: Subject) -> Finding:
    try:
        return check.run(subject)
    except Exception as error:  # a module under examination may do anything
        reason = " ".join(str(error).split())
        return Finding("failed", f"{type(error).__name__}: {reason[:300]}")
