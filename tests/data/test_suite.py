"""The reference suite: what it promises of its datasets, the maze controller, and scores."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import mujoco
import numpy as np
import pytest

from baq_cli.data.card import card
from baq_cli.data.minari.folder import local_datasets, open_minari
from baq_cli.data.minari.read import load_episodes
from baq_cli.data.minari.stored import update_metadata
from baq_cli.data.suite import SUITE, ReferenceDataset, Trained, Uniform, Waypoints
from baq_cli.data.waypoints import WaypointController
from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.collection.datasets import build, check_dataset, reference
from baq_cli.engine.collection.scoring import find_reference, measure_random, store_reference
from baq_cli.envs.making import make_env
from baq_cli.envs.pool import EnvPool
from baq_cli.envs.ref import EnvChoice, EnvRef
from baq_cli.envs.scores import Reference, published, stored
from baq_cli.errors import DataError, EnvironmentMismatch, UsageError
from baq_cli.report.dataset import draw_dataset
from support.builders import make_episodes

SMALL, SHORT = 242, 5
"""Steps of a dataset and of its episodes: ten are collected at once, and a share needs more."""
TRAINED = [reference for reference in SUITE.values() if isinstance(reference.behaviors[0], Trained)]


def ignore(event: object) -> None:
    """Watch a build without showing it."""


@pytest.fixture(scope="module", autouse=True)
def _place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Minari folder for all tests; a simulator's model is compiled once and copied."""
    compile_file, models = mujoco.MjModel.from_xml_path, {}

    def compiled(path: str) -> Any:
        text = Path(path).read_text()
        if text not in models:
            models[text] = compile_file(path)
        return copy.copy(models[text])

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("datasets")))
        patch.setattr(mujoco.MjModel, "from_xml_path", compiled)
        yield


def built(name: str, label: str = "small", seed: int | None = None, longest: int = SHORT) -> str:
    """Build a small dataset of short episodes unless it is there; return its id."""
    dataset_id = f"{label}/{name.removeprefix('baq/')}"
    if dataset_id not in local_datasets():
        env_id = SUITE[name].env_id
        make_env(env_id).close()  # registers it
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gym.spec(env_id), "max_episode_steps", longest)
            build(SUITE[name], ignore, SMALL, seed, dataset_id)
    return dataset_id


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
    first, again, other = (
        load_episodes(built(name, *how)).content_hash
        for how in (("small",), ("again",), ("other", 1))
    )
    assert again == first
    assert other != first


def test_behaviours_give_equal_shares_and_the_size_is_the_one_asked_for() -> None:
    episodes = load_episodes(built("baq/pendulum/replay-v0"))
    assert len(episodes) == SMALL
    # 242 steps in four shares: 60 or 61 each, in episodes of 5
    assert sorted(episodes.lengths.tolist()) == [1] * 2 + [5] * 48


def test_another_size_or_seed_needs_an_id_of_its_own() -> None:
    pendulum = SUITE["baq/pendulum/random-v0"]
    for size, seed in ((100, None), (None, 7)):
        with pytest.raises(UsageError, match=r"--id"):
            build(pendulum, ignore, size, seed, None)


def test_an_id_that_is_taken_is_left_alone() -> None:
    taken = built("baq/pendulum/random-v0")
    before = load_episodes(taken).content_hash
    with pytest.raises(UsageError, match="exists"):
        build(SUITE["baq/pendulum/random-v0"], ignore, SMALL, 3, taken)
    assert load_episodes(taken).content_hash == before


def test_an_unknown_reference_dataset_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'baq/hopper/medium-v0'"):
        reference("baq/hoper/medium-v0")


def test_a_goal_dataset_is_read_by_minari_as_its_environment_gives_it() -> None:
    dataset = minari.load_dataset(built("baq/pointmaze-umaze/replay-v0"))
    env = dataset.recover_environment()
    assert dataset.observation_space == env.observation_space
    metadata = dataset.storage.get_episode_metadata(range(dataset.total_episodes))
    for episode, facts in zip(dataset.iterate_episodes(), metadata, strict=True):
        obs, _ = env.reset(seed=int(facts["seed"]))
        for name, first in obs.items():
            np.testing.assert_allclose(episode.observations[name][0], first, atol=1e-6)
    env.close()


def test_a_dataset_that_was_just_built_passes_the_checks_against_its_environment() -> None:
    found = check_dataset(built("baq/pointmaze-umaze/expert-v0", longest=300), EnvChoice())
    assert {finding.check for finding in found} <= {"action bounds", "dimensions", "lengths"}
    assert all(finding.level == "warning" for finding in found)


