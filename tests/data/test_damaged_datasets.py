"""Damaged datasets in the Minari folder: one message, status 3, in no other dataset's way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from baq_cli.data.exchange import export_file, import_file, save_arrays
from baq_cli.data.minari.folder import dataset_path, local_datasets, open_minari
from baq_cli.data.minari.read import load_episodes, read_recording
from baq_cli.errors import BaqError, DataError, ExitStatus
from support.logs import (
    GROUP,
    NEW,
    SPEC,
    Claim,
    bounded,
    cut_short,
    d4rl_file,
    listing,
    put,
)
from support.recordings import unseal

GOOD = "me/good-v0"
Refused = Callable[..., str]


@pytest.fixture
def dataset(folder: Path) -> Path:
    """Save a dataset of episodes of 2 and 4 steps, unsealed; return its files' folder."""
    save_arrays(
        GOOD,
        observations=np.arange(12.0).reshape(6, 2),
        actions=np.linspace(-0.5, 0.5, 6)[:, None],
        rewards=np.arange(6.0),
        terminated=np.arange(6) % 4 == 1,
        truncated=np.zeros(6),
        action_low=-1,
        action_high=1,
    )
    unseal(GOOD)
    assert load_episodes(GOOD).lengths.tolist() == [2, 4]
    return dataset_path(GOOD) / "data"


@pytest.fixture
def refused_dataset(refused: Refused, folder: Path) -> Callable[[], str]:
    """Read a damaged dataset in every way there is; return what is said of it."""

    def run() -> str:
        out = folder / "out.npz"
        with pytest.raises(DataError):
            load_episodes(GOOD)
        with pytest.raises(DataError):
            read_recording(open_minari(GOOD))
        refused("data", "export", GOOD, "--to", "npz", "--out", out)
        assert not out.exists()
        said = refused("data", "check", GOOD)
        assert GOOD in said
        return said

    return run


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.95])
def test_a_truncated_dataset_is_refused_though_it_was_read_before(
    share: float, dataset: Path, refused_dataset: Refused
) -> None:
    """What the cache keeps of it is of other files."""
    cut_short(dataset / "main_data.hdf5", share)
    assert "damaged" in refused_dataset()


def test_a_dataset_without_its_data_is_refused(dataset: Path, refused_dataset: Refused) -> None:
    (dataset / "main_data.hdf5").unlink()
    assert "damaged" in refused_dataset()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("observations", np.zeros((4, 2)), "episode 1 has 4 observations for 4 steps"),
        ("observations", np.zeros((6, 2)), "episode 1 has 6 observations for 4 steps"),
        ("observations", np.zeros((5, 3)), "rows of shape [3]; expected [2]"),
        ("observations", np.zeros(5), "rows of shape []; expected [2]"),
        ("observations", 1.0, "observations of episode 1"),
        ("actions", np.zeros((3, 1)), "episode 1 has 3 actions for 4 steps"),
        ("actions", np.zeros((4, 2)), "rows of shape [2]; expected [1]"),
        ("actions", None, "actions"),
        ("rewards", None, "rewards"),
        ("rewards", np.zeros((4, 1)), "rewards of episode 1 have rows of shape [1]"),
        ("rewards", np.zeros((4, 2)), "episode 1"),
        ("rewards", 1.0, "episode 1"),
        ("rewards", np.zeros(0), "episode 1 has no steps"),
        ("rewards", np.array([b"a"] * 4), "not numbers"),
        ("rewards", list("abcd"), "not numbers"),
        ("rewards", GROUP, "not an array"),
        ("rewards", Claim(2**50), "claims 1,125,899,906,842,626 bytes"),
        ("rewards", Claim(2**32, 2**32), "episode 1"),
        ("observations", Claim(2**50, 2), "episode 1 has 1125899906842624 observations"),
        ("observations", Claim(5, 2**50), "rows of shape [1125899906842624]"),
        ("terminations", np.zeros(3, dtype=bool), "episode 1 has 3 terminations for 4 steps"),
        ("terminations", True, "terminations"),
        ("truncations", None, "truncations"),
        ("truncations", False, "truncations"),
    ],
)
def test_a_damaged_episode_is_refused(
    name: str, value: Any, said: str, dataset: Path, refused_dataset: Refused
) -> None:
    with h5py.File(dataset / "main_data.hdf5", "r+") as file:
        put(file["episode_1"], name, value)
    assert said in refused_dataset()


