"""From a clone to the first report: how long each part takes, and how busy the cores are meanwhile.

`python benchmarks/first_result.py` clones this repository as it is committed into a temporary
folder, and does there what `make demo` does, part by part: the environment with the package, the
start of a command, then BAQ, AWAC, IQL and CQL with their dataset and the report. It begins without
datasets and caches of `baq`; pip's cache is the user's. Each part is printed with its seconds, its
share of the whole, and the share of the usable cores that its processes kept busy.
"""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

from baq_cli.machine import usable_cores

REPOSITORY = Path(__file__).parent.parent
PARTS = {
    "the clone": ("git", "clone", "--quiet", str(REPOSITORY), "clone"),
    "the virtual environment and the package": ("make", "-C", "clone", ".venv/.ready"),
    "the start": ("clone/.venv/bin/baq", "--version"),
    "dataset, four methods, report": ("clone/.venv/bin/baq", "demo", "--out", "demo"),
}


def spent() -> float:
    """Return the CPU seconds of all processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    found: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as place:
        own = {"MINARI_DATASETS_PATH": f"{place}/minari", "BAQ_CACHE": f"{place}/cache"}
        for part, command in PARTS.items():
            started, before = time.perf_counter(), spent()
            subprocess.run(
                command, cwd=place, env=os.environ | own, check=True, stdout=subprocess.DEVNULL
            )
            found[part] = time.perf_counter() - started, spent() - before
    whole, cores = sum(seconds for seconds, _ in found.values()), usable_cores()
    for part, (seconds, busy) in found.items():
        print(
            f"{part}: {seconds:.0f} s, {seconds / whole:.2f} of the whole, "
            f"{busy / seconds / cores:.2f} of {cores} cores busy"
        )
    print(f"from the clone to the report: {whole:.0f} s (asked for: 240)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
