"""What Prometheus reads: the store as it is when asked, so that it is true on every replica and after restarts."""

from __future__ import annotations

import bisect
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from muybridge.jobs.record import Job
from muybridge.jobs.store import JobStore

_SECONDS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
_STEP_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)
_STATUSES = ("queued", "in_progress", "completed", "failed")


@dataclass
class _Histogram:
    """How many values lie below each bound, by labels."""

    bounds: Sequence[float]
    counts: dict[tuple[str, ...], list[int]] = field(default_factory=dict)
    sums: dict[tuple[str, ...], float] = field(default_factory=dict)

    def add(self, labels: tuple[str, ...], value: float) -> None:
        counts = self.counts.setdefault(labels, [0] * (len(self.bounds) + 1))
        counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sums[labels] = self.sums.get(labels, 0.0) + value

    def family(self, name: str, said: str, labels: Sequence[str]) -> Metric:
        family = HistogramMetricFamily(name, said, labels=labels)
        for values, counts in self.counts.items():
            total, buckets = 0, []
            for bound, count in zip([*map(str, self.bounds), "+Inf"], counts, strict=True):
                total += count
                buckets.append((bound, total))
            family.add_metric(values, buckets, self.sums[values])
        return family


class StoreCollector(Collector):
    """Reads the store when asked; a finished job is counted once, so that sums never fall when it is removed."""

    def __init__(self, store: JobStore, answered: Counter[tuple[str, int]]) -> None:
        """`answered` is how many calls this process has answered, by route and status."""
        self._store = store
        self._answered = answered
        self._lock = threading.Lock()
        self._revision = -1
        self._counted: set[str] = set()
        self._jobs = _Histogram(_SECONDS)
        self._phases = _Histogram(_SECONDS)
        self._steps = _Histogram(_STEP_SECONDS)
        self._frames = 0
        self._peak = 0.0

    def collect(self) -> Iterator[Metric]:
        """All figures."""
        counts = self._store.counts()
        jobs = GaugeMetricFamily("muybridge_jobs", "Jobs in the store.", labels=["status"])
        for status in _STATUSES:
            jobs.add_metric([status], counts.by_status.get(status, 0))
        yield jobs
        oldest = "How long the oldest job that waits has waited."
        yield GaugeMetricFamily("muybridge_queue_oldest_seconds", oldest, counts.oldest_queued_seconds)
        workers = GaugeMetricFamily("muybridge_workers", "Live workers.", labels=["state"])
        states = Counter(worker.state for worker in self._store.workers() if worker.is_alive)
        for state in ("starting", "idle", "busy", "stopping"):
            workers.add_metric([state], states[state])
        yield workers
        with self._lock:
            self._count_finished()
            yield self._jobs.family("muybridge_job_seconds", "From start to end.", ["model", "outcome"])
            yield self._phases.family("muybridge_phase_seconds", "Of finished jobs, by phase.", ["phase"])
            yield self._steps.family("muybridge_step_seconds", "Of a denoising step, on average of a job.", ["model"])
            yield CounterMetricFamily("muybridge_frames", "Frames made.", self._frames)
            yield GaugeMetricFamily("muybridge_peak_memory_bytes", "Highest of all finished jobs.", self._peak)
        calls = CounterMetricFamily("muybridge_http_requests", "Calls answered.", labels=["route", "code"])
        for (route, status), count in sorted(self._answered.items()):
            calls.add_metric([route, str(status)], count)
        yield calls

    def _count_finished(self) -> None:
        for job in self._store.changed_since(self._revision):
            self._revision = max(self._revision, job.revision)
            if job.is_over and job.id not in self._counted:
                self._counted.add(job.id)
                self._count(job)

    def _count(self, job: Job) -> None:
        if job.started is not None and job.finished is not None:
            outcome = job.error_code or "completed"
            self._jobs.add((job.model, outcome), max(0.0, job.finished - job.started))
        for phase, seconds in job.stage_seconds.items():
            self._phases.add((phase,), seconds)
        if job.steps and (denoising := job.stage_seconds.get("denoise")):
            self._steps.add((job.model,), denoising / job.steps)
        if job.status == "completed":
            self._frames += job.num_frames or 0
        self._peak = max(self._peak, (job.peak_memory_mb or 0.0) * (1 << 20))


def metrics_text(collector: StoreCollector) -> bytes:
    """All figures as Prometheus reads them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)
