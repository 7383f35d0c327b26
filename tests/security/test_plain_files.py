"""Nothing is written where a link leads, and nothing is waited for that isn't a plain file."""

from __future__ import annotations

import ast
import io
import os
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch

import baq_cli
from baq_cli import plain_files
from baq_cli.data.minari.folder import dataset_path, local_datasets, open_minari
from baq_cli.data.minari.read import load_episodes
from baq_cli.data.minari.stored import update_metadata
from baq_cli.data.minari.write import write_minari
from baq_cli.engine.checkpoints.tensors import read_document, read_tensors, tensor_bytes
from baq_cli.engine.phases.faults import Faults
from baq_cli.envs.faults import EnvironmentFault
from baq_cli.errors import BaqError, DataError
from baq_cli.launch.child import Child, run_in_child
from baq_cli.launch.journal import Journal, Reader, read_progress, read_state, write_state
from baq_cli.launch.ray.transfer import ARRIVED, finish_receiving
from baq_cli.recipes.load import read_layer
from baq_cli.report.document import ReportInfo
from baq_cli.report.external import read_curves
from baq_cli.report.write import write_report
from baq_cli.runs.events import Note, Progress
from baq_cli.runs.files import json_bytes, read_json, replace_file
from baq_cli.runs.folder import RunDirectory, read_logged, read_metrics
from baq_cli.runs.lock import held
from baq_cli.runs.log import METRICS
from baq_cli.runs.trackers.hub import replay
from support import documents
from support.logs import NEW, npz_file, written
from support.recordings import ID, own_folders, plain_recording

SOURCE = Path(baq_cli.__file__).parent
MINE = "mine, and precious"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file of the user's own outside of every folder; it is as it was at the end of the test."""
    path = written(tmp_path / "victim.txt", MINE)
    yield path
    assert path.read_text() == MINE


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A stranger's folder."""
    path = tmp_path / "theirs"
    path.mkdir()
    return path


# -- writing

REPORT = ("report.html", "report.md", "results.csv", "results.json")


@pytest.mark.parametrize("name", [*REPORT, ".{}.partial"])
def test_a_report_is_written_over_no_file_that_a_link_leads_to(
    name: str, place: Path, victim: Path
) -> None:
    for file in REPORT:
        (place / (name.format(file) if "{" in name else name)).unlink(missing_ok=True)
        (place / (name.format(file) if "{" in name else name)).symlink_to(victim)
    write_report(documents.single(), [], ReportInfo(), place)
    assert all((place / file).is_file() and not (place / file).is_symlink() for file in REPORT)


