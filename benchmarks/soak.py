"""Whether a long fine-tuning keeps its memory and its file handles.

SAC on Pendulum, one update an environment step, with networks so small that it takes minutes. The
online store is memory that is used as it is written, so its capacity is small enough to be full
before the first fifth of the run is over; what is counted is the process's whole resident memory,
nothing subtracted. Prints a table; exits 1 when memory after the first fifth ever is more than 5 %
above what it was there, or more file handles are open than there.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from baq_cli.agents.registry import method_configs
from baq_cli.engine.phases.commands import run_finetune
from baq_cli.engine.phases.request import RunRequest
from baq_cli.recipes.load import resolve
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Event, Progress

WARM_UP, MOST_GROWTH = 0.2, 0.05
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    """The process at an environment step: resident memory in bytes, open file handles."""

    env_steps: int
    resident: int
    handles: int

    @classmethod
    def now(cls, env_steps: int) -> Sample:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
        return cls(env_steps, resident, len(os.listdir("/proc/self/fd")))


def recipe(env_steps: int) -> Recipe:
    """Return a small fine-tuning from scratch, evaluated and saved twenty times."""
    method = {"hidden": [16, 16], "batch_size": 32, "warmup_env_steps": 1000}
    method |= {"utd": 1, "capacity": max(env_steps // 20, 1000)}
    run = {"algo": "sac", "env": "Pendulum-v1", "env_steps": env_steps, "device": "cpu"}
    run |= {"threads": 1, "env_workers": False, "seeds": [0]}
    watched = {"episodes": 1, "every_env_steps": max(env_steps // 20, 1), "background": False}
    return resolve([run | {"evaluation": watched, "sac": method}], method_configs())


def soak(env_steps: int, every: int, out: Path) -> list[Sample]:
    """Run; return a sample every so many environment steps."""
    samples: list[Sample] = []

    def observe(event: Event) -> None:
        due = samples[-1].env_steps + every if samples else 0
        if isinstance(event, Progress) and (event.done >= due or event.done == event.total):
            gc.collect()
            samples.append(Sample.now(event.done))

    order = RunRequest(out, observe, "soak", "soak")
    run_finetune(recipe(env_steps), order, None)
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env-steps", type=int, default=200_000)
    parser.add_argument("--every", type=int, default=5_000, help="environment steps a sample")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples = soak(arguments.env_steps, arguments.every, Path(folder) / "run")
    print(f"{'env steps':>10} {'resident MB':>12} {'handles':>8}")
    for sample in samples:
        print(f"{sample.env_steps:>10,} {sample.resident / 2**20:>12.1f} {sample.handles:>8}")
    after = [s for s in samples if s.env_steps >= WARM_UP * arguments.env_steps]
    growth = max(s.resident for s in after) / after[0].resident - 1
    handles = max(s.handles for s in after) - after[0].handles
    print(f"after the first fifth: memory at most {growth:+.1%}, handles at most {handles:+}")
    sys.exit(growth > MOST_GROWTH or handles > 0)


if __name__ == "__main__":
    main()