def test_a_damaged_episode_isnt_shown(
    dataset: Path, folder: Path, baq_here: Callable[..., tuple[int, str, str]]
) -> None:
    with h5py.File(dataset / "main_data.hdf5", "r+") as file:
        put(file["episode_1"], "observations", np.zeros((4, 2)))
    before = listing(folder / "minari")
    status, out, said = baq_here("data", "show", GOOD)
    assert (status, out) == (ExitStatus.DATA, "")
    assert "episode 1 has 4 observations for 4 steps" in said
    assert "Traceback" not in said
    assert listing(folder / "minari") == before


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.move("episode_1", "episode_7"),
        lambda file: put(file, "episode_1", 3.0),
        lambda file: [put(file, name, None) for name in list(file)],
    ],
    ids=["a number left out", "a number for an episode", "none"],
)
def test_damaged_episodes_are_refused(
    change: Callable[[h5py.File], Any], dataset: Path, refused_dataset: Refused
) -> None:
    with h5py.File(dataset / "main_data.hdf5", "r+") as file:
        change(file)
    refused_dataset()


@pytest.mark.parametrize("name", ["infos", "infos/qpos"], ids=["an array", "one scalar"])
def test_infos_that_make_no_sense_are_no_fault(name: str, dataset: Path, folder: Path) -> None:
    with h5py.File(dataset / "main_data.hdf5", "r+") as file:
        put(file["episode_0"], name, np.zeros(2))
        put(file["episode_1"], name, 1.0)
    assert load_episodes(GOOD).lengths.tolist() == [2, 4]
    try:
        export_file(GOOD, "npz", folder / "out.npz")
    except DataError:
        assert not (folder / "out.npz").exists()


# -- metadata

METADATA: dict[str, Callable[[str], str]] = {
    "cut in half": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "a list": lambda text: "[]",
    "a number": lambda text: "5",
    "without entries": lambda text: "{}",
    "without a space": lambda text: text.replace('"action_space"', '"actoin_space"'),
    "with half a space": lambda text: text.replace('\\"type\\": \\"Box\\"', '\\"type\\'),
    "of another format": lambda text: text.replace('"hdf5"', '"hdf7"'),
    "of a damaged environment": lambda text: text.replace('{"tot', '{"env_spec": "[]", "tot'),
}


def damage_metadata(dataset: Path, kind: str) -> None:
    path = dataset / "metadata.json"
    changed = METADATA[kind](path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)


@pytest.mark.parametrize("kind", METADATA)
def test_damaged_metadata_are_refused(kind: str, dataset: Path, refused_dataset: Refused) -> None:
    damage_metadata(dataset, kind)
    refused_dataset()


def test_an_environment_with_damaged_settings_is_refused(dataset: Path, refused: Refused) -> None:
    path = dataset / "metadata.json"
    spec = json.dumps({**SPEC, "kwargs": 5})
    path.write_text(json.dumps({**json.loads(path.read_text()), "env_spec": spec}))
    refused("data", "check", GOOD)


@pytest.mark.parametrize("kind", ["cut in half", "a list", "without entries"])
def test_a_dataset_with_damaged_metadata_stands_in_no_others_way(
    kind: str, dataset: Path, folder: Path
) -> None:
    damage_metadata(dataset, kind)
    import_file(d4rl_file(folder / "a.hdf5"), NEW, bounded(), None)
    assert local_datasets() == [NEW]
    assert load_episodes(NEW).lengths.tolist() == [3, 2, 1]


def test_an_import_doesnt_say_it_saved_what_a_damaged_dataset_kept_it_from(
    dataset: Path, folder: Path
) -> None:
    """Its id isn't listed, but its folder is in the way."""
    damage_metadata(dataset, "cut in half")
    before = listing(folder / "minari")
    with pytest.raises(BaqError, match=GOOD):
        import_file(d4rl_file(folder / "a.hdf5"), GOOD, bounded(), None)
    assert listing(folder / "minari") == before


@pytest.mark.parametrize("seed", ["None", [1, 2]])
def test_a_seed_that_is_no_number_is_unknown(seed: Any, dataset: Path) -> None:
    with h5py.File(dataset / "main_data.hdf5", "r+") as file:
        file["episode_1"].attrs.update(seed=seed)
    assert load_episodes(GOOD).origin.seeds[1] is None
