"""Fitted Q evaluation: against closed forms, blind to where a log was cut, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baq_cli.agents.interface import Spec
from baq_cli.agents.registry import METHODS
from baq_cli.data.episodes import Episodes
from baq_cli.engine.estimation.fitted_q import FittedQ, FittedQConfig
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError, NonFiniteError
from baq_cli.nets.streams import SeedStream
from baq_cli.units import Phase
from support.advice import follows
from support.builders import tiny_agent, tiny_spec

Array = np.ndarray[Any, Any]
GAMMA, PLACES, SIGNS = 0.9, 4, (-1.0, 1.0)
LINEAR = FittedQConfig(hidden=(), layer_norm=False, learning_rate=0.03, batch_size=64)
BASE, SLOPE = np.array([0.5, -1.0, 2.0, 0.25]), -0.75
"""The reward of a place, and what an action adds to it, times itself."""
STATES = [(place, sign) for place in range(PLACES) for sign in SIGNS]
"""A place in a circle, and the action that led there. Features are a one-hot place and the sign, in
which, with the action, the action values of the policies here are linear."""
FEATURES = np.array([[*np.eye(PLACES)[place], sign] for place, sign in STATES], dtype=np.float32)
POLICY = np.array([0.3, -0.6, 0.7, 0.0, 0.2])
"""An action is a sum of features with such weights."""
BLIND = np.array([*POLICY[:PLACES], 0.0])
Row = tuple[int, float, float, int, bool]
"""State, action, reward, next state, whether it terminated."""


def step(state: int, action: float, remembers: float = 1.5) -> tuple[float, int]:
    """Return reward and next state. `remembers` is what the action before is worth."""
    place, sign = STATES[state]
    reward = BASE[place] + SLOPE * action + remembers * sign
    return reward, STATES.index(((place + 1) % PLACES, action))


def every_step(remembers: float = 1.5, ends_in: int | None = None) -> list[Row]:
    """Return each transition once; those out of a place may terminate."""
    pairs = [(state, action) for state in range(len(STATES)) for action in SIGNS]
    return [(s, a, *step(s, a, remembers), STATES[s][0] == ends_in) for s, a in pairs]


def closed_form(policy: Array, transitions: Sequence[Row]) -> Array:
    """Return V(s) of a policy, by the linear system of Q(s, ±1) that the transitions make."""
    pairs = [row[:2] for row in transitions]
    system, acts = np.eye(len(pairs)), FEATURES @ policy
    for i, (*_, following, terminated) in enumerate(transitions):
        for action in SIGNS:  # Q is linear in the action: what lies between is between
            share = (1 + action * acts[following]) / 2
            system[i, pairs.index((following, action))] -= GAMMA * (not terminated) * share
    q = np.linalg.solve(system, [row[2] for row in transitions]).reshape(len(STATES), 2)
    return ((1 - acts) * q[:, 0] + (1 + acts) * q[:, 1]) / 2


def logged(transitions: Sequence[Row], lengths: Sequence[int] | None = None) -> Episodes:
    """Return transitions as episodes of such lengths, of one step each by default."""
    lengths = lengths or [1] * len(transitions)
    observations, start = [], 0
    for length in lengths:
        part = transitions[start : start + length]
        observations.append(FEATURES[[*(row[0] for row in part), part[-1][3]]])
        start += length
    terminated = np.array([row[4] for row in transitions])
    last = np.zeros(len(transitions), dtype=bool)
    last[np.cumsum(lengths) - 1] = True
    return Episodes(
        "test/tabular-v0",
        Spaces(PLACES + 1, (-1.0,), (1.0,)),
        np.concatenate(observations),
        np.array([[row[1]] for row in transitions], dtype=np.float32),
        np.array([row[2] for row in transitions], dtype=np.float32),
        terminated,
        last & ~terminated,
        np.asarray(lengths),
    )


IDENTITY = Inputs(torch.zeros(PLACES + 1), torch.ones(PLACES + 1), 1.0, 0.0)
UNLIKE = Inputs(torch.linspace(-1, 1, PLACES + 1), torch.linspace(0.2, 3, PLACES + 1), 10.0, -3.0)


def evaluated(
    episodes: Episodes,
    policies: Array,
    seeds: tuple[int, ...] = (0,),
    steps: int = 1_500,
    config: FittedQConfig = LINEAR,
    spread: float = 0.0,
    capture: bool = True,
    inputs: Inputs = IDENTITY,
) -> FittedQ:
    """Return what is fitted of policies `[S, 5]` with noise about them."""
    weights = torch.from_numpy(policies).float()

    def decide(obs: Tensor, noise: SeedStream) -> Tensor:
        seen = obs * inputs.obs_std + inputs.obs_mean  # a policy is given them as `inputs` has them
        mean = (seen * weights.unsqueeze(1)).sum(-1, keepdim=True)
        return mean + spread * noise.normal(*mean.shape[1:])

    evaluation = FittedQ(
        Spec(seeds, PLACES + 1, 1), episodes, inputs, GAMMA, config, capture=capture
    )
    evaluation.fit(decide, steps)
    return evaluation


def fitted(*asked: Any, **how: Any) -> Array:
    """Return V of every state, `[S, states]`, as `evaluated` has it."""
    return evaluated(*asked, **how).at(FEATURES)


def worth(more: float, transitions: Sequence[Row]) -> list[Row]:
    """Return transitions with rewards that are so much greater."""
    return [(*row[:2], row[2] + more, *row[3:]) for row in transitions]


ENDS = every_step(remembers=0.0, ends_in=3)


@pytest.mark.parametrize(
    ("policy", "transitions"),
    [(POLICY, every_step()), (BLIND, ENDS), (BLIND, worth(5, ENDS)), (BLIND, worth(-5, ENDS))],
    ids=["goes on", "ends", "all rewards above 0", "all rewards below 0"],
)
def test_a_linear_problem_has_its_closed_form(policy: Array, transitions: list[Row]) -> None:
    """Of one-step episodes, all cut: a truncation counted as an end would leave the rewards."""
    found = fitted(logged(transitions), policy[None])
    np.testing.assert_allclose(found[0], closed_form(policy, transitions), atol=1e-3)


def test_values_are_raw_returns_of_a_policy_that_sees_what_its_checkpoint_gives_it() -> None:
    """Whatever the units of its own updates are, and however its observations are normalised."""
    transitions = every_step()
    found = evaluated(logged(transitions), POLICY[None], inputs=UNLIKE)
    expected = closed_form(POLICY, transitions)
    np.testing.assert_allclose(found.at(FEATURES)[0], expected, atol=1e-3)
    of_starts = expected[[row[0] for row in transitions]]
    np.testing.assert_allclose(found.values()[0], of_starts, atol=1e-3)


def test_asked_again_it_goes_on_to_the_values_of_another_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("baq_cli.engine.updates.updater.RECORD_AFTER", 30)
    evaluation = evaluated(logged(every_step()), POLICY[None], steps=60)

    def decide(obs: Tensor, noise: SeedStream) -> Tensor:
        return -(obs * torch.from_numpy(POLICY).float()).sum(-1, keepdim=True)

    evaluation.fit(decide, 1_500)
    expected = closed_form(-POLICY, every_step())
    np.testing.assert_allclose(evaluation.at(FEATURES)[0], expected, atol=1e-3)


def test_of_several_critics_the_mean_counts() -> None:
    config = LINEAR.model_copy(update={"critics": 2})
    evaluation = evaluated(logged(every_step()), POLICY[None], steps=1, config=config)
    state = evaluation.state()
    constant = {name: 0 * state[name] for name in state if name.startswith("critic.")}
    evaluation.restore(state | constant | {"level": torch.tensor([[[1.0], [5.0]]])})
    assert evaluation.at(FEATURES).tolist() == [[3.0] * len(STATES)]


def test_values_that_feed_on_themselves_stay_within_what_rewards_add_up_to() -> None:
    """Half of the rows end, far to one side; the others' next state lies beyond their own, so that
    a line which is 0 at the far side makes each value 0.9 · 9 / 6 of itself at every turn.
    """
    places = np.zeros((36, PLACES + 1), dtype=np.float32)
    places[:, 0] = [1, 4, -5, -5] * 9
    ends = np.array([False, True] * 9)
    data = Episodes(
        "test/line-v0",
        Spaces(PLACES + 1, (-1.0,), (1.0,)),
        places,
        np.zeros((18, 1), dtype=np.float32),
        np.array([0] * 16 + [1, 1], dtype=np.float32),
        ends,
        ~ends,
        np.ones(18, dtype=int),
    )
    found = evaluated(data, np.zeros((1, PLACES + 1))).at(places[[0, 2]])[0]
    assert (found > -0.5).all()
    assert (found < 1 / (1 - GAMMA) + 0.5).all()


def test_where_a_log_was_cut_changes_nothing() -> None:
    rng, state, walked = np.random.default_rng(3), 0, []
    for _ in range(400):
        action = float(rng.choice(SIGNS))
        walked.append((state, action, *step(state, action), False))
        state = walked[-1][3]
    whole, pieces = (
        fitted(logged(walked, cut), POLICY[None])[0] for cut in ([400], [7, 93, 50, 250])
    )
    np.testing.assert_allclose(pieces, whole, atol=1e-3)
    ended = [(*row[:4], i % 5 == 4) for i, row in enumerate(walked)]
    assert np.abs(fitted(logged(ended), POLICY[None], steps=500)[0] - whole).max() > 0.5


def test_a_seed_is_the_same_alone_and_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """With noise in the policy too, each seed draws its own batches, weights and actions."""
    monkeypatch.setattr("baq_cli.engine.updates.updater.RECORD_AFTER", 30)
    config, data = FittedQConfig(hidden=(16, 16), batch_size=32), logged(every_step())
    policies = np.stack([POLICY, -POLICY, POLICY[::-1]])
    how: dict[str, Any] = {"steps": 60, "config": config, "spread": 0.3}
    together = fitted(data, policies, (4, 0, 9), **how)
    np.testing.assert_array_equal(fitted(data, policies, (4, 0, 9), **how, capture=False), together)
    for i, seed in enumerate((4, 0, 9)):
        alone = fitted(data, policies[i : i + 1], (seed,), **how)
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-4, atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 0.01


def test_a_policy_that_decides_ahead_has_the_value_of_whole_chunks() -> None:
    """V(place) of two actions at once, in a circle where actions lead nowhere else, by hand."""
    transitions, state = [], 0
    for i in range(64):
        action = SIGNS[(i // 4 + i) % 2 if i % 3 else (i // 8) % 2]
        transitions.append((state, action, *step(state, action, 0.0), False))
        state = transitions[-1][3]

    def decide(obs: Tensor, noise: SeedStream) -> Tensor:
        first = (obs * torch.from_numpy(BLIND).float()).sum(-1, keepdim=True)
        return torch.cat([first, -first / 2], dim=-1)

    of_data = Spec((0,), PLACES + 1, 1), logged(transitions, [31, 33]), IDENTITY, GAMMA
    evaluation = FittedQ(*of_data, LINEAR, chunk=2)
    evaluation.fit(decide, 1_500)
    acts = BLIND[:PLACES]
    pair = BASE + SLOPE * acts + GAMMA * (np.roll(BASE, -1) - SLOPE * acts / 2)
    expected = np.linalg.solve(np.eye(PLACES) - GAMMA**2 * np.roll(np.eye(PLACES), 2, 1), pair)
    found = evaluation.at(FEATURES)[0].reshape(PLACES, 2)
    np.testing.assert_allclose(found, np.stack([expected] * 2, 1), atol=1e-3)


def short_episodes(lengths: list[int]) -> Episodes:
    """Return episodes that were cut, in which every reward is 1."""
    rows = sum(lengths)
    steps: list[Row] = [(k % 8, SIGNS[k % 2], 1.0, (k + 1) % 8, False) for k in range(rows)]
    return logged(steps, lengths)


def idle(obs: Tensor, noise: SeedStream) -> Tensor:
    return torch.zeros(*obs.shape[:2], 3)


def test_batches_without_a_whole_chunk_teach_nothing_and_spoil_nothing() -> None:
    """One chunk of three steps among 300 rows: most batches of 8 don't hold it. 1/(1 − γ) = 10."""
    config = LINEAR.model_copy(update={"batch_size": 8})
    of_data = Spec((0,), PLACES + 1, 1), short_episodes([3, *[1] * 300]), IDENTITY, GAMMA
    evaluation = FittedQ(*of_data, config, chunk=3)
    evaluation.fit(idle, 300)
    assert evaluation.at(FEATURES[:1]).item() == pytest.approx(10.0, abs=0.5)


