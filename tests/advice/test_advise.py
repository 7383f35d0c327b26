"""`baq advise`, end to end: on data alone, on a policy beside them, played or estimated."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from baq_cli.advice import evidence, pretraining
from baq_cli.advice.evidence import Question, gather
from baq_cli.advice.terminal import SHOWN
from baq_cli.bench.cost import Cost
from baq_cli.data.minari.read import load_episodes
from baq_cli.data.suite import Uniform
from baq_cli.engine.checkpoints.folder import load_agent_file
from baq_cli.engine.collection.datasets import collect_dataset
from baq_cli.engine.estimation.estimate import discounted_returns
from baq_cli.envs.ref import EnvChoice
from support.advice import Terminal, follows
from support.logs import listing
from support.recordings import own_folders
from support.runs import execute, recipe_of

LOG, ENV, RUN = "me/short/log-v0", "Short-v0", "runs/iql"
SMALL = [
    *("threads=1", "evaluation.episodes=1", "evaluation.background=false"),
    *("shared.hidden=[8,8]", "shared.batch_size=8"),
]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset of forty episodes, and an IQL of two seeds that was trained on it."""
    place = tmp_path_factory.mktemp("template") / "whole"
    gym.register(ENV, "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=3)
    with own_folders() as folder:
        collect_dataset(LOG, [Uniform()], EnvChoice(ENV), 120, 0, False, lambda event: None)
        execute(recipe_of("iql", {}, dataset=LOG, gradient_steps=4), folder / RUN)
        shutil.copytree(folder, place)
    gym.registry.pop(ENV)
    return place


@pytest.fixture
def log(short_env: str, template: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The dataset, in a folder to work in that holds the run too."""
    shutil.copytree(template, folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    return LOG


@pytest.fixture
def run(log: str) -> str:
    """The run."""
    return RUN


def advised(baq_here: Run, *words: str) -> dict[str, Any]:
    status, out, said = baq_here("advise", *words, "--json")
    assert status == 0, said
    found: dict[str, Any] = json.loads(out)
    return found


def test_advice_rests_on_what_eval_and_the_data_say(
    baq_here: Run, terminal: Terminal, log: str, run: str, folder: Path
) -> None:
    before = listing(folder / "minari"), listing(folder / "runs")
    found = advised(baq_here, "--dataset", log, "--checkpoint", run, "--episodes", "12")
    assert (listing(folder / "minari"), listing(folder / "runs")) == before  # it changes nothing
    played = json.loads(baq_here("eval", "--checkpoint", run, "--episodes", "12", "--json")[1])
    assert found["policy"]["mean"] == pytest.approx(played["return_mean"])
    assert [s["mean"] for s in found["seeds"]] == [s["return"] for s in played["seeds"]]
    shown = json.loads(baq_here("data", "show", log, "--json")[1])
    assert found["data_return"]["mean"] == pytest.approx(shown["return_mean"])
    assert found["data_return"]["episodes"] == found["data"]["episodes"] == 40
    assert found["policy"]["episodes"] == 24
    difference = found["policy"]["mean"] - found["data_return"]["mean"]
    assert found["difference"]["mean"] == pytest.approx(difference)
    # three steps of an environment without a known reference: the data's own span is the scale
    quantiles = found["data"]["return_quantiles"]
    assert found["margin"]["value"] == pytest.approx(0.05 * (quantiles["100%"] - quantiles["0%"]))
    assert found["estimated"] is False
    assert found["environment"] == f"{ENV}"
    said = terminal.done("advise", "--dataset", log, "--checkpoint", run, "--episodes", "12")
    assert (found["regime"] or "too close to tell") in said
    assert "45 of its authors' 63 cases" in " ".join(said.split())


@pytest.mark.parametrize(("margin", "stability"), [("1", "both"), ("0", None)])
def test_the_margin_decides_what_counts_as_a_difference(
    baq_here: Run, log: str, run: str, margin: str, stability: str | None
) -> None:
    words = ("--dataset", log, "--checkpoint", run, "--margin", margin)
    found = advised(baq_here, *words)
    if stability is None:
        assert found["regime"] != "comparable"
        assert found["chances"]["comparable"] == 0
    else:
        assert (found["regime"], found["stability"]) == ("comparable", stability)


def commands_of(found: dict[str, Any], *methods: str) -> list[list[str]]:
    """Return the words of the commands that are advised for some methods, made small."""
    given = {option["method"]: option["command"] for option in found["options"]}
    small = ["--env-steps", "6", "evaluation.every_env_steps=6"]
    words = [(method, shlex.split(given[method])) for method in methods]
    return [
        [*line[1:], *small, *(SMALL[:3] if "--checkpoint" in line else SMALL),
         f"{method}.warmup_env_steps=2", f"{method}.utd=1"]
        for method, line in words
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("better", "regime", "methods"),
    [("policy", "superior", ("iql", "awac")), ("data", "inferior", ("rlpd", "iql"))],
)
def test_the_better_one_is_held_on_to_by_the_commands_that_are_given(
    baq_here: Run, terminal: Terminal, log: str, run: str, better: str, regime: str,
    methods: tuple[str, ...], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Returns of the policy are moved far from the data's; the commands are given as they stand."""
    play, sign = evidence.evaluate_checkpoint, 1 if better == "policy" else -1

    def moved(*words: Any) -> Any:
        returns, *rest = play(*words)
        return returns + 1e4 * sign, *rest

    monkeypatch.setattr(evidence, "evaluate_checkpoint", moved)
    found = advised(baq_here, "--dataset", log, "--checkpoint", run)
    assert (found["regime"], found["stability"]) == (regime, better)
    assert found["dataset_in_batches"] == (better == "data")
    for option in found["options"]:
        anchors = option["anchors"]
        assert anchors["data"] == (better == "data")
        assert option["scratch"] == ("--checkpoint" not in option["command"])
    for words in commands_of(found, *methods):
        terminal.done(*words)
    text = terminal.done("advise", "--dataset", log, "--checkpoint", run)
    assert all(option["command"] in text for option in found["options"][:SHOWN])


def test_data_alone_say_what_to_pre_train_and_the_commands_lead_back_here(
    baq_here: Run, terminal: Terminal, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "costs", lambda names: {n: Cost(1.0, None) for n in names})
    found = advised(baq_here, "--dataset", log)
    mean, margin = found["data"]["return_mean"], 0.05 * found["data"]["scale"]
    assert found["superior_above"] == pytest.approx(mean + margin)
    assert found["inferior_below"] == pytest.approx(mean - margin)
    said = terminal.done("advise", "--dataset", log)
    for command in found["commands"]:
        assert command in said
    first, then = (shlex.split(command)[1:] for command in found["commands"])
    terminal.done(*first, "--gradient-steps", "4", "--seeds", "1", *SMALL)
    assert "Regime:" in terminal.done(*then)


# -- without an environment


def test_a_policy_that_may_not_play_is_estimated_and_that_is_said(
    baq_here: Run, terminal: Terminal, log: str, run: str
) -> None:
    words = ("--dataset", log, "--checkpoint", run, "--no-env", "--steps", "20")
    found = advised(baq_here, *words)
    data = discounted_returns(load_episodes(log), 0.99)
    assert found["estimated"] is True
    assert found["environment"] is None
    assert "estimated" in found["unit"]
    assert found["data_return"]["mean"] == pytest.approx(data.mean())
    assert found["margin"]["value"] == pytest.approx(0.05 * np.ptp(data))
    assert "estimate" in found["doubts"][0]
    said = terminal.done("advise", *words)
    assert "discounted raw return, estimated" in said
    assert "an estimate, by fitted Q evaluation" in " ".join(said.split())


def test_a_checkpoint_that_names_no_environment_is_estimated_unless_one_is_named(
    log: str, run: str
) -> None:
    episodes, document = load_episodes(log), load_agent_file(Path(run)).document
    nowhere, notes = document | {"env_id": None}, []
    for env, played in ((None, False), (ENV, True)):
        question = Question(log, Path(run), EnvChoice(env), 2, 0, 0.05, steps=5)
        found = gather(question, Path(run), nowhere, episodes, notes.append)
        assert (found.environment is not None) == played
        assert (found.estimated is None) == played
        assert found.policy.shape == (2, 2 if played else 40)
    (note,) = notes
    assert "made without an environment" in note.text


def test_an_environment_that_is_gone_is_done_without_but_not_one_that_was_asked_for(
    baq_here: Run, terminal: Terminal, log: str, run: str
) -> None:
    words = ("advise", "--dataset", log, "--checkpoint", run, "--steps", "20")
    spec = gym.registry.pop(ENV)
    try:
        found = advised(baq_here, *words[1:])
        assert found["estimated"] is True
        assert ENV in found["doubts"][0]
        assert ENV in terminal.told(*words, "--env", ENV, status=4)
    finally:
        gym.registry[ENV] = spec


# -- what speaks against it, and what can't be


@pytest.mark.parametrize("limit", [9, 4, 3])
def test_returns_over_other_numbers_of_steps_are_doubted(
    baq_here: Run, log: str, run: str, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """By the limit that the environment is registered with; one step less is a whole episode."""
    monkeypatch.setattr(gym.registry[ENV], "max_episode_steps", limit)
    found = advised(baq_here, "--dataset", log, "--checkpoint", run, "--episodes", "4")
    cut = [words for words in found["doubts"] if "are cut after 3 steps" in words]
    assert len(cut) == (1 if limit == 9 else 0)
    assert all("the policy's after 9:" in words for words in cut)


def test_other_data_than_the_policy_learned_from_are_named_and_given_on(
    baq_here: Run, terminal: Terminal, log: str, run: str
) -> None:
    other = "me/short/other-v0"
    words = ("--env", ENV, "--behavior", "random", "--env-steps", "24", "--seed", "5")
    terminal.done("data", "collect", other, *words)
    found = advised(baq_here, "--dataset", other, "--checkpoint", run, "--episodes", "6")
    said = " ".join(found["doubts"])
    assert f"trained on {log}" in said
    assert "6 of the policy's episodes are few" in said
    assert "8 of the data's episodes are few" in said
    assert f"--dataset {other}" in found["options"][0]["command"]


def test_a_behaviour_file_is_compared_but_no_fine_tuning_follows(
    baq_here: Run, terminal: Terminal, log: str
) -> None:
    steps = ("--gradient-steps", "2", "--seeds", "1", "--out", "runs/one")
    terminal.done("pretrain", "--algo", "awac", "--dataset", log, *steps, *SMALL)
    words = ("--checkpoint", "runs/one", "--episodes", "1")
    terminal.done("data", "behavior", "b.safetensors", *words)
    found = advised(baq_here, "--dataset", log, "--checkpoint", "b.safetensors")
    assert all(option["scratch"] for option in found["options"])
    assert "a behaviour file holds a policy alone" in found["doubts"][-1]


@follows("--no-env lets nothing play, and an environment is named: leave one out")
def test_a_policy_plays_somewhere_or_nowhere(terminal: Terminal, log: str, run: str) -> None:
    words = ("advise", "--dataset", log, "--checkpoint", run, "--steps", "5")
    assert "leave one out" in terminal.told(*words, "--no-env", "--env", ENV)
    terminal.done(*words, "--no-env")
    terminal.done(*words, "--env", ENV)


@follows("say how a policy plays: give it with --checkpoint, or leave them out")
def test_without_a_policy_nothing_plays(
    terminal: Terminal, log: str, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "costs", lambda names: {n: Cost(1.0, None) for n in names})
    words = ("advise", "--dataset", log)
    for flags in (("--env", ENV), ("--env-arg", "g=5"), ("--no-env",)):
        assert "--checkpoint" in terminal.told(*words, *flags)
    terminal.done(*words)
    terminal.done(*words, "--checkpoint", run, "--env-arg", "g=5")


def test_a_dataset_of_one_episode_is_shown_and_nothing_named(
    baq_here: Run, terminal: Terminal, log: str, run: str
) -> None:
    one = "me/short/one-v0"
    words = ("--env", ENV, "--behavior", "random", "--env-steps", "3")
    terminal.done("data", "collect", one, *words)
    found = advised(baq_here, "--dataset", one, "--checkpoint", run)
    assert found["data_return"]["std"] is None
    assert (found["regime"], found["chances"], found["more_episodes"]) == (None, None, None)
    said = terminal.done("advise", "--dataset", one, "--checkpoint", run)
    assert "too close to tell" in said


def test_a_policy_of_other_spaces_is_refused(terminal: Terminal, run: str) -> None:
    gym.register("Other-v0", "gymnasium.envs.classic_control:Continuous_MountainCarEnv", 1)
    try:
        words = ("--env", "Other-v0", "--behavior", "random", "--env-steps", "20")
        terminal.done("data", "collect", "me/other/log-v0", *words)
        words = ("--dataset", "me/other/log-v0", "--checkpoint", run)
        said = terminal.told("advise", *words, status=4)
    finally:
        gym.registry.pop("Other-v0")
    assert "obs_dim" in said
    assert "me/other/log-v0" in said


def test_a_dataset_or_a_checkpoint_that_is_not_there_is_named(terminal: Terminal, log: str) -> None:
    assert "me/no/data-v0" in terminal.told("advise", "--dataset", "me/no/data-v0", status=3)
    said = terminal.told("advise", "--dataset", log, "--checkpoint", "runs/none", status=3)
    assert "runs/none" in said
