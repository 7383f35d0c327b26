"""Minari's Arrow and Parquet datasets are read whole: every row, every episode, every info."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from baq_cli.data.minari.folder import dataset_path, open_minari, quiet
from baq_cli.data.minari.read import load_episodes, read_recording
from baq_cli.data.minari.write import write_minari
from baq_cli.data.recording import Recording
from baq_cli.errors import DataError
from support.recordings import assert_same_recording, nested, plain_recording

ID = "me/tables-v0"
Box = gym.spaces.Box
pytestmark = pytest.mark.usefixtures("folder")


def save_tables(made: Recording, form: str, dataset_id: str = ID) -> Path:
    """Save a recording with Minari's own writer of tables; return the folder of its episodes."""
    buffers, start, first = [], 0, 0
    for number, length in enumerate(made.lengths.tolist()):
        steps, rows = slice(start, start + length), slice(first, first + length + 1)
        parts: dict[str, Any] = {n: a[rows] for n, a in made.observations.items()}
        buffers.append(
            EpisodeBuffer(
                id=number,
                seed=made.seeds[number],
                observations=nested(parts),
                actions=made.actions[steps],
                rewards=made.rewards[steps].tolist(),
                terminations=made.terminated[steps].tolist(),
                truncations=made.truncated[steps].tolist(),
                infos=nested({n: a[rows] for n, a in made.infos.items()}),
            )
        )
        start, first = steps.stop, rows.stop
    with quiet():
        minari.create_dataset_from_buffers(
            dataset_id=dataset_id,
            buffer=buffers,
            observation_space=made.observation_space,
            action_space=made.action_space,
            data_format=form,
            algorithm_name="x",
            author="n",
            author_email="n@example.org",
            code_permalink="x",
            description="x",
        )
    return dataset_path(dataset_id) / "data"


NESTED = gym.spaces.Dict(
    {"arm": gym.spaces.Dict({"q": Box(-9, 9, (2, 2), np.float64)}), "z": Box(-9, 9, (3,))}
)


@pytest.mark.parametrize("form", ["arrow", "parquet"])
@pytest.mark.parametrize("space", [Box(-9, 9, (2,), np.float64), NESTED], ids=["flat", "nested"])
def test_tables_hold_what_was_written(form: str, space: Any) -> None:
    rng = np.random.default_rng(0)
    infos = {"height": rng.normal(size=11), "deep/q": rng.normal(size=(11, 2, 3))}
    made = plain_recording((4, 1, 3), observation_space=space, infos=infos, seeds=(2**64 - 1, 5, 0))
    save_tables(made, form)
    write_minari("me/plain-v0", made)
    assert_same_recording(read_recording(open_minari(ID)), made)
    assert load_episodes(ID).content_hash == load_episodes("me/plain-v0").content_hash


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_no_episode_is_cut_at_the_piece_in_which_tables_are_read(form: str) -> None:
    """Tables come in pieces of 32,768 rows: an episode of more of them is one all the same."""
    lengths = (3, 40_000, 5, 33_000)
    made = plain_recording(lengths)
    save_tables(made, form)
    assert load_episodes(ID).lengths.tolist() == list(lengths)
    assert load_episodes(ID).content_hash == made.episodes(ID).content_hash


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: shutil.rmtree(data / "1"), "it has no episode 1"),
        (lambda data: shutil.rmtree(data / "2"), "it holds 2 episodes, and says 3"),
        (lambda data: (data / "1" / "part-0.arrow").write_bytes(b"ARROW1"), "damaged"),
        (lambda data: (data / "1" / "part-0.arrow").unlink(), "damaged"),
        (lambda data: (data / "1" / "metadata.json").write_text("[]"), "is no object"),
        (
            lambda data: (data / "1" / "metadata.json").write_text('{"total_steps": 4}'),
            "episode 1 has 2 steps; expected 4",
        ),
    ],
)
def test_tables_with_something_missing_are_refused(damage: Any, words: str) -> None:
    data = save_tables(plain_recording((3, 2, 4)), "arrow")
    damage(data)
    with pytest.raises(DataError, match=words):
        load_episodes(ID)


def test_what_a_dataset_may_leave_out_is_not_asked_for() -> None:
    """Totals, an episode's own metadata and hidden files are nobody's concern."""
    made = plain_recording((3, 2))
    data = save_tables(made, "arrow")
    said = json.loads((data / "metadata.json").read_text())
    for name in ("total_steps", "total_episodes", "dataset_size"):
        said.pop(name)
    (data / "metadata.json").write_text(json.dumps(said))
    (data / "0" / "metadata.json").unlink()
    (data / ".cache").mkdir()
    assert load_episodes(ID).content_hash == made.episodes(ID).content_hash
