"""When evaluations leave a run's process, and what happens when theirs dies."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import make_agent
from baq_cli.engine.evaluation import background
from baq_cli.engine.evaluation.background import (
    FREE_CORES,
    BackgroundEvaluator,
    Setting,
    acting_tensors,
    evaluates_in_background,
)
from baq_cli.engine.evaluation.evaluator import Evaluator
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.launch.cells import Cell
from baq_cli.recipes.schema import Recipe
from baq_cli.signals import STOPPING
from support.evaluations import evaluation_process
from support.runs import assert_same_end, execute, recipe_of


def finetuning(background: bool | None) -> Recipe:
    watched = {"episodes": 1, "background": background, "every_env_steps": 8}
    run = {"env": "Pendulum-v1", "env_steps": 24, "evaluation": watched}
    return recipe_of("sac", {"warmup_env_steps": 4}, **run)


# -- where evaluations go


@pytest.mark.parametrize("cores", [1, 64])
@pytest.mark.parametrize("asked", [True, False])
def test_what_a_recipe_asks_for_is_done_on_any_machine(
    asked: bool, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "usable_cores", lambda: cores)
    assert evaluates_in_background(finetuning(asked), torch.device("cpu")) is asked


@pytest.mark.parametrize(
    ("cores", "threads", "device", "expected"),
    [
        (3, 1, "cpu", True),
        (2, 1, "cpu", False),
        (8, 8 - FREE_CORES, "cpu", True),
        (8, 9 - FREE_CORES, "cpu", False),
        (8, 8, "cuda", True),  # the host only hands out work
        (2, 8, "cuda", False),
        (1, 1, "cpu", False),
    ],
)
def test_otherwise_they_leave_the_process_where_cores_are_free(
    cores: int,
    threads: int,
    device: str,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "usable_cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert evaluates_in_background(finetuning(None), torch.device(device)) is expected


@pytest.mark.parametrize(
    ("asked", "expected"), [(None, False), (False, False), (True, True)], ids=str
)
def test_cells_beside_each_other_share_the_cores_and_none_is_free(
    asked: bool | None, expected: bool
) -> None:
    recipe = finetuning(asked).as_dict()
    cell = Cell("task", "sac", Path("sac"), recipe, "baq")
    found = replace(cell, recipe=recipe | {"threads": None}).on_threads(3).recipe
    assert found["evaluation"] == recipe["evaluation"] | {"background": expected}  # type: ignore[operator]
    assert found["threads"] == 3
    assert cell.on_threads(3).recipe["threads"] == recipe["threads"] == 1, "as it says itself"
    assert found.keys() == recipe.keys()
    assert cell.recipe["evaluation"]["background"] is asked, "the cell is not changed"


# -- when the process dies


Stopped = tuple[BackgroundEvaluator, BaseProcess, Agent, Inputs, list[str]]


@pytest.fixture
def stopped() -> Iterator[Stopped]:
    """An evaluator whose process was halted before it could do anything, and an agent for it."""
    recipe, notes = finetuning(True), []
    agent = make_agent("sac", recipe.method, Spec((0, 1), obs_dim=3, action_dim=1), "online")
    inputs = Inputs.fit(recipe.method, 3, None)
    note = lambda event: notes.append(event.text)  # noqa: E731
    packed = save(inputs.tensors())
    evaluator = BackgroundEvaluator(
        Setting(recipe, "online", agent.spec, "Pendulum-v1", packed), observer=note
    )
    process = evaluation_process()
    tell(process, signal.SIGSTOP)
    yield evaluator, process, agent, inputs, notes
    process.kill()
    evaluator.close()


def tell(process: BaseProcess, number: int) -> None:
    assert process.pid is not None
    os.kill(process.pid, number)


@pytest.mark.parametrize("during", [True, False], ids=["during", "before"])
def test_without_its_process_an_evaluation_is_made_here_of_what_was_handed_over(
    during: bool, stopped: Stopped
) -> None:
    evaluator, process, agent, inputs, notes = stopped
    here = Evaluator("Pendulum-v1", (0, 1), finetuning(True).run.evaluation.episodes)
    expected = here.evaluate(agent, inputs, "online/0")
    here.close()
    if not during:
        process.kill()
        process.join()
    evaluator.begin(acting_tensors(agent), "online/0")
    with torch.no_grad():
        for parameter in agent.parameters():  # training goes on meanwhile
            parameter.add_(0.1)
    process.kill()
    found = evaluator.end(lambda: False)
    assert found is not None
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))
    assert len(notes) == 1


# -- what the run doesn't wait for, and what the process doesn't heed


def expected(agent: Agent, inputs: Inputs, number: str) -> tuple[Any, Any]:
    """Evaluate here."""
    with closing(Evaluator("Pendulum-v1", (0, 1), 1)) as here:
        return here.evaluate(agent, inputs, number)


def larger_than_a_pipe(agent: Agent) -> dict[str, Tensor]:
    """Return what acts, and four megabytes that nothing needs."""
    return acting_tensors(agent) | {"ballast": torch.zeros(2**20)}


def test_handing_over_waits_for_no_process_that_doesn_t_read(stopped: Stopped) -> None:
    evaluator, process, agent, inputs, notes = stopped
    begin = threading.Thread(
        target=evaluator.begin, args=(larger_than_a_pipe(agent), "online/0"), daemon=True
    )
    begin.start()
    begin.join(timeout=20)
    assert not begin.is_alive()
    assert evaluator.end(lambda: True) is None, "nor does a run that is stopped"
    tell(process, signal.SIGCONT)
    found = evaluator.end(lambda: False)
    assert found is not None
    assert all(
        (a == b).all() for a, b in zip(found, expected(agent, inputs, "online/0"), strict=True)
    )
    assert not notes


def test_what_is_still_handed_over_is_in_nobody_s_way_at_the_end(stopped: Stopped) -> None:
    evaluator, process, agent, _, _ = stopped
    before = threading.enumerate()
    evaluator.begin(larger_than_a_pipe(agent), "online/0")
    evaluator.close()
    assert not process.is_alive()
    assert threading.enumerate() == before, "nobody is handing over"


def test_a_signal_to_every_process_is_left_to_the_run(stopped: Stopped) -> None:
    evaluator, process, agent, inputs, notes = stopped
    for number in ("online/0", "online/1"):  # while it starts, and when it waits
        for each in (*STOPPING, signal.SIGCONT):
            tell(process, each)
        evaluator.begin(acting_tensors(agent), number)
        found = evaluator.end(lambda: False)
        assert found is not None
        assert all(
            (a == b).all() for a, b in zip(found, expected(agent, inputs, number), strict=True)
        )
    assert not notes, "it was not made here"


def test_a_run_whose_evaluation_died_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = BackgroundEvaluator.begin

    def dies(evaluator: BackgroundEvaluator, acting: dict[str, Tensor], number: str) -> None:
        last = number == "online/2"
        process = evaluation_process() if last else None
        if process is not None:
            tell(process, signal.SIGSTOP)  # it shall not answer before it dies
        begin(evaluator, acting, number)
        if process is not None:
            process.kill()

    monkeypatch.setattr(BackgroundEvaluator, "begin", dies)
    execute(finetuning(True), tmp_path / "died")
    execute(finetuning(False), tmp_path / "whole")
    assert_same_end(tmp_path / "whole", tmp_path / "died")
