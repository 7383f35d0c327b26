"""Faults in the loop: what is said and kept, what is stored, and what can be gone on from."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baq_cli.agents.registry import METHODS
from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.checkpoints.tensors import read_tensors
from baq_cli.engine.evaluation.evaluator import Evaluator
from baq_cli.engine.experience.columns import UNKNOWN_RETURN
from baq_cli.engine.experience.replay import Replay
from baq_cli.engine.experience.store import Layout
from baq_cli.engine.phases.actor import Actor
from baq_cli.engine.phases.faults import Faults
from baq_cli.engine.phases.run import Run
from baq_cli.engine.updates.learner import Learner
from baq_cli.envs import workers
from baq_cli.envs.faults import EnvironmentFault
from baq_cli.envs.pool import EnvPool
from baq_cli.errors import EnvironmentMismatch, ExitStatus, NonFiniteError
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.interrupt import listen
from baq_cli.signals import STOPPING
from baq_cli.untrusted import TRUST_VARIABLE
from support.evaluations import nothing_played
from support.odd_envs import PLAN, Forgetful, Odd
from support.runs import assert_same_end, execute, recipe_of, states, stored_rows

EVERY, ENV_STEPS = 8, 24
BAD_STEP = 13
"""The environment step at which something goes wrong, between two checkpoints."""
Tell = Callable[..., None]
Array = np.ndarray[Any, Any]


def finetuning(env: str = "Odd-v0", algo: str = "sac", **run: Any) -> Recipe:
    watched = {"episodes": 1, "every_env_steps": EVERY, "background": False}
    settings = {"env": env, "env_steps": ENV_STEPS, "evaluation": watched} | run
    method: dict[str, Any] = {"warmup_env_steps": 4}
    if algo == "cal_ql":
        method |= {"online_share": None, "cql_actions": 2, "gradient": "sampled"}
    return recipe_of(algo, method, **settings)


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Tell environments what to do wrong: at which of their calls, and whether always."""

    def plan(kind: str, at: int, always: bool = False) -> None:
        Odd.steps = Odd.resets = 0
        marker = "-" if always else str(tmp_path / f"{kind}-{at}")
        monkeypatch.setenv(PLAN, f"{kind} {at} {marker}")

    return plan


@pytest.fixture
def no_evaluations() -> Iterator[None]:
    """Evaluations step nothing, so that the environments' calls are those of training."""
    with nothing_played():
        yield


def assert_episodes_are_whole(run: Path, may_end_anywhere: bool = False) -> Array:
    """Each stored row goes on where the one before it ended, or begins an episode.

    Observations of these environments hold the episode's step. Returns the rows.
    """
    saved = load(run)
    rows = stored_rows(run).numpy()
    at = Layout(3, 1, ()).slices
    obs, after = rows[..., at["obs"]], rows[..., at["next_obs"]]
    assert rows.shape[1] == ENV_STEPS == saved.document["env_steps"]
    assert np.isfinite(rows).all()
    assert (after[..., 2] == obs[..., 2] + 1).all()
    goes_on = (obs[:, 1:] == after[:, :-1]).all(axis=-1)
    assert (goes_on | (obs[:, 1:, 2] == 0)).all()
    terminated = rows[..., at["bootstrap"].start] == 0
    cut_short_is_no_end = (terminated == (after[..., 0] > 1.0)).all()
    assert may_end_anywhere or cut_short_is_no_end
    begun = (obs[..., 2] == 0).sum(axis=1)
    running = [episode["slots"] != [] for episode in saved.state["running"]]
    assert (begun == np.array(saved.state["episodes"]) + running).all()
    return rows


def logged(run: Path) -> list[dict[str, Any]]:
    path = run / "faults.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def assert_goes_on_to_the_same_end(run: Path, tmp_path: Path, recipe: Recipe) -> None:
    execute(recipe, run, resume=True)
    execute(recipe, tmp_path / "never-failed")
    assert_same_end(tmp_path / "never-failed", run)


# -- numbers that are not finite


