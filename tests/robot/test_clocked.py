"""Acting on the wall clock: deadlines, what is kept of what was done, and training done again."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from baq_cli import hand
from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import METHODS, make_agent
from baq_cli.engine.checkpoints.restore import load_agent
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.engine.phases.again import as_begun
from baq_cli.engine.phases.choosers import chooser_of
from baq_cli.engine.phases.commands import run_pretrain, run_repeat
from baq_cli.engine.phases.request import RunRequest
from baq_cli.engine.robot.acting import ActingConfig, Mind, Robot
from baq_cli.engine.robot.chooser import Choice
from baq_cli.engine.robot.clock import Clock, Lateness
from baq_cli.engine.robot.snapshot import Snapshot, acting_parts
from baq_cli.engine.updates.learner import Learner
from baq_cli.envs.ref import EnvRef
from baq_cli.errors import DataError, Interrupted, NonFiniteError
from baq_cli.nets.streams import SeedStream
from baq_cli.report.notes import notes_on
from baq_cli.report.run_facts import read_run
from baq_cli.runs import interleaving, transitions
from baq_cli.runs.events import Event, Note, Observer, Progress, ignore
from baq_cli.runs.files import read_json
from baq_cli.runs.folder import read_metrics
from baq_cli.untrusted import TRUST_VARIABLE
from support.advice import Terminal, follows
from support.clocked_runs import (
    ENV_STEPS,
    EVERY,
    HZ,
    assert_no_process_is_left,
    assert_repeats,
    clocked,
    recipe,
)
from support.killing import Processes
from support.odd_envs import PLAN
from support.recordings import ID, own_folders
from support.small_data import write_steady
from support.small_methods import small
from support.timed_envs import LOG, TIMED

TORTURE = os.environ.get("BAQ_TORTURE") == "1"
ONLINE = sorted(name for name, method in METHODS.items() if method.learns_online)
SPEC = Spec((0,), 3, 1)
DEATH = 23
"""The step of the acting process at which that dies, before the environment has answered."""


@pytest.fixture(autouse=True)
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The acting process finds the environments of the tests by their modules."""
    monkeypatch.setenv(TRUST_VARIABLE, "1")


# -- the clock


class FakeTime:
    """Time that passes by sleeping, and a little at every look."""

    def __init__(self) -> None:
        self.now, self.slept = 0, 0

    def look(self) -> int:
        self.now += 1_000
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept += 1
        self.now += round(seconds * 1e9)


def always() -> bool:
    return True


def test_deadlines_are_a_period_apart_and_lateness_is_what_passed_since() -> None:
    fake = FakeTime()
    clock = Clock(100, fake.look, fake.sleep)
    sent, late = [], []
    for work_ms in (3, 3, 12, 3, 26, 3):
        found = clock.wait(always)
        assert found is not None
        late.append(round(found / 1e6))
        sent.append(round(fake.now / 1e6))
        fake.now += work_ms * 1_000_000
    # 12 ms of work are 2 ms late, and the grid stays; 26 ms are 16 late, and it begins anew there
    assert sent == [0, 10, 20, 32, 40, 66]
    assert late == [0, 0, 0, 2, 0, 16]
    found = clock.wait(always)
    assert (round(fake.now / 1e6), round((found or 0) / 1e6)) == (76, 0)
    clock.restart()
    fake.now += 10**9
    assert clock.wait(always) == 0  # an episode's first action has no deadline to miss
    first = fake.now
    clock.restart()
    assert clock.wait(always) is not None
    assert fake.now - first >= clock.period_ns - 10_000  # and no action comes before its time


@given(st.lists(st.integers(0, 50_000_000), min_size=1, max_size=30), st.integers(1, 200))
def test_no_two_actions_come_in_a_burst_and_none_before_its_time(
    work_ns: list[int], hz: int
) -> None:
    fake = FakeTime()
    clock = Clock(hz, fake.look, fake.sleep)
    sent = []
    for work in work_ns:
        assert clock.wait(always) is not None
        sent.append(fake.now)
        fake.now += work
    assert (np.diff(sent) >= clock.period_ns / 2 - 10_000).all()


