"""Random and plain recordings for the tests of data, and what it means to be the same."""

from __future__ import annotations

import errno
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from hypothesis import settings
from hypothesis import strategies as st

from baq_cli.data.episodes import ARRAYS, Episodes, monte_carlo_returns
from baq_cli.data.exchange import SUFFIXES
from baq_cli.data.minari import read as minari_read
from baq_cli.data.minari.folder import dataset_path
from baq_cli.data.minari.read import load_episodes
from baq_cli.data.minari.seal import unsealed
from baq_cli.data.recording import Recording
from baq_cli.envs.spaces import observation_parts

Array = np.ndarray[Any, Any]
FORMS = sorted(SUFFIXES)
FULL = OSError(errno.ENOSPC, "No space left on device")
ID = "made/first-v0"
few = settings(max_examples=30)


@contextmanager
def own_folders() -> Iterator[Path]:
    """Give a Minari folder and a cache of one's own; yield the folder that both lie in."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari" / "datasets"))
        patch.setenv("BAQ_CACHE", str(folder / "cache"))
        (folder / "minari" / "datasets").mkdir(parents=True)
        yield folder


def unseal(dataset_id: str) -> None:
    """Leave a dataset as another tool would have saved it: without hashes of what is in it."""
    path = dataset_path(dataset_id) / "data" / "metadata.json"
    path.write_text(json.dumps(unsealed(json.loads(path.read_text()))))


def nested(parts: dict[str, Any]) -> Any:
    """Return parts by their paths as dictionaries in dictionaries; one named '' as it is."""
    if "" in parts:
        return parts[""]
    found: dict[str, Any] = {}
    for head in dict.fromkeys(path.partition("/")[0] for path in parts):
        within = {p.partition("/")[2]: a for p, a in parts.items() if p.partition("/")[0] == head}
        found[head] = nested(within)
    return found


# -- random recordings

LONE_SHAPES = st.sampled_from([(1,), (2,), (5,)])
PART_SHAPES = st.sampled_from([(), (1,), (3,), (1, 1), (2, 3)])
BOUNDS = st.sampled_from([(-np.inf, np.inf), (-5.0, 5.0), (0.0, np.inf)])
NAMES = st.sampled_from(["arm", "joints", "Z", "goal", "rewards", "0", "two words", "größe"])
FLOATS = st.sampled_from([np.float32, np.float64])
INFO_NAMES = ("success", "rewards", "deep/x", "deep/y", "deep/er/z")
INFO_TYPES = st.sampled_from(["f4", "f8", "i4", "i8", "u1", "?"])
ENDS = st.tuples(st.booleans(), st.booleans())
SEEDS = st.integers(0, 2**63 - 1) | st.integers(2**63, 2**64 - 1) | st.integers(0, 2**200)
SPEC = EnvSpec(id="nowhere/Made-v3", entry_point="nowhere.at:All")
SPECS = st.builds(
    lambda limit, kwargs: replace(SPEC, max_episode_steps=limit, kwargs=kwargs),
    st.none() | st.integers(1, 9),
    st.sampled_from([{}, {"gravity": 9.8, "mode": "fast", "deep": {"weights": [1, 2]}}]),
)
ABOUT = st.fixed_dictionaries(
    {"requirements": st.lists(st.sampled_from(["numpy>=1", "nowhere==3.1"]), max_size=2)},
    optional={
        "description": st.text(max_size=20),
        "algorithm_name": st.text(max_size=5),
        "author": st.lists(st.sampled_from(["Ada", "Alan"]), unique=True),
        "d4rl_metadata": st.just({"algorithm": "SAC", "policy/depth": 3, "rate": 0.1}),
    },
)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return numbers of many sizes, some of them awkward, in every bit of their type."""
    values = rng.normal(size=shape) * 10.0 ** rng.uniform(-4, 4, size=shape)
    awkward = rng.choice([0.0, -0.0, 1 / 3, 1e30, -1e-30, 5e-324, 1.0], size=shape)
    return np.where(rng.random(shape) < 0.2, awkward, values).astype(dtype)


