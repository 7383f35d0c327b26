"""A checkpoint is complete or absent: whatever the disk, a signal or another process does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baq_cli.engine.checkpoints import document as claims
from baq_cli.engine.checkpoints.folder import Checkpoint, load, load_newest, save
from baq_cli.engine.checkpoints.retention import prune
from baq_cli.engine.evaluation.background import BackgroundEvaluator, SnapshotEvaluator
from baq_cli.engine.experience import store
from baq_cli.engine.phases import commands as operations
from baq_cli.engine.phases.online import OnlineLoop
from baq_cli.engine.updates.updater import Updater
from baq_cli.errors import DataError, ExitStatus, Interrupted, UsageError
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.checkpoints import complete
from baq_cli.runs.events import ignore
from baq_cli.runs.folder import read_metrics
from baq_cli.runs.lock import held
from baq_cli.signals import STOPPING
from support.bad_disk import FAULTS, bad_disk
from support.evaluations import evaluation_process
from support.odd_envs import Endless
from support.recordings import ID, own_folders
from support.runs import assert_same_end, execute, recipe_of, states
from support.small_data import write_steady

EVERY, ENV_STEPS = 8, 24


def finetuning(env: str = "Steady-v0", background: bool = False, **run: Any) -> Recipe:
    watched = {"episodes": 1, "every_env_steps": EVERY, "background": background}
    settings = {"env": env, "env_steps": ENV_STEPS, "evaluation": watched} | run
    return recipe_of("sac", {"warmup_env_steps": 4}, **settings)


def pretraining(env: str = "Steady-v0", **run: Any) -> Recipe:
    watched = {"episodes": 1, "every_gradient_steps": EVERY, "background": False}
    place = {"dataset": ID, "env": env, "gradient_steps": ENV_STEPS}
    return recipe_of("iql", {}, **place, evaluation=watched, **run)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A finished run of each phase; stores lie in blocks of four rows, datasets stay in reach."""
    out = tmp_path_factory.mktemp("runs")
    with own_folders(), pytest.MonkeyPatch.context() as patch:
        for module in (store, claims):
            patch.setattr(module, "BLOCK_ROWS", 4)
        write_steady(ID)
        found = {"offline": out / "offline", "online": out / "online"}
        execute(pretraining(), found["offline"])
        execute(finetuning(), found["online"])
        yield found


def content(saved: Checkpoint) -> Any:
    """Return all that a checkpoint holds, to compare."""
    parts = (saved.agent, saved.training, saved.replay, *saved.blocks)
    tensors = [sorted((k, t.tolist()) for k, t in (part or {}).items()) for part in parts]
    return saved.document, saved.state, tensors


# -- writes that fail, one by one


@pytest.fixture(params=["offline", "online"])
def two(request: pytest.FixtureRequest, runs: dict[str, Path], tmp_path: Path) -> Any:
    """A run with one checkpoint, the same with none, and what would be saved next in it.

    Online, the next one has a block as it was, one that changed and one that is new.
    """
    phase, run = request.param, tmp_path / "before"
    shutil.copytree(runs[phase], run)
    folders = complete(run)
    first, second = load(folders[0]), load(folders[1])
    for folder in folders[1:]:
        shutil.rmtree(folder)
    if phase == "online":
        assert len(second.blocks) > len(first.blocks) > 1
        second.blocks = [None, *second.blocks[1:]]
    return phase, run, first, replace(second, folder=folders[0])


def save_again(run: Path, phase: Any, saved: Checkpoint) -> Path:
    """Save a checkpoint as a run does: what hasn't changed lies in the run's own folder."""
    own = run / "checkpoints" / saved.folder.name if saved.folder else None
    return save(run, phase, 2 * EVERY, replace(saved, folder=own))


@pytest.mark.parametrize("fault", FAULTS)
def test_whichever_write_of_a_checkpoint_fails_the_one_before_it_is_as_it_was(
    fault: str, two: Any, tmp_path: Path
) -> None:
    phase, before, first, second = two
    shutil.copytree(before, tmp_path / "counted")
    with bad_disk(tmp_path, None) as disk:
        whole = content(load(save_again(tmp_path / "counted", phase, second)))
    assert {"open", "write", "flush", "fsync", "mkdir", "rename", "replace"} <= set(disk.asked)
    assert ("link" in disk.asked) == (phase == "online")
    complete_at = disk.asked.index("rename") + 1
    for at in range(1, len(disk.asked) + 1):
        run = tmp_path / f"{at}"
        shutil.copytree(before, run)
        refusal = ""
        with bad_disk(run, at, fault):
            try:
                save_again(run, phase, second)
            except DataError as error:
                refusal = str(error)
        assert not refusal or ("make room" in refusal) == (fault != "broken")
        assert content(load(run / "checkpoints" / f"{phase}-{EVERY}")) == content(first)
        known = [content(load(folder)) for folder in complete(run)]
        # a refused save may be complete all the same, and a disk that failed once may do
        assert known == (
            [content(first)] if refusal and at <= complete_at else [content(first), whole]
        )
        assert content(load_newest(run, ignore)) == known[-1]
        assert content(load(save_again(run, phase, second))) == whole, "once the disk is well"
        assert not list((run / "checkpoints").glob(".partial-*"))
        shutil.rmtree(run)


