"""results.csv alone makes the report again: every number, curve, recipe, version and command."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baq_cli.agents.registry import method_configs
from baq_cli.envs.scores import Reference
from baq_cli.errors import BaqError, DataError
from baq_cli.recipes.load import resolve
from baq_cli.report import results_csv
from baq_cli.report.curves import Curve
from baq_cli.report.document import Failure, ReportInfo, build_document
from baq_cli.report.joining import Found, join
from baq_cli.report.markdown import write_markdown
from baq_cli.report.method_runs import ONLINE_FIELDS, Course
from baq_cli.report.packed import FACTS as CELL
from baq_cli.report.packed import as_json
from baq_cli.report.paired import against_base
from baq_cli.report.protocol import protocol_of
from baq_cli.report.results_csv import REBUILT, SOURCE, read_sheet, write_sheet
from baq_cli.report.run_facts import RunFacts
from baq_cli.runs.files import parse_json
from baq_cli.units import UNITS, Phase
from support.advice import Terminal, follows
from support.commands import compared, log, run
from support.courses import run_of
from support.junk import changed
from support.places import REPOSITORY

__all__ = ["compared", "log", "run"]
ENVIRONMENT = {"id": "Pendulum-v1", "max_episode_steps": 200, "kwargs": {"g": float("inf")}}
FACTS = {"id": "me/arm/v0", "sha256": "ab", "episodes": 4, "transitions": 9} | {
    "return_mean": 1.0,
    "return_std": 0.5,
    "warnings": [],
}
TOLD = {
    "guard": {"action": "stop", "events": [{"env_steps": 1, "seed": 0}], "bad_episodes": [1]}
    | {"stopped": True},
    "intervention": {"env_steps": 9, "taken_over": [3], "course": [[4, [1]], [9, [3]]]},
    "limits": {"env_steps": 9, "acted": {"actions": [2]}, "stops": []},
    "shadow": {"env_steps": 9, "near": 0.1, "difference": [0.2], "agreed": [0.5]},
    "control": {"hz": 50.0, "deadlines": 9, "missed": 1, "worst_ms": 2.0, "p99_ms": 1.0}
    | {"utd": 1, "utd_reached": 0.5},
}
EXCEL_LETTERS = 32_767
METHODS = ("baq", "td3_bc", "iql")
SCORES = st.floats(-1e6, 1e6) | st.just(float("nan"))
NAMES = st.sampled_from(["me/arm/v0", "=2;=3|-x\n\r'", "'=a", "ünicode \ud83d", "x" * 60])


def rebuilt(courses: Sequence[Course], told: ReportInfo, folder: Path) -> dict[str, Any]:
    """Return the document that results.csv of these courses makes, after it was written again."""
    document, path = build_document(courses, told), folder / "results.csv"
    content = write_sheet(document, courses, told, path).read_bytes()
    sheet = read_sheet(path)
    found = build_document(sheet.courses, sheet.told)
    again = write_sheet(found, sheet.courses, sheet.told, folder / "again.csv")
    assert again.read_bytes() == content, "a sheet that is read and written is the same"
    assert found["notes"].pop(0) == REBUILT
    return found


def proper(value: Any) -> Any:
    """Return a document as UTF-8 has it, without when and by what it was made."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=True)
    return json.loads(text.encode("utf-8", "replace")) | {"made": None}


# -- made-up runs


def manifest(command: str, dataset: dict[str, Any], **more: Any) -> dict[str, Any]:
    said = {"command": command, "environment": ENVIRONMENT, "dataset": dataset}
    said |= {"started": "2026-11-22T18:00:00+00:00", "ended": "2026-11-22T19:00:00+00:00"}
    return said | {"versions": {"mujoco": "4.0"}, "hardware": {"cpus": 2}, "nobody's": [1]} | more


