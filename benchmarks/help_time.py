"""How long `baq --help` takes, against `python -c "import typer"`, in alternation.

The bound: at most twice as long. Prints the ratio pair by pair, and exits 1 when the median misses.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

PAIRS = 15
BOUND = 2.0


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    ours = [sys.executable, "-m", "baq_cli.cli.main", "--help"]
    theirs = [sys.executable, "-c", "import typer"]
    seconds(ours), seconds(theirs)
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(PAIRS)]
    ratios = sorted(a / b for a, b in pairs)
    median = statistics.median(ratios)
    print(
        f"baq --help / import typer over {PAIRS} pairs: median {median:.2f}, "
        f"range {ratios[0]:.2f} to {ratios[-1]:.2f} (bound {BOUND})"
    )
    return int(median > BOUND)


if __name__ == "__main__":
    raise SystemExit(main())
