"""Updates per second, in windows that take turns, beside the machine's limit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import method_configs
from baq_cli.bench.ceiling import LARGE, Ceiling
from baq_cli.engine.updates.device import on_threads
from baq_cli.engine.updates.synthetic import operations_of, synthetic_updater
from baq_cli.engine.updates.threads import choose_threads
from baq_cli.recipes.load import resolve
from baq_cli.recipes.schema import Recipe
from baq_cli.units import Phase

Path = Literal["eager", "captured"]
RECORD_AFTER, WARM_UP = 2, 12
"""Updates before one is recorded, and before the first window: enough for a capture."""


@dataclass(frozen=True)
class Sizes:
    """What an update works on, the same for every case of a benchmark."""

    batch: int = 256
    hidden: tuple[int, ...] = (256, 256)
    obs_dim: int = 17
    action_dim: int = 6
    rows: int = 100_000


@dataclass(frozen=True)
class Case:
    """One method as it is to be measured. `threads` 0 lets a measurement choose.

    `settings` are keys of the method's section; they win over the sizes.
    """

    algo: str
    seeds: int = 1
    phase: Phase = "offline"
    path: Path = "captured"
    threads: int = 0
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def title(self) -> str:
        given = " ".join(f"{key}={value}" for key, value in self.settings)
        return " ".join(part for part in (self.algo, given) if part)


@dataclass
class Found:
    """What was measured of a case: seed-updates per second and limits, one number a window."""

    case: Case
    threads: int
    gflop_a_seed_update: float
    rates: list[float] = field(default_factory=list)
    draw_shares: list[float] = field(default_factory=list)
    ceilings: list[float] = field(default_factory=list)
    peak_mib: float | None = None

    def shares(self) -> list[float]:
        """Return the share of the limit at the network's size, window by window."""
        reached = [rate * self.gflop_a_seed_update for rate in self.rates]
        return [r / limit for r, limit in zip(reached, self.ceilings, strict=True)]

    def as_dict(self) -> dict[str, Any]:
        """Return everything, with the case's fields beside the numbers."""
        facts = {k: v for k, v in asdict(self).items() if k != "case"}
        case = asdict(self.case) | {"settings": dict(self.case.settings)}
        return (
            case | facts | {"shares": self.shares(), "median_rate": statistics.median(self.rates)}
        )


class Subject:
    """A case ready to be timed, window by window."""

    def __init__(self, case: Case, sizes: Sizes, device: torch.device):
        recipe, spec = recipe_of(case, sizes), spec_of(case, sizes, device)
        self.case, self.device = case, device
        self.threads = case.threads or choose_threads(recipe, spec)
        self.updater = synthetic_updater(recipe, spec, case.phase, sizes.rows, RECORD_AFTER)
        with on_threads(self.threads):
            for _ in range(WARM_UP):
                self.updater.step()
            operations = operations_of(self.updater) / case.seeds
            width = max(sizes.hidden)
            self.ceiling = Ceiling(case.seeds * recipe.method.critics, width, device)
        self.found = Found(case, self.threads, operations / 1e9)

    def measure(self, seconds: float) -> None:
        """Add a window of updates, one of draws and one of the machine's limit."""
        with on_threads(self.threads):
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            limit = self.ceiling.measure(seconds / 4)
            rate = rate_of(self.updater.step, seconds, self.device)
            if self.device.type == "cuda":
                self.found.peak_mib = torch.cuda.max_memory_allocated() / 2**20
            draws = rate_of(self.updater.replay.batch, seconds / 4, self.device)
            limit = (limit + self.ceiling.measure(seconds / 4)) / 2
        self.found.rates.append(rate * self.case.seeds)
        self.found.draw_shares.append(rate / draws)
        self.found.ceilings.append(limit)


def rate_of(act: Callable[[], object], seconds: float, device: torch.device) -> float:
    """Return calls per second over a window of this many seconds."""
    act()
    synchronize(device)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        act()
        count += 1
        if device.type == "cuda" and count % 64 == 0:
            synchronize(device)  # the host must not run ahead of the clock
    synchronize(device)
    return count / (time.perf_counter() - started)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure_cases(
    cases: Sequence[Case], sizes: Sizes, device: torch.device, rounds: int, seconds: float
) -> list[Found]:
    """Measure every case in turn, `rounds` times, so that a machine's drift meets all alike."""
    subjects = [Subject(case, sizes, device) for case in cases]
    for _ in range(rounds):
        for subject in subjects:
            subject.measure(seconds)
    return [subject.found for subject in subjects]


def large_ceiling(device: torch.device, seconds: float) -> float:
    """Return the GFLOP/s of one large product, with the threads of the process."""
    return Ceiling(1, LARGE, device).measure(seconds)


def recipe_of(case: Case, sizes: Sizes) -> Recipe:
    """Return the recipe that a case stands for."""
    section: dict[str, Any] = {"batch_size": sizes.batch, "hidden": list(sizes.hidden)}
    section |= dict(case.settings)
    layer = {"algo": case.algo, "seeds": list(range(case.seeds)), case.algo: section}
    return resolve([layer, {"capture": case.path == "captured"}], method_configs())


def spec_of(case: Case, sizes: Sizes, device: torch.device) -> Spec:
    """Return what a case's agent is built for."""
    seeds = tuple(range(case.seeds))
    return Spec(seeds, sizes.obs_dim, sizes.action_dim, (0.0, 1.0), device)
