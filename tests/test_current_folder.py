"""A command that is given in a stranger's folder runs nothing that lies there."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from logs import written

from baq_cli import python
from baq_cli.launch.child import Child
from baq_cli.launch.ray import _elsewhere

DECOYS = ("torch", "yaml", "multiprocessing", "submitit", "baq_cli", "runpy", "venv")


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where modules of the folder that we are in leave a mark once they run."""
    theirs, mark = tmp_path / "theirs", tmp_path / "ran"
    theirs.mkdir()
    for name in DECOYS:
        written(theirs / f"{name}.py", f"open({str(mark)!r}, 'a').write(__name__)\nraise OSError\n")
    monkeypatch.chdir(theirs)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    source = [os.path.abspath(place) for place in sys.path if place]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(source))
    return mark


def test_the_decoys_work(mark: Path) -> None:
    """Otherwise the tests below could pass for a reason of their own."""
    subprocess.run([sys.executable, "-m", "baq_cli.launch.worker", "x"], capture_output=True)
    assert mark.exists()


def test_a_cell_s_process_imports_nothing_from_where_it_starts(mark: Path, tmp_path: Path) -> None:
    cell = tmp_path / "cell"
    cell.mkdir()
    for directory in (None, Path.cwd()):
        child = Child(cell, 1, directory=directory)
        assert "status 3" in child.attend([]), "there is no cell: it came as far as to look"
        assert not mark.exists()


def test_a_job_of_submitit_imports_nothing_from_where_it_starts(mark: Path, tmp_path: Path) -> None:
    """Its command is what `running` gives, then `-u -m MODULE FOLDER`; here of another module."""
    file = written(tmp_path / "a b.json", "[1]")
    words = shlex.split(f"{python.running('json.tool')} -u -m json.tool {shlex.quote(str(file))}")
    done = subprocess.run([*words, "--compact"], capture_output=True, text=True)
    assert done.stdout == "[1]\n", done.stderr
    assert not mark.exists()


def test_processes_that_libraries_start_leave_the_folder_out(mark: Path) -> None:
    """Spawned ones begin with `python -c "from multiprocessing…"`, as does what tracks them."""
    script = (
        "from baq_cli.python import never_from_here; never_from_here()\n"
        "import multiprocessing, os\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=os.getpid)\n"
        "    process.start(); process.join(); print(process.exitcode)"
    )
    path = written(mark.parent / "script.py", script)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True)
    assert done.stdout == "0\n", done.stderr
    assert not mark.exists()


def test_ray_is_started_elsewhere(mark: Path) -> None:
    """Its driver's folder comes first on its workers' path."""
    here = os.getcwd()
    with _elsewhere():
        assert os.getcwd() == os.sep
    assert os.getcwd() == here
