"""What messages about environments advise is done here to the letter, and helps."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from baq_cli.untrusted import TRUST_VARIABLE
from support import counting_envs
from support.advice import Terminal, follows, quoted
from support.commands import ENV, LOG, log, pretrain, scratch
from support.counting_envs import COUNTING, Counting
from support.policies import PENDULUM, write_policy
from support.small_data import write_counting

__all__ = ["log"]
assert counting_envs
OTHER = "me/other-v0"
FOUR = {"env_args": {}, "max_episode_steps": 4}
SHORT = ["--max-episode-steps", "3", "--episodes", "2"]


@pytest.fixture(autouse=True)
def _trusting_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `--trust-env` sets in this process is undone at a test's end."""
    monkeypatch.setenv(TRUST_VARIABLE, "0")


@pytest.fixture
def register() -> Iterator[Callable[..., str]]:
    """Register what makes an environment, with a limit of four steps; return its id."""
    name = "Advised-v0"

    def registered(entry: Any, limit: int | None = 4) -> str:
        gym.registry.pop(name, None)
        gym.register(name, entry, max_episode_steps=limit, disable_env_checker=True)
        return name

    yield registered
    gym.registry.pop(name, None)


def policy(folder: Path, env_id: str = "Counting-v0", **said: Any) -> Path:
    """Write a policy for environments like `Counting-v0`, with a limit unless others are said."""
    file = folder / "policy.safetensors"
    return write_policy(file, "bc", spaces=COUNTING, env_id=env_id, said=said or FOUR)


@pytest.fixture
def evaluate(tmp_path: Path) -> list[str]:
    """The words of an evaluation in `Counting-v0`, four steps an episode."""
    return ["eval", "--checkpoint", str(policy(tmp_path)), "--episodes", "1"]


def score(env: str) -> list[str]:
    return ["data", "score-reference", env, *SHORT]


# -- which environment


