"""Seeds that were trained apart are one course; other settings have other names."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baq_cli.cli.report import Named
from baq_cli.envs.scores import Reference
from baq_cli.errors import UsageError
from baq_cli.report.document import ReportInfo, build_document
from baq_cli.report.joining import Found, join
from baq_cli.report.method_runs import Course
from baq_cli.report.run_facts import RunFacts
from baq_cli.untrusted import TRUST_VARIABLE
from support.advice import follows
from support.courses import ENVIRONMENT, TASK, Returns, run_of
from support.recordings import ID
from support.runs import execute, recipe_of
from support.small_data import write_steady


def joined(*courses: Course | Found) -> list[Course]:
    return join([c if isinstance(c, Found) else Found(c) for c in courses])[0]


def refused(*courses: Course | Found) -> str:
    """Return why courses can't be one, which doesn't depend on their order but for the words'."""
    with pytest.raises(UsageError) as error:
        joined(*courses)
    for other in permutations(courses):
        with pytest.raises(UsageError):
            joined(*other)
    return str(error.value)


def numbers(courses: Sequence[Course]) -> Any:
    """Return what a document says, in an order of its own."""
    document = build_document(courses, ReportInfo("a report"))
    for key in ("made", "commands", "runs"):
        del document[key]
    document["methods"].sort()
    if document["aggregates"] is not None:
        for of in (document["aggregates"], document["aggregates"]["on_the_way"]):
            of["improvement"].sort(key=lambda pair: (pair["x"], pair["y"]))
        document["aggregates"]["tasks"].sort()
    for key in ("tasks", "recipes", "notes"):
        document[key].sort(key=lambda part: json.dumps(part, sort_keys=True))
    return document


# -- seeds


SCORES = st.floats(-1000, 1000, width=16)
SEEDS = st.dictionaries(st.integers(0, 50), st.lists(SCORES, min_size=4, max_size=4), min_size=2)


@given(returns=SEEDS.filter(lambda found: len(found) <= 7), data=st.data())
def test_seeds_in_any_folders_and_any_order_are_one_run_with_all_of_them(
    returns: Returns, data: st.DataObject
) -> None:
    seeds = data.draw(st.permutations(sorted(returns)))
    cuts = data.draw(st.sets(st.integers(1, len(seeds) - 1)))
    ends = [0, *sorted(cuts), len(seeds)]
    parts = [seeds[a:b] for a, b in pairwise(ends)]
    runs = [run_of(f"s{i}", {seed: returns[seed] for seed in part}) for i, part in enumerate(parts)]
    (found,) = joined(*data.draw(st.permutations(runs)))
    assert found.seeds == (tuple(sorted(returns)) if len(runs) > 1 else tuple(seeds))
    whole = run_of("whole", {seed: returns[seed] for seed in sorted(returns)})
    if len(runs) > 1:
        assert numbers([found]) == numbers([whole])


def test_one_two_and_two_seeds_of_three_folders_by_hand() -> None:
    one = run_of("a", {4: [0, 0, 0, 40]})
    two = run_of("b", {0: [0, 0, 0, 0], 3: [0, 0, 0, 30]})
    three = run_of("c", {2: [0, 0, 0, 20], 1: [0, 0, 0, 10]})
    for order in permutations((one, two, three)):
        (found,) = joined(*order)
        assert found.seeds == (0, 1, 2, 3, 4)
        assert found.curves["online"].returns[:, -1].tolist() == [0, 10, 20, 30, 40]
        assert [run.folder.name for run in found.runs] == ["b", "c", "a"]
        final = build_document([found], ReportInfo())["tasks"][0]["methods"]["iql"]["statistics"][
            "final"
        ]
        assert (final["mean"], final["count"]) == (20, 5)
        assert final["std"] == pytest.approx(np.sqrt(250), rel=1e-5)


