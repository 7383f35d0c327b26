"""Limits of actions, observations and time: what they let pass, and exactly where they act."""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from baq_cli.engine.collection.datasets import open_dataset
from baq_cli.engine.evaluation.limits import constant_dimensions, rules_of
from baq_cli.engine.experience import inputs
from baq_cli.envs.pool import EnvPool, flat
from baq_cli.envs.safety import Envelope, LimitName, Limits, Rules, acted_in
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import UsageError
from baq_cli.recipes.safety import SafetyConfig
from baq_cli.untrusted import TRUST_VARIABLE
from support.acting_probes import HIGH, LOW, SAFE_HIGH, Bounded, Saying
from support.small_data import write_steady
from support.strict_envs import TYPES

Array = np.ndarray[Any, Any]
FLAT = gym.spaces.Box(-np.inf, np.inf, (2,))
INSIDE, OUTSIDE = [0.0, 0.0], [9.0, 0.0]


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def rules(
    then: Any = None,
    after_steps: int = 1,
    max_change: float = np.inf,
    rest: float = 0.0,
    hold: float = np.nan,
    **more: Any,
) -> Rules:
    """Return limits of one action; with `then` observations lie within 2 of 0, twice a std of 1."""
    envelope = Envelope(np.zeros(2), np.ones(2), 2.0, then, after_steps) if then else None
    each = (np.array([number]) for number in (max_change, rest, hold))
    return Rules(*each, envelope, **more)


def taken(
    limits: Limits, asked: float, obs: Any, others: bool = False, **late: float
) -> tuple[float, bool]:
    """Take a step of one environment to an observation; return what was done, and if it ended."""
    done = limits.before(np.array([[asked]], np.float32), np.array([others]), **late)
    (ended,) = limits.after(done, np.array([obs])).tolist()
    return float(done[0, 0]), ended


def step(limits: Limits, asked: float, obs: Any, others: bool = False) -> float:
    return taken(limits, asked, obs, others)[0]


def begun(rules: Rules, obs: Any = INSIDE, clock: Any = None) -> Limits:
    limits = Limits(rules, 1, "float32", clock or Clock())
    limits.began(np.array([obs]), np.array([True]))
    return limits


def acted(limits: Limits, name: LimitName) -> bool:
    """Return whether a limit acted in the last step in every environment."""
    return bool(acted_in(limits.bits())[name].all())


# -- changes of actions


def number(dtype: str) -> st.SearchStrategy[float]:
    width: Any = {"float16": 16, "float32": 32, "float64": 64}[dtype]
    return st.floats(allow_nan=False, allow_infinity=False, width=width, allow_subnormal=False)


@st.composite
def walks(draw: st.DrawFn) -> tuple[gym.spaces.Box, Array, float, float]:
    """Return a box, actions asked for in it, the change allowed, and an action at rest."""
    dtype = draw(st.sampled_from(TYPES))
    low, high = sorted((draw(number(dtype)), draw(number(dtype))))
    assume(low < high)
    box = gym.spaces.Box(low, high, (1,), np.dtype(dtype).type)
    asked = np.array(draw(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=6)))
    span = high - low
    near = st.floats(0.001, 1.5).map(lambda share: share * min(span, 1e308))
    change = draw(st.one_of(near, st.floats(1e-300, 1e308)))
    assume(change > 0)
    return box, asked, change, draw(st.sampled_from([low, high, np.nan]))


@given(walks())
@pytest.mark.filterwarnings("error")
def test_no_action_changes_by_more_than_is_allowed_not_by_a_digit(
    walk: tuple[gym.spaces.Box, Array, float, float],
) -> None:
    """Also of types that hold neither the change nor the sum: compared as fractions."""
    box, asked, change, rest = walk
    spaces = Spaces.of(FLAT, box)
    limits = Limits(rules(max_change=change, rest=rest), 1, spaces.action_dtype)
    limits.began(np.zeros((1, 2)), np.array([True]))
    last = rest
    for wanted in spaces.to_env(asked[:, None].astype(np.float32)):
        (done,) = limits.before(wanted[None])
        assert done.dtype == box.dtype
        assert box.contains(done)
        value, whole = float(done[0]), float(wanted[0])
        if np.isnan(last):
            assert value == whole, "an episode's first action changes from nothing"
        else:
            apart = abs(Fraction(value) - Fraction(last))
            assert apart <= Fraction(change)
            if abs(Fraction(whole) - Fraction(last)) <= Fraction(change):
                assert value == whole, "what is allowed passes, the limit itself too"
            else:
                beyond = np.nextafter(done[0], wanted[0])
                far = abs(Fraction(float(beyond)) - Fraction(last))
                assert far > Fraction(change), "it goes as far as the type has numbers"
        limits.after(done[None].astype(np.float64), np.zeros((1, 2)))
        last = value


