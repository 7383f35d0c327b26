"""The process that only acts: it steps the environment on time, and logs what happens."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load

from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import make_agent
from baq_cli.engine.evaluation.acting import ActionQueue
from baq_cli.engine.evaluation.evaluator import env_seed
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.engine.robot.chooser import Choice, MakeChooser
from baq_cli.engine.robot.clock import Clock
from baq_cli.engine.robot.snapshot import Snapshot
from baq_cli.envs.pool import EnvPool
from baq_cli.envs.ref import EnvRef
from baq_cli.envs.safety import Rules
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Limited, Observer
from baq_cli.runs.transitions import LIMIT, POLICY, SOMEBODY, Layout, TransitionLog, read

Array = npt.NDArray[Any]
TRIALS, FIRST_TRIALS = 300, 50
"""Actions that are timed before anything moves, and those before them that aren't."""


@dataclass(frozen=True)
class ActingConfig:
    """What the acting process is told: it is sent there.

    `spec` is of one seed on the CPU, `inputs` are bytes of safetensors, `log` is the file of
    transitions, which is there. The first `random_env_steps` actions of a run are drawn uniformly.
    """

    recipe: Recipe
    spec: Spec
    inputs: bytes
    env: EnvRef
    log: Path
    env_steps: int
    random_env_steps: int
    chooser: MakeChooser
    rules: Rules | None = None

    @property
    def hz(self) -> float:
        """The rate of acting."""
        assert self.recipe.run.control is not None
        return self.recipe.run.control.hz


class NotFinite(Exception):
    """A number of a step that is NaN or infinite; `parts` are the arrays of the step."""

    def __init__(self, parts: dict[str, Array]):
        super().__init__("not finite")
        self.parts = parts


class Mind:
    """A policy to act with, alone and without gradients, which follows what is published."""

    def __init__(self, config: ActingConfig, snapshot: Snapshot):
        run, self._snapshot = config.recipe.run, snapshot
        agent = make_agent(run.algo, config.recipe.method, config.spec, "online")
        self._agent = agent.eval().requires_grad_(False)
        self._inputs = Inputs.from_tensors(load(config.inputs))
        self.chunk, self.version = self._agent.chunk, -1

    def act(self, obs: Array, noise: SeedStream) -> Array:
        """Return what the newest policy decides on at raw observations `[1, obs_dim]`."""
        if self._snapshot.version != self.version:
            found = self._snapshot.read(self._agent)
            self.version = self.version if found is None else found
        with torch.no_grad():
            known = self._inputs.obs(obs).unsqueeze(1)
            return self._agent.explore(known, noise).squeeze(1).numpy()

    def latency(self, spec: Spec) -> Array:
        """Return what deciding takes with a new policy each time, seconds `[TRIALS]`."""
        obs, noise = (
            np.zeros((1, spec.obs_dim), np.float32),
            SeedStream(spec.seeds, "explore/trial"),
        )
        taken = np.zeros(FIRST_TRIALS + TRIALS)
        for i in range(len(taken)):
            self.version = -1
            began = time.perf_counter()
            self.act(obs, noise)
            taken[i] = time.perf_counter() - began
        return taken[FIRST_TRIALS:]


