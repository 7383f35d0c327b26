"""The online store in blocks: a checkpoint costs what has changed, and loses nothing."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baq_cli.engine.checkpoints import document as claims
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.experience import store, sumtree
from baq_cli.engine.experience.store import Layout, Store
from baq_cli.engine.experience.sumtree import SumTree
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.checkpoints import complete
from support.odd_envs import STEADY
from support.runs import assert_same_end, execute, recipe_of

ROWS = 4
"""Rows of a block in these tests."""
SEEDS, CAPACITY = 2, 11
LAYOUT = Layout(1, 1, ("mc_return",))
CPU = torch.device("cpu")
EVERY = 8


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (store, claims):
            patch.setattr(module, "BLOCK_ROWS", ROWS)
        patch.setattr(sumtree, "FAN", 3)
        yield


def empty(prioritised: bool) -> Store:
    made = Store.empty(LAYOUT, SEEDS, CAPACITY, CPU)
    if prioritised:
        made.priorities = SumTree(SEEDS, CAPACITY, CPU)
    return made


class Disk:
    """What a checkpoint keeps of a store: new blocks, and those before them where none is new."""

    def __init__(self) -> None:
        self.blocks: list[dict[str, Tensor]] = []
        self.written: list[int] = []

    def save(self, rows: Store) -> None:
        found = rows.blocks()
        self.written = [number for number, block in enumerate(found) if block is not None]
        self.blocks = [
            self.blocks[number]
            if block is None
            else {name: tensor.clone() for name, tensor in block.items()}
            for number, block in enumerate(found)
        ]


def append(rows: Store, count: int, start: int) -> None:
    for value in range(start, start + count):
        row = torch.full((SEEDS, LAYOUT.width), float(value))
        row[1] += 0.5
        rows.append(row, torch.tensor([value + 1.0, 2.0 * value + 1.0]))


def overwrite(rows: Store, seed: int, slots: list[int], value: float) -> None:
    used = torch.tensor(sorted({slot % rows.size for slot in slots}))
    rows.overwrite(seed, used, "mc_return", torch.full((len(used),), value))


def assert_same_store(one: Store, other: Store) -> None:
    assert (one.size, one.written) == (other.size, other.written)
    assert torch.equal(one.rows[:, : one.size], other.rows[:, : other.size])
    assert (one.priorities is None) == (other.priorities is None)
    if one.priorities is not None and other.priorities is not None:
        levels = one.priorities.levels, other.priorities.levels
        assert len(levels[0]) > 2
        assert all(map(torch.equal, *levels)), "sums made anew are those that were kept"


APPEND = st.tuples(st.just("append"), st.integers(1, 9))
OVERWRITE = st.tuples(
    st.just("overwrite"), st.integers(0, SEEDS - 1), st.lists(st.integers(0, 99), min_size=1)
)
HISTORIES = st.lists(APPEND | OVERWRITE | st.just(("save",)) | st.just(("restore",)), max_size=15)


@settings(max_examples=200)
@given(HISTORIES, st.booleans())
def test_whatever_was_written_overwritten_and_saved_a_store_comes_back_as_it_was(
    history: list[Any], prioritised: bool
) -> None:
    rows, disk, value = empty(prioritised), Disk(), 0
    for what, *arguments in [*history, ("save",), ("restore",)]:
        if what == "append":
            append(rows, arguments[0], value)
            value += arguments[0]
        elif what == "overwrite" and rows.size:
            overwrite(rows, *arguments, -float(value))
        elif what == "save":
            disk.save(rows)
            saved = rows.written
        elif what == "restore" and disk.blocks and rows.written == saved:
            back = empty(prioritised)
            back.refill_blocks(disk.blocks, rows.written)
            disk.save(rows)  # what was overwritten since then is lost with the process
            back = empty(prioritised)
            back.refill_blocks(disk.blocks, rows.written)
            assert_same_store(rows, back)
            rows = back


def test_only_blocks_that_changed_are_written_and_all_of_them() -> None:
    rows, disk = empty(prioritised=True), Disk()
    found = []
    for count, slots in ((6, []), (0, []), (1, []), (1, [0]), (3, []), (1, []), (2, [9])):
        append(rows, count, rows.written)
        if slots:
            overwrite(rows, 0, slots, -1.0)
        disk.save(rows)
        found.append(disk.written)
    in_use, wrapped = [[0, 1], [], [1], [0, 1], [2]], [[0], [0, 2]]
    assert found == in_use + wrapped


# -- on disk


def finetuning(env_steps: int, algo: str = "sac", **run: Any) -> Recipe:
    watched = {"episodes": 1, "every_env_steps": EVERY, "background": False}
    method: dict[str, Any] = {"warmup_env_steps": 4, "capacity": CAPACITY + 9}
    if algo == "cal_ql":
        method |= {"online_share": None, "cql_actions": 2, "gradient": "sampled"}
    place = {"env": STEADY, "env_steps": env_steps, "evaluation": watched}
    return recipe_of(algo, method, **place | run)


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in sorted(folder.glob("rows-*"))}


def test_a_block_as_it_was_is_the_same_file_and_others_are_not(tmp_path: Path) -> None:
    execute(finetuning(4 * EVERY), tmp_path)
    files = [inodes(folder) for folder in complete(tmp_path)]
    assert [len(found) for found in files] == [2, 4, 5, 5], "20 rows at most"
    same = [
        [name for name in before if before[name] == after[name]]
        for before, after in itertools.pairwise(files)
    ]
    linked = [[f"rows-{number:05}.safetensors" for number in numbers] for numbers in BY_SAVE]
    assert same == linked


BY_SAVE = [[0, 1], [1, 2, 3], [0, 3, 4]]
"""Blocks that didn't change: eight rows are new, then four and four over the oldest, then eight."""


