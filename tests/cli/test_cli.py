"""What the command line promises before any training: speed, statuses, messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
import typer
from minari.data_collector import EpisodeBuffer

from baq_cli.cli.main import app
from baq_cli.cli.options import MOST_EPISODES, MOST_STEPS, parse_seeds, tell_idle
from baq_cli.errors import ExitStatus, UsageError
from baq_cli.recipes.schema import RunConfig
from baq_cli.untrusted import TRUST_VARIABLE, trusted
from support.cli import SMALL, baq, baq_json


def test_help_does_not_import_torch_or_other_heavy_packages() -> None:
    code = (
        "import sys\n"
        "from baq_cli.cli import main\n"
        "sys.argv = ['baq', '--help']\n"
        "try:\n    main.main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'numpy', 'gymnasium', 'minari', 'matplotlib', 'pydantic', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"
    assert "finetune" in done.stdout


def every_group(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, inside in getattr(command, "commands", {}).items():
        yield from every_group(inside, (*path, name))
    if hasattr(command, "commands"):
        yield path, command


@pytest.mark.parametrize("width", ["80", "60"])
def test_a_groups_help_says_what_each_command_does_in_whole_sentences(
    width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    groups = list(every_group(typer.main.get_command(app)))
    assert len(groups) > 5
    for path, group in groups:
        shown = group.get_help(group.make_context("baq", [], resilient_parsing=True))
        assert max(map(len, shown.splitlines())) <= int(width)
        said = "".join(shown.split())
        for command in group.commands.values():
            assert "".join(command.help.partition("\n\n")[0].split()) in said, path


def test_a_word_that_sets_a_key_of_another_method_is_said_to_change_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell_idle("iql", ["iql.beta=3", "evaluation.episodes=2", "shared.utd=1", "seeds=[1]"])
    assert capsys.readouterr().err == ""
    tell_idle("iql", ["awac.temperature=1", "iql.beta=3", "baq.base=awac"])
    said = "awac.temperature, baq.base change nothing: this run trains iql"
    assert said in capsys.readouterr().err


def test_one_who_means_seed_0_is_told_how_to_say_so() -> None:
    with pytest.raises(UsageError, match=r"seed 0 alone is --seeds 0,$"):
        parse_seeds("0")
    assert parse_seeds("0,") == [0]


@pytest.mark.parametrize("words", ["eval --checkpoint run --episodes", "advise --episodes"])
def test_no_command_plays_more_episodes_than_a_recipe_may(
    words: str, baq_here: Callable[..., tuple[int, str, str]]
) -> None:
    RunConfig(algo="iql", evaluation={"episodes": MOST_EPISODES})
    with pytest.raises(ValueError, match="episodes"):
        RunConfig(algo="iql", evaluation={"episodes": MOST_EPISODES + 1})
    status, _, said = baq_here(*words.split(), str(MOST_EPISODES + 1))
    assert status == 2
    assert "Invalid value for '--episodes'" in said


@pytest.mark.parametrize(
    "words",
    [
        "eval --checkpoint run --max-episode-steps",
        "data collect me/a-v0 --behavior random --env Pendulum-v1 --env-steps",
        "ope --checkpoint run --dataset me/a-v0 --steps",
        "advise --dataset me/a-v0 --checkpoint run --steps",
    ],
)
def test_no_command_makes_more_steps_than_a_recipe_may(
    words: str, baq_here: Callable[..., tuple[int, str, str]]
) -> None:
    RunConfig(algo="iql", env_steps=MOST_STEPS)
    with pytest.raises(ValueError, match="env_steps"):
        RunConfig(algo="iql", env_steps=MOST_STEPS + 1)
    status, _, said = baq_here(*words.split(), str(MOST_STEPS + 1))
    assert status == 2
    assert f"Invalid value for '{words.split()[-1]}'" in said


def test_seeds_are_a_count_or_a_list() -> None:
    assert parse_seeds("3") == [0, 1, 2]
    assert parse_seeds("4,7") == [4, 7]
    assert parse_seeds("4,") == [4]
    for wrong in ("0", "x", "1.5", "-2"):
        with pytest.raises(UsageError, match="expected"):
            parse_seeds(wrong)


@pytest.fixture(scope="module")
def odd_datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Minari folder with datasets that can't be trained on."""
    folder = tmp_path_factory.mktemp("odd")
    patch = pytest.MonkeyPatch()
    patch.setenv("MINARI_DATASETS_PATH", str(folder))
    spaces = {
        "discrete": (gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2)),
        "image": (gym.spaces.Box(0, 255, (8, 8, 3), np.uint8), gym.spaces.Box(-1, 1, (1,))),
        "other": (gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-1, 1, (2,))),
    }
    for name, (observation_space, action_space) in spaces.items():
        buffer = EpisodeBuffer(
            observations=np.stack([observation_space.sample() for _ in range(4)]),
            actions=np.stack([action_space.sample() for _ in range(3)]),
            rewards=[0.0, 0.0, 1.0],
            terminations=[False, False, True],
            truncations=[False, False, False],
        )
        minari.create_dataset_from_buffers(
            f"odd/{name}-v0",
            [buffer],
            observation_space=observation_space,
            action_space=action_space,
        )
    patch.undo()
    return folder


