"""What this process may use of the machine: CPUs and memory. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path("/")
WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
"""How threads wait for each other: for any OpenMP, for GNU's (PyTorch's on Linux), for LLVM's."""
MOST_THREADS = 4096
"""Told to use many more than it is given, PyTorch ends the process without a word."""
SHARE = "BAQ_CORES"
"""The variable that tells the process of a cell how many CPUs are its own."""
ALLOTTED = {
    SHARE: (SHARE,),
    "SLURM_JOB_ID": ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"),
    "SGE_ROOT": ("NSLOTS",),
    "LSB_JOBID": ("LSB_DJOB_NUMPROC",),
    "PBS_JOBID": ("NCPUS", "PBS_NUM_PPN"),
}
"""Where a scheduler says what a job has of this machine, by the variable that says there is one;
the first that is set counts."""


def usable_cores() -> int:
    """Return how many CPUs this process may keep busy, one at least.

    The least of: the CPUs that it may run on (affinity, which cpusets and `taskset` set), the CPU
    time that its cgroups allow it, in whole CPUs, and those that a scheduler gave to its job, or a
    comparison to its cell.
    """
    return max(1, min([_affinity(), *_quotas(ROOT), *_allotted(os.environ)]))


def most_threads() -> int:
    """Return the most threads that a process should compute with: `$OMP_NUM_THREADS`, or a CPU
    each."""
    asked = _number(os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip())
    return min(usable_cores(), asked) if asked else usable_cores()


def wait_without_holding_cores() -> None:
    """Have threads that wait for each other give their CPU away after some microseconds.

    GNU's OpenMP lets them spin for milliseconds, which on a machine that has other work keeps the
    CPU from the very thread that is waited for. It reads the variables when PyTorch is loaded: this
    is to be called before. Where the user has set one of them, all stay as they are.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ.update(WAITING)


def memory_left_by_cgroups() -> int | None:
    """Return the bytes that this process's cgroups still allow; None where none limits them.

    What they hold of files is counted as free: it is given up when it is needed.
    """
    return min(_memory_left(ROOT), default=None)


# -- CPUs


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[int]:
    """Yield the whole CPUs that each cgroup with a quota allows, of either version."""
    for folder in _cgroups(root, "cpu"):
        limits = _words(folder / "cpu.max")
        limits = limits or [
            *_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")
        ]  # fmt: skip
        quota, period = [_number(word) for word in limits[:2]] if len(limits) >= 2 else (None, None)
        if quota is not None and period:  # 'max' and -1 are none
            yield quota // period


def _allotted(environment: Mapping[str, str]) -> Iterator[int]:
    for job, names in ALLOTTED.items():
        if job in environment:
            counts = [_number(environment.get(name, "")) for name in names]
            yield from [count for count in counts if count][:1]


# -- memory


def _memory_left(root: Path) -> Iterator[int]:
    for folder in _cgroups(root, "memory"):
        for limit, used, prefix in (
            ("memory.max", "memory.current", ""),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        ):
            most, now = (_number(" ".join(_words(folder / name))) for name in (limit, used))
            if most is not None and now is not None:
                stat = dict(zip(*[iter(_words(folder / "memory.stat"))] * 2, strict=False))
                files = (f"{prefix}active_file", f"{prefix}inactive_file")
                yield max(0, most - now + sum(_number(stat.get(name, "")) or 0 for name in files))


# -- cgroups


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's cgroups, each with those that it lies in.

    Both versions, which may be mounted at once: one hierarchy for all controllers, or one each.
    """
    ours = _own_cgroups(root, controller)
    for line in _lines(root / "proc/self/mountinfo"):
        mount, _, system = line.partition(" - ")
        words, kinds = mount.split(), system.split()
        if len(words) < 5 or len(kinds) < 3:
            continue
        if kinds[0] == "cgroup2" or (kinds[0] == "cgroup" and controller in kinds[2].split(",")):
            path = ours.get(kinds[0])
            if path is not None:
                yield from _upwards(root / words[4].lstrip("/"), words[3], path)


def _own_cgroups(root: Path, controller: str) -> dict[str, str]:
    """Return the path of this process's cgroup by its file system: cgroup2, or cgroup."""
    found = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found["cgroup2"] = path
        elif controller in controllers.split(","):
            found["cgroup"] = path
    return found


def _upwards(mount: Path, mounted: str, path: str) -> Iterator[Path]:
    """Yield the folder of a cgroup below a mount, and its parents up to the mount.

    In a container the mount begins at its own cgroup (`mounted`), and a path that doesn't lead
    there is told as another namespace sees it: then the mount itself is ours.
    """
    top = mounted.rstrip("/")
    inside = path == top or path.startswith(f"{top}/")
    parts = [part for part in path[len(top) :].split("/") if part] if inside else []
    if ".." in parts:
        parts = []
    for count in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:count])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _number(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdecimal() else None
