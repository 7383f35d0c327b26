"""The cache of datasets: it answers with the true arrays or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.data import cache
from baq_cli.data.minari.folder import dataset_path
from baq_cli.data.minari.read import load_episodes
from baq_cli.data.minari.write import write_minari
from baq_cli.errors import DataError
from baq_cli.surroundings import cache_folder
from support.recordings import (
    FULL,
    ID,
    SPEC,
    assert_same_episodes,
    box,
    few,
    from_cache,
    is_read_again,
    own_folders,
    plain_recording,
    unseal,
)


def cached_files(kind: str) -> list[Path]:
    return sorted(path for path in (cache_folder() / kind).iterdir())


@pytest.mark.parametrize("name", ["main_data.hdf5", "metadata.json"])
def test_a_touched_dataset_is_read_again(folder: Path, name: str) -> None:
    write_minari(ID, plain_recording())
    load_episodes(ID)
    assert not is_read_again(ID)
    path = dataset_path(ID) / "data" / name
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert is_read_again(ID)
    assert not is_read_again(ID)


def test_a_dataset_changed_in_place_is_read_again(folder: Path) -> None:
    made = plain_recording()
    write_minari(ID, made)
    unseal(ID)
    before = load_episodes(ID).content_hash
    with h5py.File(dataset_path(ID) / "data" / "main_data.hdf5", "r+") as file:
        file["episode_1/rewards"][0] = made.rewards[4] = 77.0
    found = load_episodes(ID)
    assert_same_episodes(found, made.episodes(ID))
    assert found.content_hash != before


def test_a_dataset_replaced_under_its_id_is_read_again(folder: Path) -> None:
    write_minari(ID, plain_recording(phase=1))
    load_episodes(ID)
    minari.delete_dataset(ID)
    other = plain_recording(phase=2)
    write_minari(ID, other)
    assert_same_episodes(load_episodes(ID), other.episodes(ID))
    assert_same_episodes(from_cache(ID), other.episodes(ID))


def test_new_metadata_are_not_answered_from_before(folder: Path) -> None:
    write_minari(ID, plain_recording(about={"requirements": ["numpy>=1"]}))
    unseal(ID)
    assert load_episodes(ID).origin.requirements == ("numpy>=1",)
    path = dataset_path(ID) / "data" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "requirements": ["gymnasium"]}))
    assert load_episodes(ID).origin.requirements == ("gymnasium",)


def flip(path: Path, at: int, bit: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= bit
    path.write_bytes(content)


@few
@given(st.floats(0, 1, exclude_max=True), st.sampled_from([1, 8, 128]))
def test_a_flipped_bit_of_the_cached_arrays_is_noticed(share: float, bit: int) -> None:
    """Wherever it is, the arrays are the true ones; in the header it may change nothing."""
    with own_folders():
        made = plain_recording()
        write_minari(ID, made)
        load_episodes(ID)
        (path,) = cached_files("arrays")
        size = path.stat().st_size
        header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
        place = int(share * size)
        flip(path, place, bit)
        if place >= header:
            assert is_read_again(ID)
        assert_same_episodes(load_episodes(ID), made.episodes(ID))
        assert_same_episodes(from_cache(ID), made.episodes(ID))


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_cut_arrays_file_is_noticed(folder: Path, kept: int) -> None:
    made = plain_recording()
    write_minari(ID, made)
    load_episodes(ID)
    (path,) = cached_files("arrays")
    path.write_bytes(path.read_bytes()[:kept])
    assert is_read_again(ID)
    assert_same_episodes(from_cache(ID), made.episodes(ID))


@pytest.mark.parametrize(
    "garbage",
    [
        *(b"", b"{", b"[]", b"null", b"3", b'"sha256"', b"{}", b"\xff\xfe\x00"),
        *(b'{"sha256": null}', b'{"sha256": "a/../\\u0000"}'),
    ],
)
def test_a_garbage_index_is_noticed(folder: Path, garbage: bytes) -> None:
    made = plain_recording()
    write_minari(ID, made)
    load_episodes(ID)
    (path,) = cached_files("index")
    path.write_bytes(garbage)
    assert is_read_again(ID)
    assert_same_episodes(from_cache(ID), made.episodes(ID))


def test_an_index_without_one_of_its_entries_is_noticed(folder: Path) -> None:
    made = plain_recording()
    write_minari(ID, made)
    load_episodes(ID)
    (path,) = cached_files("index")
    entries = json.loads(json.loads(path.read_text())[0])
    for name in entries:
        damaged = [{key: value for key, value in entries.items() if key != name}]
        if name != "dataset_id":
            damaged += [{**entries, name: None}, {**entries, name: 7}]
        for entry in damaged:
            text = json.dumps(entry)
            path.write_text(json.dumps([text, hashlib.sha256(text.encode()).hexdigest()]))
            assert is_read_again(ID), entry
    assert_same_episodes(from_cache(ID), made.episodes(ID))


def test_a_bound_that_changed_in_the_index_is_noticed(folder: Path) -> None:
    """Else training would scale actions by bounds that nobody recorded."""
    made = plain_recording()
    write_minari(ID, made)
    load_episodes(ID)
    (path,) = cached_files("index")
    content = path.read_text()
    assert "2.0" in content
    path.write_text(content.replace("2.0", "3.0"))
    assert_same_episodes(load_episodes(ID), made.episodes(ID))


def test_no_flipped_bit_of_the_index_is_an_error(folder: Path) -> None:
    made = plain_recording(about={"requirements": ["numpy>=1"]}, env_spec=SPEC)
    write_minari(ID, made)
    load_episodes(ID)
    (path,) = cached_files("index")
    content = path.read_bytes()
    for place in range(0, len(content), 2):
        flip(path, place, 1 << place % 8)
        found = cache.find(path.stem)
        assert found is None or found.content_hash == made.episodes(ID).content_hash
        path.write_bytes(content)


def test_lost_arrays_are_no_error(folder: Path) -> None:
    made = plain_recording()
    write_minari(ID, made)
    load_episodes(ID)
    cached_files("arrays")[0].unlink()
    assert_same_episodes(load_episodes(ID), made.episodes(ID))
    assert_same_episodes(from_cache(ID), made.episodes(ID))


@pytest.mark.parametrize("below", ["plain", "plain/below", "plain/far/below"])
def test_a_cache_that_cannot_be_written_is_no_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    (folder / "plain").write_text("a file, not a folder")
    monkeypatch.setenv("BAQ_CACHE", str(folder / below))
    made = plain_recording()
    write_minari(ID, made)
    for _ in range(2):
        assert_same_episodes(load_episodes(ID), made.episodes(ID))
    assert is_read_again(ID)


def test_a_cache_on_a_full_disk_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.numpy

    def fail(arrays: Any, path: Path) -> None:
        Path(path).write_bytes(b"half of it")
        raise FULL

    made = plain_recording()
    write_minari(ID, made)
    with monkeypatch.context() as patch:
        patch.setattr(safetensors.numpy, "save_file", fail)
        assert_same_episodes(load_episodes(ID), made.episodes(ID))
    assert [path for path in cache_folder().rglob("*") if path.is_file()] == []
    assert_same_episodes(load_episodes(ID), made.episodes(ID))


def test_datasets_of_the_same_content_share_their_arrays_and_keep_their_ids(folder: Path) -> None:
    made = plain_recording()
    ids = ["made/one-v0", "made/two-v0"]
    for dataset_id in ids:
        write_minari(dataset_id, made)
        load_episodes(dataset_id)
    assert len(cached_files("arrays")) == 1
    assert len(cached_files("index")) == 2
    for dataset_id in ids:
        assert_same_episodes(from_cache(dataset_id), made.episodes(dataset_id))


def test_datasets_of_the_same_arrays_keep_their_own_origins_and_spaces(folder: Path) -> None:
    made = plain_recording(seeds=(1, 2, None))
    scaled = replace(
        made,
        action_space=box((2,), (-4.0, 4.0), np.float32),
        actions=made.actions * 2,
        seeds=(None, 5, 6),
        env_spec=SPEC,
    )
    write_minari("made/one-v0", made)
    write_minari("made/two-v0", scaled)
    for name, recording in (("made/one-v0", made), ("made/two-v0", scaled)):
        load_episodes(name)
        assert_same_episodes(from_cache(name), recording.episodes(name))
    assert len(cached_files("arrays")) == 1


def test_the_hash_is_the_same_with_and_without_a_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_minari(ID, plain_recording())
    hashes = [load_episodes(ID).content_hash, from_cache(ID).content_hash]
    monkeypatch.setenv("BAQ_CACHE", str(folder / "another"))
    hashes.append(load_episodes(ID).content_hash)
    (folder / "plain").touch()
    monkeypatch.setenv("BAQ_CACHE", str(folder / "plain" / "below"))
    hashes.append(load_episodes(ID).content_hash)
    assert len(set(hashes)) == 1


def test_warnings_are_repeated_from_the_cache(folder: Path) -> None:
    made = plain_recording(lengths=(1, 1, 3), rewards=np.full(5, 2.0))
    made.terminated[-1] = False
    write_minari(ID, made)
    cold = load_episodes(ID)
    assert {"end flags", "lengths", "rewards"} <= {finding.check for finding in cold.findings}
    assert from_cache(ID).findings == cold.findings


def test_a_dataset_with_an_error_is_refused_each_time(folder: Path) -> None:
    made = plain_recording()
    made.terminated[1] = True
    write_minari(ID, made)
    for _ in range(2):
        with pytest.raises(DataError, match="inside an episode"):
            load_episodes(ID)


def test_a_dataset_changed_under_its_old_time_is_read_again(folder: Path) -> None:
    """As `cp -p` leaves it: size, inode and time of modification are those of before."""
    write_minari(ID, plain_recording(phase=1))
    unseal(ID)
    load_episodes(ID)
    path = dataset_path(ID) / "data" / "main_data.hdf5"
    state = path.stat()
    with h5py.File(path, "r+") as file:
        file["episode_0/rewards"][...] += 1
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert is_read_again(ID)


def test_a_link_to_a_dataset_has_an_id_of_its_own(folder: Path) -> None:
    write_minari(ID, plain_recording())
    load_episodes(ID)
    link = dataset_path("made/link-v0")
    link.symlink_to(dataset_path(ID))
    assert load_episodes("made/link-v0").dataset_id == "made/link-v0"
