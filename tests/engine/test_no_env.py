"""Pre-training on a log alone: no environment is made, and estimates stand where returns would.

The log is of `Steady-v0`, or of a robot whose environment is installed nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import baq_cli
from baq_cli.agents.registry import METHODS
from baq_cli.cli.results import show_run
from baq_cli.data.minari.folder import open_minari
from baq_cli.data.minari.read import load_episodes, read_recording
from baq_cli.data.minari.write import write_minari
from baq_cli.engine.checkpoints.folder import load, load_newest
from baq_cli.engine.estimation.estimate import discounted_returns
from baq_cli.engine.estimation.running import RunningEstimate
from baq_cli.engine.phases import run as engine_run
from baq_cli.envs import making
from baq_cli.errors import DataError, EnvironmentMismatch, UsageError
from baq_cli.report.document import ReportInfo, build_document
from baq_cli.report.figure import curves_figure
from baq_cli.report.method_runs import course_of
from baq_cli.report.page import render
from baq_cli.runs.folder import read_metrics
from baq_cli.runs.log import METRICS, RunLog, parse_metrics
from baq_cli.runs.trackers.scalars import metric_scalars
from baq_cli.untrusted import TRUST_VARIABLE
from support import counting_envs
from support.advice import Terminal, follows, quoted
from support.odd_envs import STEADY
from support.recordings import own_folders
from support.runs import assert_same_end, execute, last_tensors, recipe_of, states, stop_at
from support.small_data import write_steady

assert counting_envs
LOG, ROBOT = "me/steady/log-v0", "me/robot/log-v0"
SMALL = ["threads=1", "evaluation.estimate_updates=2", "shared.hidden=[8]", "shared.batch_size=8"]


def training(algo: str = "iql", **run: Any) -> Any:
    watched = {"episodes": 1, "background": False, "every_gradient_steps": 3}
    given = {"dataset": LOG, "gradient_steps": 6, "evaluation": watched | {"estimate_updates": 2}}
    return recipe_of(algo, {}, **(given | run))


def write_logs() -> None:
    """Save a log that names no environment, and one that names one which is installed nowhere."""
    write_steady(LOG)
    nowhere = gym.envs.registration.EnvSpec("Robot-v0", entry_point="nowhere:Robot")
    write_minari(ROBOT, replace(read_recording(open_minari(LOG)), env_spec=nowhere))


@pytest.fixture(scope="module")
def run() -> Iterator[Path]:
    """An IQL of two seeds, pre-trained on the log alone."""
    with own_folders() as place:
        write_logs()
        execute(training(), place / "run")
        yield place / "run"


@pytest.fixture
def logs(folder: Path) -> Path:
    """A folder beside the logs, for runs."""
    write_logs()
    return folder


def pretrain(dataset: str, out: Path, *words: str) -> list[str]:
    given = ["pretrain", "--dataset", dataset, "--algo", "iql", "--gradient-steps", "2"]
    return [*given, "--out", str(out), *SMALL, *words]


# -- a log is enough


def test_a_log_without_an_environment_is_trained_on_and_that_is_said(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("an environment was made")

    monkeypatch.setattr(making.gym, "make", never)
    notes: list[str] = []
    heard = execute(training(), logs / "run", notes=notes)
    assert any("names no environment" in note and "--env ID" in note for note in notes)
    assert any("2 updates of fitted Q evaluation" in note for note in notes)
    assert [done for done, _ in heard] == [3, 6]
    rows, episodes = read_metrics(logs / "run"), load_episodes(LOG)
    assert {row["source"] for row in rows} == {"estimate"}
    assert {row["length_env_steps"] for row in rows} == {None}
    assert {row["evaluation_episodes"] for row in rows} == {len(episodes.lengths)}
    assert [row["return_mean"] for row in rows] == pytest.approx(
        [float(np.mean(seed)) for _, returns in heard for seed in returns]
    )
    said = json.loads((logs / "run" / "manifest.json").read_text())
    own = discounted_returns(episodes, METHODS["iql"].Config().discount)
    assert said["environment"] is None
    assert said["estimate"]["behavior_mean"] == pytest.approx(own.mean())
    assert load(logs / "run").document["env_id"] is None


@follows(
    "{}. Or add --no-env to do without: what a policy is worth is estimated from the data then."
)
def test_an_environment_that_is_installed_nowhere_is_done_without_when_asked(
    terminal: Terminal, logs: Path
) -> None:
    said = terminal.told(*pretrain(ROBOT, logs / "run"), status=4)
    assert "Robot-v0" in said
    assert "add --no-env" in said
    assert not (logs / "run").exists()
    seen = terminal.done(*pretrain(ROBOT, logs / "run", "--no-env"))
    assert "estimated discounted return" in seen
    asked = terminal.told(*pretrain(ROBOT, logs / "b", "--env", "Robot-v1"), status=4)
    assert "--no-env" not in asked  # who names one wants it


@follows("no_env (--no-env) and {} exclude each other: give one of them")
def test_no_environment_and_one_exclude_each_other(terminal: Terminal, logs: Path) -> None:
    terminal.told(*pretrain(LOG, logs / "run", "--no-env", "--env", STEADY))
    terminal.done(*pretrain(LOG, logs / "a", "--no-env"))
    terminal.done(*pretrain(LOG, logs / "b", "--env", STEADY, "evaluation.background=false"))
    recipe = logs / "mine.yaml"
    recipe.write_text(f"env: {STEADY}\nmax_episode_steps: 3\n")
    terminal.done(*pretrain(LOG, logs / "c", "--no-env", "--recipe", str(recipe)))
    assert load(logs / "c").document["env_id"] is None
    recipe.write_text("no_env: true\n")
    terminal.done(*pretrain(LOG, logs / "d", "--env", STEADY, "--recipe", str(recipe)))
    assert load(logs / "d").document["env_id"] == STEADY


def test_settings_of_an_environment_that_is_not_named_are_refused(
    terminal: Terminal, logs: Path
) -> None:
    said = terminal.told(*pretrain(LOG, logs / "run", "--max-episode-steps", "3"), status=4)
    assert "names no environment: give one with --env ID" in said


# -- what is learned, and gone on with


def test_estimating_changes_nothing_of_what_is_learned(run: Path, tmp_path: Path) -> None:
    execute(training(env=STEADY), tmp_path / "played")
    alone, played = (load(folder).agent for folder in (run, tmp_path / "played"))
    assert alone.keys() == played.keys()
    assert all(torch.equal(alone[name], played[name]) for name in alone)


@pytest.mark.parametrize("algo", ["iql", "fql"])
@pytest.mark.parametrize("calls", [2, 4])
def test_a_run_that_is_resumed_ends_as_one_that_was_not(
    algo: str, calls: int, run: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    execute(training(algo), whole)
    stop_at(engine_run.Run, "after_update", calls, training(algo), tmp_path / "stopped")
    execute(training(algo), tmp_path / "stopped", resume=True)
    assert_same_end(whole, tmp_path / "stopped")
    assert any(name.startswith("training/estimate.critic.") for name in last_tensors(whole))


def test_an_estimate_goes_on_from_the_last_one(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Critics that began anew at each evaluation would have forgotten the first one's updates."""
    first = read_metrics(run)[0]["return_mean"]
    frozen = training(iql={"learning_rate": 1e-30, "hidden": [8, 8], "batch_size": 8})
    execute(frozen, tmp_path / "run")
    rows = [row["return_mean"] for row in read_metrics(tmp_path / "run") if row["seed"] == 0]
    assert rows[0] != rows[1]  # of a policy that stayed the same
    assert rows[0] == pytest.approx(first, rel=0.2)


