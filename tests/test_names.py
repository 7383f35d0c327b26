"""Any name becomes a safe file name and short lines of text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from baq_cli.report.names import file_stems, plain, wrapped


def test_file_names_are_slugs_that_differ():
    stems = file_stems(["baq/hopper/medium-v0", "A b", "a-b", "../..", "", "CON"])
    assert stems["baq/hopper/medium-v0"] == "baq-hopper-medium-v0"
    assert stems["A b"].startswith("a-b-")
    assert stems["a-b"].startswith("a-b-")
    assert len({stem.lower() for stem in stems.values()}) == len(stems)


@given(st.sets(st.text(), max_size=8))
def test_file_names_are_safe_whatever_the_names(names):
    stems = file_stems(names)
    assert len(set(stems.values())) == len(names)
    for stem in stems.values():
        assert stem.isascii()
        assert not set(stem) & set("/\\:*?\"<>|' ")
        assert not stem.startswith(".")
        assert len(stem) < 100


@given(st.text(), st.integers(4, 40))
def test_wrapped_names_have_short_lines_without_control_characters(name, width):
    lines = wrapped(name, width).split("\n")
    assert len(lines) <= 3
    assert all(len(line) <= width for line in lines)
    whole = "".join(plain(name).split())
    shown = "".join("".join(lines).split())
    assert shown == whole or (shown.endswith("…") and whole.startswith(shown[:-1]))