@st.composite
def ran(draw: st.DrawFn, task: str, method: str, facts: dict[str, Any]) -> Course:
    """Draw a method's course: a pre-training, mostly a fine-tuning, of seeds trained together."""
    seeds = sorted(draw(st.sets(st.integers(0, 2**40), min_size=1, max_size=4)))
    layer = {"algo": method, "dataset": "me/arm/v0", "seeds": seeds, "protocol": "matched"}
    layer |= {"gradient_steps": 40, "env_steps": 100, method: {"tau": draw(st.floats(1e-3, 1))}}
    recipe = resolve([layer], method_configs()).as_dict()
    curves: dict[Phase, Curve] = {}
    for phase, end in (("offline", 40), ("online", 100)):
        if phase == "online" and not draw(st.booleans()):
            break
        trained = seeds[: draw(st.integers(1, len(seeds)))]  # the others failed
        counters = sorted({*draw(st.sets(st.integers(0, end), max_size=4)), end})
        scores = draw(st.lists(SCORES, min_size=len(counters), max_size=len(counters)))
        returns = [np.roll(scores, i) for i in range(len(trained))]
        curves[phase] = Curve(
            method, phase, UNITS[phase], np.array(counters), np.array(returns), tuple(trained)
        )
    guard = {"action": "stop", "events": [{"env_steps": 50, "seed": seeds[0]}]}
    guard |= {"bad_episodes": [1] * len(seeds), "stopped": draw(st.booleans())}
    estimate = {seeds[0]: draw(st.floats(-9, 9))} if draw(st.booleans()) else {}
    runs = tuple(
        RunFacts(Path(f"{task}/{phase}"), recipe, manifest(f"baq {phase}; x", facts, guard=guard),
                 estimate)
        for phase in curves
    )  # fmt: skip
    protocol = protocol_of(recipe) | {"environment": ENVIRONMENT, "dataset's sha256": "ab"}
    if "online" not in curves:
        protocol = {key: v for key, v in protocol.items() if key not in ONLINE_FIELDS}
    reference = draw(st.none() | st.just(Reference("D4RL", -3.7, 91.3, "made up")))
    notes = draw(st.lists(NAMES, max_size=1))
    return Course(
        task, method, curves, "return", protocol, runs, ENVIRONMENT, facts, reference,
        notes=tuple(notes),
    )  # fmt: skip


@st.composite
def filed(draw: st.DrawFn, task: str, unit: Any) -> Course:
    """Draw curves from elsewhere, whose evaluations are counted and whose seeds are not equal."""
    curves: dict[Phase, Curve] = {}
    for phase in UNITS:
        count = draw(st.integers(1, 3))
        returns = draw(st.lists(st.lists(SCORES, min_size=2, max_size=2), min_size=count,
                                max_size=count))  # fmt: skip
        curves[phase] = Curve(
            "theirs", phase, "evaluations", np.arange(2), np.array(returns), tuple(range(count))
        )
    published = draw(st.booleans())
    return Course(task, "theirs", curves, unit, {}, steps_known=False, published=published)


@st.composite
def compared_runs(draw: st.DrawFn) -> tuple[list[Course], ReportInfo]:
    courses: list[Course] = []
    for task in draw(st.lists(NAMES, min_size=1, max_size=2, unique=True)):
        facts = {"id": task, "sha256": "ab", "episodes": 4, "transitions": 9, "warnings": [task]}
        facts |= {"return_mean": draw(st.floats(-99, 99)), "return_std": 1 / 3}
        for method in draw(st.lists(st.sampled_from(METHODS), min_size=1, unique=True)):
            courses.append(draw(ran(task, method, facts)))
        if draw(st.booleans()) and all(course.reference for course in courses):
            courses.append(draw(filed(task, draw(st.sampled_from(["return", "normalized score"])))))
    lost = st.lists(st.integers(0, 9), max_size=2).map(tuple)
    failures = draw(st.lists(st.builds(Failure, NAMES, NAMES, NAMES, lost), max_size=2))
    told = ReportInfo(
        draw(NAMES), ("baq compare --out '=1;-2'",), tuple(failures),
        draw(st.none() | st.floats(-9, 9)), tuple(draw(st.permutations(METHODS))),
    )  # fmt: skip
    return draw(st.permutations(courses)), told


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(made=compared_runs())
def test_a_report_of_results_csv_is_the_report_of_its_runs(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[list[Course], ReportInfo]
) -> None:
    courses, told = made
    found = rebuilt(courses, told, tmp_path_factory.mktemp("rebuilt"))
    assert proper(found) == proper(build_document(courses, told))


