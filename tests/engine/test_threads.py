"""How many CPU threads a run takes: by measurement, and the same again when it is resumed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import method_configs
from baq_cli.engine.phases import commands as operations
from baq_cli.engine.phases.commands import run_finetune
from baq_cli.engine.phases.request import RunRequest
from baq_cli.engine.updates import threads
from baq_cli.engine.updates.threads import WORTH, choose_threads
from baq_cli.recipes.load import resolve
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Event, Note

SPEC = Spec((0, 1), obs_dim=3, action_dim=1)
CORES = 2


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine of two cores, whatever this one has; threads end as they began."""
    monkeypatch.setattr(threads, "CORES", CORES)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def recipe_of(env: str = "Pendulum-v1", env_steps: int = 8, **run: Any) -> Recipe:
    method = {"hidden": [8, 8], "batch_size": 8, "warmup_env_steps": 4}
    layer = {"algo": "sac", "env": env, "env_steps": env_steps, "seeds": [0, 1], "device": "cpu"}
    layer |= {"env_workers": False, "evaluation": {"episodes": 1, "background": False}}
    return resolve([layer | run | {"sac": method}], method_configs())


def measured(monkeypatch: pytest.MonkeyPatch, *seconds: dict[int, float]) -> list[int]:
    """Let updates take what is said, round by round; return on how many threads they were."""
    monkeypatch.setattr(threads, "SMALL_UPDATE", 0.0)
    asked: list[int] = []

    def known(updater: Any) -> float:
        count = torch.get_num_threads()
        asked.append(count)
        return seconds[(asked.count(count) - 1) % len(seconds)][count]

    monkeypatch.setattr(threads, "seconds_an_update", known)
    return asked


# -- choosing


def test_a_small_update_takes_one_thread_without_being_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = measured(monkeypatch, {1: 1.0, CORES: 0.1})
    monkeypatch.setattr(threads, "SMALL_UPDATE", 1e8)
    assert choose_threads(recipe_of(), SPEC) == 1
    assert asked == []


@pytest.mark.parametrize("cores", [1, CORES])
def test_a_machine_of_one_core_has_nothing_to_measure(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = measured(monkeypatch, {1: 1.0, CORES: 0.1})
    monkeypatch.setattr(threads, "CORES", cores)
    assert choose_threads(recipe_of(), SPEC) == cores
    assert set(asked) == (set() if cores == 1 else {1, CORES})


@pytest.mark.parametrize(
    ("faster", "expected"), [(0.5, 1), (1.0, 1), (WORTH - 0.01, 1), (WORTH + 0.01, CORES)]
)
def test_all_cores_are_taken_where_they_are_worth_it(
    faster: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(monkeypatch, {1: 1.0, CORES: 1.0 / faster})
    assert choose_threads(recipe_of(), SPEC) == expected


def test_a_disturbed_round_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = {1: 1.0, CORES: 0.5}
    asked = measured(monkeypatch, {1: 1.0, CORES: 9.0}, quiet, {1: 9.0, CORES: 0.5})
    assert choose_threads(recipe_of(), SPEC) == CORES
    assert asked == threads.ROUNDS * [1, CORES], "both are measured in turn"


def test_a_machine_so_busy_that_a_round_takes_seconds_is_measured_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = measured(monkeypatch, *3 * [{1: 1.0, CORES: 0.5}])
    monkeypatch.setattr(threads, "MOST_SECONDS", -1.0)
    assert choose_threads(recipe_of(), SPEC) == CORES
    assert asked == [1, CORES]


def test_measuring_moves_nothing_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "SMALL_UPDATE", 0.0)
    monkeypatch.setattr(threads, "LEAST_SECONDS", 0.02)

    def moved() -> tuple[Any, ...]:
        numpys = np.random.get_state()[1]  # type: ignore[index]
        torchs = torch.get_rng_state().tolist()
        return torchs, numpys.tolist(), random.getstate(), torch.get_num_threads()

    before = moved()
    assert choose_threads(recipe_of(), SPEC) in (1, CORES)
    assert moved() == before


# -- a run


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the choices to come will be; each is taken off the list."""
    coming: list[int] = []
    monkeypatch.setattr(operations, "choose_threads", lambda recipe, spec: coming.pop())
    return coming


def finetune(recipe: Recipe, out: Path, resume: bool = False) -> tuple[int, list[str]]:
    """Return the threads that a run ended with, by its checkpoint, and its notes about them."""
    notes: list[str] = []

    def observe(event: Event) -> None:
        if isinstance(event, Note) and "thread" in event.text:
            notes.append(event.text)

    torch.set_num_threads(1)  # as in a process that begins
    run_finetune(recipe, RunRequest(out, observe, "baq", "baq --resume", resume), None)
    folder = out / "checkpoints" / (out / "checkpoints" / "latest").read_text()
    count = json.loads((folder / "state.json").read_text())["threads"]
    assert count == torch.get_num_threads()
    return count, notes


def test_a_resumed_run_keeps_the_threads_of_its_checkpoint(
    short_env: str, tmp_path: Path, chosen: list[int]
) -> None:
    chosen.append(CORES)
    first = finetune(recipe_of(short_env, 8), tmp_path)
    assert chosen == []
    assert first == (CORES, ["2 CPU threads (threads=N sets them)"])
    # choosing anew would take a choice that isn't there
    assert finetune(recipe_of(short_env, 16), tmp_path, resume=True) == first


def test_threads_that_a_recipe_names_are_taken_on_a_resume_too(
    short_env: str, tmp_path: Path, chosen: list[int]
) -> None:
    chosen.append(CORES)
    finetune(recipe_of(short_env, 8), tmp_path)
    resumed = finetune(recipe_of(short_env, 16, threads=1), tmp_path, resume=True)
    assert resumed == (1, [])
    assert finetune(recipe_of(short_env, 8, threads=2), tmp_path / "other") == (2, [])
