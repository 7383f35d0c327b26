"""What messages of faults, damage and full disks advise is done here to the letter, and helps."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.tensors import tensor_bytes
from baq_cli.engine.phases.episodes import EnvPool
from baq_cli.envs.faults import EnvironmentFault
from baq_cli.envs.ref import EnvRef
from baq_cli.errors import DataError
from support.advice import Terminal, follows, quoted
from support.bad_disk import bad_disk
from support.commands import ENV, LOG, compare, finetune, log, pretrain, run, scratch
from support.evaluations import nothing_played
from support.odd_envs import PLAN, Odd

__all__ = ["log", "run"]


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of a fine-tuning in an environment whose third observation is not finite, once."""
    Odd.steps = Odd.resets = 0
    monkeypatch.setenv(PLAN, f"nan 3 {tmp_path / 'mended'}")
    return scratch(tmp_path / "run", "--env", "Odd-v0", "--algo", "sac", "env_workers=false")


# -- numbers that are not finite


@follows("Lower learning_rate or reward_scale, and look at the dataset with 'baq data show'.")
def test_a_lower_rate_and_scale_keep_an_update_finite(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    for name, key in enumerate(("learning_rate", "reward_scale")):
        words = pretrain("iql", tmp_path / f"{name}-high", f"iql.{key}=1e38")
        said = terminal.told(*words, status=5)
        terminal.done(*quoted(said, "baq data show"), LOG)
        terminal.done(*pretrain("iql", tmp_path / f"{name}-low", f"iql.{key}=0.001"))


@follows("Mend the environment, or the policy's learning rate, then resume.")
def test_a_mended_environment_is_resumed_in(terminal: Terminal, odd: list[str]) -> None:
    with nothing_played():
        assert "Mend the environment" in terminal.told(*odd, status=5)
    terminal.done(*odd, "--resume")


@follows("{} is NaN or infinite in an evaluation in '{}', at its step {} (seeds {}). That changes ")
def test_a_mended_environment_can_be_evaluated_in(
    terminal: Terminal, tmp_path: Path, odd: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PLAN)
    terminal.done(*odd)
    evaluate = ["eval", "--checkpoint", str(tmp_path / "run"), "--episodes", "1"]
    Odd.steps = Odd.resets = 0
    monkeypatch.setenv(PLAN, f"nan 3 {tmp_path / 'mended'}")
    assert "That changes no checkpoint" in terminal.told(*evaluate, status=5)
    terminal.done(*evaluate)


@follows("the tensor '{}' of {} has numbers that are not finite: no action can be computed from ")
def test_an_earlier_checkpoint_acts_where_a_policy_is_not_finite(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    from baq_cli import load_policy

    run = tmp_path / "run"
    terminal.done(*pretrain("iql", run, "evaluation.every_gradient_steps=2"))
    first, last = sorted((run / "checkpoints").glob("offline-*"))
    saved = ckpt.load(last)
    name = next(name for name in saved.agent if name.startswith("policy."))
    saved.agent[name].view(-1)[0] = np.nan
    (last / "agent.safetensors").write_bytes(tensor_bytes(saved.agent, saved.document))
    with pytest.raises(DataError, match="Choose an earlier checkpoint"):
        load_policy(last)
    assert np.isfinite(load_policy(first)(np.zeros(3))).all()


# -- what is asked for, and what is there


@follows("'baq data suite list' shows what can be built")
def test_what_can_be_built_is_listed_and_built(terminal: Terminal, folder: Path) -> None:
    said = terminal.done("data", "list")
    listed = terminal.done(*quoted(said, "baq data suite list"), "--json")
    assert "baq/pendulum/replay-v0" in listed
    terminal.done("data", "suite", "build", "baq/pendulum/random-v0")


@follows("'{}' has {} steps from seed {}: another size or seed needs an id of its own, --id")
def test_another_size_of_a_reference_dataset_gets_an_id(terminal: Terminal, folder: Path) -> None:
    words = ["data", "suite", "build", "baq/pendulum/random-v0", "--env-steps", "400"]
    said = terminal.told(*words)
    option, example = re.findall(r"(--id) (\S+)", said)[0]
    terminal.done(*words, option, example)
    assert example in terminal.done("data", "list")


@follows("these behaviours fit any environment: name one with --env ID")
def test_behaviours_at_random_are_given_an_environment(terminal: Terminal, short_env: str) -> None:
    words = ["data", "collect", "me/any/random-v0", "--behavior", "random", "--env-steps", "6"]
    terminal.told(*words)
    terminal.done(*words, "--env", short_env)


@follows("this machine hasn't the memory that was asked for{}. Lower what sizes it: seeds, hid")
def test_less_is_asked_of_the_memory(terminal: Terminal, log: str, tmp_path: Path) -> None:
    said = terminal.told(*pretrain("bc", tmp_path / "a", "bc.batch_size=1000000000000"))
    assert "batch_size" in said.partition("Lower what sizes it")[2]
    terminal.done(*pretrain("bc", tmp_path / "b", "bc.batch_size=8"))


@follows(", … ({} in all; --json has them)")
def test_a_long_list_is_whole_in_json(terminal: Terminal, log: str) -> None:
    from baq_cli.cli.results import MOST_LISTED, print_card

    many = list(range(MOST_LISTED + 1))
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        print_card({"many": many})
    assert f"({len(many)} in all; --json has them)" in " ".join(shown.getvalue().split())
    status, out, _ = terminal.run("data", "show", LOG, "--json")
    assert (status, len(json.loads(out)["obs_min"])) == (0, 3)


@follows("unexpected {}: {}\nThis is a fault of baq. Run the command again with --debug and report")
def test_debug_shows_the_traceback_of_a_fault(
    terminal: Terminal, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baq_cli.engine.collection import datasets

    def fails(*given: Any) -> None:
        raise ArithmeticError("of ours")

    monkeypatch.setattr(datasets, "check_dataset", fails)
    words = ["data", "check", LOG]
    assert "Traceback" not in terminal.told(*words, status=1)
    said = terminal.told(*words, "--debug", status=1)
    assert "Traceback" in said
    assert "in fails" in said


@follows(
    "the checkpoint was made by an earlier version, whose content hashes were others: whether "
)
def test_what_an_earlier_version_trained_is_trained_again(
    terminal: Terminal, log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = ckpt.load

    def earlier(path: Path) -> ckpt.Checkpoint:
        saved = load(path)
        saved.document["spaces"].pop("obs_layout")
        return saved

    terminal.done(*pretrain("baq", tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(ckpt, "load", earlier)
        said = terminal.told(*finetune(tmp_path / "run", tmp_path / "a"), status=3)
    assert "Pre-train again" in said
    terminal.done(*pretrain("baq", tmp_path / "again"))
    terminal.done(*finetune(tmp_path / "again", tmp_path / "a"))


# -- disks, signals and processes


@follows(
    "Nothing that was complete is lost: make room, then give the command again (with --resume wh",
    "The disk or its network doesn't answer: give the command again once it does.",
)
def test_with_room_or_an_answer_a_run_and_its_report_are_written(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    run, report = tmp_path / "run", ["report", str(tmp_path / "run"), "--out"]
    with bad_disk(run, 12):
        said = terminal.told(*pretrain("iql", run), status=3)
    assert "make room" in said
    terminal.done(*pretrain("iql", run), "--resume")
    with bad_disk(tmp_path / "report", 3):
        assert "make room" in terminal.told(*report, tmp_path / "report", status=3)
    terminal.done(*report, tmp_path / "report")
    with bad_disk(tmp_path / "bad", 1, "broken"):
        assert "once it does" in terminal.told(*pretrain("iql", tmp_path / "bad"), status=3)
    terminal.done(*pretrain("iql", tmp_path / "bad"))


@follows("cannot read {}: {}. It may be whole: give the command again once the disk answers. If it")
def test_a_disk_that_answers_again_or_a_folder_moved_away_lets_a_run_go_on(
    terminal: Terminal, log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baq_cli import plain_files

    run = tmp_path / "run"
    terminal.done(*pretrain("iql", run, "evaluation.every_gradient_steps=2"))
    shutil.copytree(run, tmp_path / "copy")
    last = sorted((run / "checkpoints").glob("offline-*"))[-1]
    resume = pretrain("iql", run, "evaluation.every_gradient_steps=2", "--resume")

    def unanswered(path: Any, *rest: Any, **how: Any) -> Any:
        if path == last / "agent.safetensors":
            raise OSError(5, "Input/output error", str(path))
        return io.open(path, *rest, **how)  # noqa: UP020

    with monkeypatch.context() as patch:
        patch.setattr(plain_files, "open", unanswered, raising=False)
        assert "once the disk answers" in terminal.told(*resume, status=3)
        shutil.move(last, tmp_path / "away")
        terminal.done(*resume)
    copy = ["--out" if word == "--out" else word for word in resume]
    copy[copy.index(str(run))] = str(tmp_path / "copy")
    terminal.done(*copy)


@follows("stopped by {}, and the environments ended with it ({}). --resume goes on from the last ")
def test_a_run_whose_environments_a_signal_took_is_resumed(
    terminal: Terminal, short_env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.launching import ask_to_stop

    def taken(*given: Any, **known: Any) -> None:
        ask_to_stop()
        raise EnvironmentFault("gone")

    words = scratch(tmp_path / "run", "--env", ENV, "--algo", "sac", "env_workers=false")
    with monkeypatch.context() as patch, nothing_played():
        patch.setattr(EnvPool, "begin_step", taken)
        assert "--resume goes on" in terminal.told(*words, status=130)
    terminal.done(*words, "--resume")


@follows("its process ended with status {}, see {} in its folder")
def test_a_cells_log_lies_where_the_message_says(tmp_path: Path) -> None:
    from baq_cli.launch.child import Child

    child = Child(tmp_path, 1)  # there is no cell in this folder
    while (how := child.ended()) is None:
        time.sleep(0.05)
    (name,) = re.findall(r"see (\S+) in its folder", how)
    assert (tmp_path / name).read_text()


@follows("{} ended as {}, see {}", "{} failed, see {}")
def test_a_jobs_output_lies_where_the_message_says(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baq_cli.launch import slurm
    from baq_cli.launch.child import HOW
    from support.fake_slurm import fake_slurm
    from support.launching import cells_in, own_data

    monkeypatch.setattr(slurm, "ASK_SECONDS", 0.0)
    monkeypatch.setattr(slurm, "LOOK_SECONDS", 0.0)
    with own_data() as place, fake_slurm(tmp_path) as jobs:
        cells = cells_in(place / "c", ["bc", "iql"])
        for cell in cells:
            cell.save()
        (cells[1].folder / HOW).mkdir()  # where its job can't write
        launcher = slurm.Slurm(place / "c")
        started = [launcher.start(cell, lambda name, event: None) for cell in cells]
        while not list(slurm.own_folder(place / "c").glob("1_*.err")):
            time.sleep(0.05)
        os.killpg(int((jobs / "1.pid").read_text()), signal.SIGKILL)
        for job, said in zip(started, ("job 1 ended as ", "job 2 failed"), strict=True):
            while (how := job.ended()) is None:
                time.sleep(0.05)
            assert how.startswith(said)
            assert Path(how.partition(", see ")[2]).is_file()


# -- reports


@follows(
    "No aggregates across tasks: {} has no reference scores, and raw returns of different task"
)
def test_tasks_with_references_are_aggregated(terminal: Terminal, log: str, tmp_path: Path) -> None:
    from baq_cli.engine.collection.scoring import store_reference

    other = "me/other/log-v0"
    collect = ["--env", ENV, "--behavior", "random", "--env-steps", "30", "--seed", "1"]
    terminal.done("data", "collect", other, *collect)
    both = f"{LOG},{other}"
    out = tmp_path / "without"
    assert (
        "No aggregates"
        in terminal.done(*compare(out, dataset=both)) + (out / "report.md").read_text()
    )
    facts = {"return_std": 1.0, "episodes": 2}
    measured = {"random": facts | {"return_mean": -9.0}}
    measured["expert"] = facts | {"return_mean": -1.0, "policy": "made"}
    for name in (LOG, other):
        store_reference(name, EnvRef(ENV), measured)
    terminal.done(*compare(tmp_path / "with", dataset=both, algos="awac"))
    terminal.done("report", out, tmp_path / "with", "--out", tmp_path / "report")
    found = json.loads((tmp_path / "report" / "results.json").read_text())
    assert set(found["aggregates"]["methods"]) == {"iql", "awac"}, "earlier runs too"


@follows(
    "the probability of improvement is paired by task, but one method has {} tasks and the other",
    "an infinite score can't be aggregated: scores must be finite numbers, or NaN for a run with",
)
def test_scores_are_given_as_the_messages_say() -> None:
    from baq_cli.bootstrap import interval
    from baq_cli.report.aggregates import iqm, probability_of_improvement

    one, two = [np.arange(3.0)], [np.arange(3.0), np.arange(3.0)]
    with pytest.raises(DataError, match="the same tasks of both"):
        probability_of_improvement(one, two, 9)
    assert probability_of_improvement(two, two, 9).value == 0.5
    with pytest.raises(DataError, match="or NaN"):
        interval([np.array([1.0, np.inf])], iqm)
    assert interval([np.array([1.0, np.nan])], iqm).value == 1.0
