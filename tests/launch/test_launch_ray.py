"""Cells on a real Ray cluster of two machines, on this one: lost, stopped, carried there and back.

A cluster's machines are Ray's own processes here, so they share a disk; where a test says that they
don't, workers are told to look for a file that isn't there.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from baq_cli.errors import ExitStatus, Interrupted, UsageError
from baq_cli.launch.cells import Cell
from baq_cli.launch.child import Child
from baq_cli.launch.drive import run_cells
from baq_cli.launch.ray import launcher as launch_ray
from baq_cli.launch.ray.launcher import Ray
from baq_cli.launch.ray.task import CellTask, Return
from baq_cli.launch.ray.transfer import GONE, contents
from support.advice import follows
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


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with own_data() as place:
        yield place


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    """Two machines with a CPU each; they see the data of `place`."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray import cluster_utils

    machine = {"num_cpus": 1, "include_dashboard": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=machine)
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="module")
def reference(place: Path) -> dict[str, Cell]:
    """Cells that ran here, uninterrupted, by method."""
    cells = cells_in(place / "reference", ALGOS)
    run_here(cells)
    return {cell.method: cell for cell in cells}


@pytest.fixture
def no_shared_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers look for another token than the one that lies in a cell's folder."""

    def other(folder: str, token: str, *rest: object) -> CellTask:
        return CellTask(folder, "another", *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(launch_ray, "CellTask", other)


def wait_for(it: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not it():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def scratch_checkpoints() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("baq-cell-*/offline/checkpoints/latest"))


def test_lost_workers_and_processes_change_no_number_and_a_failure_stops_no_other(
    place: Path, address: str, reference: dict[str, Cell], capsys: pytest.CaptureFixture[str]
) -> None:
    bad, iql, td3_bc = cells_in(place / "killed", ["awac", *ALGOS], "awac.reward_scale=1e38")
    notes: list[str] = []
    deeds: dict[str, Callable[[], None]] = {
        "iql": lambda: kill(parent_of(worker_of(iql))),
        "td3_bc": lambda: kill(worker_of(td3_bc)),
    }
    failures = run_cells([bad, iql, td3_bc], Ray(address), once_evaluated(deeds, notes))
    lost = sorted(note for note in notes if "lost" in note)
    assert len(lost) == 2
    assert "worker process died" in lost[0]
    assert "SIGKILL" in lost[1]
    for cell in (iql, td3_bc):
        assert stage(cell) == "done"
        assert_same_course(cell, reference[cell.method])

    assert failures.keys() == {bad.name}
    assert failures[bad.name].status == ExitStatus.NON_FINITE
    assert "NaN or infinite" in str(failures[bad.name])
    assert stage(bad) == "failed"
    assert capsys.readouterr().out == "", "Ray's messages aren't among the results"


def test_stopped_by_a_signal_cells_are_saved_and_the_same_command_goes_on(
    place: Path, address: str, reference: dict[str, Cell]
) -> None:
    iql, td3_bc = cells_in(place / "stopped", ALGOS)
    with pytest.raises(Interrupted, match="SIGTERM"):
        run_cells([iql, td3_bc], Ray(address, slots=1), once_evaluated({"iql": ask_to_stop}, []))
    assert (stage(iql), stage(td3_bc)) == ("stopped", "waiting")
    assert not (td3_bc.folder / "offline").exists(), "what had not started does not start"
    assert run_cells([iql, td3_bc], Ray(address), once_evaluated({}, [])) == {}
    for cell in (iql, td3_bc):
        assert_same_course(cell, reference[cell.method])


def test_without_a_shared_disk_folders_travel_there_and_back(
    place: Path,
    address: str,
    reference: dict[str, Cell],
    no_shared_disk: None,
    baq_here: Callable[..., tuple[int, str, str]],
) -> None:
    [cell] = cells_in(place / "apart", ["td3_bc"])
    before = set(scratch_checkpoints())

    def stop_when_saved() -> None:
        wait_for(lambda: bool(set(scratch_checkpoints()) - before))
        ask_to_stop()

    thread = threading.Thread(target=stop_when_saved)
    thread.start()
    with pytest.raises(Interrupted):
        run_cells([cell], Ray(address), once_evaluated({}, []))
    thread.join()
    assert stage(cell) == "stopped"
    assert (cell.folder / "offline" / "checkpoints" / "latest").exists(), "it came back"

    heard: list[str] = []
    assert run_cells([cell], Ray(address), once_evaluated({}, heard)) == {}
    assert stage(cell) == "done"
    assert any("fine-tuning" in note for note in heard)
    assert_same_course(cell, reference["td3_bc"])
    assert set(scratch_checkpoints()) <= before, "nothing stays behind"
    status, _, said = baq_here("eval", "--checkpoint", cell.folder / "online", "--episodes", "1")
    assert status == 0, said


def test_what_leads_out_of_the_folder_fails_its_cell(
    place: Path, address: str, no_shared_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    [cell] = cells_in(place / "evil", ["bc"])

    def evil_task(task: CellTask, parcel: list[Any]) -> Return:  # a worker tampered with
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(GONE, "[]")
            archive.writestr("../../../../x", "overwritten")
        return Return("its process ended with status 0", packed.getvalue())

    monkeypatch.setattr(launch_ray, "run_task", evil_task)
    failures = run_cells([cell], Ray(address), once_evaluated({}, []))
    assert "leads out of that folder" in str(failures[cell.name])
    assert failures[cell.name].status == ExitStatus.DATA
    assert not (place / "evil" / "x").exists()


def test_a_scratch_folder_goes_with_the_worker_that_would_fetch_it(place: Path) -> None:
    [cell] = cells_in(place / "orphan", ["bc"], "gradient_steps=100000")
    cell.save()
    child = Child(cell.folder, 1, scratch=True)
    wait_for(lambda: bool(contents(cell.folder / "offline" / "checkpoints")))
    assert child.ended() is None
    child.let_go()
    wait_for(lambda: not cell.folder.exists())


@follows(
    "no cell finds room: it asks for {}, and this machine has {}. Ask for less, or name a cluster",
    "cannot use Ray at '{}': {}. Start a cluster with 'ray start --head', or leave --address out",
)
def test_a_machine_that_is_too_small_is_an_error_and_so_is_no_cluster(address: str) -> None:
    with pytest.raises(UsageError, match="finds room"):
        Ray(cpus=100_000)
    with pytest.raises(UsageError, match="ray start"):
        Ray("127.0.0.1:1")
    for given in (None, address):
        Ray(given, cpus=1).close()


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'baq-cli\[ray\]'"):
        Ray()
