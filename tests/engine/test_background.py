"""Evaluating in a process of its own changes when a return is known, and nothing else."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.evaluation.background import BackgroundEvaluator
from baq_cli.engine.phases.online import OnlineLoop
from baq_cli.errors import Interrupted
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.folder import read_metrics
from support.evaluations import evaluation_process
from support.recordings import ID, own_folders
from support.runs import (
    Evaluations,
    assert_same_end,
    execute,
    noting,
    recipe_of,
    states,
    stopped_at,
)
from support.small_data import write_pendulum

EVERY, ENV_STEPS, GRADIENT_STEPS = 16, 48, 240
ONLINE = {"env": "Pendulum-v1", "env_steps": ENV_STEPS}
UTD = {"warmup_env_steps": 4, "utd": 5}
"""Enough updates for diagnostics, which are read every hundred, to fall between evaluations."""


def watched(background: bool) -> dict[str, Any]:
    every = {"every_env_steps": EVERY, "every_gradient_steps": GRADIENT_STEPS // 3}
    return {"episodes": 1, "background": background, **every}


def finetuning(background: bool = True) -> Recipe:
    return recipe_of("sac", UTD, **ONLINE, evaluation=watched(background))


def pretraining(background: bool) -> Recipe:
    """Return a recipe of BAQ: what acts lies in its base, and only a part of it."""
    place = {"dataset": ID, "env": "Pendulum-v1", "gradient_steps": GRADIENT_STEPS}
    return recipe_of("baq", {"behavior_hidden": [8]}, **place, evaluation=watched(background))


class Done(NamedTuple):
    """A finished run: its folder, and what its observer heard."""

    out: Path
    heard: Evaluations


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Done]:
    """The same fine-tuning from scratch, evaluated in the background and not."""
    out = tmp_path_factory.mktemp("online")
    return {b: Done(out / str(b), execute(finetuning(b), out / str(b))) for b in (True, False)}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, Done]]:
    """The same pre-training, evaluated in the background and not; its dataset stays in reach."""
    out = tmp_path_factory.mktemp("offline")
    with own_folders():
        write_pendulum(ID)
        yield {b: Done(out / str(b), execute(pretraining(b), out / str(b))) for b in (True, False)}


# -- the same run


def test_a_fine_tuning_logs_and_ends_the_same(finetuned: dict[bool, Done]) -> None:
    assert_same_end(finetuned[True].out, finetuned[False].out)
    assert finetuned[True].heard == finetuned[False].heard
    assert [done for done, _ in finetuned[True].heard] == [0, EVERY, 2 * EVERY, ENV_STEPS]
    diagnostics = (finetuned[True].out / "diagnostics.csv").read_text()
    assert len(diagnostics.splitlines()) > 1, "what is compared is there"


def test_a_pre_training_logs_and_ends_the_same(pretrained: dict[bool, Done]) -> None:
    assert_same_end(pretrained[True].out, pretrained[False].out)
    assert pretrained[True].heard == pretrained[False].heard
    assert len(read_metrics(pretrained[True].out)) == 2 * 3


def test_a_lone_agent_file_of_the_end_knows_every_evaluation(finetuned: dict[bool, Done]) -> None:
    histories = [load(done.out).document["history"] for done in finetuned.values()]
    returns = [[row["return_mean"] for row in history] for history in histories]
    assert returns[0] == returns[1] == [r["return_mean"] for r in read_metrics(finetuned[True].out)]


# -- while an evaluation is under way


class HereLater:
    """Stands for a `BackgroundEvaluator`: answers with the number that it was handed."""

    in_background = True

    def __init__(self, *_: Any, **__: Any) -> None:
        self.number = ""

    def tensors(self) -> dict[str, Any]:
        return {}

    @property
    def idle(self) -> bool:
        return not self.number

    def begin(self, acting: dict[str, Any], number: str) -> None:
        self.number = number

    def end(self, stop: object) -> tuple[Any, Any]:
        number, self.number = self.number, ""
        return np.full((2, 1), float(number.rpartition("/")[2])), np.ones((2, 1))

    def close(self) -> None:
        pass


@pytest.fixture
def order_of_work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a run does, in order: environment steps, and evaluations begun and ended."""
    found: list[str] = []

    monkeypatch.setattr("baq_cli.engine.phases.evaluations.BackgroundEvaluator", HereLater)
    for owner, method in ((HereLater, "begin"), (HereLater, "end"), (OnlineLoop, "step")):
        monkeypatch.setattr(owner, method, noting(found, method, getattr(owner, method)))
    return found


