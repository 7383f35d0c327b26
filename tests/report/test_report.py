"""Curves, statistics, figures and tables, on rows written by hand."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from baq_cli.cli.report import Named, heading, report, write_document
from baq_cli.errors import DataError, ExitStatus, UsageError
from baq_cli.launch.cells import Cell, save_matrix
from baq_cli.launch.journal import write_state
from baq_cli.report.curves import phase_curves
from baq_cli.report.figure import draw
from baq_cli.report.summary import mean_over_seeds, std_over_seeds, summarise
from baq_cli.report.tables import as_records, run_table


def offline_row(seed, gradient_steps, value):
    return row("offline", seed, gradient_steps, 0, value)


def online_row(seed, env_steps, value):
    return row("online", seed, 20_000 + env_steps, env_steps, value)


def row(phase, seed, gradient_steps, env_steps, value):
    return {
        "phase": phase,
        "seed": float(seed),
        "gradient_steps": float(gradient_steps),
        "env_steps": float(env_steps),
        "return_mean": float(value),
    }


def online(*returns_by_seed, every=1000):
    return [
        online_row(seed, i * every, value)
        for seed, returns in enumerate(returns_by_seed)
        for i, value in enumerate(returns)
    ]


OFFLINE = [
    offline_row(seed, steps, value)
    for steps, values in ((10_000, (50, 60, 70)), (20_000, (100, 110, 150)))
    for seed, value in enumerate(values)
]
# The first quarter of 8000 is 2000: the 10 of seed 1, at 3000, doesn't count.
ONLINE = online(
    (100, 80, 70, 200, 200, 200, 200, 200, 300),
    (120, 130, 140, 10, 200, 200, 200, 200, 330),
    (140, 90, 130, 200, 200, 200, 200, 200, 420),
)


def summary_of(rows, label="baq"):
    return summarise(label, phase_curves(rows, label), "Hopper-v5", "baq/hopper/medium-v0")


def printed(table, width=80):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


# -- curves


def test_a_fine_tuning_holds_both_phases():
    curves = phase_curves(OFFLINE + ONLINE, "baq")
    assert curves["offline"].counters.tolist() == [10_000, 20_000]
    assert curves["offline"].unit == "gradient_steps"
    assert curves["offline"].returns.tolist() == [[50, 100], [60, 110], [70, 150]]
    assert curves["online"].counters.tolist() == list(range(0, 9000, 1000))
    assert curves["online"].unit == "env_steps"
    assert curves["online"].returns.shape == (3, 9)
    assert curves["online"].seeds == (0, 1, 2)


def test_a_phase_without_rows_is_absent():
    assert list(phase_curves(OFFLINE, "baq")) == ["offline"]
    assert list(phase_curves(ONLINE, "baq")) == ["online"]
    assert phase_curves([], "baq") == {}


def test_counters_that_a_seed_misses_are_left_out():
    rows = online((1, 2, 3), (4, 5))
    curve = phase_curves([*rows, online_row(2, 0, 7), online_row(2, 2000, 8)], "baq")["online"]
    assert curve.counters.tolist() == [0]
    assert curve.returns.tolist() == [[1], [4], [7]]
    assert phase_curves([online_row(0, 0, 1), online_row(1, 1000, 1)], "baq") == {}


def test_a_later_fine_tuning_replaces_the_earlier_one():
    curve = phase_curves(online((1, 2, 3)) + online((4, 5), every=500), "baq")["online"]
    assert curve.counters.tolist() == [0, 500]
    assert curve.returns.tolist() == [[4, 5]]


# -- statistics


def test_statistics_equal_hand_computed_values():
    summary = summary_of(OFFLINE + ONLINE)
    assert summary["offline"].values.tolist() == [100, 110, 150]
    assert summary["handover"].values.tolist() == [100, 120, 140]
    assert summary["deepest_dip"].values.tolist() == [30, 0, 50]
    assert summary["final"].values.tolist() == [300, 330, 420]
    assert summary["handover"].mean == 120
    assert summary["handover"].std == pytest.approx(20)
    assert summary["final"].std == pytest.approx(math.sqrt((50**2 + 20**2 + 70**2) / 2))
    assert all(summary[name].count == 3 for name in ("offline", "handover", "deepest_dip", "final"))
    assert (summary.gradient_steps, summary.env_steps) == (20_000, 8000)


def test_the_dip_falls_back_to_the_first_evaluation_online():
    summary = summary_of(online((100, 60, 10), (50, 70, 0)))
    assert summary["deepest_dip"].values.tolist() == [40, 0]


def test_the_note_below_a_table_says_which_evaluation_counts_where_they_are_sparse():
    said = " ".join(printed(run_table(summary_of(online((100, 60, 10))))).split())
    assert "the first one after the hand-over" in said


def test_a_single_seed_has_no_spread():
    summary = summary_of(online((100, 60, 10)))
    assert summary["final"].mean == 10
    assert math.isnan(summary["final"].std)
    assert "10.0 ± –" in printed(run_table(summary))


def test_what_was_not_measured_is_unknown():
    for summary in (summary_of(OFFLINE), summary_of([online_row(0, 1000, 5), *OFFLINE])):
        assert summary["offline"].count == 3
        assert summary["handover"].count == summary["deepest_dip"].count == 0
        assert math.isnan(summary["deepest_dip"].mean)
    assert summary["final"].count == 1  # seed 0 alone went online
    assert summary_of([online_row(0, 0, 5)])["deepest_dip"].count == 0


def test_mean_and_spread_skip_seeds_without_a_value():
    values = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan]])
    np.testing.assert_array_equal(mean_over_seeds(values), [2.0, 2.0, np.nan])
    np.testing.assert_allclose(std_over_seeds(values), [np.sqrt(2), np.nan, np.nan])


# -- tables


def test_run_table_has_a_row_a_seed():
    lines = printed(run_table(summary_of(OFFLINE + ONLINE))).splitlines()
    rows = {line.split("  ")[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["1"] == ["110.0", "120.0", "0.0", "330.0"]
    assert rows["mean ± std"][2:5] == ["120.0", "±", "26.5"]
    assert "final" not in printed(run_table(summary_of(OFFLINE)))


def test_records_are_json_without_nan():
    records = as_records([summary_of(OFFLINE)])
    assert json.loads(json.dumps(records, allow_nan=False)) == records
    (record,) = records
    assert record["method"] == "baq"
    assert record["seeds"] == [0, 1, 2]
    assert record["offline"] == {
        "mean": 120.0,
        "std": pytest.approx(26.4575131),
        "low": 100.0,  # of three seeds, one draw in 27 is all of the lowest
        "high": 150.0,
        "count": 3,
        "never": 0,
        "per_seed": [100.0, 110.0, 150.0],
    }
    unknown = dict.fromkeys(("mean", "std", "low", "high"))
    assert record["final"] == {**unknown, "count": 0, "never": 0, "per_seed": [None] * 3}
    assert record["env_steps"] is None


# -- figures


def texts(svg: Path) -> list[str]:
    root = ElementTree.parse(svg).getroot()
    return ["".join(element.itertext()).strip() for element in root.iter() if "text" in element.tag]


def png_size(png: Path) -> tuple[int, int]:
    content = png.read_bytes()
    assert content.startswith(b"\x89PNG")
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def test_figure_names_methods_phases_and_hand_over(tmp_path):
    methods = {
        "baq": phase_curves(OFFLINE + ONLINE, "baq"),
        "a<b & $c$": phase_curves(ONLINE, "a<b & $c$"),
    }
    png, svg = draw(methods, tmp_path / "new", "Hopper-v5", dataset_return=90.0)
    assert (png, svg) == (tmp_path / "new" / "curves.png", tmp_path / "new" / "curves.svg")
    width, height = png_size(png)
    assert width == 1080
    assert 500 < height < 900
    found = texts(svg)
    for text in (*methods, "Hopper-v5", "hand-over", "20k", "dataset"):
        assert text in found
    assert {"offline: gradient steps", "online: environment steps"} < set(found)
    assert "return, mean ± std over 3 seeds" in found


@pytest.mark.parametrize("rows", [OFFLINE, ONLINE, [online_row(0, 0, 5)]])
def test_one_phase_has_no_hand_over(tmp_path, rows):
    _, svg = draw({"baq": phase_curves(rows, "baq")}, tmp_path, "", stem="one")
    assert svg.name == "one.svg"
    assert "hand-over" not in texts(svg)


def test_figures_are_reproducible(tmp_path):
    methods = {"baq": phase_curves(OFFLINE + ONLINE, "baq")}
    first, second = (draw(methods, tmp_path / name, "Hopper-v5") for name in "ab")
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_figure_without_an_evaluation_is_refused(tmp_path):
    with pytest.raises(DataError, match="no evaluation to draw"):
        draw({"baq": {}}, tmp_path, "Hopper-v5")


def test_importing_the_report_imports_neither_torch_nor_matplotlib():
    code = (
        "import sys, baq_cli.report.curves, baq_cli.report.summary, baq_cli.report.figure, "
        "baq_cli.report.tables; print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_title_names_a_few_methods_and_counts_many():
    assert heading(["iql", "awac", "iql"], ["a/b/c-v0"]) == "iql, awac on a/b/c-v0"
    assert heading(map(str, range(7)), ["d", "e"]) == "7 methods on d, e"


def missing_cell(out: Path, task: str) -> Cell:
    """Leave a comparison whose one cell has failed."""
    cell = Cell(task, "iql", out / "cells" / "one", {"algo": "iql", "seeds": [0]}, "baq …")
    save_matrix([cell], out)
    write_state(cell.folder, "failed", "out of luck", ExitStatus.DATA)
    return cell


def test_a_report_of_nothing_but_failures_is_called_by_what_is_missing(tmp_path):
    missing_cell(tmp_path, "me/arm/v0")
    document, _ = write_document([Named(tmp_path)], [], tmp_path / "r", None, None)
    assert document["title"] == "iql on me/arm/v0"


def test_published_curves_are_of_the_tasks_whose_cells_have_failed_too(tmp_path):
    task = "D4RL/antmaze/umaze-v1"
    missing_cell(tmp_path, task)
    document, _ = write_document([Named(tmp_path)], ["corl"], tmp_path / "r", None, None)
    assert [each["name"] for each in document["tasks"]] == [task]


@pytest.mark.parametrize("threshold", [math.nan, math.inf, -math.inf])
def test_a_threshold_that_is_no_number_is_refused_before_a_file_is_written(tmp_path, threshold):
    missing_cell(tmp_path, "me/arm/v0")
    with pytest.raises(UsageError, match=r"--threshold .*expected a score"):
        report([str(tmp_path)], out=tmp_path / "r", threshold=threshold)
    assert not (tmp_path / "r").exists()
