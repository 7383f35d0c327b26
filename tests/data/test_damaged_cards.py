"""Damaged cards: what an export writes beside the rows, and a stranger may have written over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from baq_cli.data.exchange import export_file, import_file
from baq_cli.data.logs.logfile import Setting
from baq_cli.data.minari.folder import local_datasets
from baq_cli.data.minari.read import load_episodes
from baq_cli.errors import DataError
from support.logs import NEW, SPEC, bounded, d4rl_file, npz_file, parquet_file

Refused = Callable[..., str]
BOX = '{"type": "Box", "dtype": "float64", "shape": [%s], "low": [%s], "high": [%s]}'
CARD = {
    "observation_space": BOX % (2, "-99, -99", "99, 99"),
    "action_space": BOX % (1, -1, 1),
    "env_spec": None,
    "seeds": [],
    "about": {},
}
CARDS: dict[str, Any] = {
    "not JSON": "{",
    "a list": "[1]",
    "a number": "7",
    "no spaces": {"observation_space": None},
    "half a space": {"observation_space": '{"type": "Box", '},
    "a space of no kind": {"action_space": '{"type": "Bos"}'},
    "a space of another shape": {"observation_space": BOX % (3, "-9, -9", "9, 9")},
    "a space upside down": {"action_space": BOX % (1, 1, -1)},
    "half an environment": {"env_spec": '{"id": '},
    "a list of environments": {"env_spec": "[]"},
    "an environment without a name": {"env_spec": json.dumps({**SPEC, "id": "?!"})},
    "an environment with odd settings": {"env_spec": json.dumps({**SPEC, "kwargs": 5})},
    "an environment with an odd limit": {
        "env_spec": json.dumps({**SPEC, "max_episode_steps": "x"})
    },
    "seeds that are one": {"seeds": 5},
    "types that are no numbers": {"observation_types": {"": "object"}},
    "types that are a list": {"observation_types": ["float32"]},
    "types that are lists": {"observation_types": {"": []}},
    "metadata that are a list": {"about": []},
    "an author that is a number": {"about": {"author": 5}},
    "requirements that are a number": {"about": {"requirements": 5}},
}
POOR: dict[str, Any] = {
    "no seeds": {"seeds": None},
    "seeds of words": {"seeds": ["a", "b", "c"]},
    "no metadata": {"about": None},
}
"""Where reading on as if nothing was said is as good as refusing."""


def with_card(folder: Path, card: Any) -> Path:
    """Write a D4RL file with a card: a text, or what differs from a good one."""
    text = card if isinstance(card, str) else json.dumps({**CARD, **card})
    return d4rl_file(folder / "a.hdf5", **{"metadata/baq": text})


def test_the_undamaged_card_is_read(folder: Path) -> None:
    done = import_file(with_card(folder, {}), NEW, Setting(), None)
    assert done.episodes.spaces.action_low == (-1,)


@pytest.mark.parametrize("kind", CARDS)
def test_a_damaged_card_is_refused(kind: str, refused_import: Refused, folder: Path) -> None:
    refused_import(with_card(folder, CARDS[kind]), "--split-gaps")


@pytest.mark.parametrize("kind", POOR)
def test_a_card_with_less_than_it_should_say_is_refused_or_read(kind: str, folder: Path) -> None:
    path = with_card(folder, POOR[kind])
    try:
        import_file(path, NEW, Setting(), None)
    except DataError:
        assert local_datasets() == []
    else:
        assert load_episodes(NEW).origin.seeds in ((), (None,) * 3)
        export_file(NEW, "npz", folder / "again.npz")


@pytest.mark.parametrize("text", ["{", "[1]"])
@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_a_damaged_card_is_refused_in_a_table_too(
    form: str, text: str, refused_import: Refused, folder: Path
) -> None:
    path = folder / f"log.{form}"
    made = npz_file(path, baq=text) if form == "npz" else parquet_file(path, card=text)
    assert "card" in refused_import(made)


# -- what the card of a .parquet says of an array with a second axis

SPLIT = {"shape": [2], "columns": ["o.0", "o.1"]}


def split_file(folder: Path, spread: Any) -> Path:
    """Write observations in two columns, with what the card says of them."""
    columns = {"obs": None, "o.0": [1.0, 2, 4], "o.1": [4.0, 2, 1]}
    return parquet_file(folder / "log.parquet", json.dumps({"spread": spread}), **columns)


def test_undamaged_columns_are_put_together(folder: Path) -> None:
    done = import_file(split_file(folder, {"observations": SPLIT}), NEW, bounded(), None)
    assert done.episodes.obs.tolist() == [[1, 4], [2, 2], [4, 1]]


@pytest.mark.parametrize(
    "spread",
    [
        [1],
        {"observations": 5},
        {"observations": {"shape": [2]}},
        *({"observations": {**SPLIT, "columns": columns}} for columns in (["o.0", "o.7"], [], 5)),
        {"observations": {**SPLIT, "columns": ["o.0", "o.0"]}},
        *(
            {"observations": {**SPLIT, "shape": shape}}
            for shape in ([3], ["a"], None, [0], [1.5], [2**40])
        ),
    ],
    ids=str,
)
def test_columns_that_dont_fit_what_the_card_says_of_them_are_refused(
    spread: Any, refused_import: Refused, folder: Path
) -> None:
    refused_import(split_file(folder, spread))