def test_what_a_run_is_computed_on_keeps_no_seed_apart() -> None:
    machine = {"threads": 4, "device": "cpu", "env_workers": True, "capture": False}
    kept = {"keep_checkpoints": 9, "keep_agents": True, "track": ["tensorboard"], "acting": "cpu"}
    beside = {"evaluation": {"background": True}, "env_timeout_seconds": 9.0, "env_restarts": 1}
    (found,) = joined(run_of("a", [0]), run_of("b", [1], **machine, **kept, **beside))
    assert (found.method, found.seeds) == ("iql", (0, 1))


def test_limits_are_a_setting_each_by_its_name() -> None:
    """They change what is done, so what is learned and what is measured."""
    free, limited = run_of("a", [0]), run_of("b", [1], safety={"max_action_change": 0.1})
    assert [course.method for course in joined(free, limited)] == [
        "iql (safety.max_action_change=not set)",
        "iql (safety.max_action_change=[0.1])",
    ]
    envelope = {"observation_envelope": {"sigmas": 6.0}}
    names = [course.method for course in joined(limited, run_of("c", [2], safety=envelope))]
    assert len(set(names)) == 2
    (same,) = joined(limited, run_of("d", [3], safety={"max_action_change": 0.1}))
    assert (same.method, same.seeds) == ("iql", (1, 3))


def test_the_same_seed_twice_is_refused_with_both_folders_unless_named_apart() -> None:
    one, other = run_of("mine/a", [0, 1]), run_of("mine/b", [1, 2])
    said = refused(one, other)
    assert all(word in said for word in ("seed 1", "mine/a", "mine/b", "NAME=mine/"))
    apart = joined(one, Found(run_of("mine/b", [1, 2], method="again"), by_hand=True))
    assert [(course.method, course.seeds) for course in apart] == [
        ("iql", (0, 1)),
        ("again", (1, 2)),
    ]
    assert "name it once" in refused(one, one)


def test_other_budgets_and_other_environments_are_refused_by_the_field() -> None:
    said = refused(run_of("a", [0]), run_of("b", [1], env_steps=200))
    assert "'a' and 'b'" in said
    assert "env_steps is 100 and 200" in said
    heavy = ENVIRONMENT | {"kwargs": {"g": "9.81"}}
    said = refused(run_of("a", [0]), run_of("b", [1], environment=heavy))
    assert "environment is" in said
    assert "9.81" in said


@follows("and at {} in {}, so their seeds can't be put together: name one by NAME=RUN to see both")
def test_evaluations_that_begin_or_end_elsewhere_are_refused_unless_named() -> None:
    stopped = run_of("b", [1], counters=(0, 25, 50))
    said = refused(run_of("a", [0]), stopped)
    assert "end at 100 env_steps in a and at 50 in b" in said
    later = run_of("b", [1], counters=(25, 50, 100))
    assert "begin at 0 env_steps in a and at 25 in b" in refused(run_of("a", [0]), later)
    named = Found(replace(stopped, method="stopped"), by_hand=True)
    assert [course.method for course in joined(run_of("a", [0]), named)] == ["iql", "stopped"]


def test_evaluations_between_that_not_every_seed_has_are_left_out_and_said() -> None:
    fewer = run_of("b", {1: [1.0, 2.0, 3.0, 4.0]}, counters=(0, 40, 50, 100))
    for order in ((run_of("a", [0]), fewer), (fewer, run_of("a", [0]))):
        (found,) = joined(*order)
        assert found.curves["online"].counters.tolist() == [0, 50, 100]
        assert found.curves["online"].returns.tolist() == [[50.0, 60.0, 70.0], [1.0, 3.0, 4.0]]
        (said,) = [
            note for note in build_document([found], ReportInfo())["notes"] if "left out" in note
        ]
        assert said.startswith(f"{TASK}, iql: 2 online evaluations")