@pytest.mark.parametrize(
    ("kind", "named"),
    [("nan", "observation"), ("inf-reward", "reward"), ("huge-reward", "reward")],
    ids=str,
)
def test_a_number_from_the_environment_that_is_not_finite_is_named_and_kept(
    kind: str, named: str, tmp_path: Path, tell: Tell, no_evaluations: None
) -> None:
    run = tmp_path / "run"
    tell(kind, 2 * BAD_STEP)  # two seeds: the second one's environment
    with pytest.raises(NonFiniteError, match=rf"^{named} .* {BAD_STEP} \(seeds \[1\]\)") as caught:
        execute(finetuning(), run)
    assert caught.value.status == ExitStatus.NON_FINITE
    assert f"The last checkpoint in {run} is intact." in str(caught.value)
    kept = read_tensors(run / "faults" / f"online-env_step-{BAD_STEP}.safetensors")
    assert kept.keys() == {"observation", "reward", "action"}
    finite = {
        name: torch.isfinite(t.float()).reshape(2, -1).all(1).tolist() for name, t in kept.items()
    }
    assert finite.pop(named) == [True, False]
    assert all(all(ok) for ok in finite.values())
    assert list(states(run)) == ["online-8"], "the last good one"
    assert_goes_on_to_the_same_end(run, tmp_path, finetuning())


@pytest.mark.parametrize("at", [1, 7])
def test_an_episode_that_starts_with_nan_is_refused_before_anything_is_stored(
    at: int, tmp_path: Path, tell: Tell, no_evaluations: None
) -> None:
    tell("reset-nan", at)
    with pytest.raises(NonFiniteError, match=r"^observation is NaN"):
        execute(finetuning(), tmp_path / "run")
    assert_goes_on_to_the_same_end(tmp_path / "run", tmp_path, finetuning())


def test_an_action_that_is_not_finite_reaches_no_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_evaluations: None
) -> None:
    act, calls = Actor.act, []
    stepped: list[Any] = []
    begin = EnvPool.begin_step

    def broken(actor: Actor, obs: Any) -> Any:
        calls.append(obs)
        action = act(actor, obs)
        return np.full_like(action, np.inf) if len(calls) == BAD_STEP - 4 else action

    def noted(pool: EnvPool, action: Any, **known: Any) -> None:
        stepped.append(action)
        begin(pool, action, **known)

    with monkeypatch.context() as patch:
        patch.setattr(Actor, "act", broken)
        patch.setattr(EnvPool, "begin_step", noted)
        with pytest.raises(NonFiniteError, match=rf"^action .* step {BAD_STEP} \(seeds \[0, 1\]\)"):
            execute(finetuning(), tmp_path / "run")
    assert len(stepped) == BAD_STEP - 1
    assert np.isfinite(stepped).all()
    assert_goes_on_to_the_same_end(tmp_path / "run", tmp_path, finetuning())


def test_the_batch_of_a_loss_that_is_not_finite_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_evaluations: None
) -> None:
    run, draw, drawn = tmp_path / "run", Replay.batch, []

    def broken(replay: Replay, stream: Any = None) -> Any:
        drawn.append(draw(replay))
        if len(drawn) == BAD_STEP:
            drawn[-1].reward[1, 3] = torch.inf
        return drawn[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Replay, "batch", broken)
        message = rf"^loss_critic .* at gradient step {BAD_STEP} \(seeds \[1\]\)"
        with pytest.raises(NonFiniteError, match=message) as caught:
            execute(finetuning(), run)
    path = run / "faults" / f"online-gradient_step-{BAD_STEP}.safetensors"
    assert str(path) in str(caught.value)
    kept = read_tensors(path)
    assert torch.isinf(kept["reward"]).nonzero().tolist() == [[1, 3]]
    for name, tensor in drawn[-1].tensors().items():
        assert torch.equal(kept[name], tensor), name
    assert not torch.isfinite(kept["loss_critic"][1])
    assert_goes_on_to_the_same_end(run, tmp_path, finetuning())


