"""Whenever a process is killed, the run goes on to the end that it would have had."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from killing import Processes
from recordings import ID, own_folders
from runs import assert_same_end
from small_data import write_steady

TORTURE = os.environ.get("BAQ_TORTURE") == "1"
KILLS = 200 if TORTURE else 12
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with own_folders(), Processes() as found:
        write_steady(ID)
        yield found


def assert_same(one: Path, other: Path) -> None:
    for phase in ("offline", "online"):
        assert_same_end(one / phase, other / phase)


def test_a_run_that_was_killed_at_any_moment_ends_as_one_that_was_not(
    processes: Processes, tmp_path: Path
) -> None:
    """Of four kills three are at a call to the disk, within the write where it is one.

    Every third run is killed a second time, on its way again.
    """
    whole = tmp_path / "whole"
    assert not processes.run(tmp_path / "first"), "imports and caches are warm from here on"
    started = time.monotonic()
    assert not processes.run(whole)
    seconds, calls = time.monotonic() - started, int((whole / "calls").read_text())
    assert_same(whole, tmp_path / "first")
    chance, kills, trial = random.Random(0), 0, 0
    while kills < KILLS:
        trial += 1
        out = tmp_path / f"{trial}"
        where = []
        for _ in range(2 if trial % 3 == 0 else 1):
            at, after = None, None
            if trial % 4:
                at = 1 + chance.randrange(calls)
            else:
                after = chance.uniform(0, seconds)
            killed = processes.run(out, at, after)
            where.append((at, after, killed))
            kills += killed
        if processes.run(out):
            raise AssertionError("nobody killed it")
        try:
            assert_same(whole, out)
        except AssertionError as error:
            raise AssertionError(f"trial {trial}, killed at (call, seconds): {where}") from error
        shutil.rmtree(out)
