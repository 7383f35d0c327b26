"""report.md says what the document says, and names in it are text whatever they hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from baq_cli.errors import DataError
from baq_cli.report.figures import curves_stems
from baq_cli.report.markdown import render, write_markdown
from baq_cli.report.markup import bullets, code, escaped, table
from baq_cli.report.names import plain, printable
from support import documents

READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
NASTY = (
    *documents.HOSTILE,
    "a|b",
    "a\\|b \\",
    "`code` ``|`` `",
    "*a* _b_ **c** ~~d~~",
    "[x](https://example.org) ![y](z.png) <https://example.org>",
    "# no heading #",
    "- 1. > list",
    "1. one",
    "---",
    "- - -",
    "| a | b |\n| --- | --- |",
    "$$x$$ ${y}$",
    "line\r\none\x0btwo",
    "[^1]: note",
    "&lt;b&gt; &#124; &amp;",
    "=1+1",
    " ",
    "http://example.org/a_b_c www.example.org",
)
MARKUP = {
    "html_inline",
    "html_block",
    "code_inline",
    "link_open",
    "image",
    "em_open",
    "strong_open",
    "s_open",
    "hr",
}


def leaves(tokens):
    """All tokens that have no others within, in order."""
    for token in tokens:
        yield from leaves(token.children) if token.children else [token]


def rows_of(markdown):
    """Each table as rows of cells, a cell its text as a reader sees it."""
    tables, cell = [], None
    for token in READER.parse(markdown):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in ("td_open", "th_open"):
            cell = tables[-1][-1]
        elif token.type == "inline" and cell is not None:
            cell.append("".join(leaf.content for leaf in leaves([token])))
            cell = None
    return tables


def bold_of(markdown):
    return re.findall(r"\*\*(.+?)\*\*", markdown)


# -- text


@pytest.mark.parametrize("name", NASTY)
def test_any_name_shows_as_it_is(name):
    """In a heading, an item and a cell: the same text, and nothing but text."""
    for markdown in (
        f"# {escaped(name)}",
        bullets([escaped(name)]),
        table(["a", "b"], [["x", escaped(name)]]),
    ):
        tokens = READER.parse(markdown)
        found = list(leaves(tokens))
        assert not {leaf.type for leaf in found} & MARKUP
        assert sum(token.type.endswith("list_open") for token in tokens) <= 1
        text = "".join(leaf.content for leaf in found if leaf.type.startswith("text"))
        assert text.removeprefix("abx") == plain(name)


@given(st.lists(st.text(), min_size=1, max_size=4))
@example(list(NASTY))
def test_tables_have_the_same_columns_whatever_the_names(names):
    markdown = table(["n", "name"], [[str(i), escaped(name)] for i, name in enumerate(names)])
    (rows,) = rows_of(markdown)
    assert rows == [["n", "name"], *([str(i), plain(name)] for i, name in enumerate(names))]
    # Other readers split a row at each pipe without a backslash before it, or at each pipe.
    assert {line.count("|") for line in markdown.splitlines()} == {3}


def test_no_formula_no_address_no_template_is_left_in_a_name():
    for name in (*NASTY, "evil@evil.example"):
        text = escaped(name)
        assert not set("$`{}|\n\r@") & set(text)
        assert "://" not in text
        assert "www." not in text


@given(st.lists(st.text(), min_size=1))
@example(["```", "  ````  ", "~~~", "# a"])
def test_code_stays_within_its_fence(lines):
    tokens = READER.parse(code(lines))
    assert [token.type for token in tokens] == ["fence"]
    shown = [printable(part) for line in lines for part in line.splitlines()]
    assert tokens[0].content.splitlines() == (shown or [""])


# -- a whole report


@pytest.mark.parametrize("name", ["rich", "hostile", "single"])
def test_every_table_is_whole_and_nothing_is_html(name):
    document = getattr(documents, name)()
    markdown = render(document, {})
    for rows in rows_of(markdown):
        assert len({len(row) for row in rows}) == 1
    assert not {t.type for t in leaves(READER.parse(markdown))} & {"html_inline", "html_block"}
    headings = [line for line in markdown.splitlines() if line.startswith("#")]
    assert sum(line.startswith("# ") for line in headings) == 1
    assert sum(line.startswith("### ") for line in headings) >= len(document["tasks"])


def test_a_tasks_tables_hold_every_statistic_once():
    document = documents.rich()
    better = {"higher": [], "lower": []}
    for of in document["statistics"].values():
        better[of["better"]].append(of["heading"])
    higher, lower = rows_of(render(document | {"failures": []}, {}))[:2]
    for rows, headings in ((higher, better["higher"]), (lower, better["lower"])):
        assert [cell.split(" (")[0] for cell in rows[0]] == ["method", "seeds", *headings]
        assert [row[:2] for row in rows[1:]] == [[name, "5"] for name in document["methods"]]


def test_a_cell_is_the_mean_with_its_interval_and_bold_where_best():
    document = documents.rich()
    markdown = render(document, {})
    task = document["tasks"][0]
    for method, results in task["methods"].items():
        of = results["statistics"]["final"]
        text = f"{of['mean']:.1f} [{of['low']:.1f},\u00a0{of['high']:.1f}]"
        assert text in markdown
        assert (text in bold_of(markdown)) == ("final" in results["best_in"]), method


def test_seeds_without_a_value_are_counted():
    document = documents.rich()
    awac, iql = (document["tasks"][i]["methods"][m] for i, m in ((0, "awac"), (1, "iql")))
    awac["statistics"]["final"] |= {
        "per_seed": [1.0, None, 3.0, None, 5.0],
        "count": 3,
        "mean": 3.0,
    }
    iql["statistics"]["final"] |= {
        "per_seed": [1.0] + [None] * 4,
        "count": 1,
        "never": 4,
        "mean": None,
    }
    first, _, second, _ = rows_of(render(document | {"failures": []}, {}))[:4]
    column = [cell.split(" (")[0] for cell in first[0]].index("final")
    assert next(row for row in first if row[0] == "awac")[column].endswith("(3 of 5)")
    assert next(row for row in second if row[0] == "iql")[column] == "never in 4 of 5"


def test_what_no_method_has_is_left_out_and_a_missing_method_has_dashes():
    document = documents.single()
    headings = [cell for rows in rows_of(render(document, {}))[:2] for cell in rows[0]]
    assert not any(cell.startswith(("regret", "steps to")) for cell in headings)
    document["methods"].append("cql")
    for rows in rows_of(render(document, {}))[:2]:
        assert rows[2] == ["cql", "0", *["–"] * (len(rows[0]) - 2)]


def test_curves_from_a_file_are_told_from_runs():
    document = documents.rich()
    document["tasks"][0]["methods"]["iql"]["source"] = "file"
    for results in document["tasks"][1]["methods"].values():
        results["source"] = "file"
    markdown = render(document | {"failures": []}, {})
    mixed, _, of_file, _ = rows_of(markdown)[:4]
    assert [row[0] for row in mixed[1:]] == ["baq", "baq k_q=3", "awac", "iql (from a file)"]
    assert [row[0] for row in of_file[1:]] == document["methods"]
    assert markdown.count("Curves: from a file") == 1


def test_aggregates_and_improvement_are_the_documents():
    document = documents.rich()
    tables = rows_of(render(document, {}))
    of = document["aggregates"]
    (rows,) = [rows for rows in tables if rows[0][:2] == ["method", "runs"]]
    assert rows[0][2:] == ["IQM ↑", "median ↑", "mean ↑", "optimality gap ↓"]
    for row, (method, numbers) in zip(rows[1:], of["methods"].items(), strict=True):
        kinds = ("iqm", "median", "mean", "optimality_gap")
        found = [numbers[kind] for kind in kinds]
        cells = [f"{n['value']:.1f} [{n['low']:.1f},\u00a0{n['high']:.1f}]" for n in found]
        assert row == [method, str(of["runs"][method]), *cells]
    (rows,) = [rows for rows in tables if rows[0] == ["X", "Y", "P(X > Y)"]]
    found = {(pair["x"], pair["y"]): pair for pair in of["improvement"]}
    assert len(rows) == 1 + 4 * 3 / 2
    for x, y, cell in rows[1:]:
        pair = found[x, y]
        assert cell == f"{pair['value']:.2f} [{pair['low']:.2f},\u00a0{pair['high']:.2f}]"


def test_without_aggregates_nothing_is_said_of_all_tasks():
    markdown = render(documents.rich() | {"aggregates": None}, {})
    assert "All tasks together" not in markdown
    assert "IQM" not in markdown


def test_notes_failures_commands_recipes_and_definitions_are_there():
    document = documents.rich()
    markdown = render(document, {})
    tables = rows_of(markdown)
    for note in document["notes"]:
        assert f"- {escaped(note)}" in markdown
    (failure,) = document["failures"]
    method = f"{failure['method']} (seeds 3, 4)"
    assert [failure["task"], method, plain(failure["error"])] in tables[0]
    blocks = [token.content for token in READER.parse(markdown) if token.type == "fence"]
    assert blocks[0].splitlines() == document["commands"]
    assert set(blocks[1].splitlines()) == {run["command"] for run in document["runs"]}
    assert ["baq.k_q", "10.0", "3.0"] in next(rows for rows in tables if rows[0][0] == "key")
    units = {"score": "score", "env_steps": "environment steps"}
    for of in document["statistics"].values():
        (row,) = [row for row in tables[-1] if row[0] == of["heading"]]
        assert row[2] == of["definition"]
        assert row[1].startswith(units.get(of["unit"], "score·environment steps"))
    assert len(next(rows for rows in tables if "set-up" in rows[0])) == 1 + len(document["runs"])


def test_figures_are_linked_relative_to_the_report(tmp_path):
    document = documents.hostile()
    stems = [
        *curves_stems(document).values(),
        "aggregates",
        "profiles",
        "efficiency",
        "improvement",
    ]
    drawn = [tmp_path / "my figures" / f"{stem}.{end}" for stem in stems for end in ("png", "svg")]
    path = write_markdown(document, tmp_path / "out" / "report.md", drawn)
    assert path == tmp_path / "out" / "report.md"
    inline = [child for token in READER.parse(path.read_text()) for child in token.children or []]
    images = [token.attrs["src"] for token in inline if token.type == "image"]
    assert sorted(images) == sorted(f"../my%20figures/{stem}.png" for stem in stems)


def test_a_name_with_half_a_character_can_be_written(tmp_path):
    document = documents.single() | {"title": "half \ud83d of one"}
    assert (
        write_markdown(document, tmp_path / "a.md").read_text().startswith("# half \ufffd of one")
    )


def test_a_report_that_cant_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write the report .*report\.md"):
        write_markdown(documents.single(), Path(tmp_path / "file" / "report.md"))