def test_where_losses_are_read_now_and_then_an_evaluation_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_evaluations: None
) -> None:
    """As on a card, where reading one waits for the device."""
    draw, drawn, last = Replay.batch, [], EVERY - 4
    after_update = Run.after_update

    def unread(run: Run, batch: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Faults, "check_losses", lambda *losses: None)
            after_update(run, batch)

    def broken(replay: Replay, stream: Any = None) -> Any:
        drawn.append(draw(replay))
        if len(drawn) == last:
            drawn[-1].reward[1, 3] = torch.inf
        return drawn[-1]

    monkeypatch.setattr(Replay, "batch", broken)
    monkeypatch.setattr(Run, "after_update", unread)
    with pytest.raises(
        NonFiniteError, match=rf"^loss_critic .* step {last} \(seeds \[1\]\)"
    ) as caught:
        execute(finetuning(), tmp_path)
    assert f"No checkpoint was written to {tmp_path} yet." in str(caught.value)
    kept = read_tensors(tmp_path / "faults" / f"online-gradient_step-{last}.safetensors")
    assert torch.isinf(kept["reward"]).nonzero().tolist() == [[1, 3]]
    assert list(states(tmp_path)) == []


@pytest.mark.parametrize("name", ["critic", "log_alpha"])
def test_parameters_that_are_not_finite_are_named_kept_and_never_saved(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_evaluations: None
) -> None:
    count, run = Learner.count, tmp_path / "run"

    def poison(learner: Learner) -> None:
        count(learner)
        if learner.gradient_steps == 2 * EVERY - 4:  # the last update before the checkpoint
            found = dict(learner.agent.named_parameters())
            next(found[key] for key in found if key.startswith(name)).data[1] = torch.nan

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "count", poison)
        named = rf"^the parameter {name}\S* is NaN .* step {2 * EVERY - 4} \(seeds \[1\]\)"
        with pytest.raises(NonFiniteError, match=named) as caught:
            execute(finetuning(), run)
    path = run / "faults" / f"online-parameters-{2 * EVERY - 4}.safetensors"
    assert str(path) in str(caught.value)
    for tensor in read_tensors(path).values():
        assert torch.isfinite(tensor).reshape(2, -1).all(1).tolist() == [True, False]
    assert list(states(run)) == ["online-8"]
    assert_goes_on_to_the_same_end(run, tmp_path, finetuning())


@pytest.mark.parametrize(("kind", "named"), [("nan", "observation"), ("inf-reward", "reward")])
def test_an_evaluation_reports_no_return_that_is_not_finite(
    kind: str, named: str, tmp_path: Path, tell: Tell
) -> None:
    tell(kind, 3)
    message = rf"^{named} is NaN or infinite in an evaluation.* step 2 \(seeds \[0\]\)"
    with pytest.raises(NonFiniteError, match=message) as caught:
        execute(finetuning(), tmp_path / "run")
    path = tmp_path / "run" / "faults" / "online-evaluation-0.safetensors"
    assert str(path) in str(caught.value)
    kept = read_tensors(path)
    assert kept.keys() == {"action", "observation", "reward"}
    finite = {name: bool(tensor.isfinite().all()) for name, tensor in kept.items()}
    assert finite == {name: name != named for name in kept}


# -- environments that fail

KINDS = ("raises", "shape", "reward", "flag", "reset-raises")


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_step_leaves_no_transition_and_the_run_goes_on_in_new_environments(
    kind: str, overlap: bool, tmp_path: Path, tell: Tell, no_evaluations: None
) -> None:
    run, notes = tmp_path / "run", list[str]()
    tell(kind, 2 * BAD_STEP if kind != "reset-raises" else 7)
    execute(finetuning(overlap=overlap), run, notes=notes)
    assert_episodes_are_whole(run)
    (line,) = logged(run)
    assert line["phase"] == "online"
    assert kind == "reset-raises" or line["env_steps"] == BAD_STEP - 1
    assert sum("made anew" in note for note in notes) == 1
    assert [s["faults"] for s in states(run).values()][-1] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_environments_that_keep_failing_end_the_run_with_its_checkpoint_intact(
    kind: str, tmp_path: Path, tell: Tell, monkeypatch: pytest.MonkeyPatch, no_evaluations: None
) -> None:
    run = tmp_path / "run"
    tell(kind, 2 * BAD_STEP if kind != "reset-raises" else 9, always=True)
    with pytest.raises(EnvironmentMismatch, match="failed 3 times") as caught:
        execute(finetuning(env_restarts=2), run)
    assert caught.value.status == ExitStatus.ENVIRONMENT
    assert len(logged(run)) == 3
    assert list(states(run)) == ["online-8"]
    monkeypatch.delenv(PLAN)
    assert_goes_on_to_the_same_end(run, tmp_path, finetuning())


