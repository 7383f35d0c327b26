"""Limits of actions and observations, held for every environment of a pool whoever acts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
LimitName = Literal["max_action_change", "observation_envelope", "watchdog"]
LIMITS: tuple[LimitName, ...] = ("max_action_change", "observation_envelope", "watchdog")
ENDED = 1 << 7
"""Beside a bit for each of the limits that acted in a step: one of them ended the episode."""


def acted_in(bits: Array) -> dict[LimitName, Mask]:
    """Return in which steps each limit acted, of what `Limits.bits` returned of each."""
    return {name: (bits & 1 << i) > 0 for i, name in enumerate(LIMITS)}


@dataclass(frozen=True, eq=False)
class Envelope:
    """Where observations may lie: within `reach` of `mean`, `[obs_dim]` float64 each.

    A dimension whose reach is infinite may have any value. `std` is what one standard deviation is.
    """

    mean: Array
    std: Array
    sigmas: float
    then: Literal["stop", "hold", "hand_over"]
    after_steps: int

    def outside(self, obs: Array) -> Mask:
        """Return which of the observations `[K, obs_dim]` lie outside, `[K]`; NaN does."""
        within = np.abs(obs.astype(np.float64) - self.mean) <= self.sigmas * self.std
        return np.asarray(~(within | np.isinf(self.std)).all(axis=1))

    def describe(self, obs: Array) -> str:
        """Say which dimension of an observation `[obs_dim]` lies farthest outside."""
        with np.errstate(invalid="ignore"):
            far = np.abs(obs.astype(np.float64) - self.mean) / self.std
        at = int(np.argmax(np.where(np.isnan(far) & ~np.isinf(self.std), np.inf, far)))
        return (
            f"dimension {at} of the observation is {obs[at]:.4g}, {far[at]:.1f} standard deviations"
            f" from the data's mean ({self.mean[at]:.4g} ± {self.std[at]:.4g}; {self.sigmas:g} are "
            "allowed)"
        )


@dataclass(frozen=True, eq=False)
class Rules:
    """What limits hold, in numbers and in the units of the action space.

    Shapes `[action_dim]` float64: `max_change`, infinite where there is no limit; `rest` and
    `hold`, NaN where they aren't stated.
    """

    max_change: Array
    rest: Array
    hold: Array
    envelope: Envelope | None = None
    max_late_seconds: float | None = None
    late_then: Literal["stop", "hold"] = "hold"

    def apart(self) -> Rules:
        """Return the limits of episodes apart from training: none that would cut them.

        An episode that is cut may have a better return than one that goes on. Nobody is there to be
        handed over to, and the clock must not change a number.
        """
        envelope = self.envelope
        if envelope is not None:
            envelope = None if envelope.then == "stop" else replace(envelope, then="hold")
        return replace(self, envelope=envelope, max_late_seconds=None)


@dataclass(frozen=True)
class Trip:
    """A limit that was come to: of which environment, which limit, why, and whether it stops."""

    number: int
    limit: LimitName
    reason: str
    stops: bool


class Limits:
    """The limits of K environments, each by itself, and how near each is to them.

    Where a limit holds, the action asked for is replaced by `hold`, or by what was done last where
    none is stated; then every action is brought within the largest change from what was done last.
    Somebody who has taken over acts outside the envelope, to bring the robot back; the other limits
    hold for anybody's action. `waiting [K]` says who is to be handed over, and holds until somebody
    acts in the policy's place or the episode ends.
    """

    def __init__(
        self, rules: Rules, count: int, dtype: str, clock: Callable[[], float] | None = None
    ):
        self.rules, self._dtype = rules, np.dtype(dtype)
        self._clock = time.monotonic if clock is None else clock
        self._last = np.tile(rules.rest, (count, 1))
        self._outside = np.zeros(count, dtype=np.int64)
        self._since = np.full(count, np.nan)
        self._stopping = np.zeros(count, dtype=np.bool_)
        self.waiting = np.zeros(count, dtype=np.bool_)
        self._acted = {name: np.zeros(count, dtype=np.bool_) for name in LIMITS}
        self._trips: list[Trip] = []
        self._reasons: dict[int, str] = {}

    # -- steps

    def began(self, obs: Array, begun: Mask) -> None:
        """Begin the episodes that were reset, `[K]`, whose observations are in `obs`."""
        self._last[begun] = self.rules.rest
        self._outside[begun], self.waiting[begun] = 0, False
        self._since[begun] = self._clock()
        self._look(obs, begun)

    def before(
        self, asked: Array, others: Mask | None = None, late_seconds: float | None = None
    ) -> Array:
        """Return what is done in place of the actions asked for, `[K, action_dim]` of their type.

        `others` says where it was not the policy that asked, `[K]`. `late_seconds` is how late the
        actions are where somebody keeps time; else it is the time since the last step.
        """
        count = len(asked)
        by_other = np.zeros(count, dtype=np.bool_) if others is None else others
        self._acted = {name: np.zeros(count, dtype=np.bool_) for name in LIMITS}
        self._trips = []
        self.waiting &= ~by_other
        envelope = self.rules.envelope
        if envelope is not None and envelope.then != "stop":
            far = self._outside >= envelope.after_steps
            self._acted["observation_envelope"] = (far | self.waiting) & ~by_other
        self._stopping = np.zeros(count, dtype=np.bool_)
        self._watch(late_seconds)
        held = self._acted["observation_envelope"] | self._acted["watchdog"]
        wanted = np.where(held[:, None], self._held(), asked).astype(self._dtype)
        low, high = (_edge(self._last, self.rules.max_change, way, self._dtype) for way in (-1, 1))
        done = np.minimum(np.maximum(wanted, low), high)
        self._acted["max_action_change"] = (done != wanted).any(axis=1)
        return done

    def after(self, done: Array, obs: Array) -> Mask:
        """Take in what a step did, `[K, action_dim]`, and where it led, `[K, obs_dim]`.

        Returns which episodes end here because a limit ends them, `[K]`.
        """
        self._last = done.astype(np.float64)
        self._since[:] = self._clock()
        self._look(obs, np.ones(len(obs), dtype=np.bool_))
        envelope = self.rules.envelope
        if envelope is not None and envelope.then == "stop":
            self._acted["observation_envelope"] = self._outside >= envelope.after_steps
            self._stopping |= self._acted["observation_envelope"]
        elif envelope is not None and envelope.then == "hand_over":
            self._acted["observation_envelope"] |= self._outside == envelope.after_steps
        return self._stopping

    def waited(self, seconds: float) -> None:
        """Count no time for which somebody had the environments wait, as in a pause, as late."""
        self._since += seconds

    def bits(self) -> Array:
        """Return which limits acted in the last step, a bit each in their order, `[K]` uint8."""
        acted = [self._acted[name].astype(np.uint8) << i for i, name in enumerate(LIMITS)]
        return np.asarray(np.bitwise_or.reduce(acted))

    def take(self) -> list[Trip]:
        """Return which limits were come to since they were taken last, or the last step began."""
        found, self._trips = self._trips, []
        return found

    def asks(self) -> list[str | None]:
        """Return why each environment is to be handed over, None where it isn't."""
        why = "the observation lies outside of the envelope of the data"
        return [self._reasons.get(i, why) if w else None for i, w in enumerate(self.waiting)]

    def _held(self) -> Array:
        """Return what holding does, `[K, action_dim]` float64."""
        stated = np.broadcast_to(self.rules.hold, self._last.shape)
        return np.where(np.isnan(stated), self._last, stated)

    def _watch(self, late_seconds: float | None) -> None:
        """See which actions come too late."""
        most = self.rules.max_late_seconds
        if most is None:
            return
        each = self._clock() - self._since
        late = each if late_seconds is None else np.full(len(each), late_seconds)
        too_late = late > most  # NaN, after a resume, isn't
        self._acted["watchdog"] = too_late
        stops = self.rules.late_then == "stop"
        if stops:
            self._stopping = too_late.copy()
        for i in np.flatnonzero(too_late).tolist():
            reason = f"an action came {late[i]:.3g} s late, {most:g} s are allowed"
            self._trips.append(Trip(i, "watchdog", reason, stops))

    def _look(self, obs: Array, where: Mask) -> None:
        """Count the observations in a row that lie outside of the envelope."""
        envelope = self.rules.envelope
        if envelope is None:
            return
        out = envelope.outside(obs.reshape(len(obs), -1))
        self._outside = np.where(where, np.where(out, self._outside + 1, 0), self._outside)
        far, stops = where & (self._outside >= envelope.after_steps), envelope.then == "stop"
        newly = far & (stops | (self._outside == envelope.after_steps))
        for i in np.flatnonzero(newly).tolist():
            self._reasons[i] = envelope.describe(obs.reshape(len(obs), -1)[i])
            self._trips.append(Trip(i, "observation_envelope", self._reasons[i], stops))
        if envelope.then == "hand_over":
            self.waiting |= far

    # -- checkpoints

    def state(self) -> dict[str, Any]:
        """Return how near each environment is to its limits; what was done last is known."""
        return {"outside": self._outside.tolist(), "waiting": self.waiting.tolist()}

    def restore(self, state: Mapping[str, Any] | None, last: Array) -> None:
        """Go on from what `state()` returned, None where no limits held before.

        `last` is what was done last, `[K, action_dim]` in the units of the action space, NaN where
        an episode has just begun. Time doesn't count while a run is away.
        """
        self._last = np.where(np.isnan(last), self.rules.rest, last)
        self._since[:] = np.nan
        self._trips = []
        if state is not None:
            self._outside = np.asarray(state["outside"], dtype=np.int64)
            self.waiting = np.asarray(state["waiting"], dtype=np.bool_)


def _edge(last: Array, change: Array, way: int, dtype: np.dtype[Any]) -> Array:
    """Return the farthest numbers of a type that lie no farther than `change` from `last`.

    Shapes `[K, action_dim]` and `[action_dim]` float64; `way` is 1 for above and −1 for below.
    Where nothing was done last (NaN) they are infinite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        step = way * change
        edge = last + step
        back = edge - last  # what a sum's rounding adds is known exactly (Knuth's two-sum)
        rounding = (last - (edge - back)) + (step - back)
        edge = np.where(rounding * way < 0, np.nextafter(edge, last), edge)
        typed = edge.astype(dtype)
        over = (typed.astype(np.float64) - edge) * way > 0
        typed = np.where(over, np.nextafter(typed, last.astype(dtype)), typed)
    return np.asarray(np.where(np.isnan(edge), way * np.inf, typed).astype(dtype))
