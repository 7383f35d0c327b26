"""How well the robot's clock is kept, with learning beside it and without.

Two simulators stand in for robots: Pendulum at 50 Hz and Hopper at 20 Hz, SAC from scratch with two
hidden layers of 256, one update a step, so that nothing but this machine is needed. Each is stepped
for `--seconds` with updates beside it, and again without any (the warm-up lasts the whole run):
what both miss alike is the machine's. Prints, for each, the share of deadlines that were missed by
more than a millisecond, the worst, the 99th percentile, the updates a step, and of the deadlines
missed while learning how many came right after a policy had been taken over, which is all that an
update asks of the process that acts. `--out FILE` writes the same as JSON.

Run it on a machine that does nothing else: `python benchmarks/realtime.py`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from baq_cli.agents.registry import method_configs
from baq_cli.engine.phases.commands import run_finetune
from baq_cli.engine.phases.request import RunRequest
from baq_cli.engine.robot.clock import Lateness
from baq_cli.engine.updates.device import hardware
from baq_cli.recipes.load import resolve
from baq_cli.runs import interleaving, transitions
from baq_cli.runs.events import ignore

ROBOTS = {"Pendulum-v1": 50, "Hopper-v5": 20}
TOLERANCE_MS = 1.0
WARMUP_SECONDS = 5


@dataclass
class Kept:
    """How one run kept its deadlines; milliseconds."""

    env: str
    hz: int
    learning: bool
    deadlines: int
    missed: int
    missed_share: float
    worst_ms: float
    p99_ms: float
    updates: int
    updates_a_step: float
    policies: int
    missed_after_a_new_policy: int


def measure(env: str, hz: int, seconds: float, learning: bool) -> Kept:
    """Step one environment on the clock; return how that went."""
    steps = round(hz * seconds)
    warmup = hz * WARMUP_SECONDS if learning else steps
    run = {"algo": "sac", "env": env, "seeds": [0], "device": "cpu", "env_steps": steps}
    layer = run | {"control": {"hz": hz, "tolerance_ms": TOLERANCE_MS}}
    method = {"hidden": [256, 256], "warmup_env_steps": warmup}
    recipe = resolve([layer, {"sac": method}], method_configs())
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        run_finetune(recipe, RunRequest(out, ignore, "realtime.py", ""), None)
        found = transitions.read(out / transitions.NAME)
        turns = interleaving.read(out / interleaving.NAME)
    at = np.flatnonzero((found.env_step >= hz * WARMUP_SECONDS) & (found.step_in_episode > 0))
    late = Lateness.of(found.late_ns[at], TOLERANCE_MS)
    missed = at[found.late_ns[at] > 1e6 * TOLERANCE_MS]
    renewed = found.policy_version[missed] != found.policy_version[missed - 1]
    updates = int(turns["updates"][-1])
    return Kept(
        *(env, hz, learning, late.deadlines, late.missed, late.share, late.worst_ms, late.p99_ms),
        *(updates, updates / max(1, steps - warmup), int(turns["version"][-1]), int(renewed.sum())),
    )


def row(kept: Kept) -> str:
    """Return a row of the table that is printed."""
    cells: list[Any] = [
        *(kept.env, f"{kept.hz} Hz", "yes" if kept.learning else "no", f"{kept.deadlines:,}"),
        *(f"{kept.missed} ({kept.missed_share:.2%})", f"{kept.worst_ms:.2f}", f"{kept.p99_ms:.3f}"),
        *(f"{kept.updates_a_step:.2f}" if kept.learning else "–", kept.missed_after_a_new_policy),
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="of each run")
    parser.add_argument("--out", type=Path, help="where to write the same as JSON")
    asked = parser.parse_args()
    print(
        "| environment | rate | learning | deadlines | missed | worst, ms | p99, ms | UTD | new |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    found = []
    for env, hz in ROBOTS.items():
        for learning in (True, False):
            found.append(measure(env, hz, asked.seconds, learning))
            print(row(found[-1]), flush=True)
    if asked.out:
        document = {"hardware": hardware("cpu"), "runs": [asdict(kept) for kept in found]}
        asked.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