def test_a_change_is_limited_in_the_units_of_the_action_space() -> None:
    limits = begun(rules(max_change=0.25, rest=0.5))
    assert [step(limits, a, INSIDE) for a in (0.75, 2.0, 0.0, 0.6)] == [
        0.75,
        1.0,
        0.75,
        0.6000000238418579,
    ]
    assert not acted(limits, "max_action_change")
    assert step(limits, 3.0, INSIDE) == pytest.approx(0.85)
    assert acted(limits, "max_action_change")


def test_what_an_environment_did_itself_is_what_the_next_action_changes_from() -> None:
    limits = begun(rules(max_change=0.25))
    limits.before(np.array([[0.25]], np.float32))
    limits.after(np.array([[-0.5]]), np.array([INSIDE]))
    assert step(limits, 1.0, INSIDE) == -0.25


# -- the envelope


def test_an_observation_trips_beyond_k_standard_deviations_and_not_at_them() -> None:
    """By hand: a mean of 2 and a std of 0.5 allow 0.5 to 3.5 with k = 3."""
    envelope = Envelope(np.array([2.0, 0.0]), np.array([0.5, 1.0]), 3.0, "stop", 1)
    edge = [0.5, 3.5]
    beyond = [float(np.nextafter(np.float32(e), np.float32(9 * e - 9))) for e in edge]
    for value, out in [*((e, False) for e in edge), *((b, True) for b in beyond), (np.nan, True)]:
        assert envelope.outside(np.array([[value, 0.0]])).tolist() == [out]
        assert envelope.outside(np.array([[2.0, -3.0], [value, 0.0]])).tolist() == [False, out]
    said = envelope.describe(np.array([4.5, -1.0]))
    assert said.startswith("dimension 0 of the observation is 4.5, 5.0 standard deviations from")
    assert "(2 ± 0.5; 3 are allowed)" in said


def test_a_dimension_that_is_constant_in_the_data_is_left_out() -> None:
    config = SafetyConfig.model_validate({"observation_envelope": {"sigmas": 1}})
    spaces = Spaces.of(FLAT, gym.spaces.Box(-1, 1, (1,)))
    tenth = float(np.float32(0.1))
    found = rules_of(config, spaces, {"mean": [tenth, 0.0], "std": [1e-17, 1e-9]})
    assert found is not None
    assert found.envelope is not None
    assert constant_dimensions(found) == [0]
    obs = np.array([[1e9, 1e-9], [np.nan, 0.0], [tenth, 1.1e-9]])
    assert found.envelope.outside(obs).tolist() == [False, False, True]


def test_it_stops_after_so_many_observations_in_a_row() -> None:
    limits = begun(rules("stop", after_steps=2))
    found = [taken(limits, 0.5, obs) for obs in (OUTSIDE, INSIDE, OUTSIDE, OUTSIDE)]
    assert found == [(0.5, False)] * 3 + [(0.5, True)], "what stops doesn't hold"
    (trip,) = limits.take()
    assert acted(limits, "observation_envelope")
    assert (trip.limit, trip.stops) == ("observation_envelope", True)


def test_an_episode_that_begins_outside_is_known_at_once() -> None:
    limits = begun(rules("stop"), OUTSIDE)
    (trip,) = limits.take()
    assert trip.stops


@pytest.mark.parametrize(("hold", "held"), [(np.nan, 0.5), (-0.25, -0.25)])
def test_holding_repeats_what_was_done_last_or_does_what_is_stated(
    hold: float, held: float
) -> None:
    limits = begun(rules("hold", hold=hold))
    done = [step(limits, a, o) for a, o in [(0.5, OUTSIDE), (1.0, OUTSIDE), (1.0, INSIDE)]]
    assert done == [0.5, held, held]
    assert step(limits, 1.0, INSIDE) == 1.0, "inside again, the policy acts"


def test_at_first_holding_is_rest() -> None:
    assert step(begun(rules("hold", rest=0.125), OUTSIDE), 1.0, OUTSIDE) == 0.125