def box(shape: tuple[int, ...], bounds: tuple[float, float], dtype: Any) -> gym.spaces.Box:
    return gym.spaces.Box(*bounds, shape, dtype)


def dicts(dtype: Any, depth: int) -> st.SearchStrategy[gym.spaces.Dict]:
    parts: st.SearchStrategy[Any] = st.builds(box, PART_SHAPES, BOUNDS, st.just(dtype))
    if depth:
        parts |= dicts(dtype, depth - 1)
    return st.dictionaries(NAMES, parts, min_size=1, max_size=3).map(gym.spaces.Dict)


@st.composite
def action_boxes(draw: st.DrawFn) -> gym.spaces.Box:
    dtype: Any = draw(FLOATS)
    width: Literal[32, 64] = 32 if dtype is np.float32 else 64
    low, high = [], []
    for _ in range(draw(st.integers(1, 3))):
        low.append(dtype(draw(st.floats(-1e6, 1e6, width=width))))
        wide = dtype(draw(st.floats(2.0**-10, 1e6, width=width)))
        high.append(max(low[-1] + wide, np.nextafter(low[-1], dtype(np.inf))))
    return gym.spaces.Box(np.asarray(low), np.asarray(high), dtype=dtype)


def actions_in(space: gym.spaces.Box, rng: np.random.Generator, steps: int) -> Array:
    """Return actions of which some lie on the bounds and none outside, in the box's own type."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    share = np.clip(rng.uniform(-0.2, 1.2, size=(steps, *space.shape)), 0, 1)
    return np.clip((low + share * (high - low)).astype(space.dtype), space.low, space.high)


@st.composite
def recordings(draw: st.DrawFn, flat: bool = False) -> Recording:
    """Return what any source might give: all that a recording can say, in small."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(FLOATS)
    lone = st.builds(box, LONE_SHAPES, BOUNDS, st.just(dtype))
    observation_space = draw(lone if flat else lone | dicts(dtype, 2))
    action_space = draw(action_boxes())
    lengths = np.asarray(draw(st.lists(st.integers(1, 8), min_size=1, max_size=6)))
    steps, count = int(lengths.sum()), len(lengths)
    flags = np.zeros((2, steps), dtype=np.bool_)
    flags[:, np.cumsum(lengths) - 1] = np.transpose([draw(ENDS) for _ in range(count)])
    seed = draw(st.sampled_from([st.none(), SEEDS, st.none() | SEEDS]))
    infos = {}
    for name in draw(st.lists(st.sampled_from(INFO_NAMES), unique=True)):
        rows = steps + draw(st.sampled_from([0, count]))
        shape = (rows, *draw(PART_SHAPES))
        kind = np.dtype(draw(INFO_TYPES))
        infos[name] = (
            numbers(rng, shape, kind)
            if kind.kind == "f"
            else rng.integers(0, 2 if kind.kind == "b" else 200, size=shape).astype(kind)
        )
    return Recording(
        observation_space=observation_space,
        action_space=action_space,
        observations={
            name: numbers(rng, (steps + count, *part.shape), dtype)
            for name, part in observation_parts(observation_space).items()
        },
        actions=actions_in(action_space, rng, steps),
        rewards=numbers(rng, (steps,), draw(FLOATS)),
        terminated=flags[0],
        truncated=flags[1],
        lengths=lengths,
        seeds=tuple(draw(seed) for _ in range(count)),
        infos=infos,
        env_spec=draw(st.none() | SPECS),
        eval_env_spec=draw(st.none() | SPECS),
        about=draw(ABOUT),
    )


