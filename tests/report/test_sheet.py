"""results.csv holds every seed's numbers to the last digit, and no formula."""

from __future__ import annotations

import csv
import re

import pytest

from baq_cli.errors import DataError
from baq_cli.report.document import ReportInfo
from baq_cli.report.results_csv import column, write_sheet
from support import documents

COLUMNS = {
    "offline": "offline",
    "handover": "handover",
    "deepest_dip": "deepest_dip",
    "dip_env_steps": "dip_env_steps",
    "online_mean": "online_mean",
    "regret": "regret_score_env_steps",
    "final": "final",
    "best": "best",
    "env_steps_to_threshold": "env_steps_to_threshold",
}


def rows_of(document, folder):
    path = write_sheet(document, [], ReportInfo(), folder / "results.csv")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def entries(document):
    """Each task, method, its results, and the place of a seed, in the sheet's order."""
    for task in document["tasks"]:
        for method in document["methods"]:
            results = task["methods"].get(method)
            for i in range(len(results["seeds"]) if results else 0):
                yield task, method, results, i


@pytest.mark.parametrize("name", ["rich", "hostile", "single"])
def test_every_seed_has_a_row_with_its_exact_numbers(tmp_path, name):
    document = getattr(documents, name)()
    rows = rows_of(document, tmp_path)
    for row, (task, method, results, i) in zip(rows, entries(document), strict=True):
        assert (row["task"], row["method"]) == (task["name"], method)
        assert (row["seed"], row["source"]) == (str(results["seeds"][i]), results["source"])
        assert row["unit"] == task["unit"]
        assert row["dataset_sha256"] == (task["dataset"] or {"sha256": ""})["sha256"]
        for statistic, heading in COLUMNS.items():
            value = results["statistics"][statistic]["per_seed"][i]
            assert row[heading] == "" if value is None else float(row[heading]) == value


def test_columns_say_their_units():
    units = {name: of["unit"] for name, of in documents.STATISTICS.items()}
    assert {name: column(name, unit) for name, unit in units.items()} == COLUMNS


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "＝", "\t", "\r", "\n"])
def test_a_name_is_never_a_formula_and_a_number_stays_one(tmp_path, begin):
    document = documents.single()
    name = f'{begin}HYPERLINK("http://example.org";"x")'
    document["methods"] = [name]
    task = document["tasks"][0]
    task |= {"name": name, "environment": name, "methods": {name: task["methods"]["iql"]}}
    task["methods"][name]["statistics"]["final"]["per_seed"] = [-1234.5e-20]
    (row,) = rows_of(document, tmp_path)
    for cell in (row["task"], row["method"], row["environment"]):
        assert cell == f"'{name}".replace("\r", "\n")
    assert float(row["final"]) == -1234.5e-20
    assert not row["final"].startswith("'")


@pytest.mark.parametrize("name", ['a,"b"\nc;d', "a\r\nb", "x\x00y", "\ud83d", "'=1", ""])
def test_odd_names_leave_rows_whole(tmp_path, name):
    document = documents.single()
    document["methods"] = [name]
    task = document["tasks"][0]
    task["methods"] = {name: task["methods"]["iql"]}
    (row,) = rows_of(document, tmp_path)
    for bad, good in (("\r\n", "\n"), ("\x00", "\ufffd"), ("\ud83d", "?")):
        name = name.replace(bad, good)
    assert row["method"] == name
    assert None not in row


def test_a_sheet_that_cant_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write the results .*results\.csv"):
        write_sheet(documents.single(), [], ReportInfo(), tmp_path / "file" / "results.csv")


@pytest.mark.parametrize("separator", [";", "\t", "|", "\n", "; ", ';"', ";\t"])
@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "＝"])
def test_no_formula_begins_within_a_name_either(tmp_path, separator, begin):
    """Where cells are divided by something else, Excel and LibreOffice split the text there."""
    document = documents.single()
    (task,) = document["tasks"]
    task["name"] = f"d/t{separator}{begin}cmd|' /C calc'!A0;y"
    write_sheet(document, [], ReportInfo(), tmp_path / "results.csv")
    text = (tmp_path / "results.csv").read_text(encoding="utf-8")
    for cell in re.split(r"[;|\t\n]", text):
        assert not cell.strip(' "').startswith(begin), "but for numbers, which hold no letters"
    assert f"'{begin}cmd" in text