def test_training_goes_on_until_the_next_evaluation_and_the_last_one_is_waited_for(
    order_of_work: list[str], tmp_path: Path
) -> None:
    heard = execute(finetuning(), tmp_path)
    steps = " ".join(EVERY * ["step"])
    expected = f"begin {steps} end begin {steps} end begin {steps} end begin end"
    assert " ".join(order_of_work) == expected
    assert heard == [(EVERY * i, [[float(i)], [float(i)]]) for i in range(4)]


def test_rows_say_when_an_evaluation_was_begun(order_of_work: list[str], tmp_path: Path) -> None:
    execute(finetuning(), tmp_path)
    rows = [row for row in read_metrics(tmp_path) if row["seed"] == 0]
    assert [row["env_steps"] for row in rows] == [EVERY * i for i in range(4)]
    assert [row["gradient_steps"] for row in rows] == [0] + [5 * (EVERY * i - 4) for i in (1, 2, 3)]
    seconds = [row["wall_seconds"] for row in rows]
    assert seconds == sorted(seconds)


# -- resuming


def test_an_evaluation_under_way_is_in_no_checkpoint_but_marked(
    finetuned: dict[bool, Done], pretrained: dict[bool, Done]
) -> None:
    for runs in (finetuned, pretrained):
        marks = {b: [len(s["pending"]) for s in states(runs[b].out).values()] for b in runs}
        assert marks == {True: [1, 1, 0], False: [0, 0, 0]}
    for name, state in states(finetuned[True].out).items():
        saved = load(finetuned[True].out / "checkpoints" / name)
        known = state["evaluations"] - len(state["pending"])
        assert len(saved.document["history"]) == 2 * known


@pytest.mark.parametrize("at", [0, 1])
def test_a_fine_tuning_resumed_with_an_evaluation_pending_ends_as_if_it_had_not_stopped(
    at: int, finetuned: dict[bool, Done], tmp_path: Path
) -> None:
    whole = finetuned[True]
    name = [name for name, state in states(whole.out).items() if state["pending"]][at]
    parts = stopped_at(whole.out, name, tmp_path / "parts")
    background = at == 1  # a resumed run may evaluate elsewhere
    heard = execute(finetuning(background), parts, resume=True)
    assert_same_end(whole.out, parts)
    assert heard == whole.heard[1 + at :], "the pending evaluation is made again, from its number"


@pytest.mark.parametrize("at", [0, 1])
def test_a_pre_training_resumed_with_an_evaluation_pending_ends_as_if_it_had_not_stopped(
    at: int, pretrained: dict[bool, Done], tmp_path: Path
) -> None:
    whole = pretrained[True]
    name = [name for name, state in states(whole.out).items() if state["pending"]][at]
    parts = stopped_at(whole.out, name, tmp_path / "parts")
    heard = execute(pretraining(False), parts, resume=True)
    assert_same_end(whole.out, parts)
    assert heard == whole.heard[at:]


def test_a_stop_waits_for_no_evaluation_and_loses_none(
    finetuned: dict[bool, Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, begin, between = OnlineLoop.step, BackgroundEvaluator.begin, EVERY + 4

    def interrupted(loop: OnlineLoop) -> None:
        step(loop)
        if loop.run.env_steps == between:
            loop.run.interruption.requested = "SIGTERM"

    def never_answers(evaluator: BackgroundEvaluator, acting: Any, number: str) -> None:
        if number == "online/1":
            os.kill(evaluation_process().pid or 0, signal.SIGSTOP)
        begin(evaluator, acting, number)

    with monkeypatch.context() as patch:
        patch.setattr(OnlineLoop, "step", interrupted)
        patch.setattr(BackgroundEvaluator, "begin", never_answers)
        with pytest.raises(Interrupted):
            execute(finetuning(), tmp_path)
    pending = [(s["done"], [p["done"] for p in s["pending"]]) for s in states(tmp_path).values()]
    assert pending == [(EVERY, [EVERY]), (between, [EVERY])]
    assert [row["env_steps"] for row in read_metrics(tmp_path)] == [0, 0]
    execute(finetuning(False), tmp_path, resume=True)
    assert_same_end(finetuned[True].out, tmp_path)
