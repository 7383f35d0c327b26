"""benchmarks/evidence.sh asks for the whole matrix, after the choice, in pieces that go on."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from baq_cli.cli import options as opt
from baq_cli.cli.compare import plan_cells
from baq_cli.launch.cells import Cell
from support.places import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "evidence.sh"
PUBLISHED = {"baq", "td3_bc", "awac", "iql", "cql", "cal_ql"}
MATCHED = PUBLISHED | {"rlpd", "wsrl", "rebrac", "so2"}
NAMED = {"lunarlander", "bipedalwalker", "doublependulum", "pointmaze-umaze", "walker2d"}
TEN = [*range(10, 20)]
STAND_IN = """#!/bin/sh
echo "$@" >> "$ASKED"
[ -z "$TAKES" ] || exec sleep "$TAKES"
exit "${STATUS:-0}"
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with the script in it, and a stand-in for `baq` beside it."""
    folder = tmp_path / "clone"
    (folder / "benchmarks").mkdir(parents=True)
    (folder / "benchmarks" / SCRIPT.name).write_bytes(SCRIPT.read_bytes())
    (tmp_path / "baq").write_text(STAND_IN)
    (tmp_path / "baq").chmod(0o755)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def commit(folder: Path, text: str) -> None:
    choice = folder / "docs" / "results" / "development" / "choice.md"
    choice.parent.mkdir(parents=True, exist_ok=True)
    choice.write_text(text)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["add", "-A"], [*who, "commit", "-q", "-m", "Choose"]):
        subprocess.run(["git", *words], cwd=folder, check=True)


def evidence(clone: Path, *words: str, expect: int = 0, **said: str) -> tuple[list[list[str]], str]:
    """Run the script; return the commands that it gave to `baq`, and what it printed."""
    asked = clone.parent / "asked"
    asked.write_text("")
    done = subprocess.run(
        ["bash", "benchmarks/evidence.sh", *words],
        cwd=clone,
        env=os.environ | {"BAQ": str(clone.parent / "baq"), "ASKED": str(asked)} | said,
        capture_output=True,
        text=True,
    )
    assert done.returncode == expect, done.stderr
    return [shlex.split(line) for line in asked.read_text().splitlines()], done.stdout + done.stderr


def comparisons(commands: Sequence[list[str]]) -> list[list[str]]:
    return [words for words in commands if words[0] == "compare"]


def said_in(words: Sequence[str]) -> dict[str, str]:
    return dict(pairwise(words))


def cells_of(words: Sequence[str], task: str) -> list[Cell]:
    """Return the cells of a command on one of its tasks, laid out as `baq compare` does."""
    given = said_in(words)
    flags = opt.flags(
        seeds=given["--seeds"],
        gradient_steps=int(given["--gradient-steps"]),
        env_steps=int(given["--env-steps"]),
    )
    asked = {"algos": opt.words(given["--algos"]), "datasets": [task]}
    overrides = [word for word in words if "=" in word]
    asked["protocol"] = given["--protocol"]
    return plan_cells([], asked, [], flags, overrides, Path(given["--out"]))


def test_all_methods_run_on_all_tasks_with_seeds_that_nothing_was_chosen_with(clone: Path) -> None:
    commands, _ = evidence(clone, "--dry-run")
    assert all("--dry-run" in words for words in commands)
    for protocol, methods in (("matched", MATCHED), ("published", PUBLISHED)):
        of_protocol = [words for words in commands if said_in(words)["--protocol"] == protocol]
        tasks = [task for words in of_protocol for task in opt.words(said_in(words)["--dataset"])]
        envs = [task.split("/")[1] for task in tasks]
        assert len({*tasks}) == len(tasks) >= 8
        assert {*envs} >= NAMED
        for words in of_protocol:
            first, *_ = opt.words(said_in(words)["--dataset"])
            cells = cells_of(words, first)
            assert {cell.method for cell in cells} == methods
            dear = first.split("/")[1] in ("walker2d", "hopper")
            for cell in cells:
                steps = [cell.recipe[key] for key in ("gradient_steps", "env_steps")]
                assert steps == ([10_000, 20_000] if dear else [20_000, 50_000])
                assert cell.recipe["seeds"] == (TEN[:5] if dear else TEN)


def test_a_protocol_without_the_methods_asked_for_is_left_out(clone: Path) -> None:
    commands, _ = evidence(clone, "--dry-run", METHODS="rlpd so2")
    assert {said_in(words)["--protocol"] for words in commands} == {"matched"}
    assert {said_in(words)["--algos"] for words in commands} == {"rlpd,so2"}
    _, said = evidence(clone, "--dry-run", METHODS="iql sos2", expect=2)
    assert "METHODS: sos2 is not among baq" in said


def test_tasks_asked_for_run_as_they_would_among_all(clone: Path) -> None:
    every = evidence(clone, "--dry-run")[0]
    tasks = ("pendulum/replay", "hopper/replay")
    some, _ = evidence(clone, "--dry-run", TASKS=" ".join(tasks))
    wanted = {f"baq/{task}-v0" for task in tasks}
    assert some == [words for words in every if said_in(words)["--dataset"] in wanted]
    _, said = evidence(clone, "--dry-run", TASKS="pendulum/medium", expect=2)
    assert "TASKS: pendulum/medium is not among lunarlander/medium" in said


def test_methods_that_run_first_run_as_they_would_among_all(clone: Path) -> None:
    found = []
    for wanted in ("", "iql baq"):
        commands, _ = evidence(clone, "--dry-run", METHODS=wanted)
        found.append({said_in(words)["--protocol"]: words for words in commands})
    for protocol, words in found[1].items():
        task = said_in(words)["--dataset"]
        every = {cell.method: cell.recipe for cell in cells_of(found[0][protocol], task)}
        cells = cells_of(words, task)
        assert [cell.method for cell in cells] == ["baq", "iql"]
        assert {cell.method: cell.recipe for cell in cells}.items() <= every.items()


def test_a_report_of_each_protocol_is_made_of_what_its_comparisons_left(clone: Path) -> None:
    commit(clone, "chosen")
    commands, _ = evidence(clone)
    reports = [words for words in commands if words[0] == "report"]
    for protocol, words in zip(("matched", "published"), reports, strict=True):
        of_protocol = [
            said for said in map(said_in, comparisons(commands)) if said["--protocol"] == protocol
        ]
        assert words[1 : words.index("--out")] == [said["--out"] for said in of_protocol]


def test_nothing_runs_before_the_choice_is_committed_as_it_stands(clone: Path) -> None:
    for words in ([], ["--card"]):
        commands, said = evidence(clone, *words, expect=2)
        assert not commands
        assert "write down what was chosen" in said
    commit(clone, "κ follows the spread.")
    _, said = evidence(clone)
    assert "κ follows the spread." in said
    (clone / "docs/results/development/choice.md").write_text("something else")
    commands, _ = evidence(clone, expect=2)
    assert not commands


def test_a_cell_that_fails_stops_no_other_comparison_and_an_interrupt_stops_all(
    clone: Path,
) -> None:
    commit(clone, "chosen")
    commands, _ = evidence(clone, STATUS="3", expect=3)
    tasks = {said_in(words)["--dataset"] for words in comparisons(commands)}
    assert len(comparisons(commands)) == 2 * len(tasks) >= 16
    assert len(evidence(clone, STATUS="130", expect=130)[0]) == 1


def test_a_piece_on_a_card_ends_in_time_and_the_next_asks_for_the_same(clone: Path) -> None:
    commit(clone, "chosen")
    first, _ = evidence(
        clone, "--card", PIECE_SECONDS="2", FEWEST_SECONDS="0", TAKES="60", expect=130
    )
    assert len(first) == 1
    whole, _ = evidence(clone, "--card", PIECE_SECONDS="600")
    assert whole[0] == first[0]
    for words in comparisons(whole):
        given = said_in(words)
        assert given["--device"] == "cuda"
        assert (given["--gradient-steps"], given["--env-steps"]) == ("100000", "100000")
        assert given["--seeds"] == ",".join(map(str, TEN))
