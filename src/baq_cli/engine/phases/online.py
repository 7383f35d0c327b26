"""Fine-tuning: environment steps, each followed by the method's gradient steps."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from baq_cli.engine.checkpoints.folder import Checkpoint
from baq_cli.engine.evaluation.cost import interval
from baq_cli.engine.experience.store import Store
from baq_cli.engine.phases import checkpointing
from baq_cli.engine.phases.actor import ActingOn, Actor, faster_place
from baq_cli.engine.phases.episodes import RunningEpisodes
from baq_cli.engine.phases.in_place import InPlace, Somebody
from baq_cli.engine.phases.intake import Intake
from baq_cli.engine.phases.recorder import Recorder
from baq_cli.engine.phases.run import Run
from baq_cli.envs.faults import EnvironmentFault
from baq_cli.nets.streams import SeedStream
from baq_cli.runs.transitions import LIMIT, POLICY, SOMEBODY

Array = npt.NDArray[Any]


class OnlineLoop:
    """S environments, one a seed, stepped together; UTD is exact for every seed."""

    def __init__(
        self,
        run: Run,
        acting: ActingOn,
        intake: Intake,
        other: Somebody | None = None,
    ):
        self.run, self.acting = run, acting
        recipe, learner, inputs = run.recipe, run.learner, run.inputs
        self.actor = Actor(recipe, learner, inputs, run.streams["explore"], acting)
        self.plan, self.intake = learner.plan, intake
        self.intervention: InPlace | None = None if other is None else other.begin(run)
        self.owed = False
        self.proposed: Array | None = None
        self.ended_at_resume = False
        self.episodes = RunningEpisodes(run, intake.online)
        self.recorder = Recorder(run, self.episodes)

    @classmethod
    def start(cls, run: Run, offline: Store | None, other: Somebody | None = None) -> OnlineLoop:
        """Return a loop at the hand-over; where it acts is as the recipe says, or measured."""
        acting = faster_place(run.recipe, run.learner, run.inputs)
        _own_streams(run, acting, other)
        loop = cls(run, acting, Intake(run, offline), other)
        loop.recorder.begin()
        return loop

    @classmethod
    def resume(
        cls,
        run: Run,
        offline: Store | None,
        other: Somebody | None,
        saved: Checkpoint,
    ) -> OnlineLoop:
        """Return a loop where a checkpoint left it."""
        acting: ActingOn = saved.state["acting"]
        _own_streams(run, acting, other)
        # before the stores: what isn't kept of them, the method computes
        checkpointing.restore(run, saved)
        loop = cls(run, acting, Intake.restored(run, offline, saved), other)
        loop._restore(saved)
        return loop

    # -- one environment step of every seed

    def step(self) -> None:
        """Act, step the environments, store the transitions, then take the gradient steps.

        Of a step that a signal came `within`, those that are left.
        """
        if self.within:
            self._update(stoppable=True)
            return
        run, laps, episodes = self.run, self.run.laps, self.episodes
        if episodes.action is None:
            episodes.action = self._choose_action()
        asked = episodes.action
        if asked is None:  # somebody stops the run, and nothing moves any more
            return
        run.faults.check_transition({"action": asked}, run.env_steps + 1)
        laps.lap("act")
        try:
            others = None if self.intervention is None else self.intervention.taken
            episodes.pool.begin_step(asked, others=others)
            if self.owed:
                self._update()
            next_obs, reward, terminated, truncated = episodes.pool.end_step()
        except EnvironmentFault as fault:
            episodes.begin_anew(fault)
            return
        laps.lap("environment")
        did, taken = episodes.pool.last, self._taken_over()
        action = did.action
        if self.intervention is not None:
            ended = reward, terminated, truncated
            reward, terminated, truncated = self.intervention.judged(*ended)
        parts = {"observation": next_obs, "reward": reward, "action": action}
        run.faults.check_transition(parts, run.env_steps + 1)
        stepped = episodes.obs, action, reward, next_obs, terminated
        slot = self.intake.store(*stepped, taken)
        episodes.append(action, reward, next_obs, slot)
        run.env_steps += 1
        marks = None if self.intervention is None else self.intervention.marks
        run.counts.add(taken, marks, self.proposed, action, did.limits_acted)
        by = np.where(taken, SOMEBODY, np.where(did.limited, LIMIT, POLICY))
        self.recorder.add(asked, reward, (terminated, truncated), by, marks)
        episodes.end(terminated | truncated, terminated)
        laps.lap("store")
        self.owed = run.env_steps > self.plan.warmup_env_steps
        if self.within:
            self._update(stoppable=True)

    @property
    def within(self) -> bool:
        """Whether an environment step's updates are still to be made before anything else."""
        return self.owed and not self.run.recipe.run.overlap

    def _update(self, stoppable: bool = False) -> None:
        """Take the gradient steps of one environment step.

        When they overlap the next one, they are owed until it has begun. The first time there are
        those that the plan asks for at once, of critics alone and of all; where it is `stoppable`,
        a signal comes between two of these, and what is left stays owed.
        """
        first = self.run.env_steps == self.plan.warmup_env_steps + 1
        made = not first or self.intake.catch_up(
            lambda: stoppable and self.run.interruption.requested is not None
        )
        if made:
            self.intake.update(self.plan.utd)
            self.owed = False
        self.run.laps.lap("update")

    def _choose_action(self) -> Array | None:
        """Return the policy's actions, or those of who acts in its place, `[S, action_dim]`.

        None when they stop the run.
        """
        own = self.proposed = self.recorder.proposed = self._own_action()
        if self.intervention is None:
            return own
        moment = self.episodes.obs, self.run.episodes, self.episodes.pool.hand_over
        chosen = self.intervention.choose(own, *moment)
        if self.episodes.pool.limits is not None:
            self.episodes.pool.limits.waited(self.intervention.waited_seconds)
        self.episodes.queue.drop(self.intervention.taken)  # what was decided before is out of date
        return chosen

    def _taken_over(self) -> Array:
        """Return where the last step did what the policy had not asked for, `[S]`, and go on."""
        taken = self.episodes.pool.last.did_other
        if self.intervention is not None:
            taken = taken | self.intervention.taken
            self.intervention.done()
        return taken

    def _own_action(self) -> Array:
        run, stream = self.run, self.run.streams["explore"]
        if run.from_scratch and run.env_steps < self.plan.warmup_env_steps:
            random = 2 * stream.uniform(run.spec.action_dim) - 1
            return random.cpu().numpy()
        return self.episodes.queue.head(self.actor.act(self.episodes.obs))

    # -- starting and continuing

    def close(self) -> None:
        """Let go of the environments, of the file that keeps what they did, and of who acts."""
        self.recorder.close()
        if self.intervention is not None:
            self.intervention.close()
        self.episodes.close()

    def save(self) -> None:
        """Write a checkpoint: the run, the store, and what the running episodes have done."""
        state = {
            "written": self.intake.online.written,
            "owed": self.owed,
            **({"behind": asdict(self.intake.behind)} if self.within else {}),
            "acting": self.acting,
            "running": self.episodes.state(),
            **self.episodes.limits_state(),
            **self.intake.stages.state(),
            **self.recorder.state(),
        }
        tensors = self.episodes.tensors()
        if self.intervention is not None:
            state |= self.intervention.state()
            tensors |= self.intervention.tensors()
        checkpointing.save(self.run, self.run.env_steps, tensors, state, self.intake.stores)

    def _restore(self, saved: Checkpoint) -> None:
        """Continue from a checkpoint: refill the store, and repeat the running episodes."""
        self.owed = bool(saved.state["owed"])
        if self.intervention is not None:
            self.intervention.restore(saved)
        self.episodes.restore(saved)
        self.recorder.restore(saved)
        guard = self.run.guard
        if self.run.env_steps >= self.run.recipe.run.env_steps or guard.stopped:
            stopped_now = guard.stopped and not saved.state["guard"]["stopped"]
            self.ended_at_resume = bool(saved.state["pending"]) or stopped_now