def test_waiting_ends_at_once_when_it_is_asked_to() -> None:
    fake, asked = FakeTime(), iter([True, True, True, False])
    clock = Clock(0.1, fake.look, fake.sleep)
    assert clock.wait(lambda: next(asked)) == 0
    assert clock.wait(lambda: next(asked)) is None
    assert fake.now < 1e8  # of ten seconds


def test_lateness_is_counted_from_the_tolerance_on() -> None:
    late = np.arange(1, 101) * 20_000  # 0.02 to 2 ms
    found = Lateness.of(late, 1.0)
    assert (found.deadlines, found.missed, found.share) == (100, 50, 0.5)
    assert (round(found.worst_ms, 9), round(found.p99_ms, 9)) == (2.0, 1.9802)
    assert Lateness.of(late[:0], 1.0).share == 0


# -- what was done, and training done again


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A run from scratch whose acting process dies once, and the file of its steps."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TRUST_VARIABLE, "1")
        patch.setenv(LOG, str(folder / "steps"))
        patch.setenv(PLAN, f"dies {DEATH} {folder / 'died'}")
        slow = {"slow_every": 9, "slow_ms": 45}
        seen: list[Event] = []
        clocked(recipe(env_args=slow), folder / "run", seen.append)
        assert any(isinstance(e, Progress) and e.utd is not None for e in seen)
        assert_no_process_is_left()
        yield folder / "run", folder / "steps"


def test_every_step_of_the_environment_is_in_the_log(whole: tuple[Path, Path]) -> None:
    run, steps = whole
    found = transitions.read(run / transitions.NAME)
    done = [json.loads(line) for line in steps.read_text().splitlines()]
    assert found.next_obs.tolist() == done
    assert found.env_step.tolist() == list(range(ENV_STEPS))
    within = found.step_in_episode[1:] > 0
    assert (found.obs[1:][within] == found.next_obs[:-1][within]).all()
    over = (found.terminated | found.truncated)[:-1] > 0
    cut = np.arange(1, ENV_STEPS) == DEATH - 1
    assert ((over | cut) == ~within).all()
    fault = json.loads((run / "faults.jsonl").read_text())
    assert (fault["env_steps"], "status -9" in fault["fault"]) == (DEATH - 1, True)
    assert (found.action == found.proposed).all()
    assert (np.diff(found.time_ns) > 0).all()
    assert (np.diff(found.policy_version) >= 0).all()
    assert found.policy_version[0] == 1
    versions = interleaving.read(run / interleaving.NAME)["version"]
    assert found.policy_version[-1] <= versions[-1]


def test_rows_are_returns_of_the_episodes_that_ended_since_the_row_before(
    whole: tuple[Path, Path],
) -> None:
    run, _ = whole
    found = transitions.read(run / transitions.NAME)
    for row, first in zip(read_metrics(run), (0, EVERY), strict=True):
        ended = (found.terminated | found.truncated) > 0  # not the one that was cut
        ended &= (found.env_step >= first) & (found.env_step < first + EVERY)
        each = [found.reward[found.episode == e].sum() for e in found.episode[ended]]
        assert row["return_mean"] == pytest.approx(np.mean(each))
        assert row["evaluation_episodes"] == len(each)
        assert row["env_steps"] == first + EVERY


def test_who_acts_follows_what_is_published_and_never_waits() -> None:
    asked, processes = recipe(), multiprocessing.get_context("spawn")
    lock = processes.Lock()
    context: Any = SimpleNamespace(Lock=lambda: lock, RawArray=processes.RawArray)
    agents = [make_agent("sac", asked.method, SPEC, "online") for _ in range(2)]
    snapshot = Snapshot(agents[0], context)
    with torch.no_grad():
        for parameter in agents[0].policy.parameters():
            parameter.add_(0.5)
    snapshot.publish(agents[0], 7)
    assert snapshot.read(agents[1]) == 7
    parts = [acting_parts(agent) for agent in agents]
    assert parts[0].keys() == parts[1].keys()
    assert all(torch.equal(t, parts[1][name]) for name, t in parts[0].items())
    with lock:
        assert snapshot.read(agents[1]) is None


