"""What a run on the wall clock learns: from a log of transitions, in turns that are logged too."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.engine.checkpoints.folder import Checkpoint
from baq_cli.engine.evaluation.cost import interval
from baq_cli.engine.experience.store import Store
from baq_cli.engine.phases import checkpointing
from baq_cli.engine.phases.endings import Endings
from baq_cli.engine.phases.evaluations import Pending
from baq_cli.engine.phases.intake import Intake
from baq_cli.engine.phases.repeating import RunningEpisode
from baq_cli.engine.phases.run import Run
from baq_cli.engine.robot.clock import Lateness
from baq_cli.envs.safety import ENDED
from baq_cli.runs import interleaving, transitions

Array = npt.NDArray[Any]


class ClockedLearner:
    """What one seed's run learns. In a turn, transitions are stored, then updates are made.

    All that it does depends on the log of transitions and on that of turns, never on the time:
    `repeat` does again what these say, bit for bit. `due` says that a checkpoint is, and `logged`
    how many transitions there were when the log was opened.
    """

    def __init__(self, run: Run, intake: Intake):
        self.run, self.intake = run, intake
        run.guard.begin()
        self._endings = Endings(run, intake.online)
        self._episode, self._number = RunningEpisode(0), -1
        self._ended: list[tuple[float, int]] = []
        self._late_ns = array("q")
        self.updates = self.version = self._published = self._events = 0
        self.due, self.logged = False, 0
        folder = run.directory.path
        self.log_path, self._turns_path = folder / transitions.NAME, folder / interleaving.NAME

    # -- beginning and going on

    @classmethod
    def start(cls, run: Run, offline: Store | None) -> ClockedLearner:
        """Return what learns from the hand-over on, with logs that are empty."""
        learner, spec = cls(run, Intake(run, offline)), run.spec
        layout = transitions.Layout(spec.obs_dim, spec.action_dim, spec.seeds)
        transitions.TransitionLog.create(learner.log_path, layout).close()
        interleaving.Interleaving.create(learner._turns_path).close()
        learner._open(0)
        return learner

    @classmethod
    def resume(cls, run: Run, offline: Store | None, saved: Checkpoint) -> ClockedLearner:
        """Return what goes on from a checkpoint; `repeat` then comes to where the logs end.

        Raises DataError where a log is damaged, or has less than the checkpoint knows of.
        """
        checkpointing.restore(run, saved)
        learner = cls(run, Intake.restored(run, offline, saved))
        kept, prefix = saved.state["control"], "running.0."
        learner.updates = learner._published = kept["updates"]
        learner.version, learner._number = kept["version"], kept["episode"]
        learner._ended = [(total, steps) for total, steps in kept["ended"]]
        own = {n.removeprefix(prefix): t for n, t in saved.replay.items() if n.startswith(prefix)}
        learner._episode = RunningEpisode.restored(saved.state["running"][0], own)
        learner._events = len(run.guard.events)
        learner._open(kept["turns"])
        return learner

    def _open(self, turns: int) -> None:
        """Open the logs, of which a checkpoint knows so many transitions and turns."""
        known = transitions.read(self.log_path)
        self.logged = len(known)
        log = transitions.TransitionLog(self.log_path, known.layout, len(known))
        log.cut(max(len(known), self.run.env_steps))  # raises where it has fewer
        log.close()
        self._note_late(known.records[: self.run.env_steps])
        self._tail = transitions.Tail(self.log_path, self.run.env_steps)
        found = interleaving.read(self._turns_path)
        lost = found["transitions"] > len(known)  # a failure of power may have taken those
        whole = int(np.argmax(lost)) if lost.any() else len(found)
        self._turns = interleaving.Interleaving(self._turns_path, len(found))
        self._turns.cut(max(whole, turns))
        self._left = found[turns:whole]

    @property
    def left(self) -> int:
        """How many turns there are to repeat."""
        return len(self._left)

    def repeat(self) -> None:
        """Make the next turn again that was made before."""
        turn, self._left = self._left[0], self._left[1:]
        while (count := int(turn["transitions"]) - self.run.env_steps) > 0:
            self._take(self._tail.new(count))
        while self.updates < turn["updates"]:
            self._update()
        if turn["version"] != self.version:
            self.version, self._published = int(turn["version"]), self.updates
        self._events = len(self.run.guard.events)

    # -- turns

    def turn(self) -> bool:
        """Store what has been logged, and make one update where one is owed.

        Returns whether there was anything to do.
        """
        found = self._tail.new()
        self._take(found)
        owed = self.updates < self._owed()
        if owed:
            self._update()
        if owed or len(found):
            self._note_turn()
        return bool(owed or len(found))

    def take_the_rest(self) -> None:
        """Store all that has been logged, of somebody who acts no more. What is owed stays so."""
        while len(found := self._tail.new()):
            self._take(found)
            self._note_turn()

    def publish(self) -> int:
        """Note that the policy of now gets a version of its own; return it."""
        self.version, self._published = self.version + 1, self.updates
        self._events = len(self.run.guard.events)
        self._note_turn()
        return self.version

    @property
    def publishes(self) -> bool:
        """Whether a policy is to be published: there were as many updates, or the guard acted."""
        control = self.run.recipe.run.control
        assert control is not None
        waited = self.updates - self._published >= control.publish_every_updates
        return waited or len(self.run.guard.events) > self._events

    def _note_turn(self) -> None:
        counts = {"transitions": self.run.env_steps, "updates": self.updates}
        self._turns.append(**counts, version=self.version)

    def _owed(self) -> int:
        """Return the updates that the transitions so far are worth."""
        plan = self.intake.plan
        after = self.run.env_steps - plan.warmup_env_steps
        return plan.utd * after + plan.first_updates if after > 0 else 0

    def _update(self) -> None:
        if self.updates == 0:
            self.intake.fit()
        self.intake.update(1)
        self.updates += 1
        self.run.laps.lap("update")

    @property
    def utd(self) -> float:
        """The updates an environment step after the warm-up, as reached."""
        after = self.run.env_steps - self.intake.plan.warmup_env_steps
        return self.updates / after if after > 0 else 0.0

    # -- transitions

    def _take(self, records: Array) -> None:
        """Store transitions in their order, with all that follows from each."""
        run = self.run
        total = run.recipe.run.env_steps
        every = interval(run.recipe, "online")
        self._note_late(records)
        for record in records:
            self.intake.stages.routines(run.env_steps, total)
            self._store(record)
            if run.env_steps % every == 0 or run.env_steps == total:
                self._log_row()
                self.due = True
        run.laps.lap("store")

    def _store(self, record: Any) -> None:
        run = self.run
        if record["episode"] != self._number:
            self._end(terminated=False, cut=True)
            self._episode = RunningEpisode(int(record["start_seed"]))
            self._number = int(record["episode"])
        obs, next_obs = (record[n].astype(np.float32)[None] for n in ("obs", "next_obs"))
        action, reward = record["action"][None].copy(), float(record["reward"])
        terminated = bool(record["terminated"])
        taken = np.array([record["intervention"] == transitions.SOMEBODY])
        ended = np.array([terminated])
        slot = self.intake.store(obs, action, np.array([reward]), next_obs, ended, taken)
        self._episode.append(action[0], None, reward, slot)
        run.env_steps += 1
        marks, proposed = np.array([record["success"]]), record["proposed"][None]
        limits = record["limits"][None]
        run.counts.add(taken, marks, proposed, action, limits)
        if terminated or record["truncated"]:
            self._end(terminated, cut=bool(limits & ENDED))

    def _end(self, terminated: bool, cut: bool) -> None:
        """End the running episode, where it has a step."""
        if not self._episode.actions:
            return
        over, ended = np.array([True]), np.array([terminated])
        self._endings.note([self._episode], over, ended, cut)
        if not cut:
            rewards = self._episode.rewards
            self._ended.append((sum(rewards), len(rewards)))
        self._episode = RunningEpisode(0)

    def _log_row(self) -> None:
        """Log the episodes that have ended since the last time; none are played apart."""
        run = self.run
        if self._ended:
            returns, lengths = np.array(self._ended).T[:, None]
            number = f"online/{run.env_steps}"
            pending = Pending(run.env_steps, number, run.counters(), {})
            run.log_evaluation(pending, returns, lengths)
            self._ended = []
        run.log_diagnostics()

    # -- the clock

    def _note_late(self, records: Array) -> None:
        self._late_ns.extend(records["late_ns"][records["step_in_episode"] > 0].tolist())

    def lateness(self) -> Lateness:
        """Return what is said of the deadlines so far; the first of an episode is none."""
        control = self.run.recipe.run.control
        assert control is not None
        return Lateness.of(np.array(self._late_ns, dtype=np.int64), control.tolerance_ms)

    # -- checkpoints

    def sync(self) -> None:
        """Wait until the disk has the logs: the transitions before the turns that know of them."""
        self._tail.sync()
        self._turns.sync()

    def save(self) -> None:
        """Write a checkpoint."""
        run, self.due = self.run, False
        self.sync()
        state = {
            "written": self.intake.online.written,
            "owed": False,
            "acting": "cpu",
            "running": [self._episode.state()],
            "control": {
                "updates": self.updates,
                "version": self.version,
                "turns": self._turns.count - self.left,
                "episode": self._number,
                "ended": self._ended,
            },
            **self.intake.stages.state(),
        }
        checkpointing.save(run, run.env_steps, self._tensors(), state, self.intake.stores)
        run.laps.lap("write")

    def _tensors(self) -> dict[str, Tensor]:
        """Return the running episode as checkpoints keep it; nothing of it is repeated."""
        spec, chunk = self.run.spec, self.run.agent.chunk
        tensors = {"obs": torch.full((1, spec.obs_dim), torch.nan)}
        if chunk > 1:
            tensors["queue"] = torch.zeros(1, chunk * spec.action_dim)
            tensors["queue_left"] = torch.zeros(1, dtype=torch.int64)
        return tensors | {f"running.0.{n}": t for n, t in self._episode.tensors().items()}

    def close(self) -> None:
        """Let go of the logs."""
        self._tail.close()
        self._turns.close()
