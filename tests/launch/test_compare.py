"""`baq compare` and `baq report` as a user runs, stops, kills and continues them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from baq_cli.cli.planned import steps_of
from baq_cli.errors import ExitStatus
from baq_cli.launch.cells import Cell, save_matrix
from baq_cli.launch.journal import read_state, write_state
from baq_cli.runs.folder import read_metrics
from baq_cli.units import UNITS
from support.advice import Terminal
from support.cli import SMALL, baq, baq_json
from support.runs import assert_same_logs

DATASET = "baq/pendulum/medium-v0"
ON = ("--dataset", DATASET, "--seeds", "2", *SMALL)
SHORT = (
    *("--gradient-steps", "20", "evaluation.every_gradient_steps=10"),
    *("--env-steps", "20", "evaluation.every_env_steps=10"),
)
LONG = (
    *("--gradient-steps", "400", "evaluation.every_gradient_steps=100"),
    *("--env-steps", "40", "evaluation.every_env_steps=20"),
)
FILES = ("report.html", "report.md", "results.csv", "results.json")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("minari")


@pytest.fixture(scope="module")
def compared(data: Path) -> tuple[Path, dict[str, Any]]:
    """A small comparison of every kind of method, and what it printed."""
    out = data / "compared"
    words = ("compare", "--algos", "iql,bc,sac", *ON, *SHORT, "--out", out)
    return out, baq_json(*words, data=data)


def folder(out: Path, method: str) -> Path:
    return out / "cells" / DATASET / method


def start(*words: str | Path, data: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "baq_cli.cli.main", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"MINARI_DATASETS_PATH": str(data)},
    )


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def training(out: Path, method: str) -> Callable[[], bool]:
    """Return whether a cell has a checkpoint and is not done."""
    return lambda: (
        read_state(folder(out, method)).stage == "running"
        and bool(list(folder(out, method).glob("*/checkpoints/latest")))
    )


def test_every_kind_of_method_stands_in_one_report(
    compared: tuple[Path, dict[str, Any]],
) -> None:
    out, document = compared
    (task,) = document["tasks"]
    found = {name: entry["statistics"] for name, entry in task["methods"].items()}
    assert list(found) == ["iql", "bc", "sac"]
    assert found["bc"]["final"]["mean"] is None, "cloning has no online phase"
    assert found["sac"]["offline"]["mean"] is None, "SAC has no offline phase"
    assert found["iql"]["final"]["count"] == 2
    rows = read_metrics(folder(out, "iql") / "online")
    last = [row["return_mean"] for row in rows if row["env_steps"] == 20]
    assert found["iql"]["final"]["per_seed"] == pytest.approx(last, rel=1e-5)
    assert all((out / name).stat().st_size > 0 for name in FILES)
    assert json.loads((out / "results.json").read_text()) == document


def test_the_same_command_again_trains_nothing_and_says_the_same(
    compared: tuple[Path, dict[str, Any]], data: Path
) -> None:
    out, document = compared
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    words = ("compare", "--algos", "iql,bc,sac", *ON, *SHORT, "--out", out)
    again = baq_json(*words, data=data)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before
    assert again["tasks"] == document["tasks"]
    other = (*words, "iql.expectile=0.9")
    said = baq(*other, data=data, expect=ExitStatus.USAGE).stderr
    assert "iql.expectile was 0.7, this command says 0.9" in said


def test_a_report_takes_comparisons_runs_and_curves_together(
    compared: tuple[Path, dict[str, Any]], data: Path, tmp_path: Path
) -> None:
    out, _ = compared
    curves = tmp_path / "published.csv"
    head = "dataset,algo,seed_index,phase,eval_index,gradient_steps,env_steps,return"
    lines = [f"{DATASET},Published,{seed},online,0,20,0,-900" for seed in (0, 1)]
    lines += [f"{DATASET},Published,{seed},online,1,20,20,-100" for seed in (0, 1)]
    curves.write_text("\n".join([head, *lines]))
    found = baq_json("report", out, "--curves", curves, "--out", tmp_path / "report", data=data)
    methods = found["tasks"][0]["methods"]
    assert list(methods) == ["iql", "bc", "sac", "Published"]
    assert methods["Published"]["statistics"]["final"]["mean"] == -100
    assert methods["Published"]["source"] == "file"
    curves.write_text("\n".join([head, *lines]).replace(",20,-100", ",40,-100"))
    said = baq("report", out, "--curves", curves, "--out", tmp_path / "no", data=data, expect=2)
    assert "env_steps is 20 and 40" in said.stderr
    alone = baq_json("report", folder(out, "iql") / "online", "--out", tmp_path / "run", data=data)
    assert list(alone["tasks"][0]["methods"]) == ["iql"]


def test_a_cell_that_fails_is_reported_and_stops_no_other(data: Path, tmp_path: Path) -> None:
    words = ("compare", "--algos", "iql,td3_bc", *ON, *SHORT, "--out", tmp_path / "c")
    words = (*words, "--grid", "iql.learning_rate=0.001,1e18", "--workers", "2", "--json")
    done = baq(*words, data=data, expect=ExitStatus.NON_FINITE)
    document = json.loads(done.stdout)
    assert list(document["tasks"][0]["methods"]) == ["iql learning_rate=0.001", "td3_bc"]
    (failure,) = document["failures"]
    assert failure["method"].startswith("iql learning_rate=1e18")
    assert "NaN" in failure["error"]
    assert failure["seeds"] == document["tasks"][0]["methods"]["td3_bc"]["seeds"]
    assert failure["error"] in (tmp_path / "c" / "results.json").read_text()
    assert "Traceback" not in done.stderr


def test_an_interrupted_comparison_continues_by_the_same_command(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "c"
    words = ("compare", "--algos", "iql,awac,td3_bc", *ON, *LONG, "--workers", "2", "--out", out)
    process = start(*words, data=data)
    wait_for(training(out, "iql"))
    with paused(process.pid, read_state(folder(out, "iql")).pid or 0):
        standing = {row["method"]: row["stage"] for row in status(out, data)}
        process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == ExitStatus.INTERRUPTED
    assert "the same command" in said
    assert "Traceback" not in said
    assert standing["iql"] == "running"
    assert standing["td3_bc"] == "waiting"
    assert not (folder(out, "td3_bc") / "offline").exists(), "what had not started does not start"
    methods = baq_json(*words, data=data)["tasks"][0]["methods"]
    assert [entry["statistics"]["final"]["count"] for entry in methods.values()] == [2, 2, 2]
    assert {row["stage"] for row in status(out, data)} == {"done"}


@contextmanager
def paused(*pids: int) -> Iterator[None]:
    """Let processes do nothing meanwhile, however long that takes."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