def test_late_steps_are_counted_and_the_manifest_says_so(whole: tuple[Path, Path]) -> None:
    run, _ = whole
    said = read_json(run / "manifest.json")["control"]
    found = transitions.read(run / transitions.NAME)
    later = found.step_in_episode > 0
    assert said["deadlines"] == later.sum()
    assert said["missed"] == (found.late_ns[later] > 1e6).sum()
    of_process = np.where(found.env_step < DEATH - 1, found.env_step, found.env_step - DEATH + 1)
    slow = np.flatnonzero((of_process + 1) % 9 == 0) + 1
    slow = slow[(slow < ENV_STEPS) & later[np.minimum(slow, ENV_STEPS - 1)]]
    assert len(slow)
    assert (found.late_ns[slow] > 20e6).all()  # 45 ms of a step are 25 beyond the period
    assert said["worst_ms"] == round(found.late_ns[later].max() / 1e6, 3)


def test_a_report_says_how_the_clock_was_kept(whole: tuple[Path, Path]) -> None:
    facts = read_run(whole[0])
    course: Any = SimpleNamespace(
        task="t", method="sac", runs=(facts,), notes=(), seeds=(0,), steps_known=True
    )
    said = facts.manifest["control"]
    begins = f"t, sac: acted on the wall clock, {HZ} times a second. {said['missed']} of "
    (note,) = (note for note in notes_on([course], 1) if note.startswith(begins))
    assert "Online returns are those of the robot's own episodes" in note


def test_another_policy_takes_over_in_the_process_that_acts(whole: tuple[Path, Path]) -> None:
    """It is made there, from what was sent; nothing of it is there before."""
    _, _, origin = as_begun(whole[0])
    rule = {"by": f"policy:{whole[0]}", "step_probability": 1.0, "steps": 2}
    sent = pickle.dumps(chooser_of(recipe(intervention=rule), origin, None))
    chooser = pickle.loads(sent)(0, ignore)
    own, obs = np.zeros(1, np.float32), np.ones(3, np.float32)
    found = []
    for _ in range(3):
        found.append(chooser.choose(own, obs, 0))
        chooser.done()
    assert [choice.label for choice in found] == [transitions.SOMEBODY] * 3
    agent, inputs, _ = load_agent(whole[0])
    with torch.no_grad():
        expected = agent.act(inputs.obs(obs[None]).unsqueeze(1), SeedStream((0,), "act"))
    assert found[0].action.tolist() == expected[0, 0].tolist()


class Scripted:
    """Somebody who wants one thing after another."""

    def __init__(self, env_step: int, observer: Observer):
        person = np.array([0.25], np.float32)
        wants: list[dict[str, Any]] = [
            {"action": person, "label": transitions.SOMEBODY},
            *({"pause": True},) * 3,
            {"mark": hand.SUCCESS, "reward": 5.0},
            {"end": True},
            {"mark": hand.FAILURE, "action": person, "label": transitions.SOMEBODY},
            {"stop": "the person"},
        ]
        self.wants, self.made = iter(wants), 0

    def choose(self, own: Any, obs: Any, episode: int, hand_over: str | None) -> Choice:
        return Choice(**({"action": own} | next(self.wants)))

    def done(self) -> None:
        self.made += 1

    def close(self) -> None:
        pass


def test_what_somebody_wants_is_done_and_logged(tmp_path: Path) -> None:
    asked, processes = recipe(), multiprocessing.get_context("spawn")
    lock = processes.Lock()
    context: Any = SimpleNamespace(Lock=lambda: lock, RawArray=processes.RawArray)
    log = tmp_path / transitions.NAME
    transitions.TransitionLog.create(log, transitions.Layout(3, 1, (0,))).close()
    inputs = safetensors.torch.save(Inputs.fit(asked.method, 3, None).tensors())
    config = ActingConfig(asked, SPEC, inputs, EnvRef("Pendulum-v1"), log, 60, 0, Scripted)
    snapshot = Snapshot(make_agent("sac", asked.method, SPEC, "online"), context)
    robot = Robot(config, Mind(config, snapshot), snapshot, ignore, lambda: False)
    robot.act()
    robot.close()
    assert robot.stopped_by == "the person"
    found = transitions.read(log)
    assert found.intervention.tolist() == [1, 0, 0, 1]
    assert found.success.tolist() == [0, 1, 0, -1]
    assert found.terminated.tolist() == [0, 1, 0, 1]
    assert found.truncated.tolist() == [0, 0, 1, 0]
    assert found.episode.tolist() == [0, 0, 1, 2]
    assert found.action[[0, 3]].tolist() == [[0.25], [0.25]]
    assert (found.proposed[[0, 3]] != 0.25).all()
    assert (found.action[1:3] == found.proposed[1:3]).all()
    cos, sin, speed = found.obs[1]
    cost = np.arctan2(sin, cos) ** 2 + 0.1 * speed**2 + 0.001 * (2 * found.action[1, 0]) ** 2
    assert found.reward[1] == pytest.approx(5 - cost, abs=1e-4)
    assert np.diff(found.time_ns)[0] > 3 * 1e9 / HZ - 1e6  # three pauses between the first two
    assert found.late_ns[1] == 0  # and no deadline was missed by them


