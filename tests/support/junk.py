"""What is not what it should be: values of every kind, and documents with some of them in."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

NUMBERS = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 7, 10**9, 2**53, 2**60, 2**63, 2**64, 10**60])
FLOATS = st.floats() | st.sampled_from([1e308, -0.0, 5e-324, float("nan"), float("inf")])
WORDS = st.sampled_from(
    [
        *("", " ", "../../x", "/etc/passwd", "a\x00b", "x" * 5_000, "os:Evil-v0", "größe", "1e999"),
        *("null", "offline", "online", "cpu", "awac", "baq", "{{7*7}}", "<script>", "Pendulum-v1"),
    ]
) | st.text(max_size=6)
SCALARS = st.none() | st.booleans() | NUMBERS | FLOATS | WORDS
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


def deep(levels: int) -> Any:
    """Return a list in a list, so many times."""
    nested: Any = 0
    for _ in range(levels):
        nested = [nested]
    return nested


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where something is in a document, everything and its parts."""
    inner: list[tuple[Any, ...]] = []
    pairs: Any = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = list(enumerate(value))[:3]
    for key, part in pairs:
        inner += [(*here, key), *paths(part, (*here, key))]
    return inner


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """Return a document with one to three of its parts replaced, dropped, doubled or renamed."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = paths(document)
        if not places:
            break
        *above, key = draw(st.sampled_from(places))
        owner = document
        for step in above:
            owner = owner[step]
        what = draw(st.sampled_from(["replace"] * 6 + ["drop", "rename", "double", "deep"]))
        if what == "replace":
            owner[key] = draw(JUNK)
        elif what == "deep":
            owner[key] = deep(draw(st.sampled_from([5, 90, 150])))
        elif what == "double":
            owner[key] = [owner[key], owner[key]]
        elif what == "drop":
            owner.pop(key)
        elif isinstance(owner, dict):
            owner[draw(WORDS)] = owner.pop(key)
    return document
