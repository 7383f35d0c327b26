"""Resuming is exact for every method, before the hand-over and after it, of one seed or several."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from baq_cli.agents.registry import METHODS
from baq_cli.engine.checkpoints.folder import REPLAY
from baq_cli.engine.checkpoints.tensors import read_tensors
from baq_cli.engine.experience import sumtree
from baq_cli.engine.phases import run as engine_run
from baq_cli.engine.phases.online import OnlineLoop
from baq_cli.engine.phases.run import Run
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.folder import read_metrics
from support.builders import small_agent
from support.recordings import ID, own_folders
from support.runs import assert_same_end, execute, recipe_of, states, stop_at, stopped_at
from support.small_data import write_steady
from support.small_methods import needs_data, small

STEPS, EVERY = 20, 7
"""Of a phase; so checkpoints fall into episodes, which have five steps at most."""
OPTIONS: dict[str, dict[str, Any]] = {"awac": {"mean": "linear"}, "cql": {"cql_target_gap": 0.5}}
"""What makes a method keep more than it does by default."""
PHASES = [
    (algo, phase)
    for algo, method in sorted(METHODS.items())
    for phase, does in (("offline", method.learns_offline), ("online", method.learns_online))
    if does
]


class Case(NamedTuple):
    """A phase of a method: what to run, from where, and its run without a stop."""

    recipe: Recipe
    source: Path | None
    whole: Path


CHUNKED = [
    algo for algo, phase in PHASES if phase == "online" and small_agent(algo, (0,)).chunk > 1
]


@pytest.fixture(scope="module", autouse=True)
def dataset() -> Iterator[None]:
    """A dataset in reach; diagnostics fall between all checkpoints, and sum trees have levels."""
    with own_folders(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_run, "METRICS_EVERY", 3)
        patch.setattr(sumtree, "FAN", 3)
        write_steady(ID)
        yield


def recipe(algo: str, phase: str, seeds: int) -> Recipe:
    method = small(algo) | OPTIONS.get(algo, {})
    watched = {"episodes": 1, "background": False}
    watched |= {"every_gradient_steps": EVERY, "every_env_steps": EVERY}
    run = {"seeds": list(range(seeds)), "env": "Steady-v0", "evaluation": watched}
    if needs_data(algo):
        run["dataset"] = ID
    return recipe_of(algo, method, **run, gradient_steps=STEPS, env_steps=STEPS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that gives a case; each is run once."""
    known: dict[tuple[str, str, int], Case] = {}

    def case(algo: str, phase: str, seeds: int) -> Case:
        key = (algo, phase, seeds)
        if key not in known:
            before = phase == "online" and METHODS[algo].learns_offline
            source = case(algo, "offline", seeds).whole if before else None
            asked, whole = recipe(algo, phase, seeds), tmp_path_factory.mktemp("-".join(key[:2]))
            execute(asked, whole, source=source)
            known[key] = Case(asked, source, whole)
        return known[key]

    return case


def stop_after(steps: int, case: Case, phase: str, out: Path) -> None:
    """Run until a signal after so many updates offline, or environment steps online."""
    owner, name = (OnlineLoop, "step") if phase == "online" else (Run, "after_update")
    stop_at(owner, name, steps, case.recipe, out, case.source)
    assert list(states(out))[-1] == f"{phase}-{steps}"


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize(("algo", "phase"), PHASES)
def test_a_run_stopped_anywhere_and_resumed_ends_as_one_that_was_not(
    algo: str, phase: str, seeds: int, made: Any, tmp_path: Path
) -> None:
    case = made(algo, phase, seeds)
    with (case.whole / "diagnostics.csv").open() as file:
        assert len(list(csv.DictReader(file))) > 1
    online = [row for row in read_metrics(case.whole) if row["phase"] == phase]
    assert len(online) == seeds * (3 + (phase == "online"))
    chance = random.Random(f"{algo} {phase} {seeds}")
    name = chance.choice(list(states(case.whole))[:-1])
    parts = stopped_at(case.whole, name, tmp_path / "checkpoint")
    execute(case.recipe, parts, resume=True, source=case.source)
    assert_same_end(case.whole, parts)
    between = chance.choice([n for n in range(1, STEPS) if n % EVERY])
    stop_after(between, case, phase, tmp_path / "signal")
    execute(case.recipe, tmp_path / "signal", resume=True, source=case.source)
    assert_same_end(case.whole, tmp_path / "signal")


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("algo", CHUNKED)
def test_a_run_killed_within_a_chunk_and_resumed_ends_as_one_that_was_not(
    algo: str, seeds: int, made: Any, tmp_path: Path
) -> None:
    case, within = made(algo, "online", seeds), 0
    for name in list(states(case.whole))[:-1]:
        killed = stopped_at(case.whole, name, tmp_path / name)
        kept = read_tensors(killed / "checkpoints" / name / REPLAY)
        within += int((kept["queue_left"] > 0).any())
        execute(case.recipe, killed, resume=True, source=case.source)
        assert_same_end(case.whole, killed)
    assert within, "some chunk was under way"
