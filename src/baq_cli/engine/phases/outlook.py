"""How long a phase will take still, its evaluations included."""

from __future__ import annotations

from functools import cached_property

from baq_cli.agents.base import Agent
from baq_cli.engine.evaluation.cost import evaluation_seconds, evaluations_left, interval
from baq_cli.engine.phases.origin import Origin
from baq_cli.engine.phases.timing import Laps
from baq_cli.envs.pool import seconds_a_step
from baq_cli.errors import BaqError
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Note, Observer
from baq_cli.units import Phase, amount, in_words

LONG_SECONDS = 60.0
"""What is left of a phase of which it is said once, in a line, how long it will take."""
SETTLED_SECONDS = 1.0
"""How long a phase's rate is counted before anything is concluded from it."""


class Outlook:
    """What is left of a phase in seconds: what its pace says, and the pauses at its intervals.

    Evaluations are taken to last as those before them did; until one was made, as long as playing
    the dataset's episodes would, by a short measurement. Those beside the training cost it nothing
    but the wait for the last one.
    """

    def __init__(
        self, recipe: Recipe, phase: Phase, agent: Agent, origin: Origin, in_background: bool
    ):
        self._recipe, self._phase, self._agent, self._origin = recipe, phase, agent, origin
        self._in_background, self._said = in_background, False

    def left(self, done: int, total: int, at_pace: float, laps: Laps) -> float:
        """Return the seconds until the end, of which `at_pace` are without pauses."""
        count = self._evaluations_left(done, total)
        made = laps.counts.get("evaluate", 0)
        if done >= total or not count:
            return at_pace
        last = self._forecast if self._in_background else 0.0
        if made:
            return at_pace + count * laps.paused / made + last
        return at_pace + (last if self._in_background else count * self._forecast)

    def say(self, done: int, total: int, seconds: float, counted: float, tell: Observer) -> None:
        """Tell once of a long phase how long it will take, as soon as its rate is known."""
        if self._said or counted < SETTLED_SECONDS:
            return
        self._said = True
        if seconds < LONG_SECONDS:
            return
        count = self._evaluations_left(done, total)
        among = f", its {amount(count, 'evaluation')} included" if count else ""
        tell(Note(f"{self._phase}: about {in_words(seconds)} left in all{among}"))

    def _evaluations_left(self, done: int, total: int) -> int:
        if self._recipe.run.control is not None and self._phase == "online":
            return 0  # a robot plays no episodes apart
        return evaluations_left(done, total, interval(self._recipe, self._phase))

    @cached_property
    def _forecast(self) -> float:
        """The seconds of an evaluation before one was made; 0 where nothing tells."""
        data = self._origin.dataset
        if self._origin.env is None or data is None or self._phase == "online":
            return 0.0  # an online phase begins with an evaluation
        if self._recipe.run.env_timeout_seconds is not None:
            return 0.0  # it may hang, and is made in processes alone
        try:
            step_seconds = seconds_a_step(self._origin.env)
        except BaqError:
            return 0.0  # who evaluates will say what is wrong with it
        length = data["transitions"] / data["episodes"]
        return evaluation_seconds(self._recipe, self._agent, step_seconds, length)
