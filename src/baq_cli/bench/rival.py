"""d3rlpy's own updates beside ours, in its own virtual environment, turn by turn."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_dir

from baq_cli.bench.updates import Case, Sizes, Subject, rate_of
from baq_cli.engine.updates.device import on_threads
from baq_cli.errors import UsageError
from baq_cli.plain_files import write_new
from baq_cli.units import amount

VERSION = "2.8.1"
BESIDE = (
    *("numpy", "gymnasium", "gym", "minari", "h5py", "click", "tqdm", "structlog", "colorama"),
    *("dataclasses-json", "tensorboardX", "scikit-learn", "typing_extensions"),
)
"""What d3rlpy imports. Its own pins ask for older versions of some, so it is installed alone."""
SCRIPT = Path(__file__).with_name("d3rlpy_side.py")
COMPARABLE = ("iql", "awac", "td3_bc", "cql")
Note = Callable[[str], None]


@dataclass
class Pairs:
    """A case against d3rlpy's, pair by pair, both in seed-updates per second.

    Ours are whole updates, from the draw to the targets. Of d3rlpy's, `training` is what a user
    waits for: the batch is drawn too, and books are kept; `update` is its update alone, on one
    fixed batch.
    """

    case: Case
    threads: int
    ours: list[float] = field(default_factory=list)
    theirs: dict[str, list[float]] = field(default_factory=lambda: {"update": [], "training": []})

    def ratios(self, what: str) -> list[float]:
        """Return ours over theirs, pair by pair."""
        return [a / b for a, b in zip(self.ours, self.theirs[what], strict=True)]

    def as_dict(self) -> dict[str, Any]:
        """Return the pairs, their ratios and medians."""
        ratios = {what: self.ratios(what) for what in self.theirs}
        return {
            "algo": self.case.algo,
            "seeds": self.case.seeds,
            "settings": dict(self.case.settings),
            "threads": self.threads,
            "ours": self.ours,
            "theirs": self.theirs,
            "ratios": ratios,
            "median_ratios": {what: statistics.median(found) for what, found in ratios.items()},
        }


class D3rlpy:
    """One of d3rlpy's algorithms in a process of its own, timed on request."""

    def __init__(self, python: Path, algo: str, sizes: Sizes, threads: int, device: torch.device):
        facts = asdict(sizes) | {"algo": algo, "threads": threads, "device": device.type}
        self._python, self._said = python, tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [str(python), str(SCRIPT), json.dumps(facts)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )

    def rate(self, what: str, seconds: float) -> float:
        """Return calls per second over a window."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"what": what, "seconds": seconds}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._process.wait()
            self._said.seek(0)
            raise UsageError(
                f"d3rlpy's process ended with status {self._process.returncode} and said\n"
                f"{self._said.read().strip()[-1000:]}\n"
                f"If something of it is missing, remove {self._python.parents[1]}: the next "
                "'baq bench --against d3rlpy' makes it anew"
            )
        return float(json.loads(answer))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._said.close()


def compare_with_d3rlpy(
    cases: Sequence[Case],
    sizes: Sizes,
    device: torch.device,
    rounds: int,
    seconds: float,
    note: Note,
) -> list[Pairs]:
    """Time each case and d3rlpy's counterpart in turn; return the pairs.

    d3rlpy runs with PyTorch's default threads, and on a card as fast as it can, compiled and
    captured (`compile_graph`). Raises UsageError for a method that d3rlpy lacks.
    """
    missing = sorted({case.algo for case in cases} - set(COMPARABLE))
    if missing:
        raise UsageError(
            f"'{missing[0]}' has no counterpart here: choose among {', '.join(COMPARABLE)}"
        )
    python = prepared_environment(note)
    return [_pairs_of(case, sizes, device, python, rounds, seconds, note) for case in cases]


def _pairs_of(
    case: Case,
    sizes: Sizes,
    device: torch.device,
    python: Path,
    rounds: int,
    seconds: float,
    note: Note,
) -> Pairs:
    note(f"{case.title}, {amount(case.seeds, 'seed')}, against d3rlpy")
    threads = torch.get_num_threads()
    subject = Subject(case, sizes, device)
    rival = D3rlpy(python, case.algo, sizes, threads, device)
    found = Pairs(case, subject.threads)
    try:
        for what in found.theirs:
            rival.rate(what, seconds / 4)  # it has started when it answers
        for _ in range(rounds):
            with on_threads(subject.threads):
                rate = rate_of(subject.updater.step, seconds, subject.device)
            found.ours.append(rate * case.seeds)
            for what, rates in found.theirs.items():
                rates.append(rival.rate(what, seconds))
    finally:
        rival.close()
    return found


def prepared_environment(note: Note) -> Path:
    """Return the Python of d3rlpy's virtual environment; make it at the first call.

    Raises UsageError when it can't be made.
    """
    folder = Path(user_cache_dir("baq")) / "bench" / f"d3rlpy-{VERSION}"
    python = folder / "bin" / "python"
    done = folder / "done"
    if done.exists():
        return python
    note(f"making d3rlpy {VERSION}'s virtual environment in {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    installed = metadata.version("torch").split("+")[0]
    pip = [str(python), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-I", "-m", "venv", str(folder)],
        [*pip, f"torch=={installed}", *BESIDE],
        [*pip, "--no-deps", f"d3rlpy=={VERSION}"],
    ):
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise UsageError(
                f"d3rlpy's environment can't be made: {' '.join(command)} said\n"
                f"{made.stderr.strip()[-1000:]}"
            )
    write_new(done, b"")
    return python