@pytest.mark.parametrize("algo", ["sac", "cal_ql"])
def test_pruned_predecessors_take_nothing_with_them(algo: str, tmp_path: Path) -> None:
    execute(finetuning(4 * EVERY, algo), tmp_path / "whole")
    execute(finetuning(4 * EVERY, algo, keep_checkpoints=1), tmp_path / "pruned")
    last = complete(tmp_path / "pruned")[-1]
    assert_same_end(tmp_path / "whole", tmp_path / "pruned")
    for folder in complete(tmp_path / "pruned")[:-1]:
        shutil.rmtree(folder)
    assert len(load(last).blocks) == 5
    execute(finetuning(5 * EVERY, algo), tmp_path / "pruned", resume=True)
    execute(finetuning(5 * EVERY, algo), tmp_path / "whole", resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "pruned")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV, errno.EMLINK])
def test_where_files_can_t_have_two_names_they_are_copied(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(finetuning(4 * EVERY), tmp_path / "linked")

    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    execute(finetuning(4 * EVERY), tmp_path / "copied")
    assert_same_end(tmp_path / "linked", tmp_path / "copied")
    files = [set(inodes(folder).values()) for folder in complete(tmp_path / "copied")]
    assert len(set.union(*files)) == sum(map(len, files)), "no file has two names"


def test_a_copied_checkpoint_stands_alone(tmp_path: Path) -> None:
    execute(finetuning(3 * EVERY), tmp_path / "run")
    shutil.copytree(complete(tmp_path / "run")[-1], tmp_path / "alone")
    expected = load(complete(tmp_path / "run")[-1])
    shutil.rmtree(tmp_path / "run")
    found = load(tmp_path / "alone")
    for one, other in zip(expected.blocks, found.blocks, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one["rows"], other["rows"])


def test_damage_to_a_shared_block_is_seen_in_every_checkpoint_that_has_it(tmp_path: Path) -> None:
    execute(finetuning(3 * EVERY), tmp_path)
    folders = complete(tmp_path)
    path = folders[1] / "rows-00000.safetensors"
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    damaged = [path.stat().st_ino in inodes(folder).values() for folder in folders]
    assert damaged == [True, True, False], "the third has written that block anew"
    for folder, is_damaged in zip(folders, damaged, strict=True):
        if is_damaged:
            with pytest.raises(ckpt.DataError, match="damaged"):
                load(folder)
        else:
            load(folder)
