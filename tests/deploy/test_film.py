"""Filmed episodes are the evaluated ones, a frame an observation, complete or not at all."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv

from baq_cli.deploy.film import film, watch
from baq_cli.deploy.policy import load_one_seed
from baq_cli.engine.checkpoints.restore import evaluate_checkpoint
from baq_cli.envs.faults import EnvironmentFault
from baq_cli.envs.ref import EnvRef
from baq_cli.envs.spaces import Spaces
from baq_cli.errors import DataError, EnvironmentMismatch
from support import counting_envs
from support.advice import follows
from support.counting_envs import Counting
from support.policies import PENDULUM, write_policy

Command = Callable[..., tuple[int, str, str]]
COUNTING = Spaces(2, (-1.0,), (1.0,))
FOUR = EnvRef("Counting-v0", max_episode_steps=4)
assert counting_envs


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    said = FOUR.document()
    return write_policy(
        tmp_path / "a.safetensors", "bc", spaces=COUNTING, env_id=FOUR.id, said=said
    )


def brightness(video: Path, **reader: Any) -> list[int]:
    """Return the mean of each frame's pixels."""
    with imageio.get_reader(video, **reader) as frames:
        return [round(float(np.asarray(frame)[..., :3].mean())) for frame in frames]


def test_a_film_has_a_frame_an_observation_in_their_order(policy: Path, tmp_path: Path) -> None:
    """Frame t is 40·t bright; ten frames a second are a tenth of one each."""
    out = tmp_path / "deep" / "er" / "a.gif"
    returns, lengths = film(load_one_seed(policy, 7), FOUR, 2, 0, out)
    assert (returns.tolist(), lengths.tolist()) == ([[4.0, 4.0]], [[4, 4]])
    assert brightness(out) == [0, 40, 80, 120, 160] * 2
    with imageio.get_reader(out) as frames:
        assert frames.get_meta_data()["duration"] == 100


def test_mp4_has_the_same_frames(policy: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    film(load_one_seed(policy, 7), FOUR, 2, 0, out)
    found = brightness(out, format="ffmpeg")
    assert np.allclose(found, [0, 40, 80, 120, 160] * 2, atol=6)  # it is compressed
    with imageio.get_reader(out, format="ffmpeg") as frames:
        assert frames.get_meta_data()["fps"] == 10


def test_gifs_leave_out_frames_that_no_viewer_shows(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Counting.metadata, "render_fps", 100)
    film(load_one_seed(policy, 7), FOUR, 1, 0, tmp_path / "a.gif")
    assert brightness(tmp_path / "a.gif") == [0, 80, 160]
    with imageio.get_reader(tmp_path / "a.gif") as frames:
        assert frames.get_meta_data()["duration"] == 20


@pytest.mark.parametrize("seed", [4, 7])
def test_filmed_episodes_are_the_first_of_those_that_are_evaluated(
    seed: int, short_env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_policy(tmp_path / "a.safetensors", "sac", spaces=PENDULUM, env_id=short_env)
    expected, lengths, _ = evaluate_checkpoint(path, None, 3, 5)
    monkeypatch.setattr(PendulumEnv, "render", lambda env: np.zeros((2, 2, 3), np.uint8))
    row = (4, 7).index(seed)
    found = film(load_one_seed(path, seed), EnvRef(short_env), 2, 5, tmp_path / "a.gif")
    np.testing.assert_allclose(found[0][0], expected[row, :2], rtol=1e-6)
    assert found[1][0].tolist() == lengths[row, :2].tolist()


def test_an_evaluation_says_what_it_filmed(policy: Path, tmp_path: Path, baq_here: Command) -> None:
    out = tmp_path / "a.gif"
    words = ("eval", "--checkpoint", policy, "--video", out, "--seed", "7")
    status, said, _ = baq_here(*words, "--json")
    found = json.loads(said)
    assert (status, found["video"], [s["seed"] for s in found["seeds"]]) == (0, str(out), [7])
    (of_seed,) = found["seeds"]
    assert (found["return_mean"], of_seed["episodes"], of_seed["mean_length"]) == (4.0, 1, 4.0)
    assert "env_steps" not in of_seed, "those are the steps trained, beside the seeds"
    status, _, said = baq_here(*words)
    assert (status, "exists" in said) == (2, True)
    other = tmp_path / "b.gif"
    status, said, _ = baq_here(*words[:4], other, "--episodes", "3")
    assert status == 0
    assert f"filmed: {other}" in said
    assert len(brightness(other)) == 15


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--video", "a.avi"), ".mp4 or .gif"),
        (("--video", "a.gif", "--render"), "give one of them"),
        (("--seed", "4"), "--video FILE or --render"),
        (("--video", "a.gif", "--seed", "5"), "holds the seeds"),
    ],
)
def test_what_cannot_be_filmed_is_refused_before_anything_is_played(
    words: tuple[str, ...], said: str, policy: Path, baq_here: Command, tmp_path: Path
) -> None:
    words = tuple(str(tmp_path / word) if word.startswith("a.") else word for word in words)
    before = sorted(tmp_path.iterdir())
    status, _, found = baq_here("eval", "--checkpoint", policy, *words)
    assert status == 2
    assert said in found
    assert sorted(tmp_path.iterdir()) == before


@follows("--video {}: an .mp4 needs a package: pip install 'baq-cli[video]'. A .gif needs nothing")
def test_an_mp4_without_its_package_names_it_and_another_way(
    policy: Path, baq_here: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    words = ("eval", "--checkpoint", policy, "--video")
    status, _, said = baq_here(*words, tmp_path / "a.mp4")
    assert status == 2
    assert "pip install 'baq-cli[video]'" in said
    assert ".gif" in said
    assert baq_here(*words, tmp_path / "a.gif")[0] == 0


def test_a_film_that_fails_leaves_nothing_behind(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Counting.step

    def fails(env: Counting, action: Any) -> Any:
        if env.time == 3:
            raise RuntimeError("the motor is on fire")
        return step(env, action)

    monkeypatch.setattr(Counting, "step", fails)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(EnvironmentFault, match="the motor is on fire"):
        film(load_one_seed(policy, 7), FOUR, 1, 0, tmp_path / "a.gif")
    assert sorted(tmp_path.iterdir()) == before
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"):
        film(load_one_seed(policy, 7), FOUR, 1, 0, tmp_path / "file" / "a.gif")


def test_an_environment_that_draws_no_image_is_refused_in_words(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, undrawn = load_one_seed(policy, 7), EnvRef("Undrawn-v0", max_episode_steps=4)
    with pytest.raises(EnvironmentMismatch, match=r"render returned str, expected uint8"):
        film(one, undrawn, 1, 0, tmp_path / "a.gif")
    monkeypatch.setitem(Counting.metadata, "render_modes", [])
    with pytest.raises(EnvironmentMismatch, match="it has none, and this needs human"):
        watch(one, FOUR, 1, 0)


def test_what_drawing_needs_is_said_where_it_fails(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(env: Counting) -> Any:
        raise RuntimeError("an OpenGL platform library has not been loaded")

    monkeypatch.setattr(Counting, "render", fails)
    with pytest.raises(EnvironmentMismatch, match="can't be drawn") as refused:
        film(load_one_seed(policy, 7), FOUR, 1, 0, tmp_path / "a.gif")
    assert "MUJOCO_GL=egl" in str(refused.value)
    assert "MUJOCO_GL=osmesa" in str(refused.value)