def test_a_report_draws_into_no_folder_that_a_link_leads_to(place: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (place / "figures").symlink_to(outside)
    with pytest.raises(DataError, match="figures is a link"):
        write_report(documents.single(), [], ReportInfo(), place)
    assert not list(outside.iterdir())


def faults_in(folder: Path) -> Faults:
    return Faults(folder, "online", (0,), 3, lambda _: None)


def add_a_row(folder: Path) -> None:
    RunDirectory(folder).append("metrics", [dict.fromkeys(METRICS, 0)])


def note_progress(folder: Path) -> None:
    Journal(folder)(Progress("online", 1, 2, 1, 1.0, 1.0))


WRITERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "lock": (".lock", lambda folder: held(folder).__enter__()),
    "events": ("events.jsonl", lambda folder: Journal(folder)(Note("x"))),
    "progress": ("progress.json", note_progress),
    "half a progress": (".progress.json.partial", note_progress),
    "state": ("state.json", lambda folder: write_state(folder, "waiting")),
    "half a state": (".state.json.partial", lambda folder: write_state(folder, "waiting")),
    "metrics": ("metrics.csv", add_a_row),
    "faults": ("faults.jsonl", lambda folder: faults_in(folder).failed(EnvironmentFault("x"), 1)),
    "a kept step": (
        "faults/online-env_step-1.safetensors",
        lambda folder: faults_in(folder).check_transition({"reward": np.array([np.nan])}, 1),
    ),
    "log": ("worker.log", lambda folder: Child(folder, 1).let_go()),
    "how it ended": (".ended", lambda folder: run_in_child(folder, 1)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_a_run_or_a_cell_writes_goes_where_no_link_leads(
    kind: str, place: Path, victim: Path
) -> None:
    name, write = WRITERS[kind]
    path = place / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(victim)
    with suppress(BaqError, OSError):
        write(place)


@pytest.mark.parametrize("name", ["a/b", "checkpoints", "cells/tensorboard/events", "x"])
def test_a_folder_with_a_link_in_it_is_held_by_nobody(
    name: str, place: Path, tmp_path: Path
) -> None:
    """A run's writer removes old checkpoints and event files: not where a link leads to."""
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(tmp_path)
    with pytest.raises(DataError, match=f"{path} is a link"), held(place):
        raise AssertionError("held")
    path.unlink()
    with held(place):
        pass


def test_links_of_other_programs_are_theirs(place: Path, victim: Path) -> None:
    """W&B's folder has links to its newest run; baq writes nothing there."""
    (place / "wandb").mkdir()
    (place / "wandb" / "latest-run").symlink_to(victim)
    (place / ".git").mkdir()
    (place / ".git" / "x").symlink_to(victim)
    with held(place):
        pass


def test_what_a_dataset_is_told_goes_where_no_link_leads(victim: Path) -> None:
    with own_folders():
        write_minari(ID, plain_recording())
        stored = open_minari(ID)
        (stored.data / ".metadata.json.partial").symlink_to(victim)
        update_metadata(stored, {"description": "x"})
        assert open_minari(ID).metadata["description"] == "x"


def test_what_came_back_from_another_machine_overwrites_nothing_elsewhere(
    place: Path, victim: Path
) -> None:
    def packed(kind: int) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", kind) as archive:
            archive.writestr(".gone", "[]")
            entry = zipfile.ZipInfo("x")
            entry.external_attr, entry.compress_type = 0o100644 << 16, kind
            archive.writestr(entry, b"theirs")
        return out.getvalue()

    (place / ".x.partial").symlink_to(victim)
    (place / ARRIVED).write_bytes(packed(zipfile.ZIP_STORED))
    finish_receiving(place)
    assert (place / "x").read_bytes() == b"theirs"
    (place / ARRIVED).write_bytes(packed(zipfile.ZIP_DEFLATED))  # how a bomb would be packed
    with pytest.raises(DataError, match="as it was packed"):
        finish_receiving(place)


def test_a_file_is_replaced_whole_or_not_at_all(place: Path) -> None:
    path = place / "x.json"
    replace_file(path, b"one")
    with suppress(ZeroDivisionError), plain_files.replaced(path) as file:
        file.write(b"tw")
        assert list(place.glob(".x.json.*.partial"))
        raise ZeroDivisionError
    assert (path.read_bytes(), list(place.iterdir())) == (b"one", [path])
    with pytest.raises(FileExistsError):
        plain_files.write_new(path, b"two")
    assert path.read_bytes() == b"one"


def left_by_a_killed_process(folder: Path, name: str, seconds_ago: float = 0.0) -> Path:
    """Write what a process that was killed in the middle of a write leaves."""
    before = set(folder.iterdir())
    writing = plain_files.replaced(folder / name)
    writing.__enter__().flush()
    (path,) = set(folder.iterdir()) - before
    content = path.read_bytes()
    with suppress(GeneratorExit, RuntimeError):
        writing.gen.close()  # type: ignore[attr-defined]
    path.write_bytes(content)
    os.utime(path, times=(time.time() - seconds_ago,) * 2)
    return path


def test_what_killed_processes_leave_is_swept_and_what_others_write_is_not(place: Path) -> None:
    inner, others = place / "checkpoints", place / "cell"
    inner.mkdir()
    others.mkdir()
    (others / ".lock").touch()
    young, deep, theirs = (
        left_by_a_killed_process(folder, "x.json") for folder in (place, inner, others)
    )
    old = left_by_a_killed_process(place, "x.json", 2 * plain_files.STALE_SECONDS)
    another = left_by_a_killed_process(place, "y.json", 2 * plain_files.STALE_SECONDS)
    replace_file(place / "x.json", b"")
    assert [path.exists() for path in (old, young, another)] == [False, True, True]
    with held(place):
        assert [p.exists() for p in (young, deep, another, theirs)] == [False, False, False, True]


# -- reading


class Waits(BaseException):
    """Something was waited for."""


@contextmanager
def at_once() -> Iterator[None]:
    """Raise where the block goes on for seconds."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Waits

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 5.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


READERS: dict[str, Callable[[Path], Any]] = {
    "x.json": read_json,
    "agent.safetensors": read_document,
    "training.safetensors": read_tensors,
    "recipe.yaml": lambda path: read_logged(path.parent, "recipe.yaml"),
    "metrics.csv": lambda path: read_metrics(path.parent),
    "manifest.json": lambda path: read_metrics(path.parent),
    "diagnostics.csv": lambda path: replay(path.parent, None),  # type: ignore[arg-type]
    "my.yaml": read_layer,
    "curves.csv": read_curves,
    "state.json": lambda path: read_state(path.parent),
    "progress.json": lambda path: read_progress(path.parent),
    "events.jsonl": lambda path: Reader(path.parent),
    ARRIVED: lambda path: finish_receiving(path.parent),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_plain_file_is_not_waited_for(name: str, kind: str, place: Path) -> None:
    path = place / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with at_once(), suppress(BaqError, OSError):
        assert not READERS[name](path) or name == "events.jsonl"


def test_a_dataset_that_is_a_pipe_stands_in_no_others_way() -> None:
    with own_folders():
        for dataset_id in (ID, NEW, "made/third-v0"):
            write_minari(dataset_id, plain_recording())
        for path in (
            dataset_path(ID) / "data" / "metadata.json",
            dataset_path(NEW) / "data" / "main_data.hdf5",
        ):
            path.unlink()
            os.mkfifo(path)
        with at_once():
            assert local_datasets() == sorted([NEW, "made/third-v0"])
            for dataset_id in (ID, NEW):
                with pytest.raises(DataError, match=r"plain file|no file"):
                    load_episodes(dataset_id)


def test_a_link_in_a_run_is_not_read_and_one_that_the_user_names_is(
    place: Path, tmp_path: Path
) -> None:
    true = tmp_path / "true.json"
    true.write_bytes(json_bytes({"a": 1}))
    (place / "manifest.json").symlink_to(true)
    with pytest.raises(DataError, match="is a link"):
        read_json(place / "manifest.json")
    tensors = tmp_path / "agent.safetensors"
    tensors.write_bytes(tensor_bytes({"x": torch.zeros(1)}, {"a": 1}))
    (place / "agent.safetensors").symlink_to(tensors)
    with pytest.raises(DataError, match="is a link"):
        read_document(place / "agent.safetensors")
    assert read_document(place / "agent.safetensors", follow=True)["a"] == 1
    assert read_tensors(place / "agent.safetensors", follow=True)["x"].shape == (1,)
    recipe = written(tmp_path / "true.yaml", "algo: iql\n")
    (place / "mine.yaml").symlink_to(recipe)
    assert read_layer(place / "mine.yaml") == {"algo": "iql"}


def test_a_file_has_a_limit(place: Path) -> None:
    path = written(place / "x", "1234")
    assert plain_files.read(path, 4) == b"1234"
    with pytest.raises(OSError, match="larger than 3 bytes"):
        plain_files.read(path, 3)


def test_an_export_goes_where_no_link_leads(place: Path, victim: Path) -> None:
    from baq_cli.data.exchange import export_file

    with own_folders() as folder:
        write_minari(ID, plain_recording())
        (place / f".baq-{os.getpid()}.partial").symlink_to(victim)
        export_file(ID, "npz", place / "log.npz")
        assert (place / "log.npz").stat().st_size
        assert npz_file(folder / "other.npz").is_file()


# -- the source

ATTRIBUTES = {"read_text", "read_bytes", "write_text", "write_bytes", "touch", "tofile", "fromfile"}
OPENERS = {"open", "io.open", "os.open", "os.fdopen", "codecs.open", "os.replace"}
MINE_ALONE = {
    "os.open": {"outlets.py"},  # nothing, in place of a descriptor that is closed
    "read_text": {
        "recipes/method_files.py",
        *("report/page.py", "report/published_curves.py"),
        "data/sizes.py",
        "machine.py",
    },  # what is installed; the system's memory
    "open": {
        *("cli/progress.py", "cli/compare.py", "cli/tune.py"),  # displays and launchers, not files
        *("data/minari/episode_file.py", "data/logs/d4rl.py", "data/hdf5.py"),  # HDF5, inside
        "data/logs/tables.py",  # a member of an archive
        *("engine/phases/recorder.py", "engine/robot/acting.py"),  # a log, which opens its file so
        *("engine/phases/turns.py",),
    },
}


def test_no_module_opens_or_replaces_a_file_but_the_one_that_knows_how() -> None:
    for path in sorted(SOURCE.rglob("*.py")):
        place = path.relative_to(SOURCE).as_posix()
        if place == "plain_files.py":
            continue
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            where = f"{place}, line {call.lineno}"
            function = call.func
            if isinstance(function, ast.Name):
                assert function.id not in OPENERS, where
            elif isinstance(function, ast.Attribute):
                name = function.attr
                assert name not in ATTRIBUTES or place in MINE_ALONE.get(name, ()), where
                whole = ast.unparse(function)
                if whole in OPENERS:
                    assert place in MINE_ALONE.get(whole, ()), where
                elif name == "open":
                    assert place in MINE_ALONE["open"], where
                if name == "replace":  # of a path; that of a text has two arguments
                    named = [word for word in call.keywords if word.arg in (None, "target")]
                    assert len(call.args) + len(named) != 1, where
