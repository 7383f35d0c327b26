"""Any name becomes a safe file name and short lines of text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.report.names import file_stems, plain, printable, printable_lines, wrapped


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


@pytest.mark.parametrize(
    "character",
    list("\x1b\x07\r\x7f\x9b\u061c\u200b\u200e\u200f\u2028\u2029\u202e\u2060\ufeff\U000e0041"),
)
def test_what_commands_a_terminal_turns_text_around_or_is_not_seen_is_shown(character):
    assert printable(f"a{character}b") == "a\ufffdb"
    assert printable_lines(f"a\n{character}b\n") == "a\n\ufffdb\n"


@given(st.text())
def test_ordinary_text_stays_as_it_is(text):
    kept = "".join(letter for letter in text if letter.isalnum() or letter in " .,-_éß漢😀")
    assert printable(kept) == kept