@follows("Check the id (it is case-sensitive), or install the package that registers it (pip inst")
def test_an_unknown_environment_is_named_in_each_of_the_ways_that_are_said(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "case-sensitive" in terminal.told(*score("counting-v0"), status=4)
    terminal.done(*score("Counting-v0"))
    words = ["eval", "--checkpoint", str(policy(tmp_path, "Robot-v0")), "--episodes", "1"]
    assert "'--env ID' names another" in terminal.told(*words, status=4)
    terminal.done(*words, "--env", "Counting-v0", "--max-episode-steps", "3")
    (tmp_path / "an_own_robot.py").write_text(
        "import gymnasium as gym\ngym.register('Own-robot-v0', 'support.counting_envs:Counting')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "MODULE:ID with --trust-env" in terminal.told(*score("Own-robot-v0"), status=4)
    terminal.done(*score("an_own_robot:Own-robot-v0"), "--trust-env")
    gym.registry.pop("Own-robot-v0")


def test_robotics_brings_the_environments_that_the_message_says(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = score("PointMaze_UMaze-v3")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "gymnasium_robotics", None)  # as where it isn't installed
        patch.delitem(gym.registry, "PointMaze_UMaze-v3", raising=False)
        said = terminal.told(*words, status=4)
    assert "pip install 'baq-cli[robotics]' for PointMaze" in said
    terminal.done(*words)


@follows("Install that package (pip install 'baq-cli[box2d]' for LunarLander and BipedalWalker),")
def test_a_package_that_an_environment_needs_is_installed_or_another_is_named(
    terminal: Terminal,
    register: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def needing(**given: Any) -> Any:
        if "a_simulator" not in sys.modules:
            raise gym.error.DependencyNotInstalled("a_simulator is not installed")
        return Counting(**given)

    words = ["eval", "--checkpoint", str(policy(tmp_path, register(needing))), "--episodes", "1"]
    said = terminal.told(*words, status=4)
    assert "a_simulator is not installed. Install that package" in said
    terminal.done(*words, "--env", "Fast-v0")
    monkeypatch.setitem(sys.modules, "a_simulator", ModuleType("a_simulator"))
    terminal.done(*words)


@follows("the environment '{}'{} is refused: making it imports the module '{}', and so runs what")
def test_a_module_that_is_trusted_is_imported(terminal: Terminal, evaluate: list[str]) -> None:
    evaluate += ["--env", "support.counting_envs:Counting-v0", "--max-episode-steps", "3"]
    assert "add --trust-env" in terminal.told(*evaluate, status=4)
    terminal.done(*evaluate, "--trust-env")


@follows("{}: give one with --env ID", "{}, so no episode will be played (--env ID names one)")
def test_a_dataset_without_an_environment_is_given_one(terminal: Terminal, tmp_path: Path) -> None:
    write_counting(OTHER)
    words = [OTHER if word == LOG else word for word in pretrain("bc", tmp_path / "run")]
    words += ["--max-episode-steps", "3"]
    assert "names no environment" in terminal.told(*words, status=4)
    terminal.done(*words, "--env", "Counting-v0")
    words = [OTHER if word == LOG else word for word in pretrain("bc", tmp_path / "alone")]
    words += ["evaluation.estimate_updates=2"]
    assert "no episode will be played (--env ID" in terminal.done(*words)
    words[words.index(str(tmp_path / "alone"))] = str(tmp_path / "named")
    assert "no episode" not in terminal.done(
        *words, "--env", "Counting-v0", "--max-episode-steps", "3"
    )


@follows("{} has {} {}, but {} has {}. Choose an environment with the same spaces, or another da")
def test_spaces_are_made_the_same_by_either_side(
    terminal: Terminal, log: str, evaluate: list[str], tmp_path: Path
) -> None:
    assert "another dataset or checkpoint" in terminal.told(*evaluate, "--env", ENV, status=4)
    terminal.done(*evaluate, "--env", "Fast-v0")
    file = write_policy(tmp_path / "b.safetensors", "bc", spaces=PENDULUM, env_id="Robot-v0")
    terminal.done("eval", "--checkpoint", file, "--env", ENV, "--episodes", "1")

    words = [*pretrain("bc", tmp_path / "run"), "--env", "Fast-v0"]
    assert "another dataset or checkpoint" in terminal.told(*words, status=4)
    write_counting(OTHER)
    terminal.done(*(OTHER if word == LOG else word for word in words))
    terminal.done(*pretrain("bc", tmp_path / "same"), "--env", ENV)


@follows("cannot resume {}: its environment is another one now ({}; {}). Bring back the one it w")
def test_a_run_is_resumed_in_its_environment_or_begun_elsewhere(
    terminal: Terminal, short_env: str, tmp_path: Path
) -> None:
    def words(name: str) -> list[str]:
        return scratch(tmp_path / name, "--env", ENV, "--algo", "sac", "env_workers=false")

    terminal.done(*words("run"))
    begun = gym.registry[ENV]
    gym.registry[ENV] = replace(begun, max_episode_steps=4)
    said = terminal.told(*words("run"), "--resume")
    assert "max_episode_steps was 3, it is 4 now" in said
    terminal.done(*words("other"), "--resume")
    gym.registry[ENV] = begun
    terminal.done(*words("run"), "--resume")


# -- its arguments and limits


@follows("the environment '{}' can't be made without its argument '{}': give it with --env-arg {")
def test_a_missing_argument_is_given(terminal: Terminal) -> None:
    said = terminal.told(*score("Needy-v0"), status=4)
    (name,) = re.findall(r"--env-arg (\w+)=VALUE", said)
    terminal.done(*score("Needy-v0"), "--env-arg", f"{name}=3")


@follows("the environment '{}' has no argument '{}'{}: leave it out, or name another environment")
def test_an_argument_that_there_is_not_is_left_out_or_another_environment_s(
    terminal: Terminal, evaluate: list[str]
) -> None:
    said = terminal.told(*evaluate, "--env-arg", "sped=3", status=4)
    (nearest,) = re.findall(r"did you mean '(\w+)'", said)
    terminal.done(*evaluate)
    terminal.done(*evaluate, "--env-arg", f"{nearest}=3")
    terminal.done(*evaluate, "--env", "Fast-v0", "--env-arg", "speed=3")


@follows("'{}' says no limit of its episodes: {} cut after {} env_steps{} (--max-episode-steps N")
def test_a_limit_that_is_given_is_kept(terminal: Terminal, tmp_path: Path) -> None:
    file = policy(tmp_path, env_args={}, max_episode_steps=None)
    words = ["eval", "--checkpoint", str(file), "--episodes", "1"]
    assert "--max-episode-steps N sets another" in terminal.done(*words)
    status, out, said = terminal.run(*words, "--max-episode-steps", "3", "--json")
    assert (status, json.loads(out)["return_mean"], "no limit" in said) == (0, 3.0, False)


class Calm(Counting):
    """Rewards an action by how near it is to the one before, times the factors it is told."""

    def __init__(self, factors: Any = (1.0,), render_mode: str | None = None):
        super().__init__(render_mode=render_mode)
        self.factors, self.before = factors, 0.0

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        obs, _, *rest = super().step(action)
        change, self.before = abs(float(action[0]) - self.before), float(action[0])
        return obs, -change * float(np.prod(self.factors)), *rest


@follows("'{}' is a word in YAML: write the number as {}", "cannot read --env-arg {}: {}")
def test_a_number_is_written_as_the_message_says(
    terminal: Terminal, register: Callable[..., str]
) -> None:
    words = [*score(register(Calm)), "--env-arg"]
    said = terminal.told(*words, "factors=[.5, 1e-1]")
    (number,) = re.findall(r"write the number as (\S+)", said)
    terminal.done(*words, f"factors=[.5, {number}]")


@follows("the references stored with '{}' were measured in {}, and this is {}: leave --reference")
def test_references_are_left_out_or_measured_in_the_environment_at_hand(
    terminal: Terminal, register: Callable[..., str], tmp_path: Path
) -> None:
    name = register(f"{Calm.__module__}:{Calm.__name__}")  # a dataset can keep that
    write_counting(OTHER, env_spec=gym.spec(name))
    file = str(policy(tmp_path, name, env_args={}, max_episode_steps=None))
    stored = ["--dataset", OTHER, "--checkpoint", file, "--episodes", "2"]
    terminal.done("data", "score-reference", name, *stored)
    words = ["eval", "--checkpoint", file, "--episodes", "1", "--max-episode-steps", "3"]
    said = terminal.told(*words, "--reference", OTHER)
    terminal.done(*words)
    command = [*quoted(said, "baq data score-reference"), name, "--max-episode-steps", "3"]
    terminal.done(*command, *stored)
    terminal.done(*words, "--reference", OTHER)


# -- its spaces


@follows("the action space {} has a dimension whose bounds are equal: there is nothing to choose")
def test_a_dimension_without_a_choice_is_removed_by_a_wrapper(
    terminal: Terminal, register: Callable[..., str]
) -> None:
    both = gym.spaces.Box(np.float32([-1, 0.5]), np.float32([1, 0.5]))

    class Fixed(Counting):
        action_space = both

        def step(self, action: Any) -> Any:
            assert both.contains(action)
            return super().step(action)

    class Free(gym.ActionWrapper[Any, Any, Any]):
        action_space = gym.spaces.Box(-1, 1, (1,))

        def action(self, action: Any) -> Any:
            return np.float32([action[0], 0.5])

    assert "gymnasium.ActionWrapper" in terminal.told(*score(register(Fixed)), status=3)
    terminal.done(*score(register(lambda: Free(Fixed()))))


@follows("observations with the part '{}' are not supported: '/' separates the names of nested p")
def test_a_part_of_observations_gets_another_name(
    terminal: Terminal, register: Callable[..., str]
) -> None:
    def named(part: str) -> Any:
        space = gym.spaces.Dict({part: Counting.observation_space})
        return gym.wrappers.TransformObservation(Counting(), lambda obs: {part: obs}, space)

    assert "Rename it" in terminal.told(*score(register(lambda: named("arm/joint"))), status=3)
    terminal.done(*score(register(lambda: named("arm_joint"))))


@follows(
    "the bounds of action {}, {} and {}, have no {} number between them: give the action space w",
    "an exported file computes in float32, and {}, or use baq_cli.load_policy",
    "an exported file computes in float32, and the action bounds are beyond its range: use baq_c",
)
@pytest.mark.parametrize(
    ("high", "mended", "status"), [(0.1 + 1e-12, 0.1 + 1e-6, 3), (1e40, 1.0, 2)]
)
def test_bounds_that_float32_lacks_are_acted_in_by_python_or_made_other_ones(
    terminal: Terminal, high: float, mended: float, status: int, tmp_path: Path
) -> None:
    from baq_cli import load_policy
    from baq_cli.envs.spaces import Spaces

    def written(high: float) -> str:
        space = gym.spaces.Box(0.1, high, (1,), np.float64)
        spaces = Spaces.of(Counting.observation_space, space)
        return str(write_policy(tmp_path / "a.safetensors", "bc", spaces=spaces))

    words = ["export", "--format", "torchscript", "--out", tmp_path / "a.pt", "--checkpoint"]
    said = terminal.told(*words, written(high), status=status)
    assert "use baq_cli.load_policy" in said
    assert 0.1 <= load_policy(tmp_path / "a.safetensors")(np.zeros(2)).item() <= high
    terminal.done(*words, written(mended))


# -- to be watched


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the environment say that it can be shown on a screen."""
    monkeypatch.setitem(Counting.metadata, "render_modes", ["rgb_array", "human"])


@follows(
    "--video and --render are two ways to watch: give one of them",
    "--seed says whose episodes are watched: give --video FILE or --render",
    "'baq eval' has --render and --video FILE",
)
@pytest.mark.parametrize(
    "refused",
    [["--video", "a.gif", "--render"], ["--seed", "7"], ["--env-arg", "render_mode=human"]],
)
def test_a_policy_is_watched_in_either_way(
    terminal: Terminal,
    evaluate: list[str],
    refused: list[str],
    screen: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = terminal.told(*evaluate, *refused)
    assert "--video" in said
    assert "--render" in said
    kept = refused if refused[0] == "--seed" else []
    for way in (["--video", "a.gif"], ["--render"]):
        terminal.done(*evaluate, *kept, *way)
    assert (tmp_path / "a.gif").stat().st_size > 0


@follows("{} exists: choose another --video, or remove it")
def test_another_video_is_named_or_the_old_one_removed(
    terminal: Terminal, evaluate: list[str], tmp_path: Path
) -> None:
    first, other = tmp_path / "a.gif", tmp_path / "b.gif"
    terminal.done(*evaluate, "--video", first)
    said = terminal.told(*evaluate, "--video", first)
    assert shlex.quote(str(first)) in said
    terminal.done(*evaluate, "--video", other)
    first.unlink()
    terminal.done(*evaluate, "--video", first)
