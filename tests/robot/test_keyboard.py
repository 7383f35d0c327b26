"""A person at a keyboard: keys typed into a real terminal, and what each of them does."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from baq_cli.engine.checkpoints.folder import load
from baq_cli.errors import ExitStatus
from baq_cli.runs.transitions import NAME, read
from support.advice import Terminal, follows
from support.runs import states, stored_rows
from support.typed import HOT, LIMIT, Typist

SMALL = (
    *("threads=1", "device=cpu", "shared.hidden=[8,8]", "shared.batch_size=8"),
    *("sac.warmup_env_steps=100000", "evaluation.episodes=1", "evaluation.background=false"),
    "evaluation.every_env_steps=100000",
)
NOTING = ("--trust-env", "finetune", "--algo", "sac", "--env", "support.typed:Noting-v0")
COLUMNS = 2 + 2 + 2 + 1 + 1
"""Of a row: observation, action, next observation, reward, bootstrap."""


@pytest.fixture
def typist(tmp_path: Path) -> Iterator[Callable[..., Typist]]:
    made: list[Typist] = []

    def start(*words: object) -> Typist:
        made.append(Typist(tmp_path, *words))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_keys_typed_into_a_terminal_do_what_they_say(
    typist: Callable[..., Typist], tmp_path: Path
) -> None:
    """One afternoon at a robot: every key once, and what is stored is what was executed."""
    run = tmp_path / "run"
    words = (
        *(*NOTING, "--out", run),
        *("--intervene", "keyboard", "--env-steps", "50000", *SMALL, "intervention.hz=200"),
        *("intervention.success_reward=10", "intervention.keys.hold_seconds=0.2"),
    )
    person = typist(*words)
    person.sees("space take over")
    person.sees("the policy acts")
    assert not person.echoes(), "keys come at once, unseen"
    person.type(" ")
    person.sees("you act")
    person.type("\x1b[C")  # an arrow, to the right
    time.sleep(0.1)
    person.type("h")
    person.sees("the policy acts")
    # a pause: nothing moves, whatever is typed, until it is over
    person.type("p")
    person.sees("paused")
    still = len(person.executed())
    person.type(" ")
    time.sleep(0.5)
    assert len(person.executed()) == still
    person.type("p")
    person.sees("you act")
    # a success ends the episode, and the take-over with it; a cut does so without a mark
    person.type("y")
    person.sees("the policy acts")
    person.type(" ")
    person.sees("you act")
    person.type("n")
    person.sees("the policy acts")
    person.type(" ")
    person.sees("you act")
    person.type("e")
    person.sees("the policy acts")
    person.type("q")
    status, seen = person.done()
    assert status == ExitStatus.INTERRUPTED
    assert "stopped by the keyboard; everything is saved" in seen
    assert "--intervene keyboard" in re.sub(r"\s+", " ", seen).partition("Continue with:")[2]
    assert person.echoes(), "the terminal is as it was"

    noted = person.executed()
    executed = noted[:, 1:].astype(np.float32)
    rows = stored_rows(run)[0].numpy()
    assert len(rows) == len(executed), "no step is lost, none is made up"
    assert_array_equal(rows[:, 2:4], executed)
    pushed = (executed == [0.5, 0]).all(axis=1)
    assert pushed.any(), "half of the way to the bound, and the other dimension in the middle"
    mine = pushed | (executed == 0).all(axis=1)
    reward, bootstrap = rows[:, 6], rows[:, 7]
    assert sorted(reward[reward != reward[0]].tolist()) == [reward[0] + 10 * scale_of(run)]
    begins = noted[:, 0] == 1
    ends = np.flatnonzero(begins[1:] & (noted[:-1, 0] < LIMIT))
    assert len(ends) == 3
    assert bootstrap[ends].tolist() == [0, 0, 1], "marked ones are terminated, a cut is not"
    assert bootstrap.sum() == len(bootstrap) - 2
    assert reward[ends[0]] > reward[ends[1]] == reward[0]
    (state,) = [states(run)[name] for name in [list(states(run))[-1]]]
    assert state["taken_over"] == [int(mine.sum())]
    assert state["marks"] == [[1], [1]]
    # it goes on by the same command, and the person is there again
    person = typist(*words, "--resume")
    person.sees("the policy acts")
    person.type(" ")
    person.sees("you act")
    person.type("q")
    assert person.done()[0] == ExitStatus.INTERRUPTED
    later = states(run)[list(states(run))[-1]]
    assert (later["marks"], later["episodes"]) == (state["marks"], state["episodes"])
    assert later["taken_over"][0] > state["taken_over"][0]
    assert state["episodes"] == [begins.sum() - (noted[-1, 0] < LIMIT)]


def scale_of(run: Path) -> float:
    """Return what updates multiply rewards by."""
    return float(load(run).agent["inputs.reward"][0])


# -- what is refused, before anything moves

WORDS = ("finetune", "--algo", "sac", "--env", "Pendulum-v1", "--env-steps", "6", *SMALL[:4])


@follows("a keyboard can take over in a terminal alone, and standard input is none: start the ")
def test_without_a_terminal_nothing_is_begun(
    terminal: Terminal, typist: Callable[..., Typist], tmp_path: Path
) -> None:
    words = (*WORDS, "--out", str(tmp_path / "run"), "--intervene", "keyboard")
    said = terminal.told(*words, status=ExitStatus.USAGE)
    assert "standard input is none" in said
    assert not (tmp_path / "run").exists()
    person = typist(*words, "evaluation.episodes=1", "evaluation.background=false")
    assert person.done()[0] == 0
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["ended"]


def test_a_person_steers_a_robot_that_keeps_its_clock(
    typist: Callable[..., Typist], tmp_path: Path
) -> None:
    """The process that acts reads the keys itself; its log has the actions that were executed."""
    run = tmp_path / "run"
    person = typist(
        *(*NOTING, "--out", run),
        *("--intervene", "keyboard", "--env-steps", "5000", "--control-hz", "50", *SMALL),
        *("intervention.success_reward=10", "--env-arg", "hot_after=5"),
    )
    person.sees("space take over")
    person.sees("the policy acts")
    person.sees(f"somebody is asked to take over: {HOT}")
    person.type(" ")
    person.sees("you act")
    person.type("\x1b[C")
    time.sleep(0.2)
    person.type("y")
    person.sees("the policy acts")
    person.type("p")
    person.sees("paused")
    still = len(person.executed())
    time.sleep(0.5)
    assert len(person.executed()) == still
    person.type("p")
    person.sees("the policy acts")
    person.type("q")
    status, seen = person.done()
    assert status == ExitStatus.INTERRUPTED
    assert "stopped by the keyboard; everything is saved" in seen
    assert person.echoes()
    records = read(run / NAME).records
    executed = person.executed()[:, 1:].astype(np.float32)
    assert_array_equal(records["action"], executed)
    mine = (executed == 0).all(1) | (executed == [0.5, 0]).all(1)
    assert_array_equal(records["intervention"], mine)
    (marked,) = np.flatnonzero(records["success"])
    assert records["terminated"].nonzero()[0].tolist() == [marked]
    assert records["reward"][marked] == -1 + 10
    assert states(run)[list(states(run))[-1]]["marks"] == [[1], [0]]
