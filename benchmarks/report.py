"""How long a report of a thousand runs takes, and how large it is: the bounds are 60 s and 15 MB.

Ten methods on ten tasks with ten seeds, 21 evaluations a phase, made up; `baq report` reads them
from a file of curves as it would from anywhere else. Exits 1 when a bound misses.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

METHODS = TASKS = SEEDS = 10
EVALUATIONS = 21
STEPS = 50_000
MOST_SECONDS, MOST_BYTES = 60.0, 15_000_000
COLUMNS = (
    *("dataset", "algo", "seed_index", "phase", "eval_index"),
    *("gradient_steps", "env_steps", "normalized_score"),
)


def write_curves(path: Path) -> None:
    """Write made-up curves: each method rises to a level of its own, with noise by seed."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for task in range(TASKS):
            for method in range(METHODS):
                level = rng.uniform(20, 100)
                for seed in range(SEEDS):
                    for phase in ("offline", "online"):
                        for i in range(EVALUATIONS):
                            counter = STEPS * i // (EVALUATIONS - 1)
                            steps = (counter, 0) if phase == "offline" else (STEPS, counter)
                            share = (1 + i + EVALUATIONS * (phase == "online")) / EVALUATIONS / 2
                            score = level * share + rng.normal(0, 8)
                            names = f"me/task-{task}-v0", f"method {method}"
                            writer.writerow([*names, seed, phase, i, *steps, round(score, 3)])


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        curves, out = Path(folder) / "curves.csv", Path(folder) / "report"
        write_curves(curves)
        command = [sys.executable, "-m", "baq_cli.cli.main", "report", "--curves", str(curves)]
        started = time.perf_counter()
        subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        sizes = {path.name: path.stat().st_size for path in out.iterdir() if path.is_file()}
        whole = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{METHODS * TASKS * SEEDS} runs: {seconds:.1f} s (bound {MOST_SECONDS:.0f})")
    for name, size in sizes.items():
        print(f"{name}: {size / 1e6:.2f} MB")
    print(f"everything, figures too: {whole / 1e6:.2f} MB")
    return int(seconds > MOST_SECONDS or sizes["report.html"] > MOST_BYTES)


if __name__ == "__main__":
    raise SystemExit(main())