def test_holding_keeps_to_the_largest_change() -> None:
    limits = begun(rules("hold", hold=-1.0, max_change=0.5))
    done = [step(limits, 0.5, OUTSIDE), *(step(limits, 1.0, OUTSIDE) for _ in range(4))]
    assert done == [0.5, 0.0, -0.5, -1.0, -1.0]


def test_somebody_who_takes_over_acts_outside_within_the_other_limits() -> None:
    limits = begun(rules("hold", max_change=0.5))
    assert step(limits, 0.5, OUTSIDE) == 0.5
    assert step(limits, 1.0, OUTSIDE) == 0.5
    assert step(limits, -1.0, OUTSIDE, others=True) == 0.0
    assert step(limits, -1.0, OUTSIDE) == 0.0, "handed back outside, it holds again"


def test_it_waits_for_somebody_also_where_it_comes_back_by_itself() -> None:
    limits = begun(rules("hand_over"))
    assert limits.asks() == [None]
    step(limits, 0.5, OUTSIDE)
    (reason,) = limits.asks()
    assert reason is not None
    assert "9.0 standard deviations" in reason
    assert [step(limits, 1.0, INSIDE), step(limits, 1.0, INSIDE)] == [0.5, 0.5]
    assert limits.asks() == [reason]
    assert step(limits, -1.0, INSIDE, others=True) == -1.0
    assert limits.asks() == [None]
    assert step(limits, 1.0, INSIDE) == 1.0
    step(limits, 1.0, OUTSIDE)
    limits.began(np.array([INSIDE]), np.array([True]))
    assert limits.asks() == [None], "an episode's end ends the waiting"


# -- the watchdog


def test_what_comes_late_is_not_done() -> None:
    """The first action counts from the reset, the others from the end of the step before."""
    clock = Clock()
    limits = begun(rules(max_late_seconds=0.5, rest=0.25), clock=clock)
    found = []
    for wait in (0.5, 0.51, 0.1):
        clock.now += wait
        found.append(step(limits, 1.0, INSIDE))
    assert found == [1.0, 1.0, 1.0]
    clock.now += 0.6
    assert step(limits, -1.0, INSIDE, others=True) == 1.0, "whoever asked"
    (trip,) = limits.take()
    assert acted(limits, "watchdog")
    assert trip.reason == "an action came 0.6 s late, 0.5 s are allowed"
    assert not trip.stops


def test_who_keeps_time_says_how_late_it_is() -> None:
    clock = Clock()
    limits = begun(rules(max_late_seconds=0.5, late_then="stop"), clock=clock)
    clock.now = 100.0
    assert taken(limits, 1.0, INSIDE, late_seconds=0.5) == (1.0, False)
    assert taken(limits, -1.0, INSIDE, late_seconds=0.501) == (1.0, True)


def test_time_doesnt_count_while_a_run_is_away() -> None:
    clock = Clock()
    limits = begun(rules(max_late_seconds=0.5), clock=clock)
    limits.restore(limits.state(), np.array([[0.75]]))
    clock.now = 1e6
    assert step(limits, 1.0, INSIDE) == 1.0


# -- in a pool


ASKED = np.array([[1.0], [-0.4]], dtype=np.float32)


def of_probe(**more: float) -> Rules:
    return Rules(
        *(np.array([more.get(name, np.nan)]) for name in ("max_change", "rest", "hold")),
        Envelope(np.zeros(3), np.array([np.inf, np.inf, 1.0]), 2.0, "hold", 1),
    )


