"""Stages before a phase and routines within it: what they may change, and when they are done."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from baq_cli.agents.base import Agent
from baq_cli.agents.interface import Spec
from baq_cli.agents.plans import Draw, Plan, Routine, Stage
from baq_cli.agents.registry import METHODS
from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.checkpoints.resume_state import check_resumable
from baq_cli.engine.experience.replay import Replay
from baq_cli.engine.experience.stores import make_stores, odds_of
from baq_cli.engine.phases import episodes, timing
from baq_cli.engine.phases import run as engine_run
from baq_cli.engine.phases.commands import run_pretrain
from baq_cli.engine.phases.request import RunRequest
from baq_cli.engine.updates.learner import Learner
from baq_cli.engine.updates.updater import Updater
from baq_cli.envs.faults import EnvironmentFault
from baq_cli.envs.pool import EnvPool
from baq_cli.errors import DataError
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Event, Note, Progress
from baq_cli.units import Phase
from support.builders import dataset_store, discount_of, plan_of, reader_of, small_agent
from support.recordings import ID, own_folders
from support.runs import (
    assert_same_end,
    execute,
    last_tensors,
    noting,
    recipe_of,
    states,
    stop_at,
    stopped_at,
)
from support.small_data import write_steady
from support.small_methods import small
from support.staged_method import AGAIN, ASSESS, CAPACITY, EVERY, FIT, MODEL, ROWS, Staged

STEPS, EVALUATED, WARMUP = 12, 5, 2
"""Of a phase; between evaluations; environment steps before the first update."""
METHODS_BESIDE = {Staged.name: Staged}


@pytest.fixture(scope="module", autouse=True)
def dataset() -> Iterator[None]:
    with own_folders(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, Staged.name, Staged)
        patch.setattr(engine_run, "METRICS_EVERY", 3)
        write_steady(ID)
        yield


@pytest.fixture(autouse=True)
def unseen() -> None:
    Staged.asked.clear()
    Staged.made.clear()


def recipe(algo: str = Staged.name, seeds: tuple[int, ...] = (0, 1)) -> Recipe:
    watched = {"episodes": 1, "background": False}
    watched |= {"every_gradient_steps": EVALUATED, "every_env_steps": EVALUATED}
    settings = {"warmup_env_steps": WARMUP} if algo == Staged.name else small(algo)
    run = {"seeds": list(seeds), "env": "Steady-v0", "dataset": ID, "evaluation": watched}
    return recipe_of(algo, settings, **run, gradient_steps=STEPS, env_steps=STEPS)


@pytest.fixture(scope="module")
def made(dataset: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that gives a run of a phase and what it continued; each is made once."""
    known: dict[tuple[Any, ...], tuple[Path, Path | None]] = {}

    def phase_of(algo: str, phase: Phase, seeds: tuple[int, ...]) -> tuple[Path, Path | None]:
        key = algo, phase, seeds
        if key not in known:
            source = phase_of(algo, "offline", seeds)[0] if phase == "online" else None
            known[key] = tmp_path_factory.mktemp(algo), source
            execute(recipe(algo, seeds), known[key][0], source=source)
        return known[key]

    return phase_of


# -- what a stage changes


def in_stage(capture: bool) -> tuple[Learner, dict[str, Tensor], dict[str, Tensor]]:
    """Return a learner after eight updates of a stage, and its numbers before and after them."""
    agent = small_agent(Staged.name, (0, 1))
    learner, stage = Learner(agent), agent.offline_plan().first[0]
    stream = SeedStream((0, 1), "routine/offline")
    stores: Any = {"offline": dataset_store(agent)}
    replay = Replay(stage.draws, stores, stream, 4, discount_of(agent))
    updater = Updater(learner, replay, capture, record_after=3, stage=stage, noise=stream)
    before = {n: t.clone() for n, t in (agent.state_dict() | learner.state()).items()}
    for _ in range(8):
        updater.step()
    assert bool(updater.records) == capture
    return learner, before, agent.state_dict() | learner.state() | {"stream": stream.state()}


def test_a_stage_trains_its_groups_and_counts_no_gradient_step_and_moves_no_target() -> None:
    learner, before, after = in_stage(capture=False)
    assert learner.gradient_steps == 0
    changed = {name for name, was in before.items() if not torch.equal(was, after[name])}
    assert {name for name in changed if name.startswith("model.")}
    assert {name for name in changed if name.startswith("optimizer.")}
    assert {name.removeprefix("optimizer.").split(".")[0] for name in changed} == {"model"}


def test_a_stages_recorded_updates_are_the_eager_ones_in_every_bit() -> None:
    (_, _, recorded), (_, _, eager) = in_stage(capture=True), in_stage(capture=False)
    for name, value in eager.items():
        assert torch.equal(recorded[name], value), name


# -- when it is done


