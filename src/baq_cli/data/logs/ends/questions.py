"""What is asked where a log's ends could mean several things: each candidate, and its options."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from baq_cli.data.logs.ends.clues import Clues
from baq_cli.data.logs.ends.marks import flags, is_flags, listed_starts
from baq_cli.data.logs.ends.names import FLAGS, Kind, Look
from baq_cli.data.logs.ends.roles import way
from baq_cli.data.logs.ends.turns import falls_back
from baq_cli.errors import MOST_LISTED, DataError, clipped

Array = npt.NDArray[Any]
WAYS: dict[Kind, tuple[str, ...]] = {
    Kind.TERMINATED: ("terminated", "truncated", "last"),
    Kind.TRUNCATED: ("truncated", "terminated", "last"),
    Kind.DONE: ("terminated", "truncated", "last"),
    Kind.LAST: ("truncated", "terminated", "last"),
    Kind.TERMINAL_STATE: ("terminated",),
    Kind.FIRST: ("first",),
    Kind.RESET: ("first", "last"),
    Kind.EPISODE: ("episode",),
    Kind.LENGTHS: ("episode",),
    Kind.STEP: ("step",),
    Kind.MASK: ("not_terminated",),
}
_SAYS = {
    "terminated": "the task ended there; --only-terminations where nothing else ends an episode",
    "truncated": "the recording stopped there",
    "last": "either, an end",
    "first": "an episode begins there",
    "episode": "it tells episodes apart",
    "step": "an episode begins where it falls back",
    "not_terminated": "the task ended where it is 0; --only-terminations where nothing else does",
}
PLACE = "no column says where an episode ends: terminated, truncated, episode"
NO_COLUMN = (
    "Where the log has none, --only-terminations takes each file for one episode, and "
    "--max-episode-steps N cuts it after every N steps; all of these ends are truncations"
)


def ask(why: str, columns: Sequence[str], clues: Clues, rows: int) -> NoReturn:
    """Raise a DataError that names columns and the options that say what each of them means."""
    lines = [question(name, clues, rows) for name in columns[:MOST_LISTED]]
    raise DataError(". ".join([why, *lines]))


def candidates(clues: Clues, leave: Collection[str], rows: int) -> list[str]:
    """Return the columns that may say where an episode ends, the likeliest first."""
    found = [
        name
        for name, values in clues.columns.items()
        if name not in leave and values is not None and _tells(values, clues.look(name), rows)
    ]
    order = list(WAYS)
    return sorted(found, key=lambda name: (order.index(_kind(clues, name)), not _sure(clues, name)))


def _tells(values: Array, look: Look | None, rows: int) -> bool:
    """Tell whether a column may say where an episode ends: by its name, and what is in it."""
    if look is None:
        return False
    whole = values.shape == (rows,)
    if look.kind in FLAGS and is_flags(values, rows):
        return bool(flags("", values, rows).any())
    if look.kind in FLAGS or look.kind is Kind.LENGTHS:
        return not whole and listed_starts(values, rows, look.kind) is not None
    if look.kind is Kind.STEP and whole:
        back = falls_back(values)
        return back is not None and bool(back.any())
    if look.kind is Kind.MASK:
        return is_flags(values, rows) and bool((values == 0).any())
    return whole and look.kind is Kind.EPISODE


def _kind(clues: Clues, name: str) -> Kind:
    look = clues.look(name)
    return Kind.DONE if look is None else look.kind


def _sure(clues: Clues, name: str) -> bool:
    look = clues.look(name)
    return look is not None and look.certain


def question(name: str, clues: Clues, rows: int) -> str:
    """Return what a column could mean, with the option for each meaning."""
    kind = _kind(clues, name)
    values = clues.columns[name]
    ways = [f"{way(role, name)} ({_SAYS[role]})" for role in WAYS.get(kind, ("last", "first"))]
    ways.append(f"{way('unused', name)} (neither)")
    also = ""
    if kind is Kind.TERMINAL_STATE:
        also = (
            "; where it marks the observation behind an end, as RLDS does, with 'last_row: "
            "observation' in a mapping"
        )
    return f"'{clipped(name)}'{_seen(values, rows)}: {', '.join(ways[:-1])} or {ways[-1]}{also}"


def _seen(values: Any, rows: int) -> str:
    """Return how many rows a column marks, and the first of them."""
    if values is None or not is_flags(values, rows):
        return ""
    marked = np.nan_to_num(values.astype(np.float64)) != 0
    count = int(marked.sum())
    return f" marks {count} of {rows} rows, first row {int(marked.argmax())} (from 0)"
