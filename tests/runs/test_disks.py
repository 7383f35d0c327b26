"""Disks that lack something, or give nothing: what a run does without, and what it never drops."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from baq_cli import plain_files
from baq_cli.engine.checkpoints.folder import load_newest
from baq_cli.engine.checkpoints.tensors import read_document, read_tensors, tensor_bytes
from baq_cli.engine.phases import run as engine_run
from baq_cli.errors import DataError, ExitStatus
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.checkpoints import complete
from baq_cli.runs.events import ignore
from support.bad_disk import bad_disk
from support.odd_envs import STEADY
from support.runs import assert_same_end, execute, recipe_of, states

EVERY, ENV_STEPS = 8, 24


def finetuning(env_steps: int = ENV_STEPS, **run: Any) -> Recipe:
    watched = {"episodes": 1, "every_env_steps": EVERY, "background": False}
    place = {"env": STEADY, "env_steps": env_steps, "evaluation": watched}
    return recipe_of("sac", {"warmup_env_steps": 4}, **place, **run)


@pytest.fixture(scope="module", autouse=True)
def many_diagnostics() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_run, "METRICS_EVERY", 3)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; diagnostics are read between all checkpoints."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    execute(finetuning(), out)
    return out


# -- power that goes


def test_all_that_a_checkpoint_speaks_of_is_on_the_disk_before_it_is(tmp_path: Path) -> None:
    """Each file that was written is synced, then the folder of a checkpoint, then its new name."""
    with bad_disk(tmp_path, None) as disk:
        execute(finetuning(), tmp_path / "run")
    calls, root = disk.calls, tmp_path / "run" / "checkpoints"
    renamed = [(n, where) for n, (call, where) in enumerate(calls) if call == "rename"]
    assert [where[1] for _, where in renamed] == [str(folder) for folder in complete(root.parent)]
    for (at, (partial, _)), following in zip(
        renamed, [*(n for n, _ in renamed[1:]), len(calls)], strict=True
    ):
        before = calls[:at]
        written = {where[0] for call, where in before if call == "write" and partial in where[0]}
        assert len(written) > 3
        for path in written:
            assert_synced(before, path)
        assert_synced(before, root.parent / "metrics.csv")
        assert_synced(before, root.parent / "diagnostics.csv")
        last_file = max(n for n, (_, where) in enumerate(before) if where[0] in written)
        assert ("fsync", (partial,)) in before[last_file:]
        after = calls[at:following]
        pointed = next(n for n, (call, _) in enumerate(after) if call == "replace")
        assert_synced(after[:pointed], after[pointed][1][0])
        assert ("fsync", (str(root),)) in after[pointed:]


def assert_synced(calls: Any, path: Path | str) -> None:
    """Check that a file was synced after it was written to for the last time."""
    last = max(n for n, call in enumerate(calls) if call == ("write", (str(path),)))
    assert ("fsync", (str(path),)) in calls[last:], f"{path} is not on the disk"


def test_of_diagnostics_that_are_cut_off_what_a_checkpoint_before_knew_is_kept(
    whole: Path, tmp_path: Path
) -> None:
    content = (whole / "diagnostics.csv").read_bytes()
    lengths = [state["sizes"]["diagnostics"]["bytes"] for state in states(whole).values()]
    assert lengths[-1] == len(content)
    assert len(set(lengths)) == len(lengths)
    header = len(content.splitlines(keepends=True)[0])
    for at in (0, header, lengths[0] - 1, lengths[0], lengths[1] + 1, len(content) - 1):
        for end in (b"", bytes(len(content) - at)):  # not there, or there and never written
            run, notes = tmp_path / f"{at}-{len(end)}", list[str]()
            shutil.copytree(whole, run)
            (run / "diagnostics.csv").write_bytes(content[:at] + end)
            execute(finetuning(ENV_STEPS + EVERY), run, resume=True, notes=notes)
            assert sum("is not what was written" in note for note in notes) == 1
            found = (run / "diagnostics.csv").read_bytes()
            kept = max([header, *(length for length in lengths if length <= at)])
            assert found[:kept] == content[:kept]
            more = found[kept:].decode().splitlines()
            assert more
            assert all(int(line.split(",")[3]) > ENV_STEPS for line in more)
            (run / "diagnostics.csv").write_bytes(found[:-1])
            execute(finetuning(ENV_STEPS + 2 * EVERY), run, resume=True)
            assert (run / "diagnostics.csv").read_bytes().startswith(content[:kept])


# -- what a file system may lack


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_the_file_system_has_no_locks_a_run_goes_on_and_says_so(
    number: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    notes: list[str] = []
    monkeypatch.setattr(fcntl, "flock", refuse)
    execute(finetuning(), tmp_path / "run", notes=notes)
    assert sum("has no locks" in note for note in notes) == 1
    assert_same_end(whole, tmp_path / "run")


def synced_folders(number: int | None = None) -> Any:
    """Note which folders are synced, or let the file system refuse that."""
    fsync, found = os.fsync, list[str]()

    def noted(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            found.append(os.readlink(f"/proc/self/fd/{handle}"))
            if number is not None:
                raise OSError(number, os.strerror(number))
        fsync(handle)

    return noted, found


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_where_folders_can_t_be_synced_a_run_goes_on(
    number: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted, found = synced_folders(number)
    monkeypatch.setattr(os, "fsync", noted)
    execute(finetuning(), tmp_path / "run")
    assert found
    assert_same_end(whole, tmp_path / "run")


def test_the_entry_of_each_folder_that_a_run_makes_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted, found = synced_folders()
    monkeypatch.setattr(os, "fsync", noted)
    run = tmp_path / "one" / "two" / "run"
    execute(finetuning(env_steps=EVERY), run)
    assert {str(folder) for folder in (tmp_path, run.parent.parent, run.parent, run)} <= set(found)


# -- what can't be read


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("name", ["agent.safetensors", "training.safetensors", "state.json", ""])
def test_a_checkpoint_that_the_disk_doesn_t_give_is_not_taken_for_a_damaged_one(
    name: str, number: int, whole: Path, tmp_path: Path
) -> None:
    """Where the name is empty, the folder of all checkpoints can't be listed."""
    run, opened, listed = tmp_path / "run", io.open, os.listdir
    shutil.copytree(whole, run)
    newest = complete(run)[-1]

    def refused(path: Any, *_: Any) -> None:
        if str(path) == str(newest / name if name else newest.parent):
            raise OSError(number, os.strerror(number))

    def open_or_not(path: Any, *args: Any, **how: Any) -> Any:
        refused(path)
        return opened(path, *args, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_files, "open", open_or_not, raising=False)
        patch.setattr(os, "listdir", lambda path: refused(path) or listed(path))
        with pytest.raises(DataError, match=os.strerror(number)) as caught:
            execute(finetuning(env_steps=ENV_STEPS + EVERY), run, resume=True)
    assert caught.value.status == ExitStatus.DATA
    assert complete(run)[-1] == newest
    execute(finetuning(), run, resume=True)
    assert_same_end(whole, run)


@pytest.mark.parametrize(
    "said", [{"format": 99}, {"recipe": {"a_key_of_a_later_version": 1}}], ids=["format", "recipe"]
)
def test_a_checkpoint_of_another_version_is_not_taken_for_a_damaged_one(
    said: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    newest = complete(run)[-1]
    path = newest / "agent.safetensors"
    document = read_document(path)
    document |= {"recipe": document["recipe"] | said["recipe"]} if "recipe" in said else said
    path.write_bytes(tensor_bytes(read_tensors(path), document))
    with pytest.raises(DataError, match="version"):
        execute(finetuning(env_steps=ENV_STEPS + EVERY), run, resume=True)
    assert complete(run)[-1] == newest


def test_a_checkpoint_with_a_file_missing_is_a_damaged_one(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    before, newest = complete(run)[-2:]
    (newest / "training.safetensors").unlink()
    assert load_newest(run, ignore).folder == before
