"""The reference suite: what it promises of its datasets, the maze controller, and scores."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
import pytest

from baq_cli.data.card import card
from baq_cli.data.minari_folder import open_minari
from baq_cli.data.minari_read import load_episodes
from baq_cli.data.suite import SUITE, ReferenceDataset, Trained, Uniform, Waypoints
from baq_cli.data.waypoints import WaypointController
from baq_cli.engine.checkpoint import load
from baq_cli.engine.datasets import build, check_dataset, reference
from baq_cli.engine.scoring import find_reference, measure_random, store_reference
from baq_cli.envs.pool import EnvPool
from baq_cli.envs.scores import Reference, published
from baq_cli.errors import EnvironmentMismatch, UsageError

SMALL = 450
TRAINED = [reference for reference in SUITE.values() if isinstance(reference.behaviors[0], Trained)]


def ignore(event: object) -> None:
    """Watch a build without showing it."""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))


def built(name: str, as_id: str = "made/small-v0", seed: int | None = None) -> str:
    build(SUITE[name], ignore, SMALL, seed, as_id)
    return load_episodes(as_id).content_hash


# -- the datasets


@pytest.mark.parametrize("reference", TRAINED, ids=lambda r: str(r.dataset_id))
def test_every_behaviour_was_trained_in_the_environment_of_its_dataset(
    reference: ReferenceDataset,
) -> None:
    for behavior in reference.behaviors:
        assert isinstance(behavior, Trained)
        document = load(behavior.path).document
        assert document["env_id"] == reference.env_id
        assert document["return_episodes"] >= 50
        assert behavior.name.endswith(f"-{document['env_steps'] // 1000}k")


def test_every_task_has_a_random_a_medium_and_a_replay_dataset() -> None:
    tasks = {name.rpartition("/")[0] for name in SUITE}
    for task in tasks:
        assert {f"{task}/{kind}-v0" for kind in ("random", "medium", "replay")} <= SUITE.keys()


@pytest.mark.parametrize(
    "name", ["baq/pendulum/replay-v0", "baq/pendulum/random-v0", "baq/pointmaze-umaze/replay-v0"]
)
def test_a_dataset_follows_from_its_behaviours_and_its_seed_alone(name: str) -> None:
    first = built(name)
    assert built(name, "made/again-v0") == first
    assert built(name, "made/other-v0", seed=1) != first


def test_behaviours_give_equal_shares_and_the_size_is_the_one_asked_for() -> None:
    built("baq/pendulum/replay-v0")
    episodes = load_episodes("made/small-v0")
    assert len(episodes) == SMALL
    # 450 steps in four shares: 112 or 113 each, and an episode of Pendulum has 200
    assert sorted(episodes.lengths.tolist()) == [112, 112, 113, 113]


def test_another_size_or_seed_needs_an_id_of_its_own() -> None:
    pendulum = SUITE["baq/pendulum/random-v0"]
    for size, seed in ((100, None), (None, 7)):
        with pytest.raises(UsageError, match=r"--id"):
            build(pendulum, ignore, size, seed, None)


def test_an_id_that_is_taken_is_left_alone() -> None:
    before = built("baq/pendulum/random-v0")
    with pytest.raises(UsageError, match="exists"):
        built("baq/pendulum/random-v0", seed=3)
    assert load_episodes("made/small-v0").content_hash == before


def test_an_unknown_reference_dataset_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'baq/hopper/medium-v0'"):
        reference("baq/hoper/medium-v0")


def test_a_goal_dataset_is_read_by_minari_as_its_environment_gives_it() -> None:
    built("baq/pointmaze-umaze/medium-v0")
    dataset = minari.load_dataset("made/small-v0")
    env = dataset.recover_environment()
    assert dataset.observation_space == env.observation_space
    episode = next(iter(dataset.iterate_episodes()))
    obs, _ = env.reset(seed=int(dataset.storage.get_episode_metadata([0]).__next__()["seed"]))
    for name, first in obs.items():
        np.testing.assert_allclose(episode.observations[name][0], first, atol=1e-6)


def test_a_dataset_that_was_just_built_passes_the_checks_against_its_environment() -> None:
    built("baq/pointmaze-umaze/expert-v0")
    found = check_dataset("made/small-v0", None)
    assert {finding.check for finding in found} <= {"action bounds", "dimensions"}
    assert all(finding.level == "warning" for finding in found)


def test_the_recorded_actions_replayed_in_the_environment_give_the_recorded_rewards() -> None:
    built("baq/pendulum/medium-v0")
    episode = next(iter(minari.load_dataset("made/small-v0").iterate_episodes()))
    env = gym.make("Pendulum-v1")
    seeds = load_episodes("made/small-v0").origin.seeds
    env.reset(seed=seeds[0])
    rewards = [float(env.step(action)[1]) for action in episode.actions]
    np.testing.assert_allclose(rewards, episode.rewards, rtol=1e-6)


# -- the maze controller


@pytest.mark.parametrize("env_id", ["PointMaze_UMaze-v3", "PointMaze_Medium-v3"])
def test_the_waypoint_controller_reaches_every_goal(env_id: str) -> None:
    controller, pool = WaypointController(env_id), EnvPool(env_id, 8)
    obs = pool.reset(range(8))
    reached = np.zeros(8)
    for _ in range(300):
        obs, reward, _, _ = pool.step(controller(obs, np.zeros((8, 2))))
        reached = np.maximum(reached, reward)
    pool.close()
    assert reached.tolist() == [1.0] * 8


def test_the_waypoint_controller_refuses_environments_without_a_maze() -> None:
    with pytest.raises(EnvironmentMismatch, match="no maze"):
        WaypointController("Pendulum-v1")


def test_a_share_of_random_actions_gives_behaviours_different_names() -> None:
    names = [Waypoints(share).name for share in (0.0, 0.8, 0.9, 0.95, 1.0)]
    assert len({*names, Uniform().name}) == 6


# -- scores


def test_a_spread_knows_no_offset() -> None:
    hopper = Reference("a", -20.0, 180.0, "")
    assert hopper.normalize(80.0) == 50.0
    assert hopper.scale(80.0) == 40.0


@pytest.mark.parametrize(
    ("env_id", "label"),
    [
        ("Hopper-v5", "D4RL Hopper"),
        ("HalfCheetah-v4", "D4RL HalfCheetah"),
        ("AntMaze_Large_Diverse_GR-v5", "D4RL AntMaze"),
        ("Ant-v5", "D4RL Ant"),
    ],
)
def test_published_references_are_found_by_the_task(env_id: str, label: str) -> None:
    found = published(env_id)
    assert found is not None
    assert found.label == label
    assert "convention" in found.source


def test_environments_without_published_references_have_none() -> None:
    assert published("Pendulum-v1") is None
    with pytest.raises(UsageError, match=r"baq data score-reference Pendulum-v1"):
        find_reference("d4rl", "Pendulum-v1")


def test_measured_references_are_stored_with_the_dataset_and_name_their_source() -> None:
    before = built("baq/pendulum/random-v0")
    expert = {"return_mean": -150.0, "return_std": 80.0, "episodes": 9, "policy": "sac"}
    random = measure_random("Pendulum-v1", 4)
    assert random["return_mean"] < -900
    store_reference("made/small-v0", "Pendulum-v1", {"random": random, "expert": expert})
    found = find_reference("made/small-v0", "Pendulum-v1")
    assert (found.random, found.expert) == (random["return_mean"], -150.0)
    assert "gymnasium" in found.source
    assert load_episodes("made/small-v0").content_hash == before
    facts = card(load_episodes("made/small-v0"), open_minari("made/small-v0").metadata)
    assert facts["scores"][0]["reference"] == "made/small-v0"
    metadata = minari.load_dataset("made/small-v0").storage.metadata
    assert metadata["ref_max_score"] == -150.0
    json.dumps(facts)


@pytest.mark.parametrize(
    ("expert", "env_id", "words"),
    [(-2000.0, "Pendulum-v1", "not above random"), (0.0, "Hopper-v5", "made in Pendulum-v1")],
)
def test_references_that_would_mean_nothing_are_refused(
    expert: float, env_id: str, words: str
) -> None:
    built("baq/pendulum/random-v0")
    facts = {"return_mean": expert, "return_std": 1.0, "episodes": 2, "policy": "x"}
    random = {"return_mean": -1000.0, "return_std": 1.0, "episodes": 2}
    with pytest.raises(UsageError, match=words):
        store_reference("made/small-v0", env_id, {"random": random, "expert": facts})
