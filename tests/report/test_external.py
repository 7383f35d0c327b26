"""Curves from elsewhere: what is read, and what is refused by its line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from baq_cli.errors import DataError
from baq_cli.report.document import ReportInfo, build_document
from baq_cli.report.external import read_curves
from support.places import RECORDED

HEAD = "dataset,algo,seed_index,phase,eval_index,normalized_score"
STEPS = "dataset,algo,seed_index,phase,eval_index,gradient_steps,env_steps,return"
FINAL = RECORDED / "corl_antmaze_final.csv"
MEANS = {"AWAC": 16.46, "CQL": 95.58, "IQL": 78.50, "SPOT": 92.38, "Cal-QL": 97.33}
IQMS = {"AWAC": 0.0, "CQL": 97.0, "IQL": 83.0, "SPOT": 94.5, "Cal-QL": 98.2, "ReBRAC": 97.2}


def write(folder: Path, *lines: str, head: str = HEAD) -> Path:
    path = folder / "curves.csv"
    path.write_text("\n".join([head, *lines]), encoding="utf-8")
    return path


def evaluations(phase: str, *seeds: Sequence[float], task: str = "maze") -> list[str]:
    return [
        f"{task},CQL,{seed},{phase},{i},{score}"
        for seed, scores in enumerate(seeds)
        for i, score in enumerate(scores)
    ]


def test_published_numbers_come_out_of_published_curves() -> None:
    """CORL's antmaze runs (Apache-2.0): the means and IQMs that its authors' data have."""
    aggregates = build_document(read_curves(FINAL), ReportInfo())["aggregates"]
    found = aggregates["methods"]
    assert aggregates["runs"] == dict.fromkeys(found, 24)
    for method, mean in (MEANS | {"ReBRAC": 78.88}).items():
        assert found[method]["mean"]["value"] == pytest.approx(mean, abs=0.006)
    for method, iqm in IQMS.items():
        assert found[method]["iqm"]["value"] == pytest.approx(iqm, abs=0.051)
    low, high = (found["ReBRAC"]["iqm"][end] for end in ("low", "high"))
    assert (low, high) == pytest.approx((84, 98), abs=1)


def test_without_steps_evaluations_are_counted_from_the_hand_over(tmp_path: Path) -> None:
    lines = evaluations("offline", [5, 30], [6, 40]) + evaluations("online", [50], [60])
    (course,) = read_curves(write(tmp_path, *lines))
    assert not course.steps_known
    assert course.unit == "normalized score"
    online = course.curves["online"]
    assert online.unit == course.curves["offline"].unit == "evaluations"
    np.testing.assert_array_equal(online.counters, [0, 1])
    np.testing.assert_array_equal(online.returns, [[30, 50], [40, 60]])


def test_each_seed_is_handed_over_with_its_own_score_where_fewer_go_on(tmp_path: Path) -> None:
    lines = evaluations("offline", [5, 30], [6, 40])
    lines += [line for line in evaluations("online", [50], [60]) if ",1,online" in line]
    (course,) = read_curves(write(tmp_path, *lines))
    np.testing.assert_array_equal(course.curves["online"].returns, [[40, 60]])
    others = [line.replace("CQL,1", "CQL,2") for line in lines]
    (course,) = read_curves(write(tmp_path, *lines[:-1], others[-1]))
    np.testing.assert_array_equal(course.curves["online"].returns, [[60]])


def test_with_steps_a_phase_has_its_own_counter_and_no_hand_over_is_made_up(
    tmp_path: Path,
) -> None:
    lines = [f"maze,CQL,0,offline,{i},{1000 * i},0,{i}" for i in (1, 2)]
    lines += [f"maze,CQL,0,online,{i},{2000 + 10 * i},{10 * i},{5 * i}" for i in (1, 2)]
    (course,) = read_curves(write(tmp_path, *lines, head=STEPS))
    assert course.steps_known
    assert course.unit == "return"
    np.testing.assert_array_equal(course.curves["offline"].counters, [1000, 2000])
    np.testing.assert_array_equal(course.curves["online"].counters, [10, 20])
    assert course.protocol == {"gradient_steps": 2000, "env_steps": 20}


def test_only_evaluations_that_every_seed_has_are_kept_and_rows_may_come_in_any_order(
    tmp_path: Path,
) -> None:
    lines = evaluations("online", [1, 2, 3], [4, 5])
    (course,) = read_curves(write(tmp_path, *lines[::-1]))
    np.testing.assert_array_equal(course.curves["online"].returns, [[1, 2], [4, 5]])
    assert course.seeds == (0, 1)
    (said,) = course.notes
    assert "1 online evaluations that not every seed has are left out" in said
    assert said in build_document([course], ReportInfo())["notes"]


def test_two_evaluations_of_a_seed_at_one_counter_are_refused(tmp_path: Path) -> None:
    lines = [f"maze,CQL,0,online,{i},0,{steps},{i}" for i, steps in enumerate((0, 50, 50, 100))]
    with pytest.raises(DataError, match=r"seed 0 has two online evaluations .* at 50 env_steps"):
        read_curves(write(tmp_path, *lines, head=STEPS))


def test_a_file_that_a_spreadsheet_saved_is_read_as_one_without_its_mark(tmp_path: Path) -> None:
    (course,) = read_curves(write(tmp_path, *evaluations("online", [1, 2]), head=f"\ufeff{HEAD}"))
    np.testing.assert_array_equal(course.curves["online"].returns, [[1, 2]])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("maze,CQL,0,pretraining,0,1", "phase is 'pretraining'"),
        ("maze,CQL,zero,online,0,1", "invalid literal"),
        ("maze,CQL,0,online,0,nan", "finite score"),
        ("maze,CQL,0,online,0,inf", "finite score"),
        ("maze,CQL,-1,online,0,1", "0 or more"),
        ("maze,CQL,0,online,0", "line 3"),
        ("maze,CQL,0,online,7,1", "two online evaluations 7"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = write(tmp_path, "maze,CQL,0,online,7,3", line)
    with pytest.raises(DataError, match=said) as refused:
        read_curves(path)
    assert "line 3" in str(refused.value)


@pytest.mark.parametrize(
    "head",
    ["", "dataset,algo", HEAD.replace("phase", "Phase"), f"{HEAD},return", HEAD[:-17]],
)
def test_other_columns_are_refused(tmp_path: Path, head: str) -> None:
    with pytest.raises(DataError, match="expected dataset, algo"):
        read_curves(write(tmp_path, "maze,CQL,0,online,0,1", head=head))


def test_files_that_hold_no_curves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no evaluation"):
        read_curves(write(tmp_path))
    with pytest.raises(DataError, match="share no online evaluation"):
        read_curves(write(tmp_path, "m,A,0,online,0,1", "m,A,1,online,1,1"))
    with pytest.raises(DataError, match="cannot read"):
        read_curves(tmp_path / "absent.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot read"):
        read_curves(tmp_path / "bytes.csv")
