"""Settings of every test: one thread, property tests that repeat exactly, a cache of its own."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import gymnasium as gym
import pytest
import torch
from hypothesis import settings

from baq_cli.machine import usable_cores
from baq_cli.untrusted import TRUST_VARIABLE
from support.seconds import longest_first, quick, record, recorded
from support.spared import (
    build_commands_once,
    draw_each_kind_of_file_once,
    figures_drawn,
    wait_for_no_disk,
    work_in_memory,
)

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's script has it behind an &
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as nohup has it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if TYPE_CHECKING:
    from support.advice import Terminal

work_in_memory()
wait_for_no_disk()
draw_each_kind_of_file_once()
build_commands_once()
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("repeatable")

_cache = tempfile.TemporaryDirectory(prefix="baq-tests-")
os.environ["BAQ_CACHE"] = _cache.name
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as the program sets it before it imports that
_took: dict[str, float] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-seconds", action="store_true", help="record how long tests take")


def pytest_xdist_auto_num_workers() -> int:
    """Return for `-n logical` half as many processes again as CPUs: a fifth of the time tests wait.

    With twice as many, they wait for each other.
    """
    return max(2, 3 * usable_cores() // 2)


def _name(item: pytest.Item) -> str:
    """Return a test's file, below this folder, and its function."""
    file = item.path.relative_to(Path(__file__).parent)
    return f"{file.as_posix()}::{getattr(item, 'originalname', item.name)}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is quick by the record, and order files by how long they take."""
    known, names = recorded(), [_name(item) for item in items]
    short = quick(set(names), known)
    for item, name in zip(items, names, strict=True):
        if name in short:
            item.add_marker(pytest.mark.quick)
    items[:] = longest_first(items, names, known)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    name = report.nodeid.removeprefix("tests/")
    _took[name] = _took.get(name, 0.0) + report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    worker = hasattr(session.config, "workerinput")  # which the one that started it hears of
    if session.config.getoption("--record-seconds") and not worker:
        record(_took)


@pytest.fixture(autouse=True)
def _trust_ends_with_its_test() -> Iterator[None]:
    """Take back what `baq --trust-env` in this process said for the processes that it starts."""
    before = os.environ.get(TRUST_VARIABLE)
    yield
    os.environ.pop(TRUST_VARIABLE, None)
    if before is not None:
        os.environ[TRUST_VARIABLE] = before


@pytest.fixture(scope="module")
def figures() -> Iterator[None]:
    """Every figure is drawn; elsewhere their files hold the first one."""
    with figures_drawn():
        yield


@pytest.fixture
def folder() -> Iterator[Path]:
    """A Minari folder and a cache of the test's own, in the folder that is returned."""
    from support.recordings import own_folders  # it takes its settings from the profile above

    with own_folders() as place:
        yield place


@pytest.fixture(scope="module")
def steady_dataset() -> Iterator[None]:
    """A dataset of `Steady-v0`, by `support.recordings.ID`, in folders of the module's own."""
    from support.recordings import ID, own_folders
    from support.small_data import write_steady

    with own_folders():
        write_steady(ID)
        yield


@pytest.fixture
def short_env() -> Iterator[str]:
    """An environment of three observations and a torque in [−2, 2]; it stops after three steps."""
    gym.register("Short-v0", "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=3)
    yield "Short-v0"
    gym.registry.pop("Short-v0")


@pytest.fixture
def baq_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `baq` in this process; return its status and what it wrote to stdout and stderr."""
    from baq_cli.cli.main import main

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["baq", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def terminal(baq_here: Callable[..., tuple[int, str, str]]) -> Terminal:
    """A user at a terminal, who reads messages and does what they say."""
    from support.advice import Terminal

    return Terminal(baq_here)


@pytest.fixture
def refused(folder: Path, baq_here: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Run `baq` on something damaged; return its message once all is well with it.

    One line, the status of damaged data or the one given, and no file changed.
    """
    from support.logs import listing

    def run(*words: str | Path, status: int = 3) -> str:
        before = listing(folder / "minari")
        code, out, said = baq_here(*words)
        assert (code, out) == (status, ""), said
        assert said.startswith("error: ")
        assert said.count("\n") == 1, said
        assert "Traceback" not in said
        assert listing(folder / "minari") == before
        return said

    return run


@pytest.fixture
def refused_import(refused: Callable[..., str]) -> Callable[..., str]:
    """Import a damaged file, from the command line and from Python; it is named once.

    The message is returned without the path, so that no word of that is taken for one of it.
    """
    from baq_cli.data.exchange import import_file
    from baq_cli.data.logs.logfile import Setting
    from baq_cli.errors import DataError
    from support.logs import BOUNDS, NEW, bounded

    def run(path: Path, *words: str) -> str:
        said = refused("data", "import", path, "--id", NEW, *(words or BOUNDS))
        said = said.replace(f"source '{path}'", "")  # pyarrow's words name it again
        assert said.count(str(path)) == 1
        with pytest.raises(DataError):
            import_file(path, NEW, Setting() if words else bounded(), None)
        return said.replace(str(path), "")

    return run


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a CUDA card where there is none; `benchmarks/cuda.sh` runs it on one."""
    if item.get_closest_marker("cuda") is not None and not torch.cuda.is_available():
        pytest.skip("needs a CUDA card")


@pytest.fixture(autouse=True)
def _exact_small_numbers() -> None:
    """Runs flush denormals to zero; a test that follows one shall not depend on it."""
    torch.set_flush_denormal(False)
