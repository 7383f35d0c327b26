"""Flipped bits and cut-off files: every kind is refused in words, mended with a word, or harmless.

25 places of each kind of file here, for either; 500 with BAQ_TORTURE=1 (`make torture`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baq_cli.data.episodes import Episodes
from baq_cli.data.minari.folder import dataset_path
from baq_cli.data.minari.read import load_episodes
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.phases.commands import run_finetune
from baq_cli.engine.phases.request import RunRequest
from baq_cli.errors import DataError, ExitStatus
from baq_cli.launch.cells import Cell, load_cells, save_matrix
from baq_cli.launch.journal import read_state, write_state
from baq_cli.launch.matrix import lay_out
from baq_cli.recipes.load import read_layer
from baq_cli.report.external import read_curves
from baq_cli.report.method_runs import course_of
from baq_cli.report.run_facts import read_run
from baq_cli.runs.checkpoints import complete
from baq_cli.runs.events import Event, Note
from baq_cli.runs.folder import RunDirectory, read_logged, read_metrics
from baq_cli.runs.log import LOGS, Log
from baq_cli.surroundings import cache_folder
from support.attempts import attempt
from support.recordings import assert_same_episodes, own_folders, unseal
from support.runs import execute, recipe_of
from support.small_data import collect_pendulum

pytestmark = pytest.mark.torture
PLACES = 500 if os.environ.get("BAQ_TORTURE") else 25
DATASET = "made/pendulum-v0"
CURVES = "dataset,algo,seed_index,phase,eval_index,return\n" + "".join(
    f"hopper,{algo},{seed},{phase},{i},{100 * i + seed}.25\n"
    for algo in ("baq", "iql")
    for seed in (0, 1)
    for phase in ("offline", "online")
    for i in (0, 1)
)
Load = Callable[[Path], Any]


@dataclass(frozen=True)
class Made:
    """What the tests damage copies of: a comparison's cell, its runs, a file of curves."""

    offline: Path
    online: Path
    matrix: Path
    curves: Path


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    """Two checkpoints of each phase; two seeds; a running episode in the online ones."""
    with own_folders() as place:
        collect_pendulum(DATASET, 500)
        out = place / "matrix"
        (cell,) = lay_out([[{"dataset": DATASET}]], ["awac"], {}, out, "baq compare")
        save_matrix([cell], out)
        write_state(cell.folder, "done", status=0)
        offline, online = cell.folder / "offline", cell.folder / "online"
        every = {"episodes": 1, "background": False, "every_gradient_steps": 2}
        asked = {"dataset": DATASET, "gradient_steps": 4, "env_steps": 6}
        recipe = recipe_of("awac", {}, **asked, evaluation=every | {"every_env_steps": 3})
        execute(recipe, offline)
        run_finetune(recipe, RunRequest(online, lambda _: None, "baq", "baq"), ckpt.load(offline))
        curves = place / "curves.csv"
        curves.write_text(CURVES)
        yield Made(offline, online, out, curves)