@pytest.mark.parametrize("keep_agents", [False, True])
def test_whichever_step_of_a_removal_fails_what_is_left_is_whole(
    keep_agents: bool, runs: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(runs["online"], tmp_path / "counted")
    with bad_disk(tmp_path, None) as disk:
        prune(tmp_path / "counted", "online", 1, keep_agents)
    expected = content(load(runs["online"]))
    for at in range(1, len(disk.asked) + 1):
        run = tmp_path / f"{at}"
        shutil.copytree(runs["online"], run)
        with bad_disk(run, at, "broken"), pytest.raises(DataError, match="remove the old"):
            prune(run, "online", 1, keep_agents)
        contents = [content(load(folder)) for folder in complete(run)]
        assert contents[-1] == expected
        prune(run, "online", 1, keep_agents)
        assert len(complete(run)) == 1
        shutil.rmtree(run)


# -- a disk that is full in the middle of a run


@pytest.mark.parametrize("phase", ["offline", "online"])
def test_a_run_that_found_no_room_goes_on_to_the_same_end_once_there_is(
    phase: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    recipe = {"offline": pretraining, "online": finetuning}[phase]()
    with bad_disk(tmp_path, None) as disk:
        execute(recipe, tmp_path / "counted")
    for at in range(2, len(disk.asked), 9):
        run = tmp_path / f"{at}"
        with (
            bad_disk(tmp_path, at, "short"),
            pytest.raises(
                DataError, match=r"^cannot .*No space left.* make room.*--resume"
            ) as caught,
        ):
            execute(recipe, run)
        assert caught.value.status == ExitStatus.DATA
        execute(recipe, run, resume=True)
        assert_same_end(runs[phase], run)
        shutil.rmtree(run)


# -- one writer


def test_a_second_process_is_told_who_holds_the_run(tmp_path: Path) -> None:
    holder = (
        "import sys, time; from pathlib import Path; from baq_cli.runs.lock import held\n"
        "with held(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)"
    )
    command = [sys.executable, "-c", holder, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=rf"in use by process {process.pid} on ") as caught:
            execute(finetuning(), tmp_path / "run")
        assert caught.value.status == ExitStatus.USAGE
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    finally:
        process.kill()  # nobody lets go of anything then, but the system
        process.wait()
    execute(finetuning(env_steps=EVERY), tmp_path / "run")


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_another_process_went_on_with_meanwhile_is_left_alone(
    resume: bool, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one comes between this one's look at the folder and its hold of it."""
    run = tmp_path / "run"
    if resume:
        execute(finetuning(env_steps=EVERY), run)

    def held_later(folder: Path, **how: Any) -> Any:
        monkeypatch.setattr(operations, "held", held)
        execute(finetuning(), run, resume=resume)
        return held(folder, **how)

    monkeypatch.setattr(operations, "held", held_later)
    with pytest.raises(UsageError, match="meanwhile" if resume else "already holds a run"):
        execute(finetuning(), run, resume=resume)
    assert_same_end(runs["online"], run)


def test_a_folder_that_can_t_be_written_to_is_one_message(tmp_path: Path) -> None:
    with (
        bad_disk(tmp_path, 1, "broken"),
        pytest.raises(DataError, match=r"^cannot hold .*Input/output error"),
    ):
        execute(finetuning(), tmp_path / "run")


# -- going back past damage


@pytest.mark.parametrize("keep", [1, 9])
def test_a_damaged_checkpoint_is_put_aside_and_never_in_the_way(
    keep: int, runs: dict[str, Path], tmp_path: Path
) -> None:
    run, notes = tmp_path / "run", list[str]()
    shutil.copytree(runs["online"], run)
    damaged = complete(run)[-1]
    path = damaged / "training.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    stop_at(run, 2 * EVERY + 3, finetuning(keep_checkpoints=keep), resume=True, notes=notes)
    assert any("Going back to" in note for note in notes)
    assert any(note.endswith(f"damaged-{damaged.name}") for note in notes)
    assert complete(run)[-1].name == f"online-{2 * EVERY + 3}", "the newest, not one of the past"
    execute(finetuning(keep_checkpoints=keep), run, resume=True)
    assert_same_end(runs["online"], run)


# -- signals

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def stop_at(run: Path, at: int, recipe: Recipe, number: int = signal.SIGTERM, **how: Any) -> None:
    """Send this process a signal after an update offline, or an environment step."""
    owner: Any = OnlineLoop if recipe.run.dataset is None else Updater
    step = owner.step

    def stepped(this: Any) -> Any:
        found = step(this)
        done = this.learner.gradient_steps if owner is Updater else this.run.env_steps
        if done == at:
            os.kill(os.getpid(), number)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, "step", stepped)
        with pytest.raises(
            Interrupted, match=f"stopped by {signal.Signals(number).name}"
        ) as caught:
            execute(recipe, run, **how)
    assert caught.value.status == ExitStatus.INTERRUPTED


@pytest.mark.parametrize("number", STOPPING)
@pytest.mark.parametrize("phase", ["offline", "online"])
def test_a_signal_saves_between_two_steps_and_the_run_goes_on_to_the_same_end(
    phase: str, number: int, runs: dict[str, Path], tmp_path: Path
) -> None:
    recipe = {"offline": pretraining, "online": finetuning}[phase]()
    stop_at(tmp_path, EVERY + 3, recipe, number)
    assert list(states(tmp_path)) == [f"{phase}-{EVERY}", f"{phase}-{EVERY + 3}"]
    execute(recipe, tmp_path, resume=True)
    assert_same_end(runs[phase], tmp_path)


@contextmanager
def stopped_during(evaluation: str, number: int = signal.SIGTERM) -> Iterator[None]:
    """Send this process a signal during an evaluation, by its number, that wouldn't end itself."""
    begin, steps = SnapshotEvaluator.begin, []

    def begun(evaluator: SnapshotEvaluator, acting: Any, name: str) -> None:
        Endless.endless = name == evaluation
        begin(evaluator, acting, name)

    def at_step() -> None:
        steps.append(len(steps))
        if len(steps) == 50:
            os.kill(os.getpid(), number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Endless, "endless", False)
        patch.setattr(Endless, "at_step", staticmethod(at_step))
        patch.setattr(SnapshotEvaluator, "begin", begun)
        with pytest.raises(Interrupted, match="--resume") as caught:
            yield
    assert caught.value.status == ExitStatus.INTERRUPTED


EVALUATIONS = ["online/0", "online/1", "online/3", "offline/0", "offline/2"]
"""The first of a phase, the last, and one between."""


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("evaluation", EVALUATIONS)
def test_a_signal_during_an_evaluation_doesn_t_wait_for_it_and_it_is_made_when_the_run_goes_on(
    evaluation: str, number: int, runs: dict[str, Path], tmp_path: Path
) -> None:
    phase = evaluation.partition("/")[0]
    made = {"offline": pretraining, "online": finetuning}[phase]
    recipe = made(env="Endless-v0", max_episode_steps=10_000)
    with stopped_during(evaluation, number):
        execute(recipe, tmp_path)
    (*_, last) = states(tmp_path).values()
    assert [pending["number"] for pending in last["pending"]] == [evaluation]
    done = [row for row in read_metrics(tmp_path) if row["phase"] == phase]
    assert len(done) == 2 * int(evaluation[-1]), "of two seeds"
    with stopped_during(evaluation, number):  # and again, while it is made
        execute(recipe, tmp_path, resume=True)
    execute(recipe, tmp_path, resume=True)
    assert_same_end(runs[phase], tmp_path)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_during_the_last_evaluation_beside_doesn_t_wait_for_it(
    number: int, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, end = BackgroundEvaluator.begin, BackgroundEvaluator.end
    last: list[str] = []

    def halted(evaluator: BackgroundEvaluator, acting: Any, name: str) -> None:
        if name == "online/3":
            os.kill(evaluation_process().pid or 0, signal.SIGSTOP)
            last.append(name)
        begin(evaluator, acting, name)

    def stopped(evaluator: BackgroundEvaluator, stop: Any) -> Any:
        if last:
            threading.Timer(0.3, os.kill, (os.getpid(), number)).start()
        return end(evaluator, stop)

    with monkeypatch.context() as patch:
        patch.setattr(BackgroundEvaluator, "begin", halted)
        patch.setattr(BackgroundEvaluator, "end", stopped)
        with pytest.raises(Interrupted):
            execute(finetuning("Pendulum-v1", background=True), tmp_path / "run")
    execute(finetuning("Pendulum-v1"), tmp_path / "run", resume=True)
    execute(finetuning("Pendulum-v1"), tmp_path / "whole")
    assert_same_end(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("evaluation", ["online/0", "online/1", "online/2"])
def test_a_guard_sees_an_evaluation_that_was_interrupted_as_if_it_had_not_been(
    evaluation: str, tmp_path: Path
) -> None:
    guard = {"action": "rollback", "max_drop": 1e-6, "patience": 1, "shrink": 0.5}
    recipe = finetuning("Endless-v0", guard=guard)
    execute(recipe, tmp_path / "whole")
    events = load(tmp_path / "whole").state["guard"]["events"]
    assert events, "it has something to do"
    with stopped_during(evaluation):
        execute(recipe, tmp_path / "run")
    execute(recipe, tmp_path / "run", resume=True)
    assert load(tmp_path / "run").state["guard"]["events"] == events
    assert_same_end(tmp_path / "whole", tmp_path / "run")
