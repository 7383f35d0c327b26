"""Whether estimates without an environment rank policies: the table of docs/results.md.

On each task of the reference suite five methods are pre-trained, and checkpoints of five stages
each are estimated by fitted Q evaluation (`baq ope`) from the dataset alone, then evaluated in the
environment. Printed: Spearman's rank correlation between both, with an interval by drawing
checkpoints anew, and the true return of the checkpoint that the estimate would have chosen beside
the mean checkpoint's. Whatever is in `--out` already is kept, so the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from baq_cli.bootstrap import bounds
from baq_cli.engine.checkpoints.restore import evaluate_checkpoint, load_agent
from baq_cli.engine.collection.datasets import open_dataset
from baq_cli.engine.estimation.estimate import estimate
from baq_cli.runs.files import replace_file

METHODS = ("bc", "awac", "iql", "td3_bc", "rebrac")
STAGES = (0.1, 0.2, 0.4, 0.7, 1.0)
SEEDS, EVERY = 3, 10
RESAMPLES = 2_000


@dataclass(frozen=True)
class Task:
    """A dataset of the suite, and how long methods are trained on it."""

    dataset: str
    gradient_steps: int


TASKS = {
    "pendulum": Task("baq/pendulum/replay-v0", 4_000),
    "hopper": Task("baq/hopper/replay-v0", 5_000),
    "halfcheetah": Task("baq/halfcheetah/replay-v0", 5_000),
}


def train(task: Task, method: str, out: Path, width: int) -> None:
    """Pre-train a method, or go on with it; every checkpoint's policy is kept."""
    if (out / "curves.png").exists():
        return
    command = [
        *(sys.executable, "-m", "baq_cli.cli.main", "pretrain", "--algo", method),
        *("--dataset", task.dataset, "--seeds", str(SEEDS), "--device", "cpu"),
        *("--gradient-steps", str(task.gradient_steps), "--out", str(out), "keep_agents=true"),
        *("threads=1", "evaluation.episodes=1", "evaluation.background=false"),
        *(f"evaluation.every_gradient_steps={task.gradient_steps // EVERY}",),
        *(f"{method}.hidden=[{width},{width}]", "--resume"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def checkpoints(task: Task) -> Iterator[tuple[str, int]]:
    """Yield each method with its stages, in gradient steps."""
    for method in METHODS:
        for stage in STAGES:
            yield method, round(stage * task.gradient_steps)


def measure(task: Task, run: Path, stage: int, steps: int, episodes: int) -> dict[str, Any]:
    """Estimate a checkpoint's policies from the dataset, and evaluate them."""
    data = open_dataset(task.dataset, lambda event: None)
    folder = run / "checkpoints" / f"offline-{stage}"
    agent, inputs, _ = load_agent(folder)
    torch.set_num_threads(1)
    started = time.perf_counter()
    found = estimate(agent, data, inputs, steps)
    spent = time.perf_counter() - started
    returns, _, _ = evaluate_checkpoint(folder, None, episodes, 0)
    return {
        "stage": stage,
        "return": returns.mean(1).tolist(),
        "estimate": [of.value for of in found.seeds],
        "seconds": spent,
        "dataset_return": found.behavior_raw.value,
        "dataset_discounted": found.behavior.value,
        "fqe_steps": steps,
        "episodes": episodes,
    }


def run_task(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Do what is left of a task; return what was measured of its checkpoints."""
    task, folder, rows = TASKS[name], arguments.out / name, []
    for method, stage in checkpoints(task):
        file = folder / f"{method}-{stage}.json"
        if not file.exists():
            train(task, method, folder / method, arguments.width)
            row = measure(task, folder / method, stage, arguments.fqe_steps, arguments.episodes) | {
                "method": method
            }
            replace_file(file, json.dumps(row).encode())
            print(time.strftime("%H:%M:%S"), name, method, stage, row["estimate"], flush=True)
        rows.append(json.loads(file.read_text()))
    return rows


# -- what came of it


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Return Spearman's rank correlation; NaN where one of them is constant."""
    a, b = (rankdata(each) for each in (x, y))
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rank correlations of a task's checkpoints, and what choosing by it brings.

    A checkpoint's number is the mean over its seeds; a policy is one seed's. Intervals draw
    checkpoints anew, with all of their seeds.
    """
    true, guess = (np.array([row[key] for row in rows]) for key in ("return", "estimate"))
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(rows), size=(RESAMPLES, len(rows)))
    found: dict[str, Any] = {"checkpoints": len(rows), "policies": int(true.size)}
    for name, x, y in (
        ("by_checkpoint", guess.mean(1), true.mean(1)),
        ("by_policy", guess, true),
    ):
        spread = np.array([spearman(x[i].ravel(), y[i].ravel()) for i in drawn])
        low, high = bounds(spread[~np.isnan(spread)], 0.95)
        found[name] = [spearman(x.ravel(), y.ravel()), float(low), float(high)]
    chosen = guess.mean(1).argmax()
    gain = np.array([true[i].mean(1)[guess[i].mean(1).argmax()] - true[i].mean() for i in drawn])
    found["chosen"] = {
        "checkpoint": f"{rows[chosen]['method']} after {rows[chosen]['stage']:,}",
        "return": float(true[chosen].mean()),
        "mean": float(true.mean()),
        "best": float(true.mean(1).max()),
        "gain": [float(true[chosen].mean() - true.mean()), *map(float, bounds(gain, 0.95))],
    }
    found["dataset_return"] = rows[0]["dataset_return"]
    return found


def table(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the table that docs/results.md has."""
    yield "| task | checkpoints | Spearman, checkpoints | Spearman, single policies | chosen | its "
    yield "return | mean checkpoint | gain | best checkpoint | data |"
    yield "|" + "---|" * 10
    for name, of in found.items():
        chosen = of["chosen"]
        cells = [
            *(name, of["checkpoints"], _with(of["by_checkpoint"], 2), _with(of["by_policy"], 2)),
            *(chosen["checkpoint"], f"{chosen['return']:,.0f}", f"{chosen['mean']:,.0f}"),
            *(_with(chosen["gain"], 0), f"{chosen['best']:,.0f}", f"{of['dataset_return']:,.0f}"),
        ]
        yield "| " + " | ".join(map(str, cells)) + " |"


def _with(numbers: list[float], decimals: int) -> str:
    value, low, high = (f"{number:,.{decimals}f}" for number in numbers)
    return f"{value} [{low}, {high}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/ope"))
    parser.add_argument("--task", choices=TASKS, action="append")
    parser.add_argument("--fqe-steps", type=int, default=2_500)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--width", type=int, default=128, help="hidden units of the methods")
    arguments = parser.parse_args()
    found = {}
    for name in arguments.task or TASKS:
        found[name] = summary(run_task(name, arguments))
        replace_file(arguments.out / "summary.json", json.dumps(found, indent=1).encode())
    print()
    print(*table(found), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