def expected(phase: Phase) -> list[tuple[str, Any]]:
    """Return what a phase asks of the method, in order; evaluations assess offline alone."""
    found: list[tuple[str, Any]] = [("assess", "fit")] * len({*range(ASSESS, FIT, ASSESS), FIT})
    for step in range(STEPS):
        if step % EVERY == 0:
            found += [("assess", "fit again"), ("refresh", "dream")]
        if phase == "offline" or step >= WARMUP:
            found.append(("update", None))
        if phase == "offline" and ((step + 1) % EVALUATED == 0 or step + 1 == STEPS):
            found.append(("assess", None))
    return found


@pytest.mark.parametrize("phase", get_args(Phase))
def test_stages_come_first_and_routines_before_every_so_manieth_step(
    phase: Phase, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = made(Staged.name, "offline", (0, 1))[0] if phase == "online" else None
    Staged.asked.clear()
    after: Any = noting(Staged.asked, ("update", None), engine_run.Run.after_update)  # type: ignore[arg-type]
    monkeypatch.setattr(engine_run.Run, "after_update", after)
    execute(recipe(), tmp_path, source=source)
    assert Staged.asked == expected(phase)


def test_a_step_that_is_tried_again_has_had_its_routines(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, taken = made(Staged.name, "offline", (0, 1))[0], itertools.count(1)
    make_pool = episodes.make_pool

    def failing(run: engine_run.Run) -> EnvPool:
        pool = make_pool(run)
        end_step = pool.end_step

        def end() -> Any:
            found = end_step()
            if next(taken) == EVERY + 1:
                raise EnvironmentFault("as it is told to")
            return found

        monkeypatch.setattr(pool, "end_step", end)
        return pool

    Staged.asked.clear()
    monkeypatch.setattr(episodes, "make_pool", failing)
    execute(recipe(), tmp_path, source=source)
    assert next(taken) == EVERY + 2, "these environments have failed, and others gone on"
    assert Staged.asked == [each for each in expected("online") if each[0] != "update"]


def test_progress_names_the_stage_and_counts_its_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "REPORT_SECONDS", 0.0)
    heard: list[Event] = []
    run_pretrain(recipe(), RunRequest(tmp_path, heard.append, "baq", "baq --resume"))
    found = [event for event in heard if isinstance(event, Progress)]
    counts = [(e.stage, e.done, e.total, e.gradient_steps) for e in found]
    again = [[("fit again", k, AGAIN, done) for k in range(1, AGAIN + 1)] for done in range(STEPS)]
    steps = [("", done + 1, STEPS, done + 1) for done in range(STEPS)]
    assert counts[:FIT] == [("fit", k, FIT, 0) for k in range(1, FIT + 1)]
    assert counts[FIT:] == [
        each
        for done in range(STEPS)
        for each in (*(again[done] if done % EVERY == 0 else ()), steps[done])
    ]
    assert all(e.updates_per_second > 0 and e.seconds_left >= 0 for e in found)
    said = [event.text for event in heard if isinstance(event, Note)]
    assert any(text.startswith(f"fit: {FIT} updates; loss of model ") for text in said)


# -- the model's store


def test_the_store_of_a_model_holds_the_last_rows_that_were_put_there(tmp_path: Path) -> None:
    execute(recipe(), tmp_path)
    put = torch.cat(Staged.made, dim=1)
    assert put.shape == (2, ROWS * -(-STEPS // EVERY))
    assert put.shape[1] > CAPACITY
    (block,) = load(tmp_path).kept()["model"]
    assert block["rows"].shape[:2] == (2, CAPACITY)
    rewards = block["rows"][..., 7]  # behind obs, action and next_obs
    for number in range(put.shape[1] - CAPACITY, put.shape[1]):
        assert torch.equal(rewards[:, number % CAPACITY], put[:, number])


def test_nothing_is_put_where_the_plan_has_no_room_for_it() -> None:
    agent = small_agent(Staged.name, (0,))
    with pytest.raises(ValueError, match="no model store: the plan's model_capacity is 0"):
        reader_of(agent, dataset_store(agent)).put("model", {"reward": torch.zeros(1, 2)})


# -- seeds, and going on after a stop


def test_a_seeds_stages_and_routines_are_the_same_alone_and_among_others(made: Any) -> None:
    for phase in ("offline", "online"):
        both, alone = (last_tensors(made(Staged.name, phase, s)[0]) for s in ((0, 1, 2), (1,)))
        rows = {n: t[1] for n, t in both.items() if t.shape[:1] == (3,) and "inputs." not in n}
        streams = {name for name in rows if "stream." in name}
        assert "training/stream.routine" in streams
        for name, value in rows.items():
            exactly = {"rtol": 0, "atol": 0} if name in streams else {"rtol": 1e-4, "atol": 1e-5}
            np.testing.assert_allclose(value, alone[name][0], err_msg=name, **exactly)
        assert {"model-00000/rows", "agent/guessed"} <= rows.keys()


def with_stages() -> list[tuple[str, Phase]]:
    """Return the phases of every method that have a stage before them."""
    found = []
    for algo, method in (METHODS | METHODS_BESIDE).items():
        for phase in get_args(Phase):
            if getattr(method, f"learns_{phase}") and plan_of(bare(method, phase)).first:
                found.append((algo, phase))
    return found


def bare(method: Any, phase: Phase) -> Agent:
    """Return an agent without numbers."""
    made: Agent = method(method.Config(), Spec((0,), 1, 1, device=torch.device("meta")), phase)
    return made


@pytest.mark.parametrize("seeds", [(1,), (0, 1, 2)])
@pytest.mark.parametrize(("algo", "phase"), with_stages())
def test_a_run_stopped_within_a_stage_ends_as_one_that_was_not(
    algo: str, phase: Phase, seeds: tuple[int, ...], made: Any, tmp_path: Path
) -> None:
    whole, source = made(algo, phase, seeds)
    asked = recipe(algo, seeds)
    within = [name for name, state in states(whole).items() if state["stages"]["steps"]]
    assert len(within) > 2
    parts = stopped_at(whole, within[len(within) // 2], tmp_path / "checkpoint")
    execute(asked, parts, resume=True, source=source)
    assert_same_end(whole, parts)
    stop_at(Updater, "step", 3, asked, tmp_path / "signal", source)
    (last,) = list(states(tmp_path / "signal").values())[-1:]
    assert (last["done"], last["stages"]["done"], last["stages"]["steps"]) == (0, 0, 3)
    execute(asked, tmp_path / "signal", resume=True, source=source)
    assert_same_end(whole, tmp_path / "signal")


@pytest.mark.parametrize("seeds", [(1,), (0, 1, 2)])
@pytest.mark.parametrize("phase", get_args(Phase))
def test_a_run_stopped_around_a_routine_ends_as_one_that_was_not(
    phase: Phase, seeds: tuple[int, ...], made: Any, tmp_path: Path
) -> None:
    whole, source = made(Staged.name, phase, seeds)
    after = next(name for name, state in states(whole).items() if state["done"] == EVALUATED)
    parts = stopped_at(whole, after, tmp_path / "checkpoint")
    execute(recipe(seeds=seeds), parts, resume=True, source=source)
    assert_same_end(whole, parts)
    stop_at(Staged, "refresh", 2, recipe(seeds=seeds), tmp_path / "signal", source)
    last = list(states(tmp_path / "signal").values())[-1]
    assert last["done"] == EVERY + 1, "the routine and the step behind it are waited for"
    execute(recipe(seeds=seeds), tmp_path / "signal", resume=True, source=source)
    assert_same_end(whole, tmp_path / "signal")


@pytest.mark.parametrize(
    "said", [{"done": 2}, {"done": 1, "steps": 1}, {"steps": FIT}, {"done": -1}, {"routines": "0"}]
)
def test_a_checkpoint_in_a_stage_that_there_isn_t_is_damaged(said: Any, made: Any) -> None:
    saved = load(made(Staged.name, "offline", (1,))[0])
    kept = {"done": 0, "steps": 0} | said

    def check(stages: dict[str, Any]) -> None:
        state, folder = saved.state | {"stages": stages}, saved.folder or Path()
        what = saved.document, state, saved.training, saved.replay, saved.blocks
        check_resumable(*what, saved.others, folder)

    check({"done": 0, "steps": FIT - 1})
    check({"done": 1, "steps": 0})
    with pytest.raises(DataError, match="damaged"):
        check(kept)


# -- plans that can't be


def test_a_stage_has_updates_and_a_routine_comes_now_and_then() -> None:
    with pytest.raises(ValueError, match="stage 'fit' has 0 steps"):
        Stage("fit", MODEL, (Draw(),), 0)
    with pytest.raises(ValueError, match="routine 'dream' runs every 0"):
        Routine("dream", 0)


@pytest.mark.parametrize(
    "change",
    [
        {"train": frozenset({"actor"})},
        {"first": (Stage("fit", frozenset({"actor"}), (Draw(),), 1),)},
    ],
)
def test_a_plan_that_trains_no_group_of_the_method_is_refused(
    change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(**change)
    monkeypatch.setattr(Staged, "offline_plan", lambda self: plan)
    with pytest.raises(ValueError, match="trains 'actor', which is no parameter group"):
        Learner(small_agent(Staged.name, (0,)))


def test_what_stages_draw_counts_as_what_updates_draw() -> None:
    of_stage = Stage("fit", MODEL, (Draw(prioritised=True),), 1)
    plan = Plan((Draw(("online",)),), first=(of_stage,))
    assert plan.needs_offline
    assert plan.uses_offline
    agent = small_agent("td3_bc", (0,))
    assert make_stores(agent, plan, None, 3)[1].priorities is not None
    agent.register_buffer("trust", torch.tensor([0.5]))
    by_trust = Stage("fit", MODEL, (Draw(("offline", "online"), odds="trust"),), 1)
    assert odds_of(agent, Plan(first=(by_trust,)))["trust"] is agent.trust
