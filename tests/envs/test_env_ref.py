"""How an environment is named, and what it then is: arguments and limits decide its episodes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.cli.options import environment, environment_arguments
from baq_cli.engine.evaluation.evaluator import Evaluator
from baq_cli.envs.limits import DEFAULT_LIMIT, with_limit
from baq_cli.envs.making import as_registered, make_env
from baq_cli.envs.pool import EnvPool, seconds_a_step
from baq_cli.envs.ref import EnvChoice, EnvRef, check_inherited
from baq_cli.errors import EnvironmentMismatch, UsageError
from baq_cli.untrusted import TRUST_VARIABLE
from support import counting_envs
from support.advice import follows
from support.counting_envs import Counting

assert counting_envs
NAMES = st.sampled_from(["g", "speed", "maze_map", "reward_type", "a1"])
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(max_size=8).filter(lambda word: "e" not in word.lower()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("k"), inner),
    max_leaves=5,
)
REFS = st.builds(
    EnvRef.of,
    st.sampled_from(["Pendulum-v1", "a/Robot-v0", "my_robot:Robot-v0"]),
    st.dictionaries(NAMES, PLAIN, max_size=3),
    st.none() | st.integers(1, 10**6),
)


# -- the value


def test_its_text_names_what_is_not_as_it_is_registered() -> None:
    maze = EnvRef.of("PointMaze_UMaze-v3", {"continuing_task": False}, 300)
    assert str(maze) == "PointMaze_UMaze-v3(continuing_task=False, max_episode_steps=300)"
    assert str(EnvRef("Pendulum-v1")) == "Pendulum-v1"
    assert len(str(EnvRef.of("A-v0", {f"a{i}": "x" * 500 for i in range(9)}))) < 250


def test_the_same_settings_are_the_same_environment_in_any_order() -> None:
    one, other = EnvRef.of("A-v0", {"a": 1, "b": [2]}), EnvRef.of("A-v0", {"b": [2], "a": 1})
    assert one == other
    assert len({one, other, EnvRef.of("A-v0", {"a": 1, "b": [3]}), EnvRef("A-v0")}) == 3


@given(REFS)
def test_a_document_and_a_command_name_the_same_environment(env: EnvRef) -> None:
    assert EnvRef.of_document(json.loads(json.dumps(env.document()))) == env
    words = shlex.split(env.flags())
    found: dict[str, list[str]] = {}
    for name, value in zip(words[::2], words[1::2], strict=True):
        found.setdefault(name, []).append(value)
    limit = found.get("--max-episode-steps", [None])[0]
    asked = environment(found["--env"][0], found.get("--env-arg"), limit and int(limit))
    assert asked.over(None) == env


def test_a_document_of_before_names_the_environment_as_it_is_registered() -> None:
    assert EnvRef.of_document({"env_id": "Pendulum-v1"}) == EnvRef("Pendulum-v1")


def test_an_id_names_anew_and_without_one_the_known_environment_is_changed() -> None:
    known = EnvRef.of("A-v0", {"a": 1, "b": 2}, 9)
    assert EnvChoice().over(known) == known
    assert EnvChoice(args={"b": 3}).over(known) == EnvRef.of("A-v0", {"a": 1, "b": 3}, 9)
    assert EnvChoice(max_episode_steps=4).over(known) == EnvRef.of("A-v0", {"a": 1, "b": 2}, 4)
    assert EnvChoice("A-v0", {"c": 1}).over(known) == EnvRef.of("A-v0", {"c": 1})
    assert EnvChoice(args={"b": 3}).over(None) is None


def test_what_the_registration_says_anyway_is_left_out() -> None:
    assert as_registered(EnvRef.of("Fast-v0", {"speed": 2.0}, 6)) == EnvRef("Fast-v0")
    other = EnvRef.of("Fast-v0", {"speed": 3.0, "ends_at": 2}, 7)
    assert as_registered(other) == other
    assert as_registered(EnvRef("unheard-of:Robot-v0")) == EnvRef("unheard-of:Robot-v0")


# -- words of a command


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("g=9.8", 9.8),
        ("g=1e-3", 0.001),
        ("g=-2E+2", -200.0),
        ("g=[0.7, .inf]", [0.7, float("inf")]),
        ("g=Infinity", float("inf")),
        ("g=[1, 2e-1]", [1, 0.2]),
        ("g=true", True),
        ("g=null", None),
        ("g=dense", "dense"),
        ('g="5"', "5"),
        ("g={a: 1}", {"a": 1}),
        ("g=a=b", "a=b"),
        ("g=", None),
    ],
)
def test_a_value_is_read_as_a_person_means_it(text: str, value: Any) -> None:
    found = environment_arguments([text])
    assert found == {"g": value}
    assert type(found["g"]) is type(value)


@follows("cannot read --env-arg {}: {}", "'{}' is a word in YAML: write the number as {}")
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("g", "expected KEY=VALUE"),
        ("=1", "can't be the name of an argument"),
        ("a b=1", "can't be the name of an argument"),
        ("max_episode_steps=3", "--max-episode-steps N"),
        ("render_mode=human", "--render"),
        ("id=A-v0", "--env ID"),
        ("g={a: 1e-3}", "write the number as 0.001"),
        ("g=2026-01-01", "date"),
    ],
)
def test_a_word_that_is_no_argument_is_refused_with_what_to_do(word: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        environment_arguments([word])
    assert environment_arguments(["g=1", "h={a: 0.001}"]) == {"g": 1, "h": {"a": 0.001}}


# -- made with arguments


def played(pool: EnvPool, most: int = 2000) -> tuple[float, int, bool]:
    """Play one episode of actions of zero; return its return, length, and whether terminated."""
    pool.reset([0])
    total = 0.0
    for step in range(1, most + 1):
        _, reward, terminated, truncated = pool.step(np.zeros((1, 1), dtype=np.float32))
        total += float(reward[0])
        if terminated[0] or truncated[0]:
            assert terminated[0] != truncated[0]
            return total, step, bool(terminated[0])
    raise AssertionError("the episode has no end")


def test_gravity_is_what_it_was_said_to_be() -> None:
    """Without gravity and torque a pendulum keeps its angular velocity."""
    with closing(EnvPool(EnvRef.of("Pendulum-v1", {"g": 0.0}), 1)) as pool:
        first = pool.reset([3])
        obs, *_ = pool.step(np.zeros((1, 1), dtype=np.float32))
        assert obs[0, 2] == pytest.approx(first[0, 2], abs=1e-6)
    with closing(EnvPool("Pendulum-v1", 1)) as pool:
        assert np.array_equal(pool.reset([3]), first)
        obs, *_ = pool.step(np.zeros((1, 1), dtype=np.float32))
        assert abs(obs[0, 2] - first[0, 2]) > 0.1


@pytest.mark.parametrize("workers", [False, True])
def test_every_way_of_stepping_is_given_the_same_environment(
    workers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    env = EnvRef.of("support.counting_envs:Counting-v0", {"speed": 2.5}, 3)
    with closing(EnvPool(env, 1, workers)) as pool:
        assert played(pool) == (7.5, 3, False)
        with closing(pool.again()) as another:
            assert played(another) == (7.5, 3, False)


@follows("has no argument '{}'{}: leave it out, or name another environment with --env ID")
def test_an_unknown_argument_is_named_with_the_nearest() -> None:
    with pytest.raises(EnvironmentMismatch, match=r"no argument 'sped' \(did you mean 'speed'"):
        make_env(EnvRef.of("Fast-v0", {"sped": 3.0}))
    with pytest.raises(EnvironmentMismatch, match="'Hopper-v5' has no argument 'gravity'"):
        make_env(EnvRef.of("Hopper-v5", {"gravity": 3.0}))
    for mended in (EnvRef("Fast-v0"), EnvRef.of("Counting-v0", {"speed": 3.0})):
        make_env(mended).close()


@follows("can't be made without its argument '{}': give it with --env-arg {}=VALUE")
def test_a_missing_argument_is_named_and_giving_it_mends_that() -> None:
    with pytest.raises(EnvironmentMismatch, match="--env-arg size=VALUE"):
        make_env("Needy-v0")
    assert make_env(EnvRef.of("Needy-v0", {"size": 3})).unwrapped.size == 3  # type: ignore[attr-defined]


# -- limits


@pytest.fixture
def own_end() -> Iterator[None]:
    gym.register("Ending-v0", Counting, kwargs={"ends_at": 7})
    yield
    gym.registry.pop("Ending-v0")


@pytest.mark.parametrize(
    ("env", "end"),
    [
        (EnvRef("Counting-v0"), (DEFAULT_LIMIT * 1.0, DEFAULT_LIMIT, False)),
        (EnvRef("Counting-v0", max_episode_steps=5), (5.0, 5, False)),
        (EnvRef("Fast-v0"), (12.0, 6, False)),
        (EnvRef("Fast-v0", max_episode_steps=9), (18.0, 9, False)),
        (EnvRef("Wrapped-v0"), (4.0, 4, False)),
        (EnvRef("Wrapped-v0", max_episode_steps=3), (3.0, 3, False)),
        (EnvRef.of("Counting-v0", {"ends_at": 7}), (7.0, 7, True)),
        (EnvRef("Ending-v0", max_episode_steps=5), (5.0, 5, False)),
    ],
)
def test_every_episode_ends_and_a_limit_truncates(
    env: EnvRef, end: tuple[float, int, bool], own_end: None
) -> None:
    with closing(EnvPool(env, 1)) as pool:
        assert played(pool) == end


@follows("says no limit of its episodes: {} cut after {} env_steps{} (--max-episode-steps N sets")
@pytest.mark.parametrize(
    ("env", "logged", "limit", "words"),
    [
        (EnvRef("Counting-v0"), None, DEFAULT_LIMIT, "don't end by themselves"),
        (EnvRef("Counting-v0"), 50, 50, "as the longest one of the data was"),
        (EnvRef("Counting-v0", max_episode_steps=5), 50, 5, None),
        (EnvRef("Fast-v0"), 50, None, None),
        (EnvRef("Wrapped-v0"), 50, None, None),
    ],
)
def test_a_limit_that_was_chosen_is_said(
    env: EnvRef, logged: int | None, limit: int | None, words: str | None
) -> None:
    with closing(make_env(env)) as made:
        found, said = with_limit(env, made, logged)
    assert (found.id, found.max_episode_steps) == (env.id, limit)
    assert (said is None) == (words is None)
    if said is not None and words is not None:
        assert words in said
        assert "--max-episode-steps N" in said


def test_an_evaluation_of_an_endless_environment_ends() -> None:
    with closing(Evaluator(EnvRef.of("Counting-v0", {"speed": 0.5}, 8), (0, 1), 3)) as evaluator:
        returns, lengths = evaluator.play(lambda obs, _: np.zeros((len(obs), 1)), 0)
    assert returns.tolist() == [[4.0] * 3] * 2
    assert (lengths == 8).all()
    assert seconds_a_step("Counting-v0") < 1


# -- arguments that come from a file

PLAIN_VALUES = [0, -1.5, True, None, "dense", "", "v1.5", [1, [2.0, "r"]], {"a": {"b": 1}}]
ODD_VALUES = ["/etc/passwd", "a/b", "..", "a\\b", "robot.xml", "evil:Robot", "x" * 101, "a\nb"]
ODD_VALUES += [["robot.xml"], {"k": ["../x"]}, {"../k": 1}]


@pytest.mark.parametrize("value", PLAIN_VALUES)
def test_plain_values_of_a_file_are_taken(value: Any) -> None:
    check_inherited(EnvRef.of("A-v0", {"a": value}), "the dataset 'd'")


@pytest.mark.parametrize("value", ODD_VALUES)
def test_a_file_names_no_other_file_and_no_module(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = EnvRef.of("A-v0", {"b": 1, "a": value})
    with pytest.raises(EnvironmentMismatch, match="the dataset 'd' names, is refused") as refused:
        check_inherited(env, "the dataset 'd'")
    assert env.flags() in str(refused.value)
    assert "--trust-env" in str(refused.value)
    check_inherited(env, "the dataset 'd'", given={"a": value})  # what the user gave is theirs
    with pytest.raises(EnvironmentMismatch):
        check_inherited(env, "the dataset 'd'", given={"a": "another"})
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    check_inherited(env, "the dataset 'd'")
