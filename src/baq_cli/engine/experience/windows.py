"""Rows with those that follow them in time: n-step returns, chunks of actions, the next action."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from baq_cli.agents.interface import Batch
from baq_cli.agents.plans import Plan
from baq_cli.engine.experience.store import Layout, Store


@dataclass(frozen=True)
class Window:
    """How many transitions one row of a batch stands for, and whether it has the next action.

    Raises ValueError for a window of no step.
    """

    steps: int = 1
    next_action: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"a window has a step at least, not {self.steps}")

    @classmethod
    def of(cls, plan: Plan) -> Window:
        """Return the window of a plan."""
        return cls(plan.window, plan.next_action)

    @property
    def rows(self) -> int:
        """Rows that are gathered for one row of a batch."""
        return self.steps + self.next_action

    def gather(self, store: Store, index: Tensor) -> Tensor:
        """Return what a batch needs of the rows at `index [S, B]`, `[S, B, width]`.

        With more than one row each: all of them, each followed by whether it is valid, end to end.
        """
        if self.rows == 1:
            return store.gather(index)
        rows, valid = store.follow(index, self.rows)
        return torch.cat([rows, valid.unsqueeze(-1)], dim=-1).flatten(2)

    def batch(
        self,
        layout: Layout,
        gathered: Tensor,
        source: Tensor,
        discount: float,
        parts: dict[str, slice],
    ) -> Batch:
        """Return what was gathered from sources `[S, B]` as a batch."""
        if self.rows == 1:
            return layout.batch(gathered, source, discount, parts)
        rows, get = gathered.unflatten(2, (self.rows, layout.width + 1)), layout.slices
        steps = rows[:, :, : self.steps]
        valid = steps[..., -1]  # of rows that are not, the values are those of the last one that is
        exponents = torch.arange(self.steps + 1, dtype=torch.float64, device=rows.device)
        powers = (discount**exponents).to(rows.dtype)
        bootstrap = steps[..., get["bootstrap"].start].amin(-1)
        batch = replace(
            layout.batch(rows[:, :, 0, :-1], source, discount, parts),
            action=steps[..., get["action"]].flatten(2),
            reward=(powers[:-1] * valid * steps[..., get["reward"].start]).sum(-1),
            next_obs=steps[:, :, -1, get["next_obs"]],
            bootstrap=bootstrap,
            discount=powers[valid.sum(-1).long()] * bootstrap,
        )
        if self.steps > 1:
            batch = replace(batch, weight=valid[..., -1], valid=valid)
        if self.next_action:
            following, has_next = rows[:, :, -1, get["action"]], rows[..., -1, -1]
            next_action = following * has_next.unsqueeze(-1)
            batch = replace(batch, next_action=next_action, has_next=has_next)
        return batch


ONE_STEP = Window()
