"""Tables written as text: what can be told of them is read, and what can't be is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.data.logs.delimited import read_csv
from baq_cli.data.logs.dialect import DELIMITERS
from baq_cli.data.logs.mapping import Mapping, parse_mapping
from baq_cli.data.minari.folder import local_datasets
from baq_cli.data.minari.read import load_episodes
from baq_cli.errors import BaqError, DataError, UsageError
from support.logs import NEW, import_table, written

Command = Callable[..., tuple[int, str, str]]
NAMES = ["x", "v", "u", "r", "end"]
ROWS = [[0.5, -1.25, 0.25, 1.0, 0.0], [2.0, 0.125, -0.5, -3.5, 0.0], [4.75, 8.0, 0.0, 2.0, 1.0]]
PLAIN = {"observation": ["x", "v"], "action": "u", "reward": "r", "terminated": "end"}


def table(between: str = ",", rows: Any = ROWS, names: Any = NAMES) -> str:
    return "\n".join(between.join(map(str, row)) for row in [names, *rows]) + "\n"


def mapping(**more: Any) -> Mapping:
    return parse_mapping({**PLAIN, **more}, "m.yaml")


def rows_of(path: Path, said: Mapping | None = None) -> list[list[float]]:
    """Return what a file's columns hold, in the order of NAMES."""
    log = read_csv(path, said or mapping()).log
    columns = [*log.observations[""].T, log.actions.ravel(), log.rewards, log.terminated]
    return [[float(v) for v in row] for row in zip(*columns, strict=True)]


BODY = table().partition("\n")[2]
EURO = table(";").replace(".", ",")
READ = {
    "plain": table(),
    "carriage returns": table().replace("\n", "\r\n"),
    "the old Macintosh's": table().replace("\n", "\r"),
    "no last line end": table().rstrip(),
    "spaces": table(", "),
    "spaces before": table(" ,"),
    "quoted names behind spaces": '"x", "v", "u", "r", "end"\n' + BODY,
    "semicolons": table(";"),
    "a European spreadsheet's": EURO,
    "its own word of it": "sep=;\n" + EURO,
    "its own word of tabs": "sep=\t\n" + table("\t"),
    "decimal commas in quotes": table(
        rows=[[f'"{value}"'.replace(".", ",") for value in row] for row in ROWS]
    ),
    "decimal commas between tabs": table("\t").replace(".", ","),
    "tabs": table("\t"),
    "bars": table("|"),
    "savetxt's spaces": "# " + table(" "),
    "columns in line": table("   "),
    "savetxt's header": "# " + table(","),
    "MATLAB's comment": "%" + table(","),
    "a header of another kind than the rows": "# x v u r end\n" + BODY,
    "comments": "# robot 7, firmware 1.2\n#\n% 2024-03-05\n" + table(),
    "comments, then a header in one": "# robot 7\n# x,v,u,r,end\n" + BODY,
    "a comment at the end": table() + "# stopped by hand\n",
    "a comment in the middle": table().replace("\n2.0", "\n# a pause\n2.0"),
    "a comma at every end": table().replace("\n", ",\n"),
    "a comma at the header's end": table().replace("end\n", "end,\n"),
    "a comma at the rows' ends": table().replace("0.0\n", "0.0,\n"),
    "an index": table(names=["", *NAMES], rows=[[k, *row] for k, row in enumerate(ROWS)]),
    "a spreadsheet's empty rows": table() + ",,,,\n,,,,\n",
    "blank lines": "\n\n" + table().replace("\n", "\n\n"),
}


@pytest.mark.parametrize("name", READ)
def test_the_same_table_is_read_however_it_is_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(READ[name].encode())
    assert rows_of(path) == ROWS


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_an_encoding_is_known_by_its_mark(encoding: str, tmp_path: Path) -> None:
    marks = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}
    path = tmp_path / "log.csv"
    path.write_bytes(marks.get(encoding, b"") + table().encode(encoding))
    assert rows_of(path) == ROWS


def test_two_bytes_a_letter_without_a_mark_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(table().encode("utf-16-le"))
    with pytest.raises(DataError, match="UTF-16 without a byte order mark"):
        read_csv(path, mapping())


