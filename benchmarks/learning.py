"""Whether learning is real: the comparison of every method on Pendulum, and the bounds on it.

Runs `baq compare` with all that learn from data (docs/results.md has the table), prints the raw
returns, and exits 1 when a bound misses.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from baq_cli.recipes.method_files import learns, method_names

ALGOS = ",".join(name for name in method_names() if learns(name, "offline"))


def compare(out: Path) -> dict[str, Any]:
    """Run the comparison, or continue it, and return its statistics by method."""
    command = [sys.executable, "-m", "baq_cli.cli.main", "compare", "--recipe", "pendulum/compare"]
    command += ["--algos", ALGOS, "--out", str(out), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    (found,) = json.loads(done.stdout)["tasks"]
    return {name: entry["statistics"] for name, entry in found["methods"].items()}


def dataset_return(out: Path) -> float:
    """Return the dataset's mean return, from a comparison's results."""
    (task,) = json.loads((out / "results.json").read_text())["tasks"]
    return float(task["dataset"]["return_mean"])


def bounds(results: dict[str, Any], data: float) -> list[tuple[str, bool]]:
    """Return what must hold, and whether it does."""
    found = [
        (f"{name} offline beats the dataset's mean return", r["offline"]["mean"] > data)
        for name, r in results.items()
    ]
    baq = results["baq"]
    ends = baq["final"]["mean"] > baq["offline"]["mean"]
    return [*found, ("baq ends above its offline score", ends)]


def cell(statistic: dict[str, Any]) -> str:
    if statistic["mean"] is None:
        return "–"
    return f"{statistic['mean']:.0f} ± {statistic['std']:.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    out = parser.parse_args().out / "pendulum"
    results = compare(out)
    data = dataset_return(out)
    print(f"\ndataset mean return {data:.0f}\n")
    print("| method | offline | at hand-over | deepest dip | final | seeds |")
    print("|---|---|---|---|---|---|")
    for name, r in results.items():
        cells = [cell(r[key]) for key in ("offline", "handover", "deepest_dip", "final")]
        print(f"| {name} | {' | '.join(cells)} | {len(r['final']['per_seed'])} |")
    print()
    held = bounds(results, data)
    for text, holds in held:
        print(f"{'holds' if holds else 'MISSED'}: {text}")
    return int(not all(holds for _, holds in held))


if __name__ == "__main__":
    raise SystemExit(main())
