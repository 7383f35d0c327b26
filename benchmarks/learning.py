"""Whether learning is real: the comparisons of docs/results.md, and the bounds on them.

Runs `baq compare` on Pendulum (every method that learns from data) and Hopper (BAQ, IQL, TD3+BC),
prints a table of raw returns, and exits 1 when a bound misses. `--task` runs one of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from baq_cli.recipes.method_files import learns, method_names

ALGOS = {
    "pendulum": ",".join(name for name in method_names() if learns(name, "offline")),
    "hopper": "baq,iql,td3_bc",
}


def compare(task: str, out: Path) -> dict[str, Any]:
    """Run a comparison, or continue it, and return its statistics by method."""
    command = [sys.executable, "-m", "baq_cli.cli.main", "compare", "--recipe", f"{task}/compare"]
    command += ["--algos", ALGOS[task], "--out", str(out), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    (found,) = json.loads(done.stdout)["tasks"]
    return {name: entry["statistics"] for name, entry in found["methods"].items()}


def dataset_return(out: Path) -> float:
    """Return the dataset's mean return, from a comparison's results."""
    (task,) = json.loads((out / "results.json").read_text())["tasks"]
    return float(task["dataset"]["return_mean"])


def bounds(task: str, results: dict[str, Any], data: float) -> list[tuple[str, bool]]:
    """Return what must hold, and whether it does."""
    baq = results["baq"]
    if task == "pendulum":
        found = [
            (f"{name} offline beats the dataset's mean return", r["offline"]["mean"] > data)
            for name, r in results.items()
        ]
        ends = baq["final"]["mean"] > baq["offline"]["mean"]
        return [*found, ("baq ends above its offline score", ends)]
    found = [
        (f"{name} offline reaches the dataset's mean return", r["offline"]["mean"] >= data)
        for name, r in results.items()
        if name in ("iql", "td3_bc")
    ]
    ends = baq["final"]["mean"] > baq["handover"]["mean"]
    return [*found, ("baq ends above its own hand-over score", ends)]


def cell(statistic: dict[str, Any]) -> str:
    if statistic["mean"] is None:
        return "–"
    return f"{statistic['mean']:.0f} ± {statistic['std']:.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    parser.add_argument("--task", choices=ALGOS, action="append")
    arguments = parser.parse_args()
    missed = 0
    for task in arguments.task or ALGOS:
        out = arguments.out / task
        results = compare(task, out)
        data = dataset_return(out)
        print(f"\n{task}: dataset mean return {data:.0f}\n")
        print("| method | offline | at hand-over | deepest dip | final | seeds |")
        print("|---|---|---|---|---|---|")
        for name, r in results.items():
            cells = [cell(r[key]) for key in ("offline", "handover", "deepest_dip", "final")]
            print(f"| {name} | {' | '.join(cells)} | {len(r['final']['per_seed'])} |")
        print()
        for text, holds in bounds(task, results, data):
            print(f"{'holds' if holds else 'MISSED'}: {text}")
            missed += not holds
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