PRETRAIN = ("pretrain", "--algo", "iql", "--gradient-steps", "2")
MISTAKES = {
    "unknown algorithm": (
        ("pretrain", "--dataset", "baq/pendulum/replay-v0", "--algo", "iqk"),
        ExitStatus.USAGE,
        "did you mean 'iql'?",
    ),
    "unknown recipe key": (
        (*PRETRAIN, "--dataset", "odd/other-v0", "iql.expectil=0.8"),
        ExitStatus.USAGE,
        "did you mean 'expectile'?",
    ),
    "value out of range": (
        (*PRETRAIN, "--dataset", "odd/other-v0", "iql.expectile=1.5"),
        ExitStatus.USAGE,
        "less than 1",
    ),
    "unknown recipe": (
        (*PRETRAIN, "--recipe", "pendulum/iqll"),
        ExitStatus.USAGE,
        "did you mean 'pendulum/iql'",
    ),
    "no dataset": (PRETRAIN, ExitStatus.USAGE, "--dataset"),
    "a method that learns online only": (
        ("pretrain", "--algo", "sac", "--dataset", "odd/other-v0"),
        ExitStatus.USAGE,
        "baq finetune --env",
    ),
    "unknown dataset": (
        (*PRETRAIN, "--dataset", "nobody/nothing-v0"),
        ExitStatus.DATA,
        "baq data list",
    ),
    "discrete actions": (
        (*PRETRAIN, "--dataset", "odd/discrete-v0"),
        ExitStatus.DATA,
        "Discrete",
    ),
    "image observations": ((*PRETRAIN, "--dataset", "odd/image-v0"), ExitStatus.DATA, "images"),
    "environment that doesn't fit": (
        (*PRETRAIN, "--dataset", "odd/other-v0", "--env", "Pendulum-v1"),
        ExitStatus.ENVIRONMENT,
        "action_low",
    ),
    "unknown environment": (
        (*PRETRAIN, "--dataset", "odd/other-v0", "--env", "Pendulun-v1"),
        ExitStatus.ENVIRONMENT,
        "Pendulun-v1",
    ),
    "layer without width": (
        (*PRETRAIN, "--dataset", "odd/other-v0", "iql.hidden=[0]"),
        ExitStatus.USAGE,
        "greater than 0",
    ),
    "BAQ without its pre-training": (
        ("finetune", "--env", "Pendulum-v1", "--algo", "baq"),
        ExitStatus.USAGE,
        "baq pretrain",
    ),
    "a share of nothing": (
        ("finetune", "--env", "Pendulum-v1", "--algo", "iql", "iql.online_share=0.5"),
        ExitStatus.USAGE,
        "--dataset",
    ),
    "missing checkpoint": (
        ("finetune", "--checkpoint", "nowhere"),
        ExitStatus.DATA,
        "no checkpoint at nowhere",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_its_status(
    mistake: str, odd_datasets: Path, tmp_path: Path
) -> None:
    words, status, said = MISTAKES[mistake]
    done = baq(*words, "--out", tmp_path / "run", data=odd_datasets, expect=status)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "run").exists()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    words = ("eval", "--checkpoint", tmp_path / "nowhere", "--debug")
    assert "Traceback" in baq(*words, data=tmp_path, expect=ExitStatus.DATA).stderr


def test_flags_for_every_command_may_stand_anywhere(
    baq_here: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    words = ["methods", "show", "nothing"]
    assert "Traceback" not in baq_here(*words)[2]
    assert not trusted()
    for place in range(len(words) + 1):
        status, _, said = baq_here(*words[:place], "--debug", *words[place:])
        assert (status, "Traceback" in said) == (ExitStatus.USAGE, True)
        with monkeypatch.context() as patch:
            patch.setenv(TRUST_VARIABLE, "0")
            assert baq_here(*words[:place], "--trust-env", *words[place:])[0] == ExitStatus.USAGE
            assert trusted()
    assert baq_here("--debug")[1:] == baq_here()[1:], "still no command"


def test_every_shipped_recipe_says_its_command_and_can_be_copied(tmp_path: Path) -> None:
    from baq_cli.agents.registry import METHODS
    from baq_cli.recipes.names import recipe_names
    from baq_cli.recipes.shipped import find_recipe

    names = recipe_names()
    for task in ("pendulum", "hopper"):
        assert {f"{task}/{algo}" for algo in METHODS} <= set(names)
    for name in names:
        assert find_recipe(name).read_text().startswith("# baq "), "the command that launches it"
    copied = tmp_path / "mine.yaml"
    baq("recipes", "copy", "pendulum/iql", copied, data=tmp_path)
    baq("recipes", "validate", copied, data=tmp_path)
    baq("recipes", "copy", "pendulum/iql", copied, data=tmp_path, expect=ExitStatus.USAGE)


def test_reference_datasets_are_the_same_whenever_they_are_built(tmp_path: Path) -> None:
    cards = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        cards.append(baq_json("data", "show", "baq/pendulum/medium-v0", data=folder))
    assert cards[0] == cards[1]
    assert cards[0]["env_steps"] == 20_000
    assert cards[0]["ends"]["truncated"] == cards[0]["episodes"]
    (row,) = baq_json("data", "list", data=tmp_path / "a")
    assert (row["dataset"], row["env_steps"]) == ("baq/pendulum/medium-v0", 20_000)
    suite = baq_json("data", "suite", "list", data=tmp_path / "a")
    assert [row["dataset"] for row in suite if row["state"] == "here"] == [row["dataset"]]


def test_collecting_makes_a_minari_dataset_with_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baq_cli.data.suite import SUITE

    behavior = SUITE["baq/pendulum/medium-v0"].behaviors[0].path
    words = ("data", "collect", "me/short-v0", "--behavior", behavior, "--env-steps", "450")
    baq(*words, data=tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    dataset = minari.load_dataset("me/short-v0")
    assert dataset.total_steps == 450
    assert dataset.env_spec.id == "Pendulum-v1"
    lengths = [len(episode.rewards) for episode in dataset.iterate_episodes()]
    assert lengths == [200, 200, 50]
    replayed = dataset.recover_environment()
    for episode in dataset.iterate_episodes():
        (about,) = dataset.storage.get_episode_metadata([episode.id])
        obs, _ = replayed.reset(seed=int(about["seed"]))
        np.testing.assert_array_equal(obs, episode.observations[0])
        assert episode.truncations[-1]
        assert not episode.terminations.any()
        for t, action in enumerate(episode.actions):
            obs, reward, *_ = replayed.step(action)
            np.testing.assert_array_equal(obs, episode.observations[t + 1])
            assert reward == episode.rewards[t]
    baq(*words, data=tmp_path, expect=ExitStatus.USAGE)


def test_an_environment_of_ones_own_is_named_by_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_robot.py").write_text(
        "import gymnasium as gym\n"
        "gym.register('MyRobot-v0', 'gymnasium.envs.classic_control:PendulumEnv',\n"
        "             max_episode_steps=7)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    run = tmp_path / "run"
    words = ("finetune", "--env", "my_robot:MyRobot-v0", "--algo", "sac", "--env-steps", "20")
    words = (*words, "--trust-env")
    baq(*words, "--out", run, *SMALL, "sac.warmup_env_steps=5", data=tmp_path)
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["environment"]["max_episode_steps"] == 7
    words = ("data", "collect", "me/robot-v0", "--behavior", run, "--env-steps", "20")
    baq(*words, data=tmp_path, expect=ExitStatus.ENVIRONMENT)
    baq("--trust-env", *words, data=tmp_path)
    assert baq_json("data", "show", "me/robot-v0", data=tmp_path)["episodes"] == 3


def test_a_discrete_environment_is_refused_by_name(tmp_path: Path) -> None:
    words = ("finetune", "--env", "CartPole-v1", "--algo", "sac", "--env-steps", "5")
    done = baq(*words, "--out", tmp_path / "run", *SMALL, data=tmp_path, expect=ExitStatus.DATA)
    assert "Discrete(2)" in done.stderr


def test_a_command_that_is_broken_off_says_so() -> None:
    script = """
import sys
from baq_cli.data.minari import folder
def broken_off():
    raise KeyboardInterrupt
folder.local_datasets = broken_off
sys.argv = ["baq", "data", "list"]
from baq_cli.cli.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == ExitStatus.INTERRUPTED
    assert done.stdout == ""
    assert done.stderr == "stopped at once; what was complete before is kept\n"