def test_the_recorded_actions_replayed_in_the_environment_give_the_recorded_rewards() -> None:
    dataset_id = built("baq/pendulum/replay-v0")
    env = gym.make("Pendulum-v1")
    episodes = minari.load_dataset(dataset_id).iterate_episodes()
    for seed, episode in zip(load_episodes(dataset_id).origin.seeds, episodes, strict=True):
        env.reset(seed=seed)
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
        find_reference("d4rl", EnvRef("Pendulum-v1"))


def test_measured_references_are_stored_with_the_dataset_and_name_their_source() -> None:
    dataset_id = built("baq/pendulum/random-v0", "scored")
    before = load_episodes(dataset_id).content_hash
    expert = {"return_mean": -150.0, "return_std": 80.0, "episodes": 9, "policy": "sac"}
    random = measure_random("Pendulum-v1", 4)
    assert random["return_mean"] < -900
    store_reference(dataset_id, EnvRef("Pendulum-v1"), {"random": random, "expert": expert})
    found = find_reference(dataset_id, EnvRef("Pendulum-v1"))
    assert (found.random, found.expert) == (random["return_mean"], -150.0)
    assert "gymnasium" in found.source
    assert load_episodes(dataset_id).content_hash == before
    facts = card(load_episodes(dataset_id), open_minari(dataset_id).metadata)
    assert facts["scores"][0]["reference"] == dataset_id
    assert minari.load_dataset(dataset_id).storage.metadata["ref_max_score"] == -150.0
    json.dumps(facts)


@pytest.mark.parametrize(
    ("expert", "env_id", "words"),
    [(-2000.0, "Pendulum-v1", "not above random"), (0.0, "Hopper-v5", "made in Pendulum-v1")],
)
def test_references_that_would_mean_nothing_are_refused(
    expert: float, env_id: str, words: str
) -> None:
    dataset_id = built("baq/pendulum/random-v0")
    facts = {"return_mean": expert, "return_std": 1.0, "episodes": 2, "policy": "x"}
    random = {"return_mean": -1000.0, "return_std": 1.0, "episodes": 2}
    with pytest.raises(UsageError, match=words):
        store_reference(dataset_id, EnvRef(env_id), {"random": random, "expert": facts})


@pytest.mark.parametrize(
    "kept",
    [(10.0, 5.0), (5, 5), (float("nan"), 5.0), (0.0, float("inf")), (False, True), (1, None)],
)
def test_stored_scores_that_make_no_scale_are_none(kept: tuple[Any, Any]) -> None:
    """A run would keep them, and its checkpoints could never be read again."""
    metadata = dict(zip(("ref_min_score", "ref_max_score"), kept, strict=True))
    assert stored(metadata, "me/odd-v0") is None
    dataset_id = built("baq/pendulum/random-v0", "odd")
    update_metadata(open_minari(dataset_id), metadata)
    with pytest.raises(UsageError, match=r"no reference scores that make a scale \(.* to .*\)"):
        find_reference(dataset_id, EnvRef("Pendulum-v1"))


def test_a_reference_of_another_environment_is_refused() -> None:
    dataset_id = built("baq/pendulum/random-v0", "scored")
    with pytest.raises(UsageError, match="made in Pendulum-v1"):
        find_reference(dataset_id, EnvRef("Hopper-v5"))


def test_an_environment_in_a_namespace_has_none_of_d4rls_references() -> None:
    assert published("me/Hopper-v0") is None


@pytest.mark.parametrize("taken", ["baq/pendulum/expert-v0", "baq/mine-v0"])
def test_ids_of_reference_datasets_hold_nothing_else(taken: str) -> None:
    with pytest.raises(UsageError, match="those of reference datasets"):
        build(SUITE["baq/pendulum/random-v0"], ignore, 100, None, taken)


# -- the card and its picture


def test_the_card_counts_each_kind_of_end_once() -> None:
    episodes = make_episodes([2, 3, 1, 4], [True, False, True, False])
    last = episodes.starts + episodes.lengths - 1
    episodes.truncated[last[2]] = True
    episodes.truncated[last[3]] = False
    ends = card(episodes, {})["ends"]
    assert ends == {"terminated": 1, "truncated": 1, "both": 1, "neither": 1}


def test_actions_cover_the_bins_that_hold_a_thousandth_of_them() -> None:
    episodes = make_episodes([2000], [False])
    episodes.action[:] = np.linspace(-1, 1, 2000)[:, None]
    episodes.action[:, 1] = 0.5
    facts = card(episodes, {})
    assert facts["action_coverage"] == pytest.approx((1 + 1 / 20) / 2)
    assert facts["actions_on_bounds"] == pytest.approx(2 / 2000)


def test_a_dataset_is_drawn_to_a_picture_or_the_reason_is_told(tmp_path: Path) -> None:
    episodes = make_episodes([5, 5], [True, False])
    assert draw_dataset(episodes, tmp_path / "new" / "a.png").read_bytes()[1:4] == b"PNG"
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"):
        draw_dataset(episodes, tmp_path / "file" / "a.png")