@pytest.mark.parametrize("workers", [False, True])
def test_a_pool_tells_what_limits_did_and_what_the_environment_did(
    workers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Filtered-v0` keeps actions below a safe one itself; the limit comes before it."""
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    env, held = "support.acting_probes:Filtered-v0", of_probe(max_change=0.125, rest=0.0)
    with closing(EnvPool(env, 2, workers, rules=held)) as pool:
        pool.reset([0, 1])
        pool.step(ASKED)
        first, second = np.float32(SAFE_HIGH), np.float32(-0.125)
        assert_array_equal(pool.last.executed, [[first], [second]])
        assert_array_equal(pool.last.did_other, [True, False])
        assert_array_equal(pool.last.limited, [True, True])
        assert_array_equal(pool.last.action_in_env, [[first], [second]])
        pool.step(ASKED)
        assert pool.last.executed is not None
        assert pool.last.executed[1, 0] == second - 0.125
        obs = [pool.step(ASKED)[0], pool.step(-ASKED)[0]]  # 3 steps are outside: it holds
        assert pool.limits is not None
        assert acted(pool.limits, "observation_envelope")
        assert obs[0].shape == (2, 3)


def walked(workers: bool) -> list[Array]:
    with closing(
        EnvPool(
            "support.acting_probes:Filtered-v0", 2, workers, rules=of_probe(max_change=0.1, rest=0)
        )
    ) as pool:
        found = [pool.reset([3, 4])]
        rng = np.random.default_rng(0)
        for _ in range(5):
            obs, reward, over, cut = pool.step(rng.uniform(-1, 1, (2, 1)).astype(np.float32))
            executed = np.full((2, 1), np.nan) if pool.last.executed is None else pool.last.executed
            found += [obs, reward, over, cut, executed]
            if (over | cut).any():
                found.append(pool.reset([5, 6], over | cut))
        return found


def test_workers_are_limited_as_environments_here_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    for here, there in zip(walked(False), walked(True), strict=True):
        assert_array_equal(here, there)


def test_what_was_done_is_repeated_whatever_the_limits_say() -> None:
    """A stick within the environment moves it as no limit before it allows."""
    with closing(EnvPool("Bounded-v0", 1, rules=of_probe(max_change=0.01, rest=0))) as pool:
        pool.reset([0])
        pool.begin_step(np.zeros((1, 1), np.float32), np.array([[float(HIGH)]]))
        obs, *_ = pool.end_step()
        assert not pool.last.limited.all() or pool.last.executed is not None
        again = EnvPool("Bounded-v0", 1)
        with closing(again):
            again.reset([0])
            again.begin_step(np.zeros((1, 1), np.float32), np.array([[float(HIGH)]]))
            assert_array_equal(obs, again.end_step()[0])
    assert LOW < 0


def test_an_environment_may_ask_for_somebody_itself() -> None:
    class Asking(Bounded):
        def step(self, action: Any) -> Any:
            *rest, _ = super().step(action)
            return *rest, {"hand_over": "the gripper is hot", "other": 1}

    made = flat(Asking())
    made.reset(seed=0)
    assert made.step(np.zeros(1, np.float32))[-1] == {"hand_over": "the gripper is hot"}
    silent = flat(Saying(Bounded(), None))
    silent.reset(seed=0)
    assert silent.step(np.zeros(1, np.float32))[-1] == {}
    gym.register("Asking-v0", Asking, disable_env_checker=True)
    try:
        with closing(EnvPool("Asking-v0", 2)) as pool:
            pool.reset([0, 1])
            assert pool.hand_over == [None, None]
            pool.step(ASKED)
            assert pool.hand_over == ["the gripper is hot"] * 2
            pool.reset([2, 3], np.array([True, False]))
            assert pool.hand_over == [None, "the gripper is hot"]
    finally:
        gym.registry.pop("Asking-v0")


# -- limits as a recipe has them


def test_statistics_are_those_of_the_datas_observations(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_steady("me/steady-v0")
    episodes = open_dataset("me/steady-v0", lambda event: None)
    monkeypatch.setattr(inputs, "STATISTICS_ROWS", 7)  # as of a large dataset, in parts
    found = inputs.observation_statistics(episodes)
    obs = episodes.obs.astype(np.float64)
    np.testing.assert_allclose(found["mean"], obs.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found["std"], obs.std(0), rtol=1e-12)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"max_action_change": [1, 2, 3]}, "has 3 numbers: expected one for each of the 2 actions"),
        ({"max_action_change": 1, "rest_action": 3}, "action 1 is 3, expected -1 to 2"),
        ({"max_action_change": 1, "hold_action": [0, -2]}, "hold_action': action 1 is -2"),
    ],
)
def test_limits_that_dont_fit_the_actions_are_refused(section: Any, said: str) -> None:
    spaces = Spaces.of(FLAT, gym.spaces.Box(np.float32([-4, -1]), np.float32([4, 2])))
    with pytest.raises(UsageError, match=said):
        rules_of(SafetyConfig.model_validate(section), spaces, None)


def test_one_number_holds_for_every_action() -> None:
    spaces = Spaces.of(FLAT, gym.spaces.Box(np.float32([-4, -1]), np.float32([4, 2])))
    found = rules_of(SafetyConfig(max_action_change=0.1, rest_action=0.1), spaces, None)
    assert found is not None
    assert found.max_change.tolist() == [0.1, 0.1]
    assert found.rest.tolist() == [float(np.float32(0.1))] * 2, "a number of the space's type"
