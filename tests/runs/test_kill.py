"""Whenever a process is killed, the run goes on to the end that it would have had."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from baq_cli.runs.checkpoints import PARTIAL, complete
from support.killing import KINDS, Processes
from support.recordings import ID, own_folders
from support.runs import assert_same_end
from support.small_data import write_steady

TORTURE = os.environ.get("BAQ_TORTURE") == "1"
KILLS = 200 if TORTURE else 12
pytestmark = pytest.mark.torture


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with own_folders(), Processes() as found:
        write_steady(ID)
        yield found


def assert_same(one: Path, other: Path) -> None:
    for phase in ("offline", "online"):
        assert_same_end(one / phase, other / phase)


def unfinished(out: Path) -> set[tuple[Path, int]]:
    """Return what is under a temporary name, each with when it was made."""
    found = (*out.glob(f"*/checkpoints/{PARTIAL}*"), *out.glob("**/.*.partial"))
    return {(path, path.stat().st_ctime_ns) for path in found}


def moment(out: Path, before: set[tuple[Path, int]]) -> set[str]:
    """Return where in its course a process was killed, as far as its folder shows.

    What was unfinished `before` it began tells nothing of it.
    """
    left = {path.name.startswith(PARTIAL) for path, _ in unfinished(out) - before}
    within = {"a checkpoint" if is_one else "a write" for is_one in left}
    if not (out / "online").exists():
        return within | {"pre-training"}
    return within | {"fine-tuning" if complete(out / "online") else "the hand-over"}


def attacks(whole: dict[str, Whole]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield which kind of run to kill, and when.

    Of four three are killed at a call to the disk, in the middle of a write. Every third run is
    killed a second time, on its way again. Kinds take turns.
    """
    chance = random.Random(0)
    for trial in itertools.count(1):
        times = 2 if trial % 3 == 0 else 1
        kind = KINDS[trial // 4 % len(KINDS)]
        _, calls, seconds = whole[kind]
        if trial % 4:
            yield kind, [{"kill_at": 1 + chance.randrange(calls)} for _ in range(times)]
        else:
            yield kind, [{"after": chance.uniform(0, seconds)} for _ in range(times)]


class Whole(NamedTuple):
    """A run that nobody killed: where it is, its calls to the disk, and the seconds it took."""

    out: Path
    calls: int
    seconds: float


def make_whole(processes: Processes, kind: str, folder: Path) -> Whole:
    """Run twice, to the same end: imports and caches are warm the second time."""
    first, out = folder / f"{kind}-first", folder / f"{kind}-whole"
    assert not processes.run(kind, first)
    started = time.monotonic()
    assert not processes.run(kind, out)
    seconds = time.monotonic() - started
    assert_same(out, first)
    return Whole(out, int((out / "calls").read_text()), seconds)


def test_a_run_that_was_killed_at_any_moment_ends_as_one_that_was_not(
    processes: Processes, tmp_path: Path
) -> None:
    whole = {kind: make_whole(processes, kind, tmp_path) for kind in KINDS}
    kills, hit, out = 0, Counter[str](), tmp_path / "killed"
    for kind, attack in attacks(whole):
        for order in attack:
            before = unfinished(out)
            killed = processes.run(kind, out, **order)
            kills += killed
            hit.update({*moment(out, before), kind} if killed else ())
        assert not processes.run(kind, out), "nobody killed it"
        try:
            assert_same(whole[kind].out, out)
        except AssertionError as error:
            raise AssertionError(f"{kind}: after {kills} kills, the last: {attack}") from error
        shutil.rmtree(out)
        if kills >= KILLS:
            break
    print(f"{kills} kills within {dict(hit)}")
    assert hit.keys() >= {"pre-training", "fine-tuning", "a checkpoint", *KINDS}
    assert not TORTURE or hit.keys() >= {"the hand-over", "a write"}