def test_seeds_trained_apart_stand_beside_their_runs_in_cells_that_spreadsheets_take(
    tmp_path: Path,
) -> None:
    runs = [run_of(f"s{seed}", [seed], phases=("offline", "online")) for seed in range(12)]
    for course in runs:
        course.runs[0].manifest.update(manifest("baq", FACTS))
    courses, _ = join([Found(replace(course, dataset=FACTS)) for course in runs])
    found = rebuilt(courses, ReportInfo(), tmp_path)
    assert [of["folder"] for of in found["runs"]] == [f"s{seed}" for seed in range(12)]
    rows = table(tmp_path / "results.csv")
    for row in rows:
        ((_, (kept,)),) = json.loads(f'{{"runs": {row["runs"]}}}').items()
        assert kept["recipe"]["seeds"] == [int(row["seed"])]
    assert max(len(cell) for row in rows for cell in row.values()) < EXCEL_LETTERS


def test_all_of_a_course_is_kept(sheet: Path) -> None:
    kept = {field.name for field in fields(Course)} - {"curves", "runs"}
    said = [row[CELL] for row in table(sheet) if row[CELL]]
    assert said
    assert all(set(json.loads(each)) == kept | {"place"} for each in said)


# -- the file


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results.csv of two methods, of three seeds each."""
    courses = [
        run_of(f"runs/{name}", [0, 1, 2], method=name, phases=tuple(UNITS))
        for name in ("iql", "other")
    ]
    for course in courses:
        course.runs[0].manifest.update(manifest("baq", FACTS, **TOLD))
    courses = [replace(course, dataset=FACTS) for course in courses]
    path = tmp_path_factory.mktemp("sheet") / "results.csv"
    told = ReportInfo("two", failures=(Failure("me/arm/v0", "awac", "out of luck"),))
    return write_sheet(build_document(courses, told), courses, told, path)


def refusal(content: str, folder: Path) -> str:
    (folder / "results.csv").write_text(content, encoding="utf-8", newline="")
    with pytest.raises(DataError) as error:
        read_sheet(folder / "results.csv")
    return str(error.value)


def sealed_by_another(
    folder: Path, header: list[str], rows: list[list[str]], said: dict[str, Any]
) -> Path:
    """Write a table with what is said beside it, whose hash is `theirs`."""
    rows[0][-1] = as_json(said | {"sha256": "theirs"})
    path = folder / "results.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return path


def test_a_curve_is_in_its_own_units(sheet: Path) -> None:
    (first, *_) = table(sheet)
    curve = json.loads(first["online_curve"])
    assert curve == {"env_steps": [0, 25, 50, 100], "return": [50, 45, 60, 70]}


def test_a_sheet_of_no_finished_course_says_what_failed(tmp_path: Path) -> None:
    told = ReportInfo("none", ("baq compare",), (Failure("a", "b", "c\r\nd", (7,)),))
    found = rebuilt([], told, tmp_path)
    assert found["failures"] == [{"task": "a", "method": "b", "error": "c\r\nd", "seeds": [7]}]
    assert (found["title"], found["commands"]) == ("none", ["baq compare"])


def test_failures_of_earlier_versions_say_no_seeds(
    sheet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, *rows = csv.reader(io.StringIO(sheet.read_text()))
    said = parse_json(rows[0][-1], sheet)
    del said["failures"][0]["seeds"]
    path = sealed_by_another(tmp_path, header, rows, said)
    monkeypatch.setattr(results_csv, "hash_of", lambda content: "theirs")
    assert read_sheet(path).told.failures == (Failure("me/arm/v0", "awac", "out of luck"),)


def test_a_sheet_that_is_not_what_was_written_is_refused(sheet: Path, tmp_path: Path) -> None:
    text = sheet.read_text()
    for changed_text in (
        text.replace("[50.0,45.0,60.0,71.0]", "[50.0,45.0,60.0,72.0]"),
        text.replace("out of luck", "in luck"),
        "".join(text.splitlines(keepends=True)[:-1]),
        "".join(line for i, line in enumerate(text.splitlines(keepends=True)) if i != 2),
    ):
        assert changed_text != text
        assert "is not what was written" in refusal(changed_text, tmp_path)
    (tmp_path / "results.csv").write_text(text.replace("\n", "\r\n"), newline="")
    assert read_sheet(tmp_path / "results.csv").told.title == "two", "line ends are no matter"
    assert "not as long as its header" in refusal(text + "a\n", tmp_path)
    assert "not as long" in refusal(text.splitlines(keepends=True)[0], tmp_path)
    for odd in ("", "\0", "a,b\n", '"'):
        refusal(odd, tmp_path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_a_stranger_sealed_is_refused_or_shown(
    sheet: Path, tmp_path: Path, data: st.DataObject
) -> None:
    header, *rows = csv.reader(io.StringIO(sheet.read_text()))
    said = parse_json(rows[0][-1], sheet)
    del said["sha256"]
    at = data.draw(st.sampled_from(SOURCE))
    row = data.draw(st.sampled_from([row for row in rows if row[header.index(at)]]))
    if at == "report":
        said = data.draw(changed(said))
    else:
        row[header.index(at)] = as_json(data.draw(changed(json.loads(row[header.index(at)]))))
    path = sealed_by_another(tmp_path, header, rows, said)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(results_csv, "hash_of", lambda content: "theirs")
            found = read_sheet(path)
        document = build_document(found.courses, found.told)
    except BaqError:
        return
    json.dumps(document, allow_nan=False)
    write_markdown(document, tmp_path / "report.md")


# -- the command


@pytest.mark.parametrize(
    "shipped",
    sorted(REPOSITORY.glob("docs/results/*/results.csv")),
    ids=lambda path: path.parent.name,
)
def test_what_the_pages_rest_on_is_whole(shipped: Path) -> None:
    """By its seal: paths that were shortened by hand had made one of them refused.

    And every method has run on every task.
    """
    courses = read_sheet(shipped).courses
    methods, tasks = ({getattr(of, name) for of in courses} for name in ("method", "task"))
    assert len(methods) > 3
    assert len(courses) == len(methods) * len(tasks)


@follows("have a part in the differences; --protocol matched makes such settings alike.")
def test_methods_and_their_bases_differ_in_nothing_else_in_the_comparisons_that_say_so() -> None:
    """They ran under `--protocol matched`, which promises it."""
    path = REPOSITORY / "docs" / "results" / "evidence" / "results.csv"
    courses = read_sheet(path).courses
    assert {course.runs[-1].recipe["protocol"] for course in courses} == {"matched"}
    tasks: dict[str, dict[str, Course]] = {}
    for course in courses:
        tasks.setdefault(course.task, {})[course.method] = course
    rows = against_base(list(tasks.values()), ["baq"])
    assert len(rows) == len(tasks) + 1
    assert not any(row["unlike"] for row in rows)


@follows(
    "{} is not what was written (its SHA-256 differs): it was damaged, edited, or saved by ",
    "{} has the columns {}: expected a results.csv that ends with the columns {}, which earlier ",
)
def test_a_report_of_results_csv_or_of_its_runs_where_that_is_not_whole(
    terminal: Terminal, compared: Path, tmp_path: Path
) -> None:
    copy, out = tmp_path / "results.csv", tmp_path / "again"
    first, text = json.loads((compared / "results.json").read_text()), (compared / "results.csv")
    copy.write_text(text.read_text())
    terminal.done("report", copy, "--out", out)
    again = json.loads((out / "results.json").read_text())
    assert again["notes"].pop(0) == REBUILT
    assert again | {"made": None} == first | {"made": None}
    assert (out / "results.csv").read_text() == copy.read_text()
    assert REBUILT in (out / "report.md").read_text()
    assert "give it without one" in terminal.told("report", f"a={copy}", "--out", out)
    for bad in (copy.read_text().replace("iql", "lqi", 1), "task,seed\n"):
        copy.write_text(bad)
        assert "rite it again: 'baq report RUNS'" in terminal.told("report", copy, status=3)
    terminal.done("report", compared, "--out", tmp_path)  # over the bad one
    assert copy.read_text() == text.read_text()