def test_faults_are_counted_over_all_sessions_of_a_run(
    tmp_path: Path, tell: Tell, monkeypatch: pytest.MonkeyPatch, no_evaluations: None
) -> None:
    run = tmp_path / "run"
    tell("raises", 6)
    execute(finetuning(env_steps=EVERY, env_restarts=1), run)
    tell("raises", 2 * EVERY + 4)
    with pytest.raises(EnvironmentMismatch, match="failed 2 times") as caught:
        execute(finetuning(env_restarts=1), run, resume=True)
    assert f"The last checkpoint in {run} is intact." in str(caught.value)


def test_an_environment_that_can_t_be_made_again_is_tried_as_often_as_allowed(
    tmp_path: Path, tell: Tell, monkeypatch: pytest.MonkeyPatch, no_evaluations: None
) -> None:
    def refuse(env: Any) -> None:
        if Odd.steps == 2 * BAD_STEP:
            raise ConnectionError("no simulator there")

    tell("raises", 2 * BAD_STEP)
    monkeypatch.setattr(Odd, "__init__", refuse)
    with pytest.raises(EnvironmentMismatch, match=r"failed 4 times.*ConnectionError: no simulator"):
        execute(finetuning(), tmp_path / "run")
    assert [line["env_steps"] for line in logged(tmp_path / "run")] == [BAD_STEP - 1] * 4