def test_a_checkpoint_whose_estimate_is_not_its_own_is_refused(run: Path) -> None:
    saved = load(run)
    named = {n: t for n, t in saved.training.items() if n.startswith("estimate.")}
    agent = baq_cli.engine.checkpoints.restore.load_agent(run)[0]
    inputs = baq_cli.engine.experience.inputs.Inputs.from_tensors(saved.agent)
    estimate = RunningEstimate(training(), agent, load_episodes(LOG), inputs)
    estimate.restore(dict(named), run)
    some = next(iter(named))
    for changed in (
        {name: tensor for name, tensor in named.items() if name != some},
        named | {some: named[some][..., :-1]},
        named | {"estimate.stream.batch": torch.zeros_like(named["estimate.stream.batch"])},
    ):
        with pytest.raises(DataError, match="is damaged"):
            estimate.restore(changed, run)


@pytest.mark.parametrize("best", [1, 2, 3])
def test_the_best_by_the_estimate_is_kept(
    best: int, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, made = {best: 5.0}, [0]

    def end(self: RunningEstimate, stop: Any) -> Any:
        made[0] += 1
        self.idle = True
        return np.full((2, 8), told.get(made[0], -5.0)), None

    monkeypatch.setattr(RunningEstimate, "end", end)
    execute(training(gradient_steps=12, keep_checkpoints=1), logs / "run")
    assert list(states(logs / "run")) == [f"offline-{3 * n}" for n in sorted({best, 4})]


# -- what is done with it


def test_a_policy_is_deployed_and_exported(run: Path, terminal: Terminal, tmp_path: Path) -> None:
    policy = baq_cli.load_policy(run)
    assert policy.env is None
    assert policy.env_id is None
    assert "a dataset alone" in repr(policy)
    assert policy(np.zeros(3, np.float32)).shape == (1,)
    words = ["--checkpoint", str(run), "--format", "torchscript", "--out", tmp_path / "policy.pt"]
    assert "on a dataset alone" in terminal.done("export", *words)


@follows(
    "{} was trained on a dataset alone, without an environment to act in: name one with --env ID. "
)
def test_acting_needs_an_environment_to_be_named(
    run: Path, terminal: Terminal, tmp_path: Path
) -> None:
    write_logs()
    watched = ["--checkpoint", str(run), "--episodes", "1"]
    said = terminal.told("eval", *watched, status=4)
    assert "name one with --env ID" in said
    estimating = [*quoted(said, "baq ope"), "--checkpoint", str(run), "--dataset", LOG]
    assert "estimate" in terminal.done(*estimating, "--steps", "2")
    terminal.done("eval", *watched, "--env", STEADY)
    tuned = ["finetune", "--checkpoint", str(run), "--env-steps", "6", *SMALL[:1]]
    tuned += ["evaluation.background=false", "--out", str(tmp_path / "on")]
    said = terminal.told(*tuned, status=4)
    assert "without an environment to act in: name one with --env ID" in said
    terminal.told(*tuned, "--env", "Counting-v0", status=4)  # of other spaces
    assert not (tmp_path / "on").exists()
    terminal.done(*tuned, "--env", STEADY)


def test_what_is_fine_tuned_shows_returns_and_not_the_estimates_before(
    run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "online"
    execute(training(env=STEADY, env_steps=6), out, source=run)
    rows = read_metrics(out)
    assert {row["source"]: row["phase"] for row in rows} == {
        "estimate": "offline",
        "evaluation": "online",
    }
    course = course_of([out])
    assert set(course.curves) == {"online"}
    assert course.unit == "return"
    assert any("pre-training had no environment" in note for note in course.notes)
    assert load(out).document["env_id"] == STEADY
    assert load_newest(out, lambda event: None).document["history"][0]["source"] == "estimate"


@follows("no return to report: let it go on with --resume, report its pre-training's folder, or")
def test_a_robot_whose_first_episode_goes_on_has_no_return_yet(
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "1")  # the acting process imports its environment
    out = tmp_path / "robot"
    env = f"support.odd_envs:{STEADY}"
    execute(training(env=env, env_steps=2, seeds=[0], control={"hz": 50}), out, source=run)
    assert {row["source"] for row in read_metrics(out)} == {"estimate"}
    show_run(out, as_json=False)
    assert "no episode has ended yet, so there is no return to draw" in capsys.readouterr().out
    with pytest.raises(DataError, match="report its pre-training's folder, or leave it out"):
        course_of([out])
    assert course_of([run]).curves.keys() == {"offline"}


def test_no_env_is_refused_where_a_phase_acts(run: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentMismatch, match="give one with --env ID"):
        execute(training("rlpd", no_env=True), tmp_path / "scratch")
    with pytest.raises(EnvironmentMismatch, match="name one with --env ID"):
        execute(training(no_env=True), tmp_path / "online", source=run)


# -- reports


def test_every_rendering_says_that_it_is_an_estimate(
    run: Path, terminal: Terminal, tmp_path: Path
) -> None:
    course = course_of([run])
    assert course.unit == "estimated discounted return"
    said = json.loads((run / "manifest.json").read_text())
    figure = curves_figure({"iql": course.curves}, "", course.unit)
    assert figure.axes[0].get_ylabel().startswith("estimated discounted return")
    document = build_document([course], ReportInfo())
    (task,) = document["tasks"]
    assert task["environment"] is None
    assert task["threshold"] is None
    assert task["dataset"]["return_mean"] == pytest.approx(said["estimate"]["behavior_mean"], 1e-5)
    assert task["protocol"]["estimate"] == {"discount": 0.99, "updates": 2}
    assert "no episode was played" in render(document)
    shown = terminal.done("report", str(run), "--out", str(tmp_path / "report"))
    assert "estimated discounted return" in shown
    for name in ("report.md", "results.csv", "report.html"):
        assert "estimated discounted return" in (tmp_path / "report" / name).read_text()


def test_estimates_lie_beside_each_other_and_never_beside_returns(
    run: Path, tmp_path: Path
) -> None:
    execute(training("td3_bc"), tmp_path / "other")
    execute(training("bc", env=STEADY), tmp_path / "played")
    alone, other, played = map(course_of, ([run], [tmp_path / "other"], [tmp_path / "played"]))
    document = build_document([alone, other], ReportInfo())
    assert set(document["tasks"][0]["methods"]) == {"iql", "td3_bc"}
    with pytest.raises(UsageError, match="can't be compared: environment is None"):
        build_document([alone, played], ReportInfo())
    with pytest.raises(UsageError, match="lie beside no scores"):
        alone.normalized()


def test_trackers_get_estimates_under_a_name_of_their_own(run: Path) -> None:
    values = metric_scalars(read_metrics(run))[0].values
    assert "offline/estimate_mean/seed_0" in values
    assert "offline/estimate_mean/mean" in values
    assert not any("return" in name or "length" in name for name in values)


# -- comparisons and data


@follows("{}, and a comparison fine-tunes in one: name it with --env ID. Runs of 'baq pretrain' al")
def test_a_comparison_needs_an_environment(terminal: Terminal, logs: Path) -> None:
    words = ["compare", "--dataset", LOG, "--algos", "iql", "--seeds", "1", "--gradient-steps", "2"]
    words += ["--env-steps", "4", "--workers", "1", "--out", str(logs / "c"), *SMALL]
    words += ["evaluation.background=false", "evaluation.episodes=1"]
    said = terminal.told(*words, status=4)
    assert "names no environment" in said
    assert not (logs / "c" / "cells").exists()
    terminal.told(*words, "no_env=true", status=4)
    terminal.done(*pretrain(LOG, logs / "a"))
    terminal.done(*pretrain(LOG, logs / "b", "--algo", "td3_bc"))
    terminal.done("report", logs / "a", logs / "b", "--out", logs / "report")
    terminal.done(*words, "--env", STEADY)


def test_data_commands_say_what_they_can_of_a_log_alone(terminal: Terminal, logs: Path) -> None:
    assert "names no environment" in terminal.done("data", "check", LOG)
    assert "Robot-v0" in terminal.done("data", "check", ROBOT)
    assert "none is named" in terminal.done("data", "show", LOG)
    assert "Robot-v0" in terminal.done("data", "show", ROBOT)
    few = ["--episodes", "2"]
    said = terminal.told("data", "score-reference", "Robot-v0", *few, status=4)
    assert "cannot make the environment 'Robot-v0'" in said
    terminal.done("data", "score-reference", STEADY, *few)


def test_a_behaviour_is_kept_without_a_return(terminal: Terminal, logs: Path) -> None:
    terminal.done(*pretrain(LOG, logs / "one", "--seeds", "1"))
    file = logs / "kept.safetensors"
    said = terminal.done("data", "behavior", file, "--checkpoint", logs / "one")
    assert "iql on a dataset alone" in said
    assert "return" not in said
    words = ["data", "collect", "me/more/log-v0", "--behavior", file, "--env-steps", "10"]
    assert "name one with --env ID" in terminal.told(*words, status=4)
    terminal.done(*words, "--env", STEADY)


# -- files of before


def test_a_run_of_an_earlier_version_goes_on_with_the_columns_it_has(tmp_path: Path) -> None:
    row = dict.fromkeys(METRICS, 1) | {"phase": "offline"}
    before = RunLog(tmp_path / "metrics.csv", METRICS)
    before.begin()
    before.append([row])
    now = RunLog(tmp_path / "metrics.csv", (*METRICS, "source"))
    assert now.restore(before.seal()) is None
    now.append([row | {"source": "evaluation"}])
    rows = parse_metrics((tmp_path / "metrics.csv").read_bytes(), ended=True)
    assert [found["source"] for found in rows] == ["evaluation"] * 2
    content = ",".join((*METRICS, "source")) + "\noffline" + ",1" * 9 + ",guess\n"
    with pytest.raises(ValueError, match="source is 'guess'"):
        parse_metrics(content.encode(), ended=True)
