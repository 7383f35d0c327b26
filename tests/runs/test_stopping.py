"""Which signals stop a process, which stay ignored, and what is said when nothing was learned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from subprocess import PIPE
from types import ModuleType

import pytest

from baq_cli.engine.phases import start
from baq_cli.errors import ExitStatus
from baq_cli.launch.child import ALWAYS, noted_signals
from baq_cli.runs.interrupt import listen
from baq_cli.signals import GROUP, STOPPING, TWICE_SECONDS, Stopped, held, raised
from support.cli import SMALL
from support.places import REPOSITORY

INTERRUPTS = """
import os, signal, sys
class Interrupts:
    def find_spec(self, name, *_):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
"""
"""Ctrl-C at the first module of the command line that another package has."""
MODULE = "import runpy; runpy.run_module('baq_cli', run_name='__main__')"
OTHERS = [number for number in STOPPING if number != signal.SIGINT]


@pytest.fixture
def dispositions() -> Iterator[None]:
    """Every handler is as it was after the test; here all have Python's own or the system's."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


# -- while a phase listens


def test_these_signals_are_known_wherever_the_system_has_them() -> None:
    assert {number.name for number in STOPPING} >= {"SIGINT", "SIGTERM"}
    if sys.platform == "linux":
        named = {"SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"}
        assert {number.name for number in STOPPING} == named | {"SIGINT", "SIGTERM"}


@pytest.mark.parametrize("number", STOPPING)
def test_each_is_noted_by_its_name_and_its_handler_comes_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with listen() as interruption:
        assert interruption.requested is None
        send(number)
        assert interruption.requested == number.name
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", STOPPING)
def test_what_is_ignored_from_the_start_stays_ignored(
    number: signal.Signals, dispositions: None
) -> None:
    signal.signal(number, signal.SIG_IGN)
    with listen() as interruption, raised():
        send(number)
    assert interruption.requested is None
    assert signal.getsignal(number) is signal.SIG_IGN


def test_only_a_second_sigint_gives_up_what_is_being_saved() -> None:
    with listen() as interruption:
        send(*OTHERS, *OTHERS, signal.SIGINT, *OTHERS)  # as a scheduler warns, asks, and asks again
        assert interruption.requested == OTHERS[0].name, "the first is the reason"
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_a_launcher_s_own_signals_count_even_where_its_parent_ignored_them(
    dispositions: None,
) -> None:
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    with noted_signals() as asked:
        send(*STOPPING)
    assert asked == [number for number in STOPPING if number in ALWAYS]
    assert {signal.getsignal(number) for number in STOPPING} == {signal.SIG_IGN}


# -- where no phase listens


def test_the_same_signal_twice_at_once_ends_a_command_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with raised():
        with pytest.raises(Stopped, match="SIGHUP"):
            send(signal.SIGHUP)
        send(signal.SIGHUP, signal.SIGTERM)  # while the command cleans up
        now += 2 * TWICE_SECONDS
        with pytest.raises(Stopped, match="SIGTERM"):
            send(signal.SIGTERM)


LOSES = f"""
import os, signal, sys, time
sys.path[:0] = [{str(REPOSITORY / "src")!r}]
from baq_cli.signals import Stopped, raised
sent = []
def send(event, arguments):
    if event == "import" and arguments[0] == "numpy" and not sent:
        sent.append(os.kill(os.getpid(), signal.SIGTERM))
sys.addaudithook(send)
try:
    with raised():
        import torch
        time.sleep(30)
except Stopped:
    print(len(sent), "numpy" in sys.modules)
"""


def test_a_signal_while_pytorch_loads_numpy_is_not_lost_in_its_c_code() -> None:
    process = subprocess.run([sys.executable, "-c", LOSES], capture_output=True, text=True)
    assert (process.stdout, process.stderr) == ("1 True\n", "")


class Endless(ExtensionFileLoader):
    """An extension module that is asked to stop while it loads, and never has loaded."""

    def __init__(self, signals: int):
        super().__init__("endless", "endless.so")
        self.signals = signals

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        for _ in range(self.signals):
            send(signal.SIGTERM)
            time.sleep(0.3)
        time.sleep(30)
        return ModuleType("endless")