def test_a_run_of_one_phase_does_not_join_one_of_both() -> None:
    whole = run_of("whole", [0, 1], phases=("offline", "online"))
    said = refused(run_of("offline", [1], phases=("offline",)), whole)
    assert "whole shows its offline part too, so leave offline out" in said
    said = refused(run_of("offline", [2], phases=("offline",)), whole)
    assert "offline and online in whole, and offline in offline" in said


def test_what_the_guards_of_all_runs_did_is_said_once() -> None:
    quiet = {"action": "stop", "events": [], "bad_episodes": [1], "stopped": False}
    acted = quiet | {"events": [{"seed": 1, "env_steps": 50}], "bad_episodes": [2]}
    (course,) = joined(run_of("a", [0]), run_of("b", [1]))
    runs = tuple(
        RunFacts(run.folder, run.recipe, run.manifest | {"guard": guard})
        for run, guard in zip(course.runs, (quiet, acted), strict=True)
    )
    notes = build_document([replace(course, runs=runs)], ReportInfo())["notes"]
    said = [note for note in notes if "guard" in note]
    assert said == [
        f"{TASK}, iql: guard (stop) acted on seed 1 at 50 env_steps; 3 bad online episodes."
    ]


# -- settings


def test_other_settings_are_named_by_what_differs_in_any_order() -> None:
    low = [run_of("a", [0]), run_of("b", [1])]
    high = run_of("c", [0], iql={"expectile": 0.9, "hidden": [8, 8]}, overlap=True)
    names = {
        "iql (expectile=0.7, hidden=[256, 256], overlap=false)": (0, 1),
        "iql (expectile=0.9, hidden=[8, 8], overlap=true)": (0,),
    }
    for order in permutations((*low, high)):
        found = joined(*order)
        assert {course.method: course.seeds for course in found} == names
        assert {curve.label for c in found for curve in c.curves.values()} == set(names)


def test_a_name_given_by_hand_stays_and_is_of_one_setting() -> None:
    def by_hand(name: str, course: Course) -> Found:
        return Found(course, by_hand=True)

    base = [
        Found(run_of("a", [0], method="base"), True),
        Found(run_of("b", [1], method="base"), True),
    ]
    high = Found(run_of("c", [0], method="high", iql={"expectile": 0.9}), True)
    found = joined(*base, high)
    assert [(course.method, course.seeds) for course in found] == [("base", (0, 1)), ("high", (0,))]
    other = Found(run_of("c", [2], method="base", iql={"expectile": 0.9}), True)
    said = refused(base[0], other)
    assert "'base' names two settings: expectile is" in said
    assert "0.7 in a" in said
    assert "0.9 in c" in said
    # as the method is called, too: then the others are named apart from it
    kept = joined(Found(run_of("a", [0]), True), run_of("b", [1], iql={"expectile": 0.9}))
    assert [course.method for course in kept] == ["iql", "iql (expectile=0.9)"]


def test_a_setting_has_the_same_name_on_every_task() -> None:
    courses = [
        run_of("a", [0, 1]),
        run_of("b", [0, 1], iql={"expectile": 0.9}),
        run_of("c", [0, 1], task="other"),
        run_of("d", [0, 1], task="other", iql={"expectile": 0.9}),
        run_of("e", [0, 1], task="third", method="bc"),
    ]
    found = joined(*courses)
    low, high = "iql (expectile=0.7)", "iql (expectile=0.9)"
    assert [(course.task, course.method) for course in found] == [
        (TASK, low), (TASK, high), ("other", low), ("other", high), ("third", "bc"),
    ]  # fmt: skip
    alone = joined(courses[0], run_of("d", [0, 1], task="other", iql={"expectile": 0.9}))
    assert [course.method for course in alone] == ["iql", "iql"], "one setting a task"


