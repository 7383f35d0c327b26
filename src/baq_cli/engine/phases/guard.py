"""A fine-tuning that can't wreck the policy: drops and bad episodes are noticed, and answered."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.engine.updates.learner import Learner
from baq_cli.recipes.schema import GuardConfig
from baq_cli.runs.events import Note, Observer
from baq_cli.units import scores

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


class Guard:
    """Watches the online evaluations and episodes of S seeds, each by itself.

    A seed trips when `patience` evaluations in a row lie more than `max_drop` below its hand-over
    score, or when it has had more bad episodes than allowed. Then, by `action`: `warn` says so;
    `stop` ends the run, of all seeds; `rollback` gives the seed the parameters of its best
    evaluation back, or those that it was handed over with where none was yet, with the momentum of
    its optimiser forgotten and its updates shrunk, keeps the data, and goes on.
    """

    def __init__(self, config: GuardConfig, learner: Learner, observer: Observer):
        self._config, self._learner, self._observer = config, learner, observer
        self._seeds = learner.agent.spec.seeds
        count = len(self._seeds)
        self._handover = np.full(count, np.nan)
        self._best = np.full(count, -np.inf)
        self._kept: dict[str, Tensor] = {}
        self._below = np.zeros(count, dtype=np.int64)
        self._bad = np.zeros(count, dtype=np.int64)
        self._scale = np.ones(count)
        self.bad_episodes = np.zeros(count, dtype=np.int64)
        self.events: list[dict[str, Any]] = []
        self.stopped = False

    @property
    def is_on(self) -> bool:
        return self._config.action != "off"

    def begin(self) -> None:
        """Keep the parameters as they are for a rollback before the first evaluation.

        A robot plays no episodes apart, so its first bad one may come before any returns are known.
        """
        if not self._kept:
            self._keep(np.ones(len(self._seeds), dtype=np.bool_))

    def evaluated(self, env_steps: int, returns: Array) -> None:
        """Look at an evaluation of the parameters as they are, returns `[S, episodes]`."""
        if not self.is_on:
            return
        score = returns.mean(axis=1)
        if np.isnan(self._handover).all():
            self._handover = score.copy()
        self._keep(score > self._best)
        self._best = np.maximum(self._best, score)
        if self._config.max_drop is None:
            return
        floor = self._handover - self._config.max_drop
        self._below = np.where(score < floor, self._below + 1, 0)
        for i in np.flatnonzero(self._below >= self._config.patience):
            least, last, handed_over = scores(floor[i], score[i], self._handover[i])
            reason = (
                f"{self._below[i]} evaluations in a row below {least}, the last {last}; the "
                f"hand-over score was {handed_over}"
            )
            self._trip(int(i), env_steps, reason)

    def episodes_ended(self, env_steps: int, over: Mask, returns: Array) -> None:
        """Count the bad ones among online episodes, `[S]`; `over` says whose has ended."""
        bound = self._config.max_online_episodes_below
        if not self.is_on or bound is None:
            return
        bad = over & (returns < bound.episode_return)
        self._bad += bad
        self.bad_episodes += bad
        for i in np.flatnonzero(bad & (self._bad > bound.episodes)):
            reason = f"{self._bad[i]} online episodes returned less than {bound.episode_return:g}"
            self._trip(int(i), env_steps, reason)

    def _trip(self, i: int, env_steps: int, reason: str) -> None:
        action = self._config.action
        self._below[i] = self._bad[i] = 0
        seed = self._seeds[i]
        self.events.append(
            {"env_steps": env_steps, "seed": seed, "action": action, "reason": reason}
        )
        answer = {
            "stop": "the run ends here",
            "rollback": f"back to {self._best_known(i)}, smaller updates from here",
        }.get(action, "training goes on")
        self._observer(
            Note(f"guard, environment step {env_steps}, seed {seed}: {reason}; {answer}")
        )
        if action == "stop":
            self.stopped = True
        elif action == "rollback":
            self._roll_back(i)

    def _best_known(self, i: int) -> str:
        best = float(self._best[i])
        return (
            f"its best policy ({scores(best)[0]})"
            if np.isfinite(best)
            else "the policy handed over"
        )

    def _keep(self, better: Mask) -> None:
        """Keep the parameters of seeds whose evaluation was their best."""
        if self._config.action != "rollback" or not better.any():
            return
        mask = torch.from_numpy(better)
        for name, tensor in self._learner.agent.state_dict().items():
            kept = self._kept.setdefault(name, tensor.detach().cpu().clone())
            kept[mask] = tensor.detach().cpu()[mask]

    @torch.no_grad()
    def _roll_back(self, i: int) -> None:
        for name, tensor in self._learner.agent.state_dict().items():
            tensor[i] = self._kept[name][i].to(tensor.device)
        self._scale[i] *= self._config.shrink
        self._learner.forget_momentum(i)
        self._learner.scale_updates(self._scale)

    # -- checkpoints

    def facts(self) -> dict[str, Any]:
        """Return what a run's manifest says of its guard; nothing when it is off."""
        if not self.is_on:
            return {}
        return {
            "guard": {
                "action": self._config.action,
                "events": self.events,
                "bad_episodes": self.bad_episodes.tolist(),
                "stopped": self.stopped,
            }
        }

    def state(self) -> dict[str, Any]:
        """Return the counters, for a checkpoint."""
        arrays = (self._handover, self._best, self._below, self._bad, self._scale)
        return {
            "arrays": [[None if not np.isfinite(v) else v for v in a.tolist()] for a in arrays],
            "bad_episodes": self.bad_episodes.tolist(),
            "events": self.events,
            "stopped": self.stopped,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return the parameters that a rollback gives back."""
        return {f"guard.{name}": tensor for name, tensor in self._kept.items()}

    def restore(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Continue from what `state()` and `tensors()` returned."""
        handover, best, below, bad, scale = state["arrays"]
        self._handover = np.array([np.nan if v is None else v for v in handover])
        self._best = np.array([-np.inf if v is None else v for v in best])
        self._below, self._bad = np.array(below), np.array(bad)
        self._scale = np.array(scale, dtype=np.float64)
        self.bad_episodes = np.array(state["bad_episodes"])
        self.events, self.stopped = list(state["events"]), bool(state["stopped"])
        self._kept = {
            name.removeprefix("guard."): tensor
            for name, tensor in tensors.items()
            if name.startswith("guard.")
        }
        if (self._scale != 1).any():
            self._learner.scale_updates(self._scale)