def test_bytes_that_are_no_letters_may_stand_where_nothing_asks_for_them(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [[*row, "Größe".encode("latin-1")] for row in ROWS]
    lines = [[*NAMES, "Höhe".encode("latin-1")], *rows]
    path.write_bytes(
        b"\n".join(
            b",".join(c if isinstance(c, bytes) else str(c).encode() for c in line)
            for line in lines
        )
    )
    assert rows_of(path) == ROWS
    with pytest.raises(DataError, match="expected a number"):
        read_csv(path, mapping(observation=["x", "H*he"]))


def test_words_that_differ_in_such_bytes_are_different_episodes(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"x,v,u,r,run\n1,2,0,1,K\xe4\n3,4,0,1,K\xe4\n5,6,0,1,K\xf6\n")
    episode = read_csv(path, mapping(terminated=None, episode="run")).log.episode
    assert episode is not None
    assert episode.tolist() == [0, 0, 1]


# -- the law: what is written is what is read


numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)


@given(
    rows=st.lists(st.tuples(*[numbers] * 4), min_size=1, max_size=6),
    between=st.sampled_from(list(DELIMITERS)),
    comma=st.booleans(),
    top=st.sampled_from(["", "# by hand\n", "\ufeff", "\n"]),
    end=st.sampled_from(["\n", "\r\n"]),
    more=st.sampled_from(["", "note", "é"]),
)
def test_whatever_a_table_is_written_with_its_numbers_are_read_or_asked_about(
    rows: list[tuple[float, ...]],
    between: str,
    comma: bool,
    top: str,
    end: str,
    more: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    comma = comma and between != ","
    names = [*NAMES, *filter(None, [more])]
    lines = [
        [*(repr(v).replace(".", "," if comma else ".") for v in (*row, 0.0)), *filter(None, [more])]
        for row in rows
    ]
    text = top + end.join(between.join(line) for line in [names, *lines]) + end
    path = tmp_path_factory.getbasetemp() / "random.csv"
    path.write_bytes(text.encode())
    assert rows_of(path) == [[*row, 0.0] for row in rows]


@given(
    content=st.text(alphabet='01.,;\t |#%"\n\rxvure-\u00e9\0', max_size=60) | st.binary(max_size=40)
)
def test_whatever_a_file_holds_it_is_read_or_refused(
    content: str | bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "junk.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    for said in (None, mapping(), mapping(columns=NAMES), mapping(delimiter=" ", decimal=",")):
        with contextlib.suppress(BaqError):
            read_csv(path, said)


# -- what can be read in two ways is asked for


@pytest.mark.parametrize(
    ("text", "said", "way"),
    [
        ("x;v;u;r;end\n1,234;2;0;1;0\n2,345;2;0;1;1\n", "divide thousands", {"decimal": ","}),
        ("x,v,u,r,end\nm,m/s,N,,\n" + BODY, "If line 2 holds units", {"units_row": True}),
        (BODY, "no header of names", {"columns": NAMES}),
        (f"# {BODY}{BODY}", "no header of names", {"columns": NAMES}),
    ],
    ids=["thousands", "units", "no header", "numbers in a comment"],
)
def test_what_can_be_read_in_two_ways_is_refused_with_the_way(
    text: str, said: str, way: dict[str, Any], tmp_path: Path
) -> None:
    path = written(tmp_path / "log.csv", text)
    with pytest.raises(BaqError, match=said) as caught:
        read_csv(path, mapping())
    assert next(iter(way)).replace("_", "-") in str(caught.value).replace("_", "-")
    assert rows_of(path, mapping(**way))[-1][-1] == 1


def test_a_decimal_comma_is_one_where_it_says_so(tmp_path: Path) -> None:
    path = written(tmp_path / "log.csv", "x;v;u;r;end\n1,234;2;0;1;0\n")
    assert rows_of(path, mapping(decimal=","))[0][0] == 1.234
    for text in ("1,234;2,5", "0,234;2", "1234,5;2", "12,34;2", "1,2345;2", "-0,5e-3;2"):
        written(path, f"x;v;u;r;end\n{text};0;1;0\n")
        expected = [float(cell.replace(",", ".")) for cell in text.split(";")]
        assert rows_of(path)[0][:2] == expected


@pytest.mark.parametrize("cell", ["1.234,5", "1,234.5", "1 234", "1,234,567", "1'234", "1_234"])
def test_marks_of_thousands_are_never_taken_for_another_number(cell: str, tmp_path: Path) -> None:
    path = written(tmp_path / "log.csv", f"x;v;u;r;end\n{cell};0,5;0;1;0\n")
    with pytest.raises(BaqError):
        read_csv(path, mapping())
    written(path, f"x;v;u;r;end\n{cell};2;0;1;0\n")
    with pytest.raises(BaqError):
        read_csv(path, mapping())


def test_both_decimal_marks_in_one_table_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "log.csv", "x;v;u;r;end\n0.5;2;0;1;0\n0,5;2;0;1;1\n")
    with pytest.raises(DataError, match=r"'0,5' in line 3 .* '0.5' in line 2"):
        read_csv(path, mapping())


def test_cells_that_two_letters_may_divide_are_asked_about(tmp_path: Path) -> None:
    """By either the header has the names asked for."""
    text = "x,x;v,v;u,u;r,r;end,end\n" + "1,2;3,4;5,6;7,8;0,1\n" * 2
    path = written(tmp_path / "log.csv", text)
    said = mapping(observation="x*", action="*v", reward="*u*", terminated="end*")
    with pytest.raises(BaqError, match="--delimiter"):
        read_csv(path, said)


def test_names_decide_where_two_letters_cut_rows_evenly(tmp_path: Path) -> None:
    rows = "".join(f"{k},0,0,1,{k // 2},a;b\n" for k in range(3))
    path = written(tmp_path / "log.csv", f"{','.join(NAMES)},tags;more\n{rows}")
    assert [row[0] for row in rows_of(path)] == [0, 1, 2]


def test_a_name_that_the_header_has_twice_is_refused_only_where_it_is_asked_for(
    tmp_path: Path,
) -> None:
    text = table(names=[*NAMES, "note", "note"], rows=[[*row, "a", "b"] for row in ROWS])
    path = written(tmp_path / "log.csv", text)
    assert rows_of(path) == ROWS
    for said in ({"observation": ["x", "note"]}, {"observation": ["x", "n*"]}):
        with pytest.raises(DataError, match="'note' twice"):
            read_csv(path, mapping(**said))


@pytest.mark.parametrize("header", ["0,1,2,3,4", ",0,1,2,3,4"])
def test_pandas_names_by_number_are_names_where_they_are_asked_for(
    header: str, tmp_path: Path
) -> None:
    rows = [[k, *row] for k, row in enumerate(ROWS)] if header[0] == "," else ROWS
    path = written(tmp_path / "log.csv", table(names=[header], rows=rows))
    asked = {"observation": ["0", "1"], "action": "2", "reward": "3", "terminated": "4"}
    assert rows_of(path, parse_mapping(asked, "m")) == ROWS
    with pytest.raises(DataError, match="no header"):
        read_csv(path, parse_mapping({**asked, "observation": "[01]"}, "m"))


def test_units_are_left_out_and_steps_are_not(tmp_path: Path) -> None:
    path = written(tmp_path / "log.csv", table())
    with pytest.raises(DataError, match="line 2 holds no units"):
        read_csv(path, mapping(units_row=True))
    written(path, EURO)
    with pytest.raises(DataError, match="line 2 holds no units"):
        read_csv(path, mapping(units_row=True))
    written(path, table(rows=[["1", "m/s", "-", "1", ""], *ROWS]))
    assert rows_of(path, mapping(units_row=True)) == ROWS


def test_missing_values_are_missing_in_any_words(tmp_path: Path) -> None:
    path = written(tmp_path / "log.csv", "x,v,u,r,end\n1,NA,0,n/a,0\nnan,null,0,None,1\n")
    log = read_csv(path, mapping()).log
    assert np.isnan(log.observations[""]).tolist() == [[False, True], [True, True]]
    assert np.isnan(log.rewards).all()


# -- from the command line


def test_flags_say_what_a_mapping_says(folder: Path, baq_here: Command) -> None:
    path = written(folder / "log.tsv", "obs;action;reward;terminated\nm;N;1;1\n1,234;0;1;1\n")
    words = ("data", "import", path, "--id", NEW, "--action-low=-1", "--action-high=1")
    words += ("--only-terminations", "--units-row", "--decimal", ",")
    status, _, said = baq_here(*words)
    assert status == 0, said
    assert "read with ';' between cells, units in line 2, decimal commas" in said
    assert load_episodes(NEW).obs.tolist() == [[np.float32(1.234)]]


@pytest.mark.parametrize(
    "words",
    [
        ("--delimiter", ";;"),
        ("--delimiter", ""),
        ("--delimiter", '"'),
        ("--delimiter", "\n"),
        ("--decimal", "x"),
        ("--reward", "constant:x"),
    ],
)
def test_flags_that_say_nothing_are_refused(
    words: tuple[str, str], folder: Path, baq_here: Command
) -> None:
    path = written(folder / "log.csv", table())
    status, _, said = baq_here("data", "import", path, "--id", NEW, *words)
    assert status == 2, said
    assert local_datasets() == []


def test_what_says_how_text_is_read_is_refused_for_other_files(folder: Path) -> None:
    np.savez(folder / "log.npz", x=np.zeros(3))
    with pytest.raises(UsageError, match="leave 'decimal' out"):
        import_table(folder / "log.npz", {**PLAIN, "decimal": ","})
