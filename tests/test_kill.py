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
from typing import Any

import pytest
from killing import Processes
from recordings import ID, own_folders
from runs import assert_same_end
from small_data import write_steady

from baq_cli.engine.checkpoint import PARTIAL, complete

TORTURE = os.environ.get("BAQ_TORTURE") == "1"
KILLS = 200 if TORTURE else 12
pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork"),
]


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with own_folders(), Processes() as found:
        write_steady(ID)
        yield found


def assert_same(one: Path, other: Path) -> None:
    for phase in ("offline", "online"):
        assert_same_end(one / phase, other / phase)


def moment(out: Path) -> set[str]:
    """Return where in its course a process was killed, as far as its folder shows."""
    within = {"a checkpoint"} if list(out.glob(f"*/checkpoints/{PARTIAL}*")) else set()
    if list(out.glob("**/.*.partial")):
        within.add("a write")
    if not (out / "online").exists():
        return within | {"pre-training"}
    return within | {"fine-tuning" if complete(out / "online") else "the hand-over"}


def attacks(calls: int, seconds: float) -> Iterator[list[dict[str, Any]]]:
    """Yield when to kill each run: of four three at a call to the disk, in the middle of a write.

    Every third run is killed a second time, on its way again.
    """
    chance = random.Random(0)
    for trial in itertools.count(1):
        times = 2 if trial % 3 == 0 else 1
        if trial % 4:
            yield [{"kill_at": 1 + chance.randrange(calls)} for _ in range(times)]
        else:
            yield [{"after": chance.uniform(0, seconds)} for _ in range(times)]


def test_a_run_that_was_killed_at_any_moment_ends_as_one_that_was_not(
    processes: Processes, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    assert not processes.run(tmp_path / "first"), "imports and caches are warm from here on"
    started = time.monotonic()
    assert not processes.run(whole)
    seconds, calls = time.monotonic() - started, int((whole / "calls").read_text())
    assert_same(whole, tmp_path / "first")
    kills, hit, out = 0, Counter[str](), tmp_path / "killed"
    for attack in attacks(calls, seconds):
        for order in attack:
            killed = processes.run(out, **order)
            kills += killed
            hit.update(moment(out) if killed else ())
        assert not processes.run(out), "nobody killed it"
        try:
            assert_same(whole, out)
        except AssertionError as error:
            raise AssertionError(f"after {kills} kills, these the last: {attack}") from error
        shutil.rmtree(out)
        if kills >= KILLS:
            break
    print(f"{kills} kills within {dict(hit)}")
    assert hit.keys() >= {"pre-training", "fine-tuning", "a checkpoint"}
    assert not TORTURE or hit.keys() >= {"the hand-over", "a write"}
