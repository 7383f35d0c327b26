"""What an environment did in place of an action is what is stored, repeated and learned from."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.testing import assert_allclose, assert_array_equal

from baq_cli.data.collect import collect
from baq_cli.engine.checkpoints.folder import load_newest
from baq_cli.engine.checkpoints.tensors import read_tensors, tensor_bytes
from baq_cli.engine.phases.repeating import RunningEpisode
from baq_cli.envs.faults import EnvironmentFault
from baq_cli.envs.pool import EnvPool, flat
from baq_cli.errors import DataError
from baq_cli.recipes.schema import Recipe
from baq_cli.untrusted import TRUST_VARIABLE
from support.acting_probes import HIGH, LOW, PROBE, SAFE_HIGH, SAFE_LOW, Bounded, Saying, probe
from support.odd_envs import Steady
from support.places import DOCS
from support.runs import assert_same_end, execute, last_tensors, recipe_of, states, stopped_at

Array = np.ndarray[Any, Any]
__all__ = ["probe"]
EVERY, ENV_STEPS = 8, 24
DOCUMENT = DOCS / "data.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
ASKED = np.array([[1.0], [0.2]], dtype=np.float32)
"""Of two environments; of the second it is a safe one."""


def scaled(action: Any) -> Array:
    """Return actions of `Filtered-v0` in [−1, 1]."""
    low, high = float(LOW), float(HIGH)
    return np.asarray(2 * (np.asarray(action, dtype=np.float64) - low) / (high - low) - 1)


# -- environments


@pytest.mark.parametrize("workers", [False, True])
def test_a_pool_tells_what_was_done_in_place_of_what_was_asked(
    workers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    with closing(EnvPool("support.acting_probes:Filtered-v0", 2, workers)) as pool:
        pool.reset([0, 1])
        pool.step(ASKED)
        assert pool.last.executed is not None
        assert_array_equal(pool.last.executed, [[SAFE_HIGH], [np.nan]])
        done = pool.last.action
        assert done.dtype == np.float32
        assert_allclose(done[0], scaled([SAFE_HIGH]), atol=1e-6)
        assert done[1] == ASKED[1], "what was asked for is kept digit for digit"
        in_env = pool.last.action_in_env
        assert in_env.dtype == np.float32
        assert in_env[0] == SAFE_HIGH
        assert_array_equal(in_env[1], pool.spaces.to_env(ASKED)[1])
        idle = np.zeros_like(ASKED)
        pool.step(idle)
        assert pool.last.executed is None
        assert pool.last.action is idle


def stepped(said: Any, env: gym.Env[Any, Any] | None = None) -> dict[str, Any]:
    """Return the info of the second step of an environment that says something then."""
    made = flat(Saying(env or Bounded(), said))
    made.reset(seed=0)
    assert made.step(np.zeros(1, np.float32))[-1] == {}, "it says None at the first"
    return made.step(np.zeros(1, np.float32))[-1]


@pytest.mark.parametrize(
    "said", [[-1.25], (0,), np.array([0.7]), np.array([-2.3], np.float16) / 2, torch.tensor([0.5])]
)
def test_what_an_action_space_contains_is_taken(said: Any) -> None:
    (action,) = stepped(said).values()
    assert action.dtype == np.float32
    assert_allclose(action, np.asarray(said), rtol=1e-6)


@pytest.mark.parametrize(
    "said", [[0.71], [-3.0], [np.nan], [np.inf], [0.1, 0.2], 0.1, "left", [True], [[0.1]], {"a": 1}]
)
def test_what_an_action_space_doesnt_contain_is_a_fault_that_names_it(said: Any) -> None:
    with pytest.raises(EnvironmentFault) as fault:
        stepped(said)
    assert f"info['executed_action'] = {said!r}, expected an action in Box(-2.3" in str(fault.value)


def test_infos_that_are_none_are_passed_over() -> None:
    class Terse(Steady):
        def step(self, action: Any) -> Any:
            return *super().step(action)[:-1], None

    made = flat(Terse())
    made.reset(seed=0)
    assert made.step(np.zeros(1, np.float32))[-1] == {}


def test_the_wrapper_of_the_document_says_what_the_stick_did() -> None:
    (block,) = [b for b in BLOCKS if "executed_action" in b]
    held: list[Any] = [None, np.float32([0.25]), None]
    names: dict[str, Any] = {"read_stick": lambda: held.pop(0)}
    gym.register("BareArm-v0", Bounded, disable_env_checker=True)
    try:
        exec(block, names)
        with closing(EnvPool("Arm-v0", 1)) as pool:
            pool.reset([0])
            found = []
            for _ in range(3):
                pool.step(ASKED[:1])
                found.append(pool.last.action_in_env.item())
    finally:
        for name in ("BareArm-v0", "Arm-v0"):
            gym.registry.pop(name, None)
    assert found == [HIGH, 0.25, HIGH]


# -- training


def recipe_for(seeds: tuple[int, ...], **run: Any) -> Recipe:
    method = {"chunk": 2, "spread": 2.0, "warmup_env_steps": 3, "utd": 2}
    watched = {"episodes": 1, "every_env_steps": EVERY, "background": False}
    layer = {"env": "Filtered-v0", "env_steps": ENV_STEPS, "seeds": list(seeds)}
    return recipe_of(PROBE, method, **(layer | {"evaluation": watched} | run))


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_what_was_done_is_stored_and_repeated_at_a_resume(
    seeds: tuple[int, ...], overlap: bool, probe: str, tmp_path: Path
) -> None:
    recipe, notes = recipe_for(seeds, overlap=overlap), []
    execute(recipe, tmp_path / "whole")
    names = list(states(tmp_path / "whole"))
    rows = torch.cat(
        [
            safetensors.torch.load_file(file)["rows"]
            for file in sorted((tmp_path / "whole" / "checkpoints" / names[-1]).glob("rows-*.s*"))
        ],
        dim=1,
    )
    action = rows[..., 3].numpy()
    assert action.min() == np.float32(scaled(SAFE_LOW))
    assert action.max() == np.float32(scaled(SAFE_HIGH))
    assert len(np.unique(action)) > 5, "safe ones are stored as they were asked for"
    repeated = 0
    for name in names[:-1]:
        parts = stopped_at(tmp_path / "whole", name, tmp_path / name)
        kept = read_tensors(parts / "checkpoints" / name / "replay.safetensors")
        repeated += sum(bool((~t.isnan()).any()) for n, t in kept.items() if "executed" in n)
        execute(recipe, parts, resume=True, notes=notes)
        assert_same_end(tmp_path / "whole", parts)
    assert repeated, "some episode that went on had been taken over"
    assert not [note for note in notes if "doesn't repeat itself" in note]


def test_repeating_needs_the_digits_that_training_rounds() -> None:
    with closing(EnvPool("Filtered-v0", 1)) as pool:
        rounded = pool.spaces.to_env(pool.spaces.from_env(np.array([SAFE_HIGH])))
    assert rounded != SAFE_HIGH


def test_an_episode_is_kept_with_what_was_done_in_it() -> None:
    episode = RunningEpisode(7)
    episode.append(np.float32([0.5]), None, 1.0, 0)
    assert set(episode.tensors()) == {"actions"}
    episode.append(np.float32([-0.3]), np.array([0.1]), 2.0, 1)
    episode.append(np.float32([0.1]), None, 3.0, 2)
    again = RunningEpisode.restored(episode.state(), episode.tensors())
    assert (again.rewards, again.slots, again.executed) == ([1, 2, 3], [0, 1, 2], {1: [0.1]})
    assert_array_equal(np.stack(again.actions), np.stack(episode.actions))


@pytest.mark.parametrize("value", [-2.4, 0.8, np.inf])
def test_a_checkpoint_with_actions_that_nobody_can_have_done_is_refused(
    value: float, probe: str, tmp_path: Path
) -> None:
    execute(recipe_for((0,), env_steps=4), tmp_path)
    assert "replay/running.0.executed" in last_tensors(tmp_path)
    for name in states(tmp_path):
        path = tmp_path / "checkpoints" / name / "replay.safetensors"
        tensors = read_tensors(path)
        for key in tensors:
            if key.endswith("executed"):
                tensors[key] = torch.full_like(tensors[key], value)
        path.write_bytes(tensor_bytes(tensors))
    with pytest.raises(DataError, match=r"executed' has actions outside of the action space"):
        load_newest(tmp_path, lambda _: None)


# -- data


def test_collected_data_hold_what_was_done() -> None:
    def act(obs: Array, episode: Array) -> Array:
        return np.sin(17 * obs[:, :1]).astype(np.float32)

    kept = np.concatenate([e.actions for e in collect("Filtered-v0", act, 40, lambda n: n)])
    asked = np.concatenate([e.actions for e in collect("Bounded-v0", act, 40, lambda n: n)])
    assert kept.dtype == np.float32
    assert (kept.min(), kept.max()) == (SAFE_LOW, SAFE_HIGH)
    assert asked.min() < SAFE_LOW
    assert asked.max() > SAFE_HIGH