def plain_recording(
    lengths: tuple[int, ...] = (4, 1, 3), width: int = 2, phase: int = 0, **changes: Any
) -> Recording:
    """Return a recording without surprises, for laws that aren't about its content."""
    rng = np.random.default_rng(phase)
    steps, count = sum(lengths), len(lengths)
    ends = np.zeros(steps, dtype=np.bool_)
    ends[np.cumsum(lengths) - 1] = True
    space = changes.pop("observation_space", box((width,), (-np.inf, np.inf), np.float32))
    fields: dict[str, Any] = {
        "observation_space": space,
        "action_space": box((2,), (-2.0, 2.0), np.float32),
        "observations": {
            name: rng.normal(size=(steps + count, *part.shape)).astype(part.dtype)
            for name, part in observation_parts(space).items()
        },
        "actions": rng.uniform(-1.5, 1.5, size=(steps, 2)).astype(np.float32),
        "rewards": rng.normal(size=steps),
        "terminated": ends,
        "truncated": np.zeros(steps, dtype=np.bool_),
        "lengths": np.asarray(lengths),
        "seeds": (None,) * count,
    }
    return Recording(**{**fields, **changes})


# -- what it means to be the same


def assert_same_array(found: Any, made: Any, name: str) -> None:
    assert (found.dtype, found.shape) == (made.dtype, made.shape), name
    assert found.tobytes() == made.tobytes(), name


def assert_same_space(found: gym.Space[Any], made: gym.Space[Any]) -> None:
    assert type(found) is type(made)
    assert found == made
    parts = observation_parts(made)
    assert list(observation_parts(found)) == list(parts)
    for name, part in observation_parts(found).items():
        assert_same_array(part.low, parts[name].low, f"low {name}")
        assert_same_array(part.high, parts[name].high, f"high {name}")


def spec_text(spec: EnvSpec | None) -> str | None:
    return None if spec is None else spec.to_json()


def assert_same_recording(found: Recording, made: Recording) -> None:
    """Two recordings say the same, to the bit; the metadata may have entries of Minari's own."""
    assert_same_space(found.observation_space, made.observation_space)
    assert_same_space(found.action_space, made.action_space)
    assert list(found.observations) == list(made.observations)
    assert found.infos.keys() == made.infos.keys()
    for kind in ("observations", "infos"):
        for name, part in getattr(made, kind).items():
            assert_same_array(getattr(found, kind)[name], part, f"{kind} {name}")
    for name in ("actions", "rewards", "terminated", "truncated", "lengths"):
        assert_same_array(getattr(found, name), getattr(made, name), name)
    assert found.seeds == made.seeds
    assert spec_text(found.env_spec) == spec_text(made.env_spec)
    assert spec_text(found.eval_env_spec) == spec_text(made.eval_env_spec)
    for name, entry in made.about.items():
        same = set if name == "author" else lambda value: value  # Minari keeps authors as a set
        assert same(found.about[name]) == same(entry), name


def assert_same_episodes(found: Episodes, made: Episodes) -> None:
    """Two datasets train the same, to the bit, and come from the same place.

    In which type their actions were logged is no part of it: a table of words doesn't say.
    """
    logged = replace(found.spaces, action_dtype=made.spaces.action_dtype)
    assert (found.dataset_id, logged) == (made.dataset_id, made.spaces)
    for name in (*ARRAYS, "obs", "next_obs"):
        assert_same_array(getattr(found, name), getattr(made, name), name)
    for discount in (0.5, 0.99):
        one, other = (monte_carlo_returns(e, e.reward, discount) for e in (found, made))
        assert_same_array(one, other, f"returns at {discount}")
    assert found.content_hash == made.content_hash
    assert found.origin == made.origin


def from_cache(dataset_id: str) -> Episodes:
    """Load a dataset where reading it would fail."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minari_read, "read_episodes", None)
        return load_episodes(dataset_id)


def is_read_again(dataset_id: str) -> bool:
    """Load a dataset; tell whether its own files were read for it."""
    read = []
    true_read = minari_read.read_episodes

    def noted(stored: Any) -> Any:
        read.append(stored)
        return true_read(stored)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minari_read, "read_episodes", noted)
        load_episodes(dataset_id)
    return bool(read)