def damages(content: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield a file's content with a bit flipped at some place, then cut off at some, and where."""
    rng = np.random.default_rng(list(name.encode()))
    for _ in range(PLACES):
        at = int(rng.integers(len(content)))
        yield f"cut at {at}", content[:at]
        at = int(rng.integers(len(content)))
        flipped = bytearray(content)
        flipped[at] ^= 1 << int(rng.integers(8))
        yield f"flipped at {at}", bytes(flipped)


def check(path: Path, load: Load, truth: Any, status: int = ExitStatus.DATA) -> int:
    """Damage a file over and over; return how often what it holds could be read all the same."""
    content, harmless = path.read_bytes(), 0
    for where, damaged in damages(content, path.name):
        path.write_bytes(damaged)
        found, error = attempt(lambda: load(path))
        if error is not None:
            assert error.status == status, f"{where}: {error}"
            assert str(error).count("\n") == 0, f"{where}: one message"
            assert len(str(error)) < 2_000, where
            continue
        harmless += 1
        assert same(found, truth), f"{where}: another content was taken for the true one"
    path.write_bytes(content)
    assert same(load(path), truth), "it was the damage, not the test"
    return harmless


def same(found: Any, truth: Any) -> bool:
    """Compare what was read, to the bit."""
    if isinstance(truth, torch.Tensor):
        return found.dtype == truth.dtype and torch.equal(found, truth)
    if isinstance(truth, Episodes):
        assert_same_episodes(found, truth)
        return True
    if isinstance(truth, dict):
        return found.keys() == truth.keys() and all(same(found[k], truth[k]) for k in truth)
    if isinstance(truth, list | tuple):
        return len(found) == len(truth) and all(map(same, found, truth))
    if isinstance(truth, ckpt.Checkpoint):
        place: dict[str, Any] = {"folder": None, "damaged": []}
        return same(vars(found) | place, vars(truth) | place)
    return bool(found == truth)


# -- checkpoints

PARTS = {
    "offline": ("agent.safetensors", "training.safetensors", "state.json"),
    "online": (
        *("agent.safetensors", "training.safetensors", "state.json"),
        *("replay.safetensors", "rows-00000.safetensors"),
    ),
}


def copy_of(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


@pytest.mark.parametrize(("phase", "name"), [(p, n) for p, names in PARTS.items() for n in names])
def test_a_damaged_checkpoint_is_refused_and_a_run_goes_back_to_the_one_before_and_says_so(
    phase: str, name: str, made: Made, tmp_path: Path
) -> None:
    run = copy_of(getattr(made, phase), tmp_path)
    before, newest = complete(run)[-2:]
    truths = [ckpt.load(before), ckpt.load(newest)]
    check(newest / name, lambda _: ckpt.load(newest), truths[1])
    notes: list[Event] = []

    def resume(path: Path) -> ckpt.Checkpoint:
        notes.clear()
        found = ckpt.load_newest(run, notes.append)
        if same(found, truths[1]):
            return found
        (note,) = notes
        assert isinstance(note, Note)
        assert str(newest) in note.text
        assert f"Going back to {before}" in note.text
        assert found.damaged == [newest]
        assert same(found, truths[0])
        return truths[1]

    assert check(newest / name, resume, truths[1]) == 2 * PLACES, "resuming goes on"


def test_where_every_checkpoint_is_damaged_each_is_named(made: Made, tmp_path: Path) -> None:
    run = copy_of(made.online, tmp_path)
    for folder in complete(run):
        (folder / "training.safetensors").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        ckpt.load_newest(run, lambda _: None)
    assert all(str(folder) in str(caught.value) for folder in complete(run))


def test_a_damaged_latest_changes_nothing(made: Made, tmp_path: Path) -> None:
    run = copy_of(made.online, tmp_path)
    truth = ckpt.load(run)
    latest = run / "checkpoints" / "latest"
    assert latest.read_text() == complete(run)[-1].name
    assert check(latest, lambda _: ckpt.load(run), truth) == 2 * PLACES
    for text in ("../../x", "/etc", "online-3", "", "\0", "online-\u00b2"):
        latest.write_text(text)
        assert same(ckpt.load(run), truth)


# -- the other files of a run


def run_facts(run: Path) -> Any:
    """Return everything that a report takes from a run."""
    course = course_of([run])
    curves = [(c.label, c.counters.tolist(), c.returns.tolist()) for c in course.curves.values()]
    facts = [(f.recipe, f.manifest) for f in course.runs]
    return facts, curves, read_metrics(run), read_logged(run, "diagnostics.csv")


@pytest.mark.parametrize("name", ["manifest.json", "metrics.csv", "diagnostics.csv", "recipe.yaml"])
def test_a_damaged_file_of_a_finished_run_is_refused(name: str, made: Made, tmp_path: Path) -> None:
    run = copy_of(made.online, tmp_path)
    check(run / name, lambda _: run_facts(run), run_facts(run))


@pytest.mark.parametrize("name", ["metrics.csv", "diagnostics.csv"])
def test_damaged_logs_are_mended_when_a_run_goes_on_and_that_is_said(
    name: str, made: Made, tmp_path: Path
) -> None:
    run = copy_of(made.online, tmp_path)
    saved, directory = ckpt.load(run), RunDirectory(run)
    truth = {n: (run / n).read_bytes() for n in ("metrics.csv", "diagnostics.csv")}
    header = truth["diagnostics.csv"].partition(b"\n")[0] + b"\n"
    notes: list[Event] = []

    def go_on(path: Path) -> dict[str, bytes]:
        notes.clear()
        directory.restore(saved.state["sizes"], saved.document["history"], notes.append)
        found = {n: (run / n).read_bytes() for n in truth}
        said = [note.text for note in notes if isinstance(note, Note)]
        assert len(said) == 1, said
        assert name in said[0]
        if name == "diagnostics.csv":
            assert found.pop(name) == header
            found[name] = truth[name]
        return found

    content = (run / name).read_bytes()
    for where, damaged in damages(content, name):
        (run / name).write_bytes(damaged)
        assert go_on(run / name) == truth, where
    (run / name).unlink()
    assert go_on(run / name) == truth, "a file that is gone is a damaged one"


def test_what_was_logged_after_a_checkpoint_is_dropped_without_a_word(
    made: Made, tmp_path: Path
) -> None:
    run = copy_of(made.online, tmp_path)
    first, last = (ckpt.load(folder) for folder in complete(run)[-2:])
    notes: list[Event] = []
    RunDirectory(run).restore(first.state["sizes"], first.document["history"], notes.append)
    assert notes == []
    assert len(read_metrics(run)) == len(first.document["history"])
    assert len(first.document["history"]) < len(last.document["history"])
    with pytest.raises(DataError, match="has not ended"):
        read_run(run)


@pytest.mark.parametrize("log", LOGS)
def test_a_log_that_is_changed_while_its_run_goes_on_is_not_sealed_as_it_is(
    log: Log, tmp_path: Path
) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.begin("", {})
    directory.append(log, [dict.fromkeys(LOGS[log], 0)])
    path = directory.path / f"{log}.csv"
    path.write_bytes(path.read_bytes().replace(b"0", b"1"))
    directory.append(log, [dict.fromkeys(LOGS[log], 2)])
    directory.finish({})
    with pytest.raises(DataError, match=f"{log}.csv is damaged"):
        read_logged(directory.path, path.name)


def test_of_a_run_that_goes_on_a_half_written_line_does_not_count(
    made: Made, tmp_path: Path
) -> None:
    run = copy_of(made.online, tmp_path)
    saved = ckpt.load(run)
    RunDirectory(run).restore(saved.state["sizes"], saved.document["history"], lambda _: None)
    whole, content = read_metrics(run), (run / "metrics.csv").read_bytes()
    lines = content.splitlines(keepends=True)
    for at in range(len(lines[0]), len(content) + 1):
        (run / "metrics.csv").write_bytes(content[:at])
        finished = content[:at].count(b"\n") - 1
        assert read_metrics(run) == whole[:finished]


def test_a_recipe_file_is_refused_with_the_status_of_recipes_or_read(
    made: Made, tmp_path: Path
) -> None:
    """Nothing says what somebody's recipe was, so that what is still one is taken for it."""
    path = tmp_path / "recipe.yaml"
    content = (made.offline / "recipe.yaml").read_bytes()
    for where, damaged in damages(content, "a recipe"):
        path.write_bytes(damaged)
        layer, error = attempt(lambda: read_layer(path))
        assert isinstance(layer, dict) or error is not None, where
        assert error is None or error.status == ExitStatus.USAGE, where


# -- comparisons


def cell_facts(matrix: Path) -> Any:
    return [(cell, read_state(cell.folder)) for cell in load_cells(matrix)]


@pytest.mark.parametrize("name", ["matrix.json", "cell.json", "state.json"])
def test_a_damaged_file_of_a_comparison_is_refused(name: str, made: Made, tmp_path: Path) -> None:
    matrix = copy_of(made.matrix, tmp_path)
    (cell,) = load_cells(matrix)
    assert isinstance(cell, Cell)
    path = matrix / name if name == "matrix.json" else cell.folder / name
    check(path, lambda _: cell_facts(matrix), cell_facts(matrix))


def test_damaged_curves_are_refused_or_read_as_what_they_now_say(made: Made) -> None:
    """Nothing says what they were; scores are finite and counters rise, or nothing is read."""
    content = made.curves.read_bytes()
    for where, damaged in damages(content, "curves"):
        made.curves.write_bytes(damaged)
        courses, error = attempt(lambda: read_curves(made.curves))
        assert error is None or error.status == ExitStatus.DATA, where
        for curve in (curve for course in courses or () for curve in course.curves.values()):
            assert np.isfinite(curve.returns).all(), where
            assert (np.diff(curve.counters) > 0).all(), where
    made.curves.write_bytes(content)


# -- datasets


@pytest.fixture
def dataset(made: Made) -> Iterator[Path]:
    """The dataset's files; in a Minari folder and with a cache of the test's own."""
    source = dataset_path(DATASET)
    with own_folders():
        yield Path(shutil.copytree(source, dataset_path(DATASET))) / "data"


@pytest.mark.parametrize("name", ["main_data.hdf5", "metadata.json"])
def test_a_damaged_dataset_is_refused(name: str, dataset: Path) -> None:
    check(dataset / name, lambda _: load_episodes(DATASET), load_episodes(DATASET))


@pytest.mark.parametrize("kind", ["arrays", "index"])
def test_a_damaged_cache_is_as_if_nothing_were_kept(kind: str, dataset: Path) -> None:
    truth = load_episodes(DATASET)
    (path,) = (cache_folder() / kind).iterdir()
    assert check(path, lambda _: load_episodes(DATASET), truth) == 2 * PLACES


def test_a_dataset_without_a_seal_is_refused_or_read_and_no_fault(dataset: Path) -> None:
    """Others' datasets have none; the run that is trained on one keeps its content's hash."""
    unseal(DATASET)
    path = dataset / "main_data.hdf5"
    content = path.read_bytes()
    for where, damaged in damages(content, "unsealed"):
        path.write_bytes(damaged)
        found, error = attempt(lambda: load_episodes(DATASET))
        assert error is None or (error.status == ExitStatus.DATA and "\n" not in str(error)), where
        assert found is None or np.isfinite(found.observations).all(), where
