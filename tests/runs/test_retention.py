"""Which checkpoints stay: the newest, the best of this run, and those not evaluated yet."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baq_cli.engine.checkpoints.retention import prune
from baq_cli.engine.phases import evaluations
from baq_cli.engine.phases.online import OnlineLoop
from baq_cli.errors import DataError, Interrupted
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.checkpoints import complete
from support.bad_disk import bad_disk
from support.odd_envs import STEADY
from support.runs import execute, recipe_of, states

EVERY, ENV_STEPS = 8, 32
Score = Callable[[dict[str, float]], None]


class Scored:
    """Ends an evaluation only when it must, as one beside may; returns are as they are told."""

    scores: dict[str, float]
    in_background = False

    def __init__(self, *_: Any, **__: Any):
        self._number = ""

    @property
    def idle(self) -> bool:
        return not self._number

    def begin(self, acting: Any, number: str) -> None:
        self._number = number

    def end(self, stop: Callable[[], bool]) -> Any:
        if stop():
            return None
        found = self.scores.get(self._number, 0.0)
        self._number = ""
        return np.full((2, 1), found), np.ones((2, 1))

    def tensors(self) -> dict[str, Any]:
        return {}

    def restore(self, tensors: Any, folder: Path) -> None:
        pass

    def close(self) -> None:
        pass


class Aside(Scored):
    """The same, beside the run."""

    in_background = True


@pytest.fixture
def score(monkeypatch: pytest.MonkeyPatch) -> Score:
    """Return a function that says what evaluations come to, by their numbers; others to zero."""
    monkeypatch.setattr(evaluations, "BackgroundEvaluator", Aside)
    monkeypatch.setattr(evaluations, "SnapshotEvaluator", Scored)
    return lambda scores: monkeypatch.setattr(Scored, "scores", scores, raising=False)


def finetuning(background: bool = False, **run: Any) -> Recipe:
    watched = {"episodes": 1, "every_env_steps": EVERY, "background": background}
    place = {"env": STEADY, "env_steps": ENV_STEPS, "evaluation": watched}
    return recipe_of("sac", {"warmup_env_steps": 4}, **place | {"keep_checkpoints": 1} | run)


def names(run: Path) -> list[str]:
    return [folder.name for folder in complete(run)]


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("best", [1, 2, 3, 4])
def test_the_newest_stay_and_the_best(
    best: int, background: bool, score: Score, tmp_path: Path
) -> None:
    score({f"online/{best}": 100.0, f"online/{best - 1}": 50.0})
    execute(finetuning(background), tmp_path)
    newest = ENV_STEPS // EVERY
    assert names(tmp_path) == [f"online-{EVERY * n}" for n in sorted({best, newest})]


@pytest.mark.parametrize("best", [1, 2])
def test_a_checkpoint_whose_evaluation_is_still_to_come_stays(
    best: int, score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is stopped after the best checkpoint was written and before it was evaluated."""
    score({f"online/{best}": 100.0})
    step, at = OnlineLoop.step, EVERY * best + 3

    def stepped(loop: OnlineLoop) -> None:
        step(loop)
        if loop.run.env_steps == at:
            loop.run.interruption.requested = "SIGTERM"

    with monkeypatch.context() as patch:
        patch.setattr(OnlineLoop, "step", stepped)
        with pytest.raises(Interrupted):
            execute(finetuning(background=True), tmp_path)
    assert names(tmp_path)[-2:] == [f"online-{EVERY * best}", f"online-{at}"]
    execute(finetuning(background=True), tmp_path, resume=True)
    assert names(tmp_path) == [f"online-{EVERY * best}", f"online-{ENV_STEPS}"]


@pytest.mark.parametrize("stopped", [False, True])
def test_the_best_is_the_best_of_this_run_and_not_of_the_one_it_began_from(
    stopped: bool, score: Score, tmp_path: Path
) -> None:
    """Both count environment steps from zero; the second never comes to the first one's return."""
    score({"online/1": 100.0})
    execute(finetuning(), tmp_path / "first")
    score({"online/2": 50.0})
    second = tmp_path / "second"
    if stopped:
        execute(finetuning(env_steps=EVERY), second, source=tmp_path / "first")
    execute(finetuning(), second, source=tmp_path / "first", resume=stopped)
    assert names(second) == [f"online-{EVERY * 2}", f"online-{ENV_STEPS}"]


def test_whenever_a_process_dies_the_next_removal_leaves_nothing_beside_kept_agents(
    tmp_path: Path,
) -> None:
    execute(finetuning(keep_checkpoints=99), tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "counted")
    with bad_disk(tmp_path, None) as disk:
        prune(tmp_path / "counted", "online", 1, keep_agents=True)
    assert disk.asked.count("unlink") > ENV_STEPS // EVERY
    for at in range(1, len(disk.asked) + 1):
        run = tmp_path / f"{at}"
        shutil.copytree(tmp_path / "run", run)
        with bad_disk(run, at, "broken"), pytest.raises(DataError, match="remove the old"):
            prune(run, "online", 1, keep_agents=True)
        prune(run, "online", 1, keep_agents=True)
        assert list(states(run)) == [f"online-{ENV_STEPS}"]
        left = {f.name for f in run.glob("checkpoints/*/*") if f.parent.name not in states(run)}
        assert left == {"agent.safetensors"}
        assert len(list(run.glob("checkpoints/*/agent.safetensors"))) == ENV_STEPS // EVERY