def test_training_from_the_logs_is_the_same_bit_for_bit(
    whole: tuple[Path, Path], tmp_path: Path
) -> None:
    run, _ = whole
    turns = interleaving.read(run / interleaving.NAME)
    assert turns["updates"][-1] == len(set(turns["updates"].tolist())) - 1 > 0
    assert_repeats(run, tmp_path / "again")


def test_a_robot_whose_first_episode_is_bad_acts_on_as_it_was_handed_over(tmp_path: Path) -> None:
    """Nothing is known yet that a rollback could go back to but that; later rows are better."""
    bound = {"episode_return": 1e9, "episodes": 0}
    guard = {"action": "rollback", "max_online_episodes_below": bound}
    notes: list[Event] = []
    clocked(recipe(guard=guard), tmp_path / "run", notes.append)
    said = [note.text for note in notes if isinstance(note, Note) and "guard" in note.text]
    assert "back to the policy handed over" in said[0]
    assert "back to its best policy" in said[-1]
    assert_repeats(tmp_path / "run", tmp_path / "again")


@pytest.mark.torture
@pytest.mark.skipif(not TORTURE, reason="each kind starts two processes; another test sees one die")
@pytest.mark.parametrize("kind", ["raises", "dies", "hangs", "nan"])
def test_an_environment_that_fails_costs_an_episode_and_no_transition(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLAN, f"{kind} 13 {tmp_path / 'failed'}")
    limit = {"env_timeout_seconds": 1.0} if kind == "hangs" else {}
    asked = recipe(env="support.odd_envs:Odd-v0", **limit)
    if kind == "nan":
        with pytest.raises(NonFiniteError, match="observation is NaN"):
            clocked(asked, tmp_path / "run")
        clocked(asked, tmp_path / "run", resume=True)
    else:
        clocked(asked, tmp_path / "run")
        line = json.loads((tmp_path / "run" / "faults.jsonl").read_text())
        assert line["env_steps"] == 12
    found = transitions.read(tmp_path / "run" / transitions.NAME)
    assert found.env_step.tolist() == list(range(ENV_STEPS))
    assert found.step_in_episode[12] == 0
    assert found.episode[12] == found.episode[11] + 1
    assert_no_process_is_left()
    assert_repeats(tmp_path / "run", tmp_path / "again")


def test_a_signal_stops_the_robot_and_saves_and_a_resume_goes_on(tmp_path: Path) -> None:
    run, sent = tmp_path / "run", []

    def stop(event: Event) -> None:
        if isinstance(event, Note) and event.text.startswith(f"{EVERY} env_steps"):
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=r"stopped by SIGTERM; everything is saved"):
        clocked(recipe(), run, stop)
    assert time.monotonic() - sent[0] < 5
    assert_no_process_is_left()
    done = transitions.read(run / transitions.NAME)
    assert EVERY <= len(done) < ENV_STEPS
    clocked(recipe(), run, resume=True)
    found = transitions.read(run / transitions.NAME)
    assert len(found) == ENV_STEPS
    assert found.records[: len(done)].tobytes() == done.records.tobytes()
    assert found.episode[len(done)] == done.episode[-1] + 1
    assert_repeats(run, tmp_path / "again")


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes() as found:
        yield found


