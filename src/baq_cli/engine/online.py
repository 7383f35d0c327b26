"""Fine-tuning: environment steps, each followed by the method's gradient steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from baq_cli.data.episodes import returns_to_go
from baq_cli.engine.actor import Actor, Place, faster_place
from baq_cli.engine.checkpoint import Checkpoint
from baq_cli.engine.evaluation import env_seed
from baq_cli.engine.events import Note
from baq_cli.engine.online_stores import annotate, make_stores
from baq_cli.engine.replay import Replay
from baq_cli.engine.run import Run
from baq_cli.engine.running import RunningEpisode, make_pool, renewed, repeat_actions
from baq_cli.engine.store import Store
from baq_cli.engine.updater import Updater
from baq_cli.envs.faults import EnvironmentFault
from baq_cli.nets.streams import SeedStream

Array = npt.NDArray[Any]
Result = TypeVar("Result")
UNKNOWN_RETURN = -1e9
"""Stands for the return-to-go of a running episode: so low that no calibration binds on it."""


class OnlineLoop:
    """S environments, one a seed, stepped together; UTD is exact for every seed."""

    def __init__(
        self,
        run: Run,
        offline: Store | None,
        from_scratch: bool,
        saved: Checkpoint | None = None,
    ):
        self.run = run
        recipe, learner, inputs = run.recipe, run.learner, run.inputs
        self.acting: Place = (
            saved.state["acting"] if saved else faster_place(recipe, learner, inputs)
        )
        if self.acting == "cpu":
            run.streams["explore"] = SeedStream(run.spec.seeds, "explore/online", "cpu")
        self.actor = Actor(recipe, learner, inputs, run.streams["explore"], self.acting)
        if saved is not None:
            run.restore(saved)  # before the stores: the method annotates with its own parameters
        self.from_scratch = from_scratch
        self.plan = run.agent.online_plan()
        self.pool = make_pool(run)
        env_steps = max(run.recipe.run.env_steps, run.env_steps)
        self.offline, self.online = make_stores(run.agent, self.plan, offline, env_steps)
        replay = Replay(
            self.plan.draws,
            self.offline,
            self.online,
            run.streams["batch"],
            run.recipe.method.batch_size,
        )
        self.updater = Updater(run.learner, replay, run.recipe.run.capture)
        self.owed = False
        self.was_stopped_in_last_evaluation = False
        self.running: list[RunningEpisode] = []
        self.obs: Array = np.empty(0)
        if saved is not None:
            self.restore(saved)

    # -- one environment step of every seed

    def step(self) -> None:
        """Act, step the environments, store the transitions, then take the gradient steps."""
        run, laps = self.run, self.run.laps
        action = self._choose_action()
        run.faults.check_transition({"action": action}, run.env_steps + 1)
        laps.lap("act")
        try:
            self.pool.begin_step(action)
            if self.owed:
                self._update()
            next_obs, reward, terminated, truncated = self.pool.end_step()
        except EnvironmentFault as fault:
            self._begin_anew(fault)
            return
        laps.lap("environment")
        parts = {"observation": next_obs, "reward": reward, "action": action}
        run.faults.check_transition(parts, run.env_steps + 1)
        slot = self._store(action, reward, next_obs, terminated)
        for episode, a, r in zip(self.running, action, reward, strict=True):
            episode.actions.append(a)
            episode.rewards.append(float(r))
            episode.slots.append(slot)
        self.obs = next_obs
        run.env_steps += 1
        over = terminated | truncated
        if over.any():
            self._end_episodes(over, terminated)
        laps.lap("store")
        self.owed = run.env_steps > self.plan.warmup_env_steps
        if self.owed and not run.recipe.run.overlap:
            self._update()

    def _begin_anew(self, fault: EnvironmentFault) -> None:
        """Make environments that failed anew.

        The step that failed leaves no transition. Which environment broke is not always known, so
        every running episode ends where it was stored, as if truncated, and another begins.
        """
        begun = self._begun()
        self._close_episodes(begun, np.zeros_like(begun))
        self.pool = renewed(self.run, self.pool, fault)
        self.obs = self._insist(self._reset)

    def _insist(self, act: Callable[[], Result]) -> Result:
        """Return what a call returns; environments that fail are made anew before the next try."""
        while True:
            try:
                return act()
            except EnvironmentFault as fault:
                self.pool = renewed(self.run, self.pool, fault)

    def _update(self) -> None:
        """Take the gradient steps of one environment step.

        When they overlap the next one, they are owed until it has begun.
        """
        for _ in range(self.plan.utd):
            self.run.after_update(self.updater.step())
        self.owed = False
        self.run.laps.lap("update")

    def _choose_action(self) -> Array:
        run, stream = self.run, self.run.streams["explore"]
        if self.from_scratch and run.env_steps < self.plan.warmup_env_steps:
            random = 2 * stream.uniform(run.spec.action_dim) - 1
            return random.cpu().numpy()
        return self.actor.act(self.obs)

    def _store(self, action: Array, reward: Array, next_obs: Array, terminated: Array) -> int:
        run = self.run
        device = run.spec.device
        fields = {
            "obs": run.inputs.obs(self.obs).to(device),
            "action": torch.from_numpy(action).to(device),
            "next_obs": run.inputs.obs(next_obs).to(device),
            "reward": torch.from_numpy(run.inputs.reward(reward)).to(device),
            "bootstrap": torch.from_numpy(~terminated).to(device),
        }
        annotated = annotate(run.agent, fields["obs"].unsqueeze(1), fields["action"].unsqueeze(1))
        unknown = {"mc_return": UNKNOWN_RETURN, "held_out": 0.0}
        for name in run.agent.data_columns:
            fields[name] = torch.full((len(self.running),), unknown[name], device=device)
        fields |= {name: column.squeeze(1) for name, column in annotated.items()}
        return self.online.append(self.online.layout.pack(fields), fields.get("priority"))

    def _begun(self) -> Array:
        """Return which running episodes have taken a step, `[S]`."""
        return np.array([bool(episode.actions) for episode in self.running])

    def _end_episodes(self, over: Array, terminated: Array) -> None:
        """End episodes and begin others in their place."""
        self._close_episodes(over, terminated)
        try:
            self.obs = self._reset(over)
        except EnvironmentFault as fault:
            self._begin_anew(fault)

    def _close_episodes(self, over: Array, terminated: Array) -> None:
        """Fill in what is known of episodes only now, and note those that take their place."""
        if not over.any():
            return
        run = self.run
        ended = [episode if o else None for episode, o in zip(self.running, over, strict=True)]
        for i, episode in enumerate(ended):
            if episode is not None and "mc_return" in run.agent.data_columns:
                reward = run.inputs.reward(np.asarray(episode.rewards))
                to_go = returns_to_go(reward, bool(terminated[i]), run.recipe.method.discount)
                kept = slice(-self.online.capacity, None)  # earlier steps are overwritten already
                slots = torch.tensor(episode.slots[kept], device=run.spec.device)
                self.online.overwrite(i, slots, "mc_return", torch.from_numpy(to_go[kept].copy()))
        device = run.spec.device
        returns = [sum(e.rewards) if e else 0.0 for e in ended]
        lengths = [float(len(e.rewards)) if e else 0.0 for e in ended]
        run.guard.episodes_ended(run.env_steps, over, np.array(returns))
        run.agent.on_episode_end(
            torch.from_numpy(over).to(device),
            torch.tensor(returns, device=device),
            torch.tensor(lengths, device=device),
        )
        run.episodes += over
        self.running = [
            new if o else old
            for new, old, o in zip(self._next_episodes(), self.running, over, strict=True)
        ]

    def _next_episodes(self) -> list[RunningEpisode]:
        pairs = zip(self.run.spec.seeds, self.run.episodes.tolist(), strict=True)
        return [RunningEpisode(env_seed(seed, "env", number)) for seed, number in pairs]

    def _reset(self, mask: Array | None = None) -> Array:
        """Return observations, `[S, obs_dim]`, after resetting the masked environments, or all."""
        obs = self.pool.reset([episode.start_seed for episode in self.running], mask)
        self.run.faults.check_transition({"observation": obs}, self.run.env_steps)
        return obs

    # -- starting and continuing

    def start(self) -> None:
        """Reset every environment for its first episode."""
        self.running = self._next_episodes()
        self.obs = self._insist(self._reset)

    def close(self) -> None:
        """Let go of the environments."""
        self.pool.close()

    def save(self) -> None:
        """Write a checkpoint: the run, the store, and what the running episodes have done."""
        tensors = {"obs": torch.from_numpy(self.obs)}
        for i, episode in enumerate(self.running):
            if episode.actions:
                tensors[f"running.{i}.actions"] = torch.from_numpy(np.stack(episode.actions))
        state = {
            "written": self.online.written,
            "owed": self.owed,
            "acting": self.acting,
            "running": [
                {"start_seed": e.start_seed, "rewards": e.rewards, "slots": e.slots}
                for e in self.running
            ],
        }
        self.run.save(self.run.env_steps, tensors, state, self.online.blocks())

    def restore(self, saved: Checkpoint) -> None:
        """Continue from a checkpoint: refill the store, and replay the running episodes.

        A running episode is rebuilt by resetting with its seed and repeating its actions, because
        a simulator's inner state can't be read in general. One that doesn't come to the same
        observation ends where it was stored, as if truncated, and another begins.
        """
        self.owed = bool(saved.state["owed"])
        blocks = [block for block in saved.blocks if block is not None]
        self.online.refill_blocks(blocks, int(saved.state["written"]))
        for i, kept in enumerate(saved.state["running"]):
            actions = saved.replay.get(f"running.{i}.actions")
            steps = [] if actions is None else list(actions.numpy())
            self.running.append(
                RunningEpisode(
                    kept["start_seed"], steps, list(kept["rewards"]), list(kept["slots"])
                )
            )
        self.obs, stray = self._insist(lambda: repeat_actions(self.pool, self.running))
        self._end_strays(stray | (self.obs != saved.replay["obs"].numpy()).any(axis=1))
        finished = self.run.env_steps >= self.run.recipe.run.env_steps or self.run.guard.stopped
        self.was_stopped_in_last_evaluation = finished and bool(saved.state["pending"])

    def _end_strays(self, stray: Array) -> None:
        """End the running episodes whose environment is not where it was, and say so."""
        if not stray.any():
            return
        seeds = [seed for seed, s in zip(self.run.spec.seeds, stray, strict=True) if s]
        self.run.observer(
            Note(
                f"'{self.pool.env_id}' doesn't repeat itself: with the same seed and actions it "
                f"came elsewhere (seeds {seeds}). Their episodes end here, new ones begin."
            )
        )
        begun = stray & self._begun()  # of the others the start is all that differs
        if begun.any():
            self._end_episodes(begun, np.zeros_like(begun))


def finetune(loop: OnlineLoop, resume_command: str) -> None:
    """Fine-tune for the recipe's `env_steps`, from the hand-over or from where the loop is.

    The first evaluation is at the hand-over, before any environment step or update.
    Raises Interrupted and NonFiniteError.
    """
    run = loop.run
    config = run.recipe.run
    total = config.env_steps
    every = config.evaluation.every_env_steps or max(1, total // 10)
    if loop.was_stopped_in_last_evaluation:
        loop.save()  # with the evaluation that was made only now
        if run.evaluations.pending:
            run.stop_if_asked(resume_command)
    if not loop.running:
        loop.start()
        run.evaluate(0, wait=False)
        run.laps.lap("evaluate")
        if run.interruption.requested:
            loop.save()
            run.stop_if_asked(resume_command)
    while run.env_steps < total and not run.guard.stopped:
        before = run.env_steps
        loop.step()
        done = run.env_steps
        if done == before:
            continue  # the environments failed, and were made anew
        run.tick(done, total)
        at_interval = done % every == 0 or done == total
        if at_interval:
            run.evaluate(done, wait=done == total)
            run.laps.lap("evaluate")
        if run.guard.is_on:
            loop.actor.forget()  # a seed may have other parameters now
        if at_interval or run.interruption.requested or run.guard.stopped:
            loop.save()
            run.laps.lap("write")
            if done < total or run.evaluations.pending:
                run.stop_if_asked(resume_command)