def test_numbers_across_tasks_and_methods_do_not_depend_on_the_order_of_arguments() -> None:
    rng, reference = np.random.default_rng(0), Reference("mine", 0.0, 200.0, "made up")
    courses = [
        replace(
            run_of(
                name, {s: list(rng.normal(60, 20, 4)) for s in (0, 1, 2)}, task=task, **settings
            ),
            reference=reference,
        )
        for task in ("x", "y")
        for name, settings in (("low", {}), ("high", {"iql": {"expectile": 0.9}}))
    ]
    expected = numbers(joined(*courses))
    for order in ([3, 1, 0, 2], [2, 3, 1, 0], [1, 0, 3, 2]):
        assert numbers(joined(*(courses[i] for i in order))) == expected
    assert expected["aggregates"]["tasks"] == ["x", "y"]


def test_cells_of_a_grid_keep_their_names_and_a_run_beside_joins_its_own() -> None:
    cells = [run_of("g/1", [0], method="iql expectile=0.7"), run_of("g/2", [0], method="iql")]
    found = joined(*cells, run_of("s1", [1]))
    assert [(course.method, course.seeds) for course in found] == [
        ("iql expectile=0.7", (0,)),
        ("iql", (0, 1)),
    ]


def test_curves_from_a_file_join_no_run() -> None:
    file = replace(run_of("x", [5]), runs=(), protocol={"env_steps": 100})
    assert "NAME=RUN" in refused(run_of("a", [0]), file)
    assert "NAME=RUN" in refused(file, file)


# -- from the command line


def test_a_word_that_exists_is_a_path_and_others_may_name_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("iql expectile=0.9").mkdir()
    assert Named.of("iql expectile=0.9") == Named(Path("iql expectile=0.9"))
    assert Named.of("high=iql expectile=0.9") == Named(Path("iql expectile=0.9"), "high")
    assert Named.of("two\nwords=s0") == Named(Path("s0"), "two words")
    assert Named.of("s0") == Named(Path("s0"))
    for word in ("=s0", "a=", " =s0"):
        with pytest.raises(UsageError, match="NAME=RUN"):
            Named.of(word)


def test_seeds_and_settings_trained_by_separate_commands_stand_in_every_rendering(
    folder: Path, baq_here: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    monkeypatch.chdir(folder)
    write_steady(ID)
    run = {"dataset": ID, "env": "support.odd_envs:Steady-v0", "gradient_steps": 4}
    for name, seeds, settings in (
        ("s0", [0], {}), ("s21", [2, 1], {}), ("k", [0], {"expectile": 0.9})
    ):  # fmt: skip
        execute(recipe_of("iql", settings, **run, seeds=seeds), Path(name))
    status, printed, said = baq_here("report", "s0", "s21", "k", "--out", "rep", "--json")
    assert status == 0, said
    document = json.loads(printed)
    low, high = "iql (expectile=0.7)", "iql (expectile=0.9)"
    assert document["methods"] == [low, high]
    methods = document["tasks"][0]["methods"]
    assert {name: found["seeds"] for name, found in methods.items()} == {low: [0, 1, 2], high: [0]}
    assert document["tasks"][0]["protocol"]["env_steps"] is None, "there was no online phase"
    for file in ("results.json", "results.csv", "report.md", "report.html"):
        assert high in Path("rep", file).read_text(), file
    again = baq_here("report", "k", "s21", "s0", "--out", "rep2", "--json")[1]
    assert json.loads(again)["tasks"] == document["tasks"]

    words = ("report", "base=s0", "base=s21", "high=k", "--out", "rep")
    status, printed, _ = baq_here(*words, "--json")
    assert json.loads(printed)["methods"] == ["base", "high"]
    status, _, said = baq_here("report", "s0", "k", "base=s0", "high=s0", "--out", "rep")
    assert status == 0, said
    status, _, said = baq_here("report", "s0", "iql=s0", "--out", "rep")
    assert status == 2
    assert "name it once" in said


def test_what_is_to_be_said_of_any_run_is_said_of_all_of_them_together() -> None:
    first, second = run_of("a", [0]), replace(run_of("b", [1]), notes=("of the second",))
    for order in ((first, second), (second, first)):
        (course,) = joined(*order)
        assert course.notes == ("of the second",)