def _own_streams(run: Run, acting: ActingOn, other: Somebody | None) -> None:
    """Give a run the streams that actions are drawn from, its own where they are, and another's."""
    if acting == "cpu":
        run.streams["explore"] = SeedStream(run.spec.seeds, "explore/online", "cpu")
    if other is not None:
        run.streams |= other.streams(run.spec.seeds)


def finetune(loop: OnlineLoop, resume_command: str) -> None:
    """Fine-tune for the recipe's `env_steps`, from the hand-over or from where the loop is.

    The first evaluation is at the hand-over, before any environment step or update.
    Raises Interrupted and NonFiniteError.
    """
    run = loop.run
    config = run.recipe.run
    total = config.env_steps
    every = interval(run.recipe, "online")
    if loop.ended_at_resume and not run.evaluations.pending:
        loop.save()  # with the evaluation that was made only now, or the episode that was ended
    run.stop_if_asked(resume_command)
    if not loop.episodes.have_begun:
        loop.episodes.start()
        run.evaluate(0, wait=False)
        run.laps.lap("evaluate")
        if run.interruption.requested:
            loop.save()
            run.stop_if_asked(resume_command)
    loop.intake.stages.first(loop.save, lambda: run.stop_if_asked(resume_command))
    while (run.env_steps < total or loop.within) and not run.guard.stopped:
        before = run.env_steps - int(loop.within)
        loop.intake.stages.routines(before, total)
        loop.step()
        done = run.env_steps
        run.tick(done, total)
        over = done > before and not loop.within
        at_interval = over and (done % every == 0 or done == total)
        if at_interval:
            run.evaluate(done, wait=done == total)
            run.laps.lap("evaluate")
        if run.guard.is_on:
            loop.actor.forget()  # a seed may have other parameters now
        if at_interval or run.interruption.requested or run.guard.stopped:
            loop.save()
            run.laps.lap("write")
            if done < total or loop.within or run.evaluations.pending:
                run.stop_if_asked(resume_command)
