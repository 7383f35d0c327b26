"""Start seeds are kept at any width that Minari and Gymnasium have, through every format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from minari.data_collector import EpisodeBuffer

from baq_cli.data.env_checks import environment_findings
from baq_cli.data.exchange import SUFFIXES, export_file, import_file
from baq_cli.data.logs.logfile import Setting
from baq_cli.data.minari.folder import dataset_path, open_minari, quiet
from baq_cli.data.minari.read import load_episodes, read_recording
from baq_cli.data.minari.write import write_minari
from baq_cli.data.seeds import is_seed, seed_of, stored_seed
from baq_cli.envs.spaces import Spaces
from support.recordings import FORMS, few, own_folders, plain_recording, unseal

WIDE = (2**64 - 5, 2**63, 2**63 - 1, 0, 7, None, 2**64, 3**100)
"""As Minari's collector draws them (64 bits without a sign), at the edges, and wider."""


def collected(dataset_id: str, form: str, seeds: tuple[int | None, ...]) -> None:
    """Leave a dataset of Pendulum as Minari's own collector does, without scores of its own."""
    env, buffers = gym.make("Pendulum-v1", max_episode_steps=3), []
    for number, seed in enumerate(seeds):
        obs, _ = env.reset(seed=seed)
        rows = [obs, *(env.step(np.zeros(1, np.float32))[0] for _ in range(3))]
        flags = [False, False, True]
        buffers.append(
            EpisodeBuffer(
                id=number,
                seed=seed,
                observations=np.array(rows),
                actions=np.zeros((3, 1), np.float32),
                rewards=[0.0, 1.0, 2.0],
                terminations=[False] * 3,
                truncations=flags,
                infos={},
            )
        )
    with quiet():
        minari.create_dataset_from_buffers(
            dataset_id=dataset_id,
            buffer=buffers,
            env=env,
            data_format=form,
            algorithm_name="zeros",
            author="n",
            author_email="n@example.org",
            code_permalink="x",
            description="x",
        )


@pytest.mark.parametrize("form", ["hdf5", "arrow", "parquet"])
def test_seeds_of_64_bits_pass_from_minari_through_every_export_and_back(
    form: str, folder: Path
) -> None:
    seeds = (2**64 - 5, 2**63, 2**63 - 1, 0)
    collected("me/drawn-v0", form, seeds)
    assert load_episodes("me/drawn-v0").origin.seeds == seeds
    assert load_episodes("me/drawn-v0").origin.seeds == seeds  # from the cache
    for to in FORMS:
        path = folder / f"log{SUFFIXES[to]}"
        export_file("me/drawn-v0", to, path)
        again = import_file(path, f"me/again-{to}-v0", Setting(), None)
        assert again.episodes.origin.seeds == seeds
        assert load_episodes(f"me/again-{to}-v0").origin.seeds == seeds


def test_checks_reset_with_seeds_of_64_bits(folder: Path) -> None:
    collected("me/drawn-v0", "hdf5", (2**64 - 5, 2**63, 3))
    episodes = load_episodes("me/drawn-v0")
    starts = [f for f in environment_findings(episodes, "Pendulum-v1") if f.check == "starts"]
    assert starts == []
    other = replace(episodes, origin=replace(episodes.origin, seeds=(2**64 - 6, 2**63, 3)))
    [found] = [f for f in environment_findings(other, "Pendulum-v1") if f.check == "starts"]
    assert found.text.startswith("another first observation here from 1 of 3")


class Narrow(gym.Env[Any, Any]):
    """Takes seeds of 32 bits, as NumPy's older generators do."""

    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Box(-2, 2, (2,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        np.random.RandomState(seed)
        return np.zeros(2, np.float32), {}


def test_an_environment_that_takes_no_wide_seeds_is_a_warning_and_no_fault(folder: Path) -> None:
    gym.register("NarrowSeeds-v0", Narrow)
    try:
        made = plain_recording(seeds=(2**64 - 5, None, None))
        origin = replace(made.episodes("a-v0").origin, env_id="NarrowSeeds-v0")
        spaces = Spaces.of(Narrow.observation_space, Narrow.action_space)
        episodes = replace(made.episodes("a-v0"), origin=origin, spaces=spaces)
        found = environment_findings(episodes, "NarrowSeeds-v0")
        assert "starts" in [finding.check for finding in found]
    finally:
        del gym.registry["NarrowSeeds-v0"]


@given(st.lists(st.none() | st.integers(0, 2**256 - 1), min_size=1, max_size=4))
@few
def test_any_seed_that_gymnasium_takes_is_kept(seeds: list[int | None]) -> None:
    with own_folders():
        write_minari("me/kept-v0", plain_recording((1,) * len(seeds), seeds=tuple(seeds)))
        assert read_recording(open_minari("me/kept-v0")).seeds == tuple(seeds)


def test_minari_reads_the_seeds_that_are_written_here(folder: Path) -> None:
    write_minari("me/kept-v0", plain_recording((1,) * len(WIDE), seeds=WIDE))
    with quiet():
        stored = minari.load_dataset("me/kept-v0").storage
        said = list(stored.get_episode_metadata(range(len(WIDE))))
    assert tuple(episode.get("seed") for episode in said) == WIDE


@pytest.mark.parametrize(
    ("written", "seed"),
    [
        ("None", None),
        ("", None),
        ("17", 17),
        (b"17", 17),
        (np.array([17]), 17),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (str(2**70), 2**70),
        ("seventeen", None),
        ("1.5", None),
        (1.5, None),
        (True, None),
        ([1, 2], None),
        ("9" * 1000, None),
    ],
)
def test_what_older_files_have_in_place_of_a_seed(written: Any, seed: int | None) -> None:
    assert seed_of(written) == seed
    with own_folders():
        write_minari("me/kept-v0", plain_recording())
        unseal("me/kept-v0")
        with h5py.File(dataset_path("me/kept-v0") / "data" / "main_data.hdf5", "r+") as file:
            file["episode_1"].attrs["seed"] = written
        assert load_episodes("me/kept-v0").origin.seeds[1] == seed


@given(st.integers(-(2**63), 2**256 - 1))
def test_a_seed_is_stored_as_what_is_read_as_it(seed: int) -> None:
    assert is_seed(seed)
    assert seed_of(stored_seed(seed)) == seed
    assert seed_of(json.loads(json.dumps(seed))) == seed
