"""Tables in a terminal of any width: their columns go on below, and no number is cut."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from rich.table import Table

from baq_cli.report.fitting import LEAST_PROSE, Fitting
from baq_cli.report.markdown import render as markdown
from baq_cli.report.page import render as page
from baq_cli.report.page_aggregates import AGGREGATES
from baq_cli.report.terminal import SHOWN, comparison_tables
from support.documents import crowded, rich

NUMBER = re.compile(r"-?\d[\d,]*\.\d+ \[-?[\d.,]+, -?[\d.,]+\]")


def printed(what: object, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(what)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def table() -> Table:
    made = Table(box=None, pad_edge=False, show_edge=False)
    for heading in ("name", "one", "two", "three"):
        made.add_column(heading)
    made.add_row("a", "1111", "2222", "33333")
    return made


@pytest.mark.parametrize(
    ("width", "parts"),
    [
        (4 + 7 + 7 + 8, [["name", "one", "two", "three"]]),
        (4 + 7 + 7 + 8 - 1, [["name", "one", "two"], ["name", "three"]]),
        (4 + 7 + 7 - 1, [["name", "one"], ["name", "two"], ["name", "three"]]),
        (5, [["name", "one"], ["name", "two"], ["name", "three"]]),
    ],
)
def test_as_many_columns_as_there_is_room_for_stand_beside_the_first(
    width: int, parts: list[list[str]]
) -> None:
    found = Fitting(table()).groups(width)
    assert [[column.header for column in part] for part in found] == parts


def test_a_table_of_one_column_is_one_part() -> None:
    lone = Table("name")
    assert [[c.header for c in part] for part in Fitting(lone).groups(80)] == [["name"]]


@pytest.mark.parametrize("width", [120, 80, 40])
def test_no_interval_of_a_comparison_is_cut(width: int) -> None:
    document = crowded()
    lines = printed(comparison_tables(document), width)
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if "…" in line]
    wide = printed(comparison_tables(document), 250)
    whole, shown = (sorted(NUMBER.findall("\n".join(of))) for of in (wide, lines))
    assert len(whole) >= len(document["methods"]) * (len(SHOWN) - 2)
    assert shown == whole


WORDS = "a walk that nobody hurries, to where the river bends"


@pytest.mark.parametrize(
    ("width", "parts"), [(4 + 7 + 3 + LEAST_PROSE, 1), (4 + 7 + 2 + LEAST_PROSE, 2), (20, 2)]
)
def test_sentences_are_folded_and_nothing_else_is(width: int, parts: int) -> None:
    made = Table(box=None)
    for heading in ("name", "one", "about"):
        made.add_column(heading)
    made.add_row("gait", "1111", WORDS)
    made.add_row("long", "2222", WORDS)
    lines = printed(Fitting(made, {"about"}), width)
    assert max(map(len, lines)) <= width
    assert sum(line.startswith("name") for line in lines) == parts
    words = " ".join(lines).split()
    assert [words.count(word) for word in ("1111", "2222", "hurries,", "river")] == [1, 1, 2, 2]


def test_a_long_name_stays_whole_beside_a_column_that_is_too_wide_for_it() -> None:
    made = Table("name", "about")
    made.add_row("baq/pointmaze-medium/expert-v0", "built on demand")
    lines = printed(Fitting(made), 40)
    assert max(map(len, lines)) <= 40
    assert any(line.startswith("baq/pointmaze-medium/expert-v0 ") for line in lines)


def test_a_wide_terminal_shows_the_table_as_one() -> None:
    lines = printed(comparison_tables(rich()), 250)
    (head,) = {line for line in lines if line.startswith("method") and "offline" in line}
    assert "final" in head


def test_differences_and_scores_below_one_have_the_digits_that_tell_them_apart() -> None:
    document = rich()
    for row in document["against_base"]:
        numbers = {"value": 0.0213, "low": -0.0041, "high": 0.052}
        row["statistics"] = dict.fromkeys(row["statistics"], numbers)
    for of in document["aggregates"]["methods"].values():
        of |= {kind: {"value": 0.746, "low": 0.73, "high": 0.762} for kind in AGGREGATES}
    text = "\n".join(printed(comparison_tables(document), 250))
    assert "0.746 [0.730, 0.762]" in text
    assert text.count("0.0213 [-0.0041, 0.0520]") == 2 * len(document["against_base"])
    (in_page,) = {
        part for part in re.findall(r"<td[^>]*>(.*?)</td>", page(document)) if "0213" in part
    }
    assert in_page == "0.0213 <small>[−0.0041, 0.0520]</small>"
    assert "0.0213" in markdown(document, {})


def test_what_a_method_and_its_base_differ_in_stands_below_their_differences() -> None:
    document = rich()
    told = "differ in more than what"
    tables = ("\n".join(printed(comparison_tables(document), 400)), markdown(document, {}))
    assert not any(told in text for text in (*tables, page(document)))
    row = document["against_base"][0]
    row["unlike"] = ["critics", "warmup"]
    sentence = f"{row['method']} and {row['base']} {told} {row['method']} adds: critics, warmup."
    for text in ("\n".join(printed(comparison_tables(document), 400)), page(document)):
        assert text.count(sentence) == 1
    assert markdown(document, {}).count(sentence) == 1