def test_of_an_episode_cut_short_columns_are_stored_and_its_return_is_told_to_nobody(
    tmp_path: Path, tell: Tell, monkeypatch: pytest.MonkeyPatch, no_evaluations: None
) -> None:
    ended: list[tuple[list[bool], list[float]]] = []

    def noted(agent: Any, finished: Tensor, returns: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        ended.append((finished.tolist(), lengths.tolist()))
        return {}

    monkeypatch.setattr(METHODS["cal_ql"], "on_episode_end", noted)
    tell("reset-raises", 7)  # some episodes have just begun then, and others not
    execute(finetuning(algo="cal_ql"), tmp_path)
    assert len(logged(tmp_path)) == 1
    lengths = np.array([pair[1] for pair in ended])
    assert (lengths > 0).tolist() == [pair[0] for pair in ended], "an episode has a step"
    saved = load(tmp_path)
    rows = stored_rows(tmp_path)
    column = Layout(3, 1, ("mc_return",)).slices["mc_return"]
    unknown = (rows[..., column].squeeze(-1) == UNKNOWN_RETURN).sum(1)
    running = [len(e["rewards"]) for e in saved.state["running"]]
    assert unknown.tolist() == running
    cut = rows.shape[1] - lengths.sum(0) - running
    assert (cut >= 0).all()
    assert cut.any()


# -- an environment that doesn't repeat itself


@pytest.mark.parametrize(("name", "value"), [("elsewhere", 1e-6), ("over_at", 1)])
def test_an_episode_that_can_t_be_repeated_ends_where_it_was_stored(
    name: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(finetuning("Forgetful-v0", env_steps=EVERY), tmp_path)
    was_running = [bool(episode["rewards"]) for episode in load(tmp_path).state["running"]]
    assert any(was_running)
    notes: list[str] = []
    monkeypatch.setattr(Forgetful, name, value)
    execute(finetuning("Forgetful-v0"), tmp_path, resume=True, notes=notes)
    assert sum("doesn't repeat itself" in note for note in notes) == 1
    rows = assert_episodes_are_whole(tmp_path, may_end_anywhere=True)
    assert (rows[:, EVERY, 2] == 0).all(), "the episode's step in the first new observation"


# -- environments that fail in an evaluation


@pytest.mark.parametrize("at", [1, 5])
def test_an_evaluation_that_failed_is_made_again_and_changes_nothing(
    at: int, tmp_path: Path, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell("raises", at)
    execute(finetuning(), tmp_path / "failed")
    (line,) = logged(tmp_path / "failed")
    assert line["fault"].startswith("evaluation online/0: 'Odd-v0': step raised RuntimeError")
    monkeypatch.delenv(PLAN)
    execute(finetuning(), tmp_path / "whole")
    assert_same_end(tmp_path / "whole", tmp_path / "failed")


def test_evaluations_that_keep_failing_end_the_run(tmp_path: Path, tell: Tell) -> None:
    tell("reset-raises", 1, always=True)
    with pytest.raises(EnvironmentMismatch, match="failed 4 times"):
        execute(finetuning(), tmp_path / "run")


# -- environments in processes

LONG = 3.0
"""Seconds that no step of these environments takes."""


@pytest.fixture
def in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "1")


@pytest.mark.parametrize("kind", ["hangs", "dies"])
def test_a_worker_that_hangs_or_dies_is_replaced(
    kind: str, tmp_path: Path, tell: Tell, in_workers: None, no_evaluations: None
) -> None:
    tell(kind, BAD_STEP)
    limit = {"env_timeout_seconds": LONG} if kind == "hangs" else {"env_workers": True}
    execute(finetuning("support.odd_envs:Odd-v0", seeds=[0], **limit), tmp_path / "run")
    assert_episodes_are_whole(tmp_path / "run")
    (line,) = logged(tmp_path / "run")
    assert line["fault"].endswith({"hangs": "no answer within 3 s", "dies": "process ended"}[kind])


def test_environments_are_made_anew_in_their_own_processes_and_not_here(
    in_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(env: Any) -> None:
        raise AssertionError("one that hangs would hang the run")

    with closing(EnvPool("support.odd_envs:Odd-v0", 1, workers=True)) as pool:
        monkeypatch.setattr(Odd, "__init__", refuse)
        with closing(pool.again()) as again:
            assert np.array_equal(pool.reset([3]), again.reset([3]))


@pytest.mark.parametrize(
    ("kind", "said"),
    [("hangs", "didn't make it within 1 s"), ("dies", "process ended"), ("raises", "no motor")],
)
def test_an_environment_that_fails_while_it_is_made_in_a_process_is_a_fault_like_others(
    kind: str, said: str, tell: Tell, in_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(limit: float | None) -> None:
        with closing(
            EnvPool("support.odd_envs:Odd-v0", 1, workers=True, timeout_seconds=limit)
        ) as pool:
            pool.reset([0])

    before = multiprocessing.active_children()
    monkeypatch.setattr(workers, "START_SECONDS", 0.0)
    tell(f"make-{kind}", 1)
    with pytest.raises(EnvironmentFault, match=said):
        begin(1.0 if kind == "hangs" else None)
    assert multiprocessing.active_children() == before


def test_an_evaluation_that_hangs_can_be_made_again(tell: Tell, in_workers: None) -> None:
    def act(obs: Array, episode: Array) -> Array:
        return np.sin(obs[:, :1])

    tell("hangs", 3)
    here = Evaluator("Steady-v0", (0,), 2)
    beside = Evaluator("support.odd_envs:Odd-v0", (0,), 2, timeout_seconds=LONG)
    with pytest.raises(EnvironmentFault, match="no answer within 3 s"):
        beside.play(act, 0)
    for found, expected in zip(beside.play(act, 0), here.play(act, 0), strict=True):
        assert np.array_equal(found, expected)
    for evaluator in (here, beside):
        evaluator.close()


def test_a_signal_to_every_process_stops_no_worker_and_workers_change_no_handler(
    in_workers: None,
) -> None:
    with listen() as interruption:
        handlers = [signal.getsignal(n) for n in STOPPING]
        others = multiprocessing.active_children()
        pool = EnvPool("support.odd_envs:Odd-v0", 1, workers=True)
        assert [signal.getsignal(n) for n in STOPPING] == handlers
        pool.reset([0])
        (process,) = (each for each in multiprocessing.active_children() if each not in others)
        for number in STOPPING:
            os.kill(process.pid or 0, number)
        before = pool.step(np.zeros((1, 1), dtype=np.float32))
        assert process.is_alive()
        assert np.isfinite(before[0]).all()
        assert interruption.requested is None
        del pool  # as when nobody closed it: the process goes with it
    process.join(timeout=10)
    assert not process.is_alive()
