"""Cells as jobs: of submitit's local executor, and of a stand-in for Slurm's commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from baq_cli.errors import ExitStatus, Interrupted, UsageError
from baq_cli.launch import worker
from baq_cli.launch.cells import Cell
from baq_cli.launch.drive import run_cells
from baq_cli.launch.journal import read_state
from baq_cli.launch.slurm import JOB, Slurm, own_folder, parse_options
from baq_cli.runs.files import json_bytes, replace_file
from baq_cli.signals import STOPPING
from support.fake_slurm import fake_slurm
from support.launching import (
    ask_to_stop,
    assert_same_course,
    cells_in,
    kill,
    once_evaluated,
    own_data,
    parent_of,
    run_here,
    stage,
    worker_of,
)

ALGOS = ("iql", "td3_bc")
LOCAL = {"cluster": "local"}


class DriverGone(Exception):
    """What ends a driver without a word to its jobs."""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with own_data() as place:
        yield place


@pytest.fixture(scope="module")
def reference(place: Path) -> dict[str, Cell]:
    """Cells that ran here, uninterrupted, by method."""
    cells = cells_in(place / "reference", ALGOS)
    run_here(cells)
    return {cell.method: cell for cell in cells}


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Path]:
    with fake_slurm(tmp_path) as jobs:
        yield jobs


def test_lost_and_preempted_jobs_change_no_number_and_a_failure_stops_no_other(
    place: Path, reference: dict[str, Cell]
) -> None:
    out = place / "local"
    bad, iql, td3_bc = cells_in(out, ["awac", *ALGOS], "awac.reward_scale=1e38")
    notes: list[str] = []

    def preempt() -> None:
        runs = worker_of(td3_bc)
        for pid in (runs, parent_of(runs)):
            os.kill(pid, signal.SIGUSR2)

    deeds: dict[str, Callable[[], None]] = {
        "iql": lambda: kill(parent_of(worker_of(iql))),
        "td3_bc": preempt,
    }
    watch = once_evaluated(deeds, notes)
    failures = run_cells([bad, iql, td3_bc], Slurm(out, options=LOCAL, slots=2), watch)
    lost = [note for note in notes if "starting it again" in note]
    assert len(lost) == 2
    for cell in (iql, td3_bc):
        assert stage(cell) == "done"
        assert_same_course(cell, reference[cell.method])

    assert failures.keys() == {bad.name}
    assert failures[bad.name].status == ExitStatus.NON_FINITE
    assert stage(bad) == "failed"


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_while_no_phase_listens_stops_a_cell_too(
    number: signal.Signals, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [cell] = cells_in(place / "between", ["bc"])
    cell.save()
    monkeypatch.setattr(worker, "run_cell", lambda *_: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    assert worker.work(cell.folder) == ExitStatus.INTERRUPTED
    assert stage(cell) == "stopped"
    assert signal.getsignal(number) is before
    assert number.name in (read_state(cell.folder).error or "")


def test_stopped_by_a_signal_local_jobs_are_saved_first(place: Path) -> None:
    out = place / "stopped"
    [cell] = cells_in(out, ["bc"], "gradient_steps=5000")
    with pytest.raises(Interrupted):
        run_cells([cell], Slurm(out, options=LOCAL), once_evaluated({"bc": ask_to_stop}, []))
    assert stage(cell) == "stopped"


def test_a_job_outlives_its_driver_and_is_not_submitted_twice(place: Path, slurm: Path) -> None:
    out = place / "slurm"
    [cell] = cells_in(out, ["bc"], "gradient_steps=2000")

    def driver_goes() -> None:
        raise DriverGone

    asked = parse_options(["partition=long", "mem_gb=2", "timeout_min=90"])
    with pytest.raises(DriverGone):
        run_cells([cell], Slurm(out, 3, 1, asked), once_evaluated({"bc": driver_goes}, []))
    [script] = own_folder(out).glob("*_submission.sh")
    lines = {line for line in script.read_text().splitlines() if line.startswith("#SBATCH")}
    assert {
        *("#SBATCH --partition=long", "#SBATCH --mem=2GB", "#SBATCH --time=90"),
        *("#SBATCH --cpus-per-task=3", "#SBATCH --gpus-per-node=1", "#SBATCH --no-requeue"),
    } <= lines
    assert "--cpus-per-task=3 " in script.read_text().rpartition("srun")[2]
    assert stage(cell) == "running", "Slurm has it"

    notes: list[str] = []
    with pytest.raises(Interrupted):
        run_cells([cell], Slurm(out), once_evaluated({"bc": ask_to_stop}, notes))
    assert any("already Slurm job 1" in note for note in notes)
    assert stage(cell) == "stopped", "scancel has it saved"

    assert run_cells([cell], Slurm(out), once_evaluated({}, [])) == {}
    assert stage(cell) == "done"
    assert sorted(file.name for file in slurm.glob("*.pid")) == ["1.pid", "2.pid"]


def test_a_job_number_in_a_folder_is_believed_only_if_it_was_submitted_from_here(
    place: Path, slurm: Path, tmp_path: Path
) -> None:
    """It may be that of another job of the user's, which we would watch, and cancel at Ctrl-C."""
    out, elsewhere = place / "theirs", tmp_path / "elsewhere"
    [cell] = cells_in(out, ["bc"])
    cell.save()
    elsewhere.mkdir()
    (out / "slurm").symlink_to(elsewhere)
    launcher = Slurm(out)
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        (slurm / "7.pid").write_text(str(other.pid))
        submitted = own_folder(out) / "7_submission.sh"
        for number in ("7", "--me", "7 --me", "../7", 7):
            replace_file(cell.folder / JOB, json_bytes({"cluster": "slurm", "job_id": number}))
            assert launcher.known_job(cell) is None
        submitted.parent.mkdir(parents=True, exist_ok=True)
        submitted.touch()
        job = launcher.known_job(cell)
        assert job is not None
        assert job.job_id == "7"
    finally:
        other.kill()
        other.wait()
    assert not list(elsewhere.iterdir()), "submitit's files are the user's own"


def test_what_slurm_refuses_is_told_in_its_words(place: Path, slurm: Path) -> None:
    out = place / "refused"
    (slurm / "refuse").touch()
    with pytest.raises(UsageError, match=r"invalid partition.*the same command"):
        run_cells(cells_in(out, ["bc"]), Slurm(out), once_evaluated({}, []))


def test_a_time_of_day_or_a_duration_is_given_to_sbatch_as_it_is_written() -> None:
    words = ["time=1:00:00", "begin=16:00", "nodelist=007", "mem_gb=2"]
    asked = {"time": "1:00:00", "begin": "16:00", "nodelist": "007", "mem_gb": 2}
    assert parse_options(words) == asked


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["partition"], "KEY=VALUE"),
        (["partition="], "KEY=VALUE"),
        (["cluster=pbs"], "slurm, local"),
        (["cpus_per_task=2"], "--cpus"),
        (["partitoin=long"], "partitoin"),
        (["timeout_min=soon"], "timeout_min"),
        (["additional_parameters=3"], "additional_parameters"),
    ],
)
def test_options_that_mean_nothing_are_errors(
    words: list[str], said: str, tmp_path: Path, slurm: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        Slurm(tmp_path, options=parse_options(words))
    with pytest.raises(UsageError, match="whole"):
        Slurm(tmp_path, gpus=0.5)


def test_without_slurm_or_submitit_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="cluster=local"):
        Slurm(tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r"pip install 'baq-cli\[slurm\]'"):
        Slurm(tmp_path)
