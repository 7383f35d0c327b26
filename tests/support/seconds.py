"""How long tests took when they were last measured, and what follows from it.

The record has a file's seconds by its path below tests/, and those of a test function, of all its
parameters together, by `path::name` from `NOTED` on. `make test-times` writes it anew.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeVar

from support.places import RECORDED

RECORD = RECORDED / "seconds.json"
NOTED = 0.1
UNNOTED = 0.03
"""What a function of a measured file counts as that took less than `NOTED`, or that is new."""
QUICK_SECONDS = 65.0
"""What the quick tests may take together on one core; two cores take a minute more for the rest."""
Named = TypeVar("Named")


def recorded() -> dict[str, float]:
    """Return the record, without which nothing counts as quick."""
    found: dict[str, float] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return found


def record(durations: Mapping[str, float]) -> None:
    """Write the record, of the seconds of each test by `path::name[parameters]`."""
    seconds: dict[str, float] = defaultdict(float)
    for test, took in durations.items():
        function = test.partition("[")[0]
        seconds[function] += took
        seconds[function.partition("::")[0]] += took
    kept = {name: round(s, 1) for name, s in seconds.items() if "::" not in name or s >= NOTED}
    RECORD.write_text(json.dumps(kept, indent=0, sort_keys=True) + "\n")


def quick(functions: Iterable[str], seconds: Mapping[str, float]) -> set[str]:
    """Return as many functions, `path::name`, as fit into `QUICK_SECONDS`, the shortest first.

    Those of a file that was never measured aren't among them.
    """
    took = {
        name: seconds.get(name, UNNOTED) for name in functions if name.partition("::")[0] in seconds
    }
    left, found = QUICK_SECONDS, set()
    for name in sorted(took, key=lambda name: (took[name], name)):
        left -= took[name]
        if left < 0:
            break
        found.add(name)
    return found


def longest_first(
    tests: list[Named], names: list[str], seconds: Mapping[str, float]
) -> list[Named]:
    """Return tests by `path::name`, file by file, those first whose file takes longest.

    So no core works on a long file alone in the end. Files that were never measured come first.
    """
    files = [name.partition("::")[0] for name in names]
    took = [seconds.get(file, float("inf")) for file in files]
    order = sorted(range(len(tests)), key=lambda i: (-took[i], files[i]))
    return [tests[i] for i in order]
