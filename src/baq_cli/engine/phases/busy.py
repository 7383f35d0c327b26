"""Whether other processes take a run's cores away, and which threads are best then."""

from __future__ import annotations

import torch

from baq_cli.agents.interface import Spec
from baq_cli.engine.updates.threads import choose_threads, same_digits
from baq_cli.recipes.schema import Recipe
from baq_cli.units import Phase, amount

WINDOW_SECONDS = 10.0
"""Seconds of updates that are compared with those before."""
SLOWER = 2.0
"""How many times as long as at best updates take before threads are chosen anew."""


class Busy:
    """Notices once when updates take more than twice as long as at this session's best.

    Threads are chosen anew then, unless the recipe names them: the others are taken if they are
    faster now, and if updates were seen to come to the same digits on either number. Else an
    interrupted run and one that wasn't would part.
    """

    def __init__(self, recipe: Recipe, spec: Spec, phase: Phase):
        self._recipe, self._spec, self._phase = recipe, spec, phase
        self._steps: int | None = None
        self._seconds = 0.0
        self._best, self._said = float("inf"), False

    def look(self, steps: int, seconds: float) -> str | None:
        """Return what is to be said: till now so many gradient steps took so many seconds.

        What was before the first call isn't counted.
        """
        if self._steps is None:
            self._steps, self._seconds = steps, seconds
        made, spent = steps - self._steps, seconds - self._seconds
        if made <= 0 or spent < WINDOW_SECONDS:
            return None
        self._steps, self._seconds = steps, seconds
        each = spent / made
        slower = each / self._best
        self._best = min(self._best, each)
        if self._said or slower <= SLOWER or self._spec.device.type != "cpu":
            return None
        self._said = True
        return (
            f"updates take {slower:.1f} times as long as at their best: other processes keep the "
            f"cores busy{self._threads()}"
        )

    def _threads(self) -> str:
        """Choose the threads anew; return what is to be said of them."""
        before = torch.get_num_threads()
        if before == 1 or self._recipe.run.threads is not None:
            return ""
        count = choose_threads(self._recipe, self._spec)
        if count == before:
            return f"; {before} threads are the fastest still"
        if not same_digits(self._recipe, self._spec, self._phase, (before, count)):
            return f"; its {before} threads stay, because numbers depend on how many there are"
        torch.set_num_threads(count)
        return f"; {amount(count, 'thread')} from here on, which come to the same digits"
