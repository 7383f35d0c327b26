"""Documents whose seal is right and whose words are nonsense: refused in words, never a fault."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from baq_cli.cli.results import show_run
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.tensors import read_tensors, tensor_bytes
from baq_cli.errors import DataError
from baq_cli.recipes.schema import Recipe
from baq_cli.report.document import ReportInfo, build_document
from baq_cli.report.markdown import write_markdown
from baq_cli.report.method_runs import course_of
from baq_cli.report.page import write_page
from baq_cli.runs.checkpoints import complete
from baq_cli.runs.files import json_bytes, read_json
from support.recordings import own_folders
from support.runs import execute, recipe_of
from support.small_data import collect_pendulum

DATASET = "made/pendulum-v0"
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Truth:
    """A whole online run of two seeds, in an episode, and what continues it."""

    run: Path
    recipe: Recipe


@pytest.fixture(scope="module")
def made() -> Iterator[Truth]:
    with own_folders() as folder:
        collect_pendulum(DATASET)
        recipe = recipe_of("iql", {}, dataset=DATASET, gradient_steps=2, env_steps=4)
        execute(recipe, folder / "offline")
        execute(recipe, folder / "online", source=folder / "offline")
        yield Truth(folder / "online", recipe)


@pytest.fixture
def copy(made: Truth, tmp_path: Path) -> Path:
    """A copy of the run with its last checkpoint alone, so that there is none to go back to."""
    run = tmp_path / "online"
    shutil.copytree(made.run, run)
    for folder in complete(run)[:-1]:
        shutil.rmtree(folder)
    return run


def last(run: Path) -> Path:
    return complete(run)[-1]


# -- what a resume takes


def loaded(run: Path) -> ckpt.Checkpoint:
    return ckpt.load_newest(run, lambda _: None)


def test_what_is_true_is_taken(copy: Path) -> None:
    assert loaded(copy).folder == last(copy)


def lie(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = read_json(file)
    change(content)
    file.write_bytes(json_bytes(content))


@pytest.mark.parametrize(
    "change",
    [
        {"written": 2**62},
        {"written": 3},
        {"written": 0},
        {"running": []},
        {"running": [{"start_seed": 1, "rewards": [1.0], "slots": [2**60]}] * 2},
        {"running": [{"start_seed": 1, "rewards": [float("nan")] * 4, "slots": [0, 1, 2, 3]}] * 2},
        {"guard": {"x": 1}},
        {"guard": None},
        {"pending": True},
        {"pending": [{"done": 1, "number": "x", "counters": [{}]}]},
        {"pending": [{"done": 1, "number": "x", "counters": [], "acting": {}}]},
        {"metrics_sum": {"a": [1.0]}, "metrics_count": {"b": [0.0]}},
        {"metrics_sum": {"a": [1.0, 1.0]}, "metrics_count": {"b": [0.0, 0.0]}},
        {"metrics_sum": {"a": [1.0]}, "metrics_count": {"a": [1.0]}},
        {"acting": "moon"},
        {"owed": 1},
        {"faults": "many"},
        {"wall_seconds": None},
    ],
    ids=str,
)
def test_a_state_that_says_nonsense_is_refused(copy: Path, change: dict[str, Any]) -> None:
    lie(last(copy) / "state.json", lambda state: state.update(change))
    with pytest.raises(DataError, match="damaged"):
        loaded(copy)


@pytest.mark.parametrize(
    "key", ["written", "running", "guard", "pending", "owed", "acting", "faults", "metrics_sum"]
)
def test_a_state_that_lacks_what_a_resume_needs_is_refused(copy: Path, key: str) -> None:
    lie(last(copy) / "state.json", lambda state: state.pop(key))
    with pytest.raises(DataError, match=key):
        loaded(copy)


def only(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: t for name, t in tensors.items() if part in name}


def each(part: str, change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda found: {n: change(t).clone() if part in n else t for n, t in found.items()}


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("training", only("stream")),
        ("training", only("optimizer")),
        ("training", each("exp_avg", lambda t: t.reshape(-1)[:1])),
        ("training", each("stream", torch.zeros_like)),
        ("training", each("stream", lambda t: t.float())),
        ("training", each("stream", lambda t: t[:, :7])),
        ("training", lambda tensors: tensors | {"guard.x": torch.zeros(2)}),
        ("replay", only("actions")),
        ("replay", only("obs")),
        ("replay", each("obs", lambda t: t.reshape(-1)[:1])),
        ("replay", each("actions", lambda t: t[:1])),
        ("rows-00000", each("rows", lambda t: t[:, :, :3])),
        ("rows-00000", each("rows", lambda t: t[:, :2])),
        ("rows-00000", lambda tensors: tensors | {"priorities": torch.zeros(2, 4).double()}),
    ],
)
def test_tensors_that_dont_fit_the_run_are_refused(
    copy: Path, file: str, change: Callable[[Tensors], Tensors]
) -> None:
    path = last(copy) / f"{file}.safetensors"
    path.write_bytes(tensor_bytes(change(read_tensors(path))))
    with pytest.raises(DataError, match="damaged"):
        loaded(copy)


def test_a_resume_goes_back_to_a_checkpoint_that_tells_the_truth(
    made: Truth, tmp_path: Path
) -> None:
    run = tmp_path / "online"
    shutil.copytree(made.run, run)
    *_, before, newest = complete(run)
    lie(newest / "state.json", lambda state: state.update(written=2**62))
    said: list[str] = []
    execute(made.recipe, run, resume=True, source=made.run.parent / "offline", notes=said)
    assert any(f"Going back to {before}" in note for note in said)


# -- what a report takes


def reported(run: Path) -> None:
    document = build_document([course_of([run])], ReportInfo())
    write_markdown(document, run / "report.md")
    write_page(document, run / "report.html")


def test_a_report_of_what_is_true(copy: Path) -> None:
    reported(copy)
    show_run(copy, True)


DATA = {"id": "a", "sha256": "b", "episodes": 2, "transitions": 9} | {
    "warnings": [],
    "return_mean": 1.0,
    "return_std": 1.0,
}


def reference(**changes: Any) -> dict[str, Any]:
    true = {"label": "a", "random": 0.0, "expert": 1.0, "source": "s"}
    return {"dataset": DATA | {"reference": true | changes}}


@pytest.mark.parametrize(
    "change",
    [
        {"guard": {"x": 1}},
        {"guard": [1]},
        {"guard": "x"},
        {"guard": {"action": "x", "events": [{"seed": 0, "env_steps": "a"}], "bad_episodes": []}},
        {"hardware": 5},
        {"hardware": [1]},
        {"started": 5},
        {"ended": {"a": 1}},
        {"git_revision": [1]},
        {"versions": {"a": 1}},
        {"command": None},
        {"environment": {"id": ""}},
        {"dataset": DATA | {"warnings": 5}},
        {"dataset": DATA | {"episodes": "x"}},
        {"dataset": DATA | {"transitions": "x"}},
        {"dataset": DATA | {"return_mean": 1e308}},
        {"dataset": {"id": "a", "sha256": "b"}},
        reference(expert=0.0),
        reference(expert=5e-324),
        reference(expert=1e308),
        reference(label=1),
    ],
    ids=str,
)
def test_a_manifest_that_says_nonsense_is_refused(copy: Path, change: dict[str, Any]) -> None:
    lie(copy / "manifest.json", lambda manifest: manifest.update(change))
    for read in (reported, lambda run: show_run(run, True)):
        with pytest.raises(DataError, match=r"manifest\.json is damaged"):
            read(copy)


def test_what_a_manifest_says_beside_is_passed_over(copy: Path) -> None:
    lie(copy / "manifest.json", lambda manifest: manifest.update(reference(x=1), more=[1]))
    reported(copy)


@pytest.mark.parametrize("key", ["algo", "dataset", "evaluation", "gradient_steps", "env_steps"])
@pytest.mark.parametrize("value", ["x", [1], {"episodes": "x"}, None, -1], ids=str)
def test_a_recipe_that_says_nonsense_is_refused(copy: Path, key: str, value: Any) -> None:
    if key == "dataset" and value in ("x", None):
        return  # these it may be
    path = copy / "recipe.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), key: value}))
    lie(copy / "manifest.json", lambda manifest: manifest.update(files={}))
    with pytest.raises(DataError, match=r"recipe\.yaml"):
        reported(copy)


@pytest.mark.parametrize("value", ["nan", "inf", "1e308", "-1e31"])
def test_returns_that_are_no_numbers_are_refused(copy: Path, value: str) -> None:
    path = copy / "metrics.csv"
    head, *rows = path.read_text().splitlines()
    at = head.split(",").index("return_mean")
    cells = rows[-1].split(",")
    cells[at] = value
    path.write_text("\n".join([head, *rows[:-1], ",".join(cells)]) + "\n")
    lie(copy / "manifest.json", lambda manifest: manifest.update(files={}))
    with pytest.raises(DataError, match=r"metrics\.csv"):
        reported(copy)