def test_a_run_that_is_killed_loses_nothing_that_was_done(
    processes: Processes, tmp_path: Path
) -> None:
    kills, steps = (20, 2_000) if TORTURE else (3, 90)
    chance, run, log = random.Random(0), tmp_path / "run", tmp_path / "steps"
    at = sorted(chance.sample(range(1, steps), kills))
    for target in at:
        child = processes.begin("clocked", run, {LOG: str(log), "STEPS": str(steps)})
        began = time.monotonic()
        while not log.exists() or log.read_bytes().count(b"\n") < target:
            assert time.monotonic() - began < 60
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        assert processes.ended() == -signal.SIGKILL
        time.sleep(0.3)  # the acting process hears of it at its next step
        lines = log.read_text().splitlines()
        found = transitions.read(run / transitions.NAME)
        assert found.next_obs.tolist() == [json.loads(line) for line in lines]
    processes.begin("clocked", run, {LOG: str(log), "STEPS": str(steps)})
    assert processes.ended() == 0
    found = transitions.read(run / transitions.NAME)
    assert found.env_step.tolist() == list(range(steps))
    assert_repeats(run, tmp_path / "again")


@pytest.mark.parametrize("algo", ONLINE if TORTURE else ["moore", "qc_fql"])
def test_methods_act_on_the_clock_and_repeat(algo: str, tmp_path: Path) -> None:
    """Routines, models, chunks and stages before the phase among them."""
    with own_folders():
        write_steady(ID)
        asked = recipe(
            algo, small(algo), dataset=ID, env="support.odd_envs:Steady-v0", gradient_steps=5
        )
        source = None
        if METHODS[algo].learns_offline:
            source = tmp_path / "offline"
            run_pretrain(asked, RunRequest(source, ignore, "baq", "baq --resume"))
        clocked(asked, tmp_path / "run", source=source)
        assert_repeats(tmp_path / "run", tmp_path / "again")


# -- what is refused


def words(run: Path, *more: str) -> list[str]:
    return ["finetune", "--out", str(run), "--env", TIMED, "--algo", "sac", "--seeds", "1", *more]


@follows(
    "the policy can't keep {} actions a second here: deciding on one takes {} of {} ms, as measured"
)
@follows(
    "--control-hz steps one robot, and there are {} seeds ({}): give one of them, as in --seeds {},"
)
@follows("{} is no run whose training can be repeated: expected one of 'baq finetune --control-hz")
@follows("--repeat makes a run's training again as it was: leave out all but --out")
def test_what_cannot_be_is_refused_before_anything_moves(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG, str(tmp_path / "steps"))
    run = words(tmp_path / "run", "--env-steps", "5", "sac.hidden=[8]")
    said = terminal.told(*run, "--seeds", "4,2", "--control-hz", "90000")
    assert "there are 2 seeds (4, 2): give one of them, as in --seeds 4," in said
    run += ["--seeds", "4,"]
    said = terminal.told(*run, "--control-hz", "90000")
    assert "can't keep 90000 actions a second" in said
    assert not (tmp_path / "steps").exists()
    rate = float(said.partition("Give --control-hz ")[2].split()[0])
    run[2] = str(tmp_path / "slower")
    terminal.done(*run, "--control-hz", str(min(rate, 40.0)))
    assert len(transitions.read(tmp_path / "slower" / transitions.NAME)) == 5
    said = terminal.told("finetune", "--repeat", str(tmp_path), "--out", str(tmp_path / "other"))
    assert "is no run whose training can be repeated" in said
    again = ["finetune", "--repeat", run[2], "--out", str(tmp_path / "again")]
    assert "leave out all but --out" in terminal.told(*again, "--env-steps", "9")
    assert "bit for bit" in terminal.done(*again)


@follows("Repeat it on the machine and with the versions that it was made on")
def test_a_repetition_that_comes_to_other_parameters_says_so(
    whole: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = whole
    rates: Callable[[Learner], dict[str, float]] = Learner.learning_rates
    with monkeypatch.context() as patch:
        patch.setattr(
            Learner, "learning_rates", lambda of: {n: 1.01 * r for n, r in rates(of).items()}
        )
        with pytest.raises(DataError, match="came to other parameters"):
            run_repeat(run, RunRequest(tmp_path / "one", ignore, "baq", "baq --resume"))
    assert_repeats(run, tmp_path / "other")