class Robot:
    """The environment of one seed on the clock, from where its log ends.

    Raises EnvironmentFault when the environment fails, and NotFinite.
    """

    def __init__(
        self,
        config: ActingConfig,
        mind: Mind,
        snapshot: Snapshot,
        say: Observer,
        gone: Callable[[], bool],
    ):
        self._config, self._mind, self._snapshot = config, mind, snapshot
        self._goes_on: Callable[[], bool] = lambda: not (snapshot.stopped or gone())
        spec = config.spec
        layout = Layout(spec.obs_dim, spec.action_dim, spec.seeds)
        self._log, before = TransitionLog.open(config.log, layout), read(config.log).records[-1:]
        self._env_step = self._log.count
        self._episode = int(before["episode"][0]) + 1 if len(before) else 0
        self._began_ns = time.perf_counter_ns() - int(before["time_ns"].sum())
        self._noise = SeedStream(spec.seeds, f"explore/online/{self._env_step}")
        self._queue = ActionQueue(1, mind.chunk, spec.action_dim)
        self._clock = Clock(config.hz)
        self._chooser = config.chooser(self._env_step, say)
        self._pool = EnvPool(config.env, 1, rules=config.rules)
        self._say = say
        self._stopped, self.stopped_by = False, ""

    def act(self) -> None:
        """Play episodes until the run's environment steps are made, or somebody wants to stop."""
        while self._env_step < self._config.env_steps and not self._stopped:
            if not self._goes_on():
                break
            gc.collect()  # here nothing waits for an action
            self._play(env_seed(self._config.spec.seeds[0], "env", self._episode))
            self._episode += 1

    def _play(self, start_seed: int) -> None:
        with self._snapshot.waiting():
            obs = self._pool.reset([start_seed])
        _check_finite({"observation": obs})
        if self._see_limits():
            return
        self._queue.drop()
        self._clock.restart()
        over, step = False, 0
        while not over and self._env_step < self._config.env_steps:
            own, given = self._own_action(obs), self._pool.given[0].copy()
            version = self._mind.version
            choice = self._choose(own[0], obs[0])
            late = None if choice is None else self._clock.wait(self._goes_on)
            if choice is None or late is None:
                self._stopped = True
                return
            known = {
                "episode": self._episode,
                "step_in_episode": step,
                "start_seed": start_seed,
                "policy_version": version,
                "time_ns": time.perf_counter_ns() - self._began_ns,
                "late_ns": late,
            }
            obs, over = self._step(choice, own, given, known)
            step += 1

    def _own_action(self, obs: Array) -> Array:
        """Return the policy's action, `[1, action_dim]`."""
        if self._env_step < self._config.random_env_steps:
            return (2 * self._noise.uniform(self._config.spec.action_dim) - 1).numpy()
        return self._queue.head(self._mind.act(obs, self._noise))

    def _choose(self, own: Array, obs: Array) -> Choice | None:
        """Return what is done, after a pause where somebody wants one; None: nothing any more."""
        while True:
            choice = self._chooser.choose(
                own.copy(), obs.copy(), self._episode, self._pool.hand_over[0]
            )
            if choice.stop:
                self.stopped_by = choice.stop
                return None
            if not choice.pause:
                if choice.label != POLICY:
                    self._queue.drop()  # what was decided on before is out of date
                return choice
            self._clock.restart()
            time.sleep(min(0.05, 1 / self._config.hz))
            if not self._goes_on():
                return None

    def _step(
        self, choice: Choice, own: Array, given: Array, known: dict[str, Any]
    ) -> tuple[Array, bool]:
        """Make a step, and log it before anything else; return where it led, and if it is over."""
        asked = np.asarray(choice.action, dtype=np.float32)[None]
        _check_finite({"action": asked})
        with self._snapshot.waiting():
            others, late_seconds = np.array([choice.label != POLICY]), known["late_ns"] / 1e9
            self._pool.begin_step(asked, others=others, late_seconds=late_seconds)
            obs, reward, terminated, truncated = self._pool.end_step()
        did = self._pool.last
        action = did.action
        reward = reward + choice.reward
        _check_finite({"observation": obs, "reward": reward, "action": action})
        executed, label = did.executed_by(0), choice.label
        if label == POLICY and did.did_other[0]:
            label = SOMEBODY
        elif label == POLICY and did.limited[0]:
            label = LIMIT
        ended = bool(terminated[0]) or choice.mark != 0
        cut = bool(truncated[0]) or choice.end
        self._log.append(
            env_step=self._env_step,
            obs=given,
            action=action[0],
            proposed=own[0],
            executed=np.nan if executed is None else executed,
            reward=reward[0],
            next_obs=self._pool.given[0],
            terminated=ended,
            truncated=cut,
            intervention=label,
            success=choice.mark,
            limits=did.limits_acted[0],
            **known,
        )
        self._env_step += 1
        self._queue.done()
        self._chooser.done()
        self._see_limits()
        return obs, ended or cut

    def _see_limits(self) -> bool:
        """Tell which limits were come to; return whether one stops the run."""
        if self._pool.limits is None:
            return False
        trips = self._pool.limits.take()
        if trips:
            self._say(Limited(self._env_step, tuple(trips)))
        stopping = [trip.limit for trip in trips if trip.stops]
        if stopping:
            self._stopped, self.stopped_by = True, stopping[0]
        return bool(stopping)

    def close(self) -> None:
        """Command nothing any more, and let go of the environment."""
        self._pool.close()
        self._chooser.close()
        self._log.close()


def _check_finite(parts: dict[str, Array]) -> None:
    for value in parts.values():
        with np.errstate(over="ignore"):
            if not np.isfinite(value.astype(np.float32)).all():
                raise NotFinite(parts)


def is_gone(connection: Connection) -> Callable[[], bool]:
    """Return what says whether the learning process is gone: its end of a pipe is closed then."""

    def gone() -> bool:
        try:
            return connection.poll() and connection.recv() is None
        except (EOFError, OSError):
            return True

    return gone
