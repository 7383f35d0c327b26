"""A search of a method's keys: the same trials whatever happens, within its space and budget."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.errors import DataError, UsageError
from baq_cli.launch.pruning import LEAST_EVALUATIONS, LEAST_TRIALS, Pruning
from baq_cli.launch.tuning.optuna_rules import Known, propose
from baq_cli.launch.tuning.trials import Trial
from baq_cli.recipes.load import resolve
from baq_cli.recipes.search import Choices, Range, Space, layer_of, parse_search, space_of
from baq_cli.runs.folder import SEARCH
from support.searches import COST, RECIPE, SPACE, TOTAL, Killed, plan_in, searched

TORTURE = os.environ.get("BAQ_TORTURE") == "1"
FEW = settings(max_examples=100 if TORTURE else 4)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / "search"


def seen(trials: list[Trial]) -> list[Any]:
    return [(t.number, t.settings, t.stage, t.scores, t.cost) for t in trials]


# -- the space


def spaced(*words: str, algo: str = "iql") -> Space:
    return space_of(parse_search(words), [{"algo": algo}], algo, method_configs())


@given(
    low=st.floats(0.01, 0.5), width=st.floats(0.01, 0.4), log=st.booleans(), critics=st.booleans()
)
def test_a_space_is_what_its_words_say_and_its_words_say_it_again(
    low: float, width: float, log: bool, critics: bool
) -> None:
    high, end = low + width, ":log" if log else ""
    words = [f"iql.expectile={low!r}..{high!r}{end}", *(["iql.critics=1..9"] * critics)]
    space = spaced(*words)
    assert space["iql.expectile"] == Range(low, high, log)
    if critics:
        assert space["iql.critics"] == Range(1, 9, whole=True)
    assert spaced(*(f"{key}={part.as_text()}" for key, part in space.items())) == space


def test_choices_are_of_any_kind_and_numbers_are_numbers() -> None:
    space = spaced(
        "iql.hidden=[8],[8,8]", "iql.layer_norm=true,false", "iql.learning_rate=1e-4,0.01"
    )
    assert [part.ends for part in space.values()] == [([8], [8, 8]), (True, False), (1e-4, 0.01)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["iql.expectil=0.5..0.9"], "did you mean 'expectile'?"),
        (["iql.expectile=0.5..1"], "iql.expectile=0.5..1: recipe key 'iql.expectile'"),
        (["iql.expectile=0..0.5"], "should be greater than 0"),
        (["iql.expectile=0.5,1.5"], "should be less than 1, found 1.5"),
        (["iql.critics=0..3"], "greater than or equal to 1"),
        (["iql.critics=2..2000"], "1,000 at most"),
        (["iql.critics=1.5..3"], "is a whole number"),
        (["iql.layer_norm=0..1"], "is no number"),
        (["iql.hidden=8..16"], "is no number"),
        (["iql.beta=3..1"], "LOW below HIGH"),
        (["iql.beta=1..1e999"], "LOW below HIGH"),
        (["iql.reward_shift=-1..1:log"], "above 0"),
        (["iql.beta=1..2:cube"], "--search iql.beta=1..2:cube: expected KEY=LOW..HIGH"),
        (["iql.beta=1.."], "expected KEY=LOW..HIGH"),
        (["iql.beta"], "expected KEY=LOW..HIGH"),
        (["=1..2"], "expected KEY=LOW..HIGH"),
        (["iql.beta={a: 1"], "expected KEY=LOW..HIGH"),
        (["iql.beta=3"], "2 to 1,000 different values"),
        (["iql.beta=3,3"], "2 to 1,000 different values"),
        (["iql.learning_rate=1e-3,0.001"], "2 to 1,000 different values"),
        (["iql.beta=1..2", "iql.beta=1..3"], "given twice"),
        (["iql.tau=0.1..0.2", "shared.tau=0.1..0.2"], "the same key"),
        (["awac.beta=1..2"], "can't be searched: trials are of 'iql'"),
        (["seeds=1,2"], "can't be searched"),
        (["env_steps=1..2"], "can't be searched"),
        (["evaluation.episodes=1..2"], "can't be searched"),
        (["seedz=1,2"], "did you mean 'seeds'?"),
        (["guard.max_dro=1..2"], "did you mean 'max_drop'?"),
    ],
)
def test_what_the_schema_or_a_comparison_refuses_is_refused_before_anything_runs(
    words: list[str], said: str
) -> None:
    with pytest.raises(UsageError) as refusal:
        spaced(*words)
    assert said in str(refusal.value)


def test_values_that_fit_only_beside_others_of_the_search_pass() -> None:
    words = ["moore.members=2..9", "moore.elites=2..7"]
    spaced(*words, algo="moore")
    with pytest.raises(UsageError, match="elites"):
        spaced("moore.elites=2..90", algo="moore")


@pytest.mark.parametrize("algo", METHODS)
def test_every_number_of_every_method_can_be_searched_around_its_default(algo: str) -> None:
    section = resolve([{"algo": algo}], method_configs()).as_dict()[algo]
    assert isinstance(section, dict)
    for key, value in section.items():
        if type(value) not in (int, float):
            continue
        step, found = (1 if type(value) is int else 1e-9), []
        for low in (value, value - step):  # one of them may be a bound
            with contextlib.suppress(UsageError):
                (part,) = spaced(f"{algo}.{key}={low!r}..{low + step!r}", algo=algo).values()
                found.append(part.holds(value))
        assert found, key
        assert all(found), key


# -- proposals


@FEW
@given(seed=st.integers(0, 2**32 - 1), values=st.lists(st.floats(-1e3, 1e3), max_size=14))
def test_proposals_lie_in_the_space_differ_and_follow_from_the_trials_alone(
    seed: int, values: list[float]
) -> None:
    space = spaced(*(f"{k}={v}" for k, v in {**SPACE, "iql.critics": "2,4"}.items()))
    known: list[Known] = []
    for at, value in enumerate(values):
        setting = {"iql.expectile": 0.5 + at / 100, "iql.beta": 1.0 + at, "iql.critics": 2}
        setting["iql.beta"] = min(setting["iql.beta"], 10.0)
        scores = (value, value + 1)
        known.append(Known(setting, scores[: at % 3], value if at % 3 == 2 else None))
    found = propose(space, known, 4, seed)
    assert found == propose(space, known, 4, seed)
    assert propose(space, known, 2, seed) == found[:2]
    assert len({json.dumps(each) for each in [*found, *(k.settings for k in known)]}) == len(
        found
    ) + len(known)
    for settings_ in found:
        assert all(space[key].holds(value) for key, value in settings_.items())
        resolve([{"algo": "iql"}, layer_of(settings_)], method_configs())


def test_a_finite_space_is_tried_whole_and_nothing_twice() -> None:
    space: Space = {"a": Choices((1, "x", None)), "b": Range(1, 3, whole=True)}
    known: list[Known] = []
    while found := propose(space, known, 4, seed=0):
        known += [Known(each, (1.0,), 1.0) for each in found]
    tried = {(json.dumps(each.settings["a"]), each.settings["b"]) for each in known}
    assert len(known) == len(tried) == 9


# -- pruning

Scores = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8)


@given(own=Scores, earlier=st.lists(Scores, max_size=9), below=st.floats(0, 100))
def test_a_trial_is_pruned_where_its_score_lies_below_the_percentile_and_nowhere_before(
    own: list[float], earlier: list[list[float]], below: float
) -> None:
    def percentile(values: list[float]) -> float:
        place = (len(values) - 1) * below / 100
        first = sorted(values)[int(place)]
        return first + (sorted(values)[min(int(place) + 1, len(values) - 1)] - first) * (place % 1)

    expected = None
    for at in range(LEAST_EVALUATIONS, len(own)):
        there = [scores[at] for scores in earlier if len(scores) > at]
        enough = below > 0 and len(earlier) >= LEAST_TRIALS and there
        if enough and own[at] < percentile(there) - 1e-6:
            expected = at
            break
        if enough and own[at] < percentile(there) + 1e-6:
            return  # rounding decides
    rule = Pruning(chosen_from="online", below=below, earlier=earlier)
    assert rule.cut(own) == expected


# -- the search


@pytest.fixture(scope="module")
def undisturbed() -> list[Trial]:
    with folder() as out:
        trials, _ = searched(plan_in(out))
    assert {trial.stage for trial in trials} == {"done", "pruned"}
    return trials


@pytest.mark.torture
@FEW
@given(kills=st.lists(st.integers(1, 40), min_size=1, max_size=3), backwards=st.booleans())
def test_a_search_that_is_killed_at_any_moment_ends_with_the_same_trials(
    undisturbed: list[Trial], kills: list[int], backwards: bool
) -> None:
    with folder() as out:
        for evaluations in kills:
            try:
                searched(plan_in(out), evaluations=evaluations)
            except Killed:
                continue
        order = list(reversed(range(3))) if backwards else list(range(3))
        trials, search = searched(
            plan_in(out), order=lambda cells: sorted(cells, key=lambda c: order[_number(c) % 3])
        )
        assert seen(trials) == seen(undisturbed)
        assert search.ending == "trials"
        again, _ = searched(plan_in(out), evaluations=0)  # nothing is left to run
        assert seen(again) == seen(undisturbed)


def _number(cell: Any) -> int:
    return int(cell.folder.name)


def test_trials_whose_rule_hangs_on_one_that_was_lost_wait_for_it(
    undisturbed: list[Trial],
) -> None:
    """They are pruned by the scores of those before; without, they trained on to their end."""
    with folder() as out:
        searched(plan_in(out))
        (out / "trials" / "0000" / "state.json").unlink()
        ran = list[int]()
        trials, _ = searched(
            plan_in(out), order=lambda cells: ran.extend(map(_number, cells)) or list(cells)
        )
    assert ran == [0]
    assert seen(trials) == seen(undisturbed)


def test_more_trials_go_on_from_those_that_are_there(undisturbed: list[Trial]) -> None:
    with folder() as out:
        searched(plan_in(out, trials=5))
        trials, _ = searched(plan_in(out, trials=9))
    assert seen(trials) == seen(undisturbed)


@pytest.mark.torture
@FEW
@given(budget=st.integers(1, 7 * COST), kill=st.integers(0, 40), bound=st.sampled_from([1, 3]))
def test_a_trial_runs_where_those_before_it_cost_less_than_the_budget_and_only_there(
    undisturbed: list[Trial], budget: int, kill: int, bound: int
) -> None:
    with folder() as out:
        plan = plan_in(out, env_steps_budget=budget)
        try:
            trials, search = searched(plan, bound * COST, kill)
        except Killed:
            trials, search = searched(plan, bound * COST)
        ran = [trial for trial in trials if trial.ended]
        costs = [trial.cost.total for trial in undisturbed]
        assert seen(ran) == seen(undisturbed[: len(ran)])
        assert all(sum(costs[:number]) < budget for number in range(len(ran)))
        assert len(ran) == 9 or sum(costs[: len(ran)]) >= budget
        assert search.cost.total < budget + COST
        assert search.cost.total == sum(costs[: len(ran)])
        assert not [
            each for each in trials[len(ran) :] if (out / "trials" / f"{each.number:04d}").exists()
        ]


def test_costs_are_the_steps_of_training_and_of_evaluations_until_the_trial_ended(
    undisturbed: list[Trial],
) -> None:
    for trial in undisturbed:
        assert trial.counter is not None
        evaluations = 2 + 1 + trial.counter // 10
        assert trial.cost.training == 2 * trial.counter
        assert trial.cost.evaluation == evaluations * 2 * 5 * 7
        assert (trial.counter == TOTAL) == (trial.stage == "done")


def test_pruned_trials_are_below_the_median_of_those_that_finished_before(
    undisturbed: list[Trial],
) -> None:
    for trial in undisturbed:
        before = [t for t in undisturbed[: trial.number // 3 * 3] if t.stage == "done"]
        for at, score in enumerate(trial.scores[:-1] if trial.stage == "done" else trial.scores):
            there = sorted(t.scores[at] for t in before)
            count = len(there)
            middle = (there[(count - 1) // 2] + there[count // 2]) / 2 if there else 0
            below = at >= 2 and count >= 5 and score < middle
            assert below == (trial.stage == "pruned" and at == len(trial.scores) - 1)


def test_without_a_percentile_none_is_pruned() -> None:
    with folder() as out:
        trials, search = searched(plan_in(out, prune_below=0))
        assert {trial.stage for trial in trials} == {"done"}
        best = search.best()
        assert best.score == max(trial.score or 0 for trial in trials)


def test_a_finite_space_ends_the_search_when_all_is_tried() -> None:
    with folder() as out:
        trials, search = searched(plan_in(out, search={"iql.critics": [2, 3, 4, 5, 6]}))
        assert len(trials) == 5
        assert search.ending == "space"
        assert len(searched(plan_in(out, search={"iql.critics": [2, 3, 4, 5, 6]}))[0]) == 5


def test_settings_that_do_not_go_together_are_a_failed_trial_and_cost_nothing(
    tmp_path: Path,
) -> None:
    from baq_cli.launch.tuning.plan import plan_search
    from baq_cli.launch.tuning.search import Search

    recipe = RECIPE | {"algo": "moore"}
    asked = {"search": {"moore.members": [3, 9], "moore.elites": [2, 7]}, "report_seeds": [7]}
    plan = plan_search(recipe, {}, asked, tmp_path / "s", "baq tune")
    search = Search(plan, lambda cell: cell)

    def killed(cells: object) -> NoReturn:
        raise Killed("killed")

    with pytest.raises(Killed):
        search.run(killed, lambda trial: None)
    stages = {tuple(t.settings.values()): (t.stage, t.cost.total) for t in search.trials()}
    assert stages.pop((3, 7)) == ("failed", 0)
    assert set(stages.values()) == {("waiting", 0)}


@pytest.mark.parametrize(
    "damage",
    [
        lambda said: said["trials"][0].update({"iql.expectile": 0.95}),
        lambda said: said["trials"][0].update({"iql.critics": 3}),
        lambda said: said["trials"][0].pop("iql.beta"),
        lambda said: said["trials"].append({}),
        lambda said: said.update(search={}),
        lambda said: said.update(search={"recipe": 1}),
        lambda said: said.update(trials=[1]),
    ],
)
def test_a_folder_that_says_what_no_search_wrote_is_refused(damage: Any) -> None:
    from baq_cli.runs.files import json_bytes, read_json

    with folder() as out:
        searched(plan_in(out, trials=4))
        said = read_json(out / SEARCH)
        damage(said)
        (out / SEARCH).write_bytes(json_bytes(said))
        with pytest.raises((DataError, UsageError)):
            searched(plan_in(out, trials=4))
