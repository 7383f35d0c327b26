"""A cell's folder as bytes: what travels, what arrives, and what is refused."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.errors import DataError
from baq_cli.launch.ray import transfer
from baq_cli.launch.ray.transfer import (
    ARRIVED,
    GONE,
    contents,
    finish_receiving,
    needed,
    pack,
    receive,
    unpack,
)
from support.recordings import own_folders

NAMES = st.lists(
    st.text("abc ü=[]", min_size=1, max_size=5).filter(lambda name: name == name.strip()),
    min_size=1,
    max_size=3,
).map("/".join)


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def read(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in contents(folder)}


def packed_by_another(name: str, mode: int = stat.S_IFREG | 0o644) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(GONE, "[]")
        entry = zipfile.ZipInfo("fine")
        entry.external_attr = (stat.S_IFREG | 0o644) << 16
        archive.writestr(entry, "fine")
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, "/etc/passwd")
    return content.getvalue()


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=6))
def test_a_folder_arrives_as_it_was(files: dict[str, bytes]) -> None:
    nested = {a for a in files for b in files if a != b and b.startswith(f"{a}/")}
    files = {name: content for name, content in files.items() if name not in nested}
    with own_folders() as place:
        there = fill(place / "there", files)
        here = place / "here"
        here.mkdir()
        receive(pack(there, contents(there)), here)
        assert read(here) == files
        assert not (here / ARRIVED).exists()


def test_of_checkpoints_the_newest_travels_and_what_was_dropped_there_is_dropped_here(
    tmp_path: Path,
) -> None:
    here = fill(
        tmp_path / "here",
        {
            "cell.json": b"{}",
            ".lock": b"",
            "offline/metrics.csv": b"1",
            "offline/checkpoints/latest": b"offline-20",
            "offline/checkpoints/offline-10/agent.safetensors": b"10",
            "offline/checkpoints/offline-20/agent.safetensors": b"20",
            "offline/checkpoints/.partial-offline-30/agent.safetensors": b"half",
        },
    )
    sent = needed(here)
    assert [name for name in sent if "checkpoints/offline" in name] == [
        "offline/checkpoints/offline-20/agent.safetensors"
    ]
    there = tmp_path / "there"
    unpack(pack(here, sent), there)
    fill(there, {"offline/checkpoints/offline-40/agent.safetensors": b"40"})
    fill(there, {"offline/checkpoints/latest": b"offline-40"})
    (there / "offline/checkpoints/offline-20/agent.safetensors").unlink()
    receive(pack(there, contents(there), set(sent) - set(contents(there))), here)
    folders = {path.name for path in (here / "offline/checkpoints").glob("offline-*")}
    assert folders == {"offline-10", "offline-40"}, "10 wasn't sent, so nobody dropped it"
    assert (here / "offline/checkpoints/latest").read_bytes() == b"offline-40"


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../../x", "..", "a\\..\\x", "c:x", "link/x", "a/./../../x"]
)
def test_a_name_that_leads_out_is_refused_and_nothing_arrives(name: str, tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    (here / "link").symlink_to(elsewhere)
    with pytest.raises(DataError, match="leads out"):
        receive(packed_by_another(name), here)
    assert contents(here) == []
    assert not (here / ARRIVED).exists()
    assert list(elsewhere.iterdir()) == []
    gone = io.BytesIO()
    with zipfile.ZipFile(gone, "w") as archive:
        archive.writestr(GONE, f'["{name}"]'.replace("\\", "\\\\"))
    with pytest.raises(DataError, match="leads out"):
        unpack(gone.getvalue(), here)


def test_links_neither_travel_nor_arrive(tmp_path: Path) -> None:
    folder = fill(tmp_path / "cell", {"cell.json": b"{}"})
    (folder / "secret").symlink_to("/etc/passwd")
    (folder / "etc").symlink_to("/etc")
    assert contents(folder) == ["cell.json"]
    with pytest.raises(DataError, match="plain file"):
        unpack(packed_by_another("link", stat.S_IFLNK | 0o777), folder)


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-30], lambda b: b"noise" * 20])
def test_a_damaged_parcel_is_refused(damage: object, tmp_path: Path) -> None:
    assert callable(damage)
    folder = fill(tmp_path / "cell", {"cell.json": b"{}"})
    with pytest.raises(DataError, match="damaged"):
        unpack(damage(pack(folder, ["cell.json"])), folder)
    changed = pack(folder, ["cell.json"]).replace(b"{}", b"[]")
    with pytest.raises(DataError, match="damaged"):
        unpack(changed, folder)
    assert read(folder) == {"cell.json": b"{}"}


def test_a_driver_that_dies_while_receiving_finishes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"a/metrics.csv": b"1", "a/checkpoints/latest": b"a-1", "state.json": b"done"}
    there = fill(tmp_path / "there", files)
    here = fill(tmp_path / "here", {"state.json": b"waiting"})
    replaced = 0

    def die(source: Path, target: Path) -> None:
        nonlocal replaced
        replaced += 1
        if replaced == 3:  # of the bytes as a whole, then of each file
            raise KeyboardInterrupt
        Path(source).rename(target)

    packed = pack(there, contents(there))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            receive(packed, here)
    assert read(here)["state.json"] == b"waiting", "what says that all is there comes last"
    finish_receiving(here)
    assert read(here) == files
    assert transfer.LAST == "state.json"