def status(out: Path, data: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = baq_json("compare", "status", out, data=data)
    return found


def test_killed_cells_and_a_killed_comparison_lose_nothing(data: Path, tmp_path: Path) -> None:
    """Kill −9 a cell: it starts again. Kill −9 the command: its cells save and stop with it."""
    words = ("compare", "--algos", "iql,td3_bc", *ON, *LONG, "--workers", "2", "--out")
    baq(*words, tmp_path / "whole", data=data)
    out = tmp_path / "killed"
    process = start(*words, out, data=data)
    wait_for(training(out, "iql"))
    os.kill(read_state(folder(out, "iql")).pid or 0, signal.SIGKILL)
    first = read_state(folder(out, "iql")).pid
    wait_for(lambda: read_state(folder(out, "iql")).pid != first)
    process.kill()
    process.communicate()
    ended = ("done", "stopped", "waiting", "failed")
    wait_for(lambda: all(read_state(folder(out, m)).stage in ended for m in ("iql", "td3_bc")))
    baq(*words, out, data=data)
    for method in ("iql", "td3_bc"):
        assert read_state(folder(out, method)).stage == "done"
        for phase in ("offline", "online"):
            one, other = (folder(place, method) / phase for place in (tmp_path / "whole", out))
            assert_same_logs(one, other)


def test_one_comparison_a_folder(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "c"
    words = ("compare", "--algos", "iql", *ON, *LONG, "--out", out)
    process = start(*words, data=data)
    try:
        wait_for(lambda: (out / ".lock").exists() and (out / ".lock").read_text())
        said = baq(*words, data=data, expect=ExitStatus.USAGE).stderr
        assert f"in use by process {process.pid}" in said
    finally:
        process.kill()
        process.communicate()


def test_a_dry_run_prints_the_cells_with_times_and_leaves_nothing(
    data: Path, tmp_path: Path
) -> None:
    words = ("compare", "--algos", "iql,bc", *ON, *SHORT, "--out", tmp_path / "c", "--dry-run")
    plan = baq_json(*words, data=data)
    assert [cell["method"] for cell in plan["cells"]] == ["iql", "bc"]
    assert all(cell["seconds"] > 0 for cell in plan["cells"])
    assert max(c["seconds"] for c in plan["cells"]) <= plan["seconds"]
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("method", "steps"),
    [("bc", ["1,000", "–"]), ("iql", ["1,000", "2,000"]), ("sac", ["–", "2,000"])],
)
def test_a_plan_counts_no_steps_of_a_phase_that_a_method_lacks(
    method: str, steps: list[str], tmp_path: Path
) -> None:
    recipe = {"algo": method, "seeds": [0], "gradient_steps": 1000, "env_steps": 2000}
    cell = Cell(DATASET, method, tmp_path, recipe, "baq")
    assert [steps_of(cell, phase) for phase in UNITS] == steps


@pytest.mark.parametrize("columns", [120, 40])
def test_status_says_below_the_table_why_a_cell_failed(
    columns: int, terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table has no column for it, and each number stands whole, however narrow it is."""
    recipe = {"algo": "iql", "seeds": [0]}
    why = "loss_critic is NaN or infinite at gradient step 2 (seeds [0]); it is kept in runs/a"
    cells = [Cell(DATASET, name, tmp_path / name, recipe, "baq") for name in ("iql", "bc")]
    save_matrix(cells, tmp_path)
    write_state(cells[0].folder, "failed", why, 5)
    monkeypatch.setattr("baq_cli.cli.results.PIPE_WIDTH", columns)
    lines = terminal.done("compare", "status", tmp_path).splitlines()
    assert lines[0] == DATASET
    assert lines[-1] == f"failed: {DATASET}, iql: {why}"
    (row,) = (line for line in lines if line.startswith("iql"))
    assert row.split() == ["iql", "failed"]
    assert max(map(len, lines[:-1])) <= columns


def test_status_of_a_folder_without_a_comparison(data: Path, tmp_path: Path) -> None:
    said = baq("compare", "status", tmp_path, data=data, expect=ExitStatus.DATA).stderr
    assert "holds no comparison" in said
    words = ("report", tmp_path, "--out", tmp_path / "report")
    assert "neither a comparison nor a run" in baq(*words, data=data, expect=3).stderr