@pytest.mark.parametrize(
    ("twice", "patience", "signals"), [(0.1, 30.0, 2), (30.0, 0.2, 1)], ids=["again", "too long"]
)
def test_a_module_that_never_has_loaded_keeps_nobody_who_asks_again_or_waits_long(
    twice: float, patience: float, signals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baq_cli.signals.TWICE_SECONDS", twice)
    monkeypatch.setattr("baq_cli.signals.LOADING_SECONDS", patience)
    spec, begun = ModuleSpec("endless", Endless(signals)), time.monotonic()
    with raised(), pytest.raises(Stopped, match="SIGTERM"):
        module_from_spec(spec)
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("number", STOPPING)
@pytest.mark.parametrize(
    ("resume", "learned"), [((), "nothing was learned yet"), (("--resume",), "nothing new")]
)
def test_a_signal_before_training_says_that_nothing_was_learned(
    number: signal.Signals,
    resume: tuple[str, ...],
    learned: str,
    folder: Path,
    baq_here: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(start, "open_checked", lambda *_: send(number))
    before = signal.getsignal(number)
    words = ("pretrain", "--dataset", "a/b-v0", "--algo", "iql", "--out", folder / "run", *resume)
    status, out, said = baq_here(*words)
    assert (status, out) == (ExitStatus.INTERRUPTED, "")
    assert f"stopped by {number.name} before training began; {learned}" in said
    assert said.endswith(f"baq {' '.join(map(str, words))}\n"), "the command that begins it again"
    assert not (folder / "run").exists()
    assert signal.getsignal(number) is before


def test_a_signal_to_a_command_that_trains_nothing_ends_it_by_name(
    baq_here: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from baq_cli.data.minari import folder as minari

    monkeypatch.setattr(minari, "local_datasets", lambda *_: send(signal.SIGXCPU))
    status, out, said = baq_here("data", "list")
    assert (status, out) == (ExitStatus.INTERRUPTED, "")
    assert said == "stopped at once by SIGXCPU; what was complete before is kept\n"


@pytest.mark.parametrize("begin", ["from baq_cli.entry import main; main()", MODULE])
def test_ctrl_c_while_the_command_loads_ends_it_in_one_line(begin: str) -> None:
    """Also where a module would have swallowed an exception."""
    process = subprocess.run(
        [sys.executable, "-c", f"{INTERRUPTS}\n{begin}", "--help"], capture_output=True, text=True
    )
    said = "stopped at once; nothing had begun\n"
    found = process.returncode, process.stdout, process.stderr
    assert found == (ExitStatus.INTERRUPTED, "", said)


def test_what_is_installed_begins_there() -> None:
    scripts = (REPOSITORY / "pyproject.toml").read_text().partition("[project.scripts]\n")[2]
    assert scripts.startswith('baq = "baq_cli.entry:main"\n')


def test_an_ignored_ctrl_c_stays_ignored_while_the_command_loads() -> None:
    ignored = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    begin = "from baq_cli.entry import main; main()"
    process = subprocess.run(
        [sys.executable, "-c", f"{ignored}\n{INTERRUPTS}\n{begin}", "--version"],
        capture_output=True,
        text=True,
    )
    assert (process.returncode, process.stderr) == (0, "")


def test_what_is_held_back_reaches_us_afterwards_and_never_a_process_started_meanwhile() -> None:
    waits = "import sys; print(1, flush=True); sys.stdin.read()"
    with listen() as interruption:
        with held(GROUP):
            child = subprocess.Popen([sys.executable, "-c", waits], stdin=PIPE, stdout=PIPE)
            for number in GROUP:  # to this thread: to the process, another thread could take it
                signal.pthread_kill(threading.get_ident(), number)
            assert interruption.requested is None
        assert interruption.requested in {number.name for number in GROUP}
    assert child.stdout is not None
    child.stdout.readline()
    for number in GROUP:
        child.send_signal(number)
    child.communicate()
    assert child.returncode == 0


# -- with the terminal gone


def test_under_nohup_a_run_outlives_its_terminal_and_is_saved_when_its_scheduler_warns(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    words = ["finetune", "--env", "Pendulum-v1", "--algo", "sac", "--env-steps", "1000000"]
    words += ["--out", str(run), *SMALL, "evaluation.every_env_steps=1000000"]
    nohup = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    begin = "from baq_cli.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", nohup + begin, *words], stderr=PIPE, text=True
    )
    late = time.monotonic() + 60
    while not (run / "recipe.yaml").exists():
        assert process.poll() is None
        assert time.monotonic() < late
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGUSR1)
    _, said = process.communicate(timeout=60)
    assert process.returncode == ExitStatus.INTERRUPTED
    assert "stopped by SIGUSR1; everything is saved" in said
    assert [path.name for path in (run / "checkpoints").glob("online-*")]