def test_of_a_chunk_that_a_termination_cuts_short_the_rewards_until_then_are_learned() -> None:
    """1 + γ 5 from the first of two steps, 5 from the second, in chunks of three."""
    ends: list[Row] = [(0, 0.0, 1.0, 2, False), (2, 0.0, 5.0, 4, True)] * 8
    of_data = Spec((0,), PLACES + 1, 1), logged(ends, [2] * 8), IDENTITY, GAMMA
    evaluation = FittedQ(*of_data, LINEAR, chunk=3)
    evaluation.fit(idle, 400)
    found = evaluation.at(FEATURES[[0, 2]])[0]
    np.testing.assert_allclose(found, [1 + GAMMA * 5, 5], atol=0.02)


@follows("they can't be valued by it. Give --dataset one with longer episodes.")
def test_data_without_any_whole_chunk_are_refused() -> None:
    def valued(data: Episodes) -> FittedQ:
        return FittedQ(Spec((0,), PLACES + 1, 1), data, IDENTITY, GAMMA, LINEAR, chunk=3)

    with pytest.raises(DataError, match=r"3 actions at once, .* has 2 steps, none terminated"):
        valued(short_episodes([2, 2, 1]))
    valued(short_episodes([2, 3, 1]))
    valued(logged([(0, 1.0, 1.0, 1, True)]))


def test_a_policy_whose_actions_are_no_numbers_is_refused() -> None:
    with pytest.raises(NonFiniteError, match="actions of the policy"):
        fitted(logged(every_step()), POLICY[None] * np.nan, steps=2)


@pytest.mark.parametrize("algo", METHODS)
def test_every_methods_policy_is_valued_alike_recorded_or_not(
    algo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it acts in an evaluation: also those that draw, choose among actions, or decide ahead."""
    monkeypatch.setattr("baq_cli.engine.updates.updater.RECORD_AFTER", 2)
    phase: Phase = "offline" if METHODS[algo].learns_offline else "online"
    agent = tiny_agent(algo, tiny_spec(obs_dim=PLACES + 1, action_dim=1), phase).float()
    data = logged([*every_step(), *every_step()], [16, 16])
    config = FittedQConfig(hidden=(8,), batch_size=16)
    of_data = agent.spec, data, IDENTITY, GAMMA, config, agent.chunk
    found = []
    for capture in (True, False):
        evaluation = FittedQ(*of_data, capture)
        evaluation.fit(agent.act, 6)
        found.append(evaluation.values())
    np.testing.assert_array_equal(*found)
    assert found[0].shape == (2, 2)
