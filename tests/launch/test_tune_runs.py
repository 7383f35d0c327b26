"""Searches of true runs: what is reported, what it cost, and what its messages advise."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from baq_cli.launch.cells import Cell
from baq_cli.launch.journal import read_state
from baq_cli.launch.pruning import Pruning
from baq_cli.launch.tuning.search import Search
from baq_cli.launch.worker import work
from baq_cli.runs.checkpoints import complete
from baq_cli.runs.folder import read_metrics
from support.advice import Terminal, follows, quoted
from support.commands import LOG, SMALL, log
from support.launching import cells_in, own_data
from support.logs import listing

__all__ = ["log"]
SEARCH = ("--search", "iql.expectile=0.5..0.9")
TRIALS = ("--trials", "3", "--at-once", "2", "--workers", "1")
SEEDS = ("--seeds", "0..1", "--report-seeds", "5..6")
STEPS = ("--gradient-steps", "4", "--env-steps", "6")
EVERY = ("env_workers=false", "evaluation.every_env_steps=3", "evaluation.every_gradient_steps=4")


def tune(out: Path, *words: str, algo: str = "iql") -> list[str]:
    """Return the words of a small search, without what it searches and on which seeds."""
    given = ["tune", "--algo", algo, "--dataset", LOG, "--out", str(out)]
    return [*given, *TRIALS, *STEPS, *SMALL, *EVERY, *words]


@pytest.fixture(autouse=True)
def _quick_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figures and write no page: other tests do."""
    monkeypatch.setattr("baq_cli.report.write.draw_figures", lambda document, folder: [])
    monkeypatch.setattr("baq_cli.report.write.write_page", lambda document, page: page)


# -- what comes out


def test_only_scores_on_seeds_that_did_not_choose_are_reported(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    out = tmp_path / "s"
    words = tune(out, *SEARCH, *SEEDS)
    status, said, _ = terminal.run(*words, "--json")
    assert status == 0
    found = json.loads(said)
    assert found == json.loads((out / "tune.json").read_text())
    assert (found["choosing_seeds"], found["reported"]["seeds"]) == ([0, 1], [5, 6])
    assert [trial["stage"] for trial in found["trials"]] == ["done"] * 3
    scores = [trial["choosing_score"] for trial in found["trials"]]
    assert found["chosen"]["trial"] == scores.index(max(scores))
    rows = [row for row in read_metrics(report_of(out, found)) if row["phase"] == "online"]
    assert {row["seed"] for row in rows} == {5, 6}
    final = found["reported"]["statistics"]["final"]
    last = [row["return_mean"] for row in rows if row["env_steps"] == 6]
    assert final["per_seed"] == pytest.approx(last, rel=1e-5)
    every = 2 * 3 * (6 // 3 + 1 + 4 // 4)  # two seeds, three steps an episode, four evaluations
    for cost in (
        *(trial["env_steps"] for trial in found["trials"]),
        found["reported"]["env_steps"],
    ):
        assert cost == {"training": 2 * 6, "evaluation": every, "total": 12 + every}
    assert found["choosing_env_steps"]["total"] == 3 * (12 + every)
    before = listing(out / "trials")
    shown = terminal.done(*words)
    assert listing(out / "trials") == before, "the same command trains nothing"
    told = " ".join(shown.split())
    assert f"choosing cost {3 * (12 + every)} environment steps (36 of online training" in told
    assert "reported on seeds 5, 6, none of which chose" in told
    (command,) = re.findall(r"^to run it: (.*)$", shown, re.MULTILINE)
    again = terminal.run(*command.split()[1:], "--json")
    (task,) = json.loads(again[1])["tasks"]
    assert list(task["methods"]) == ["iql"]
    assert task["methods"]["iql"]["statistics"]["final"]["per_seed"] == final["per_seed"]
    terminal.done("pretrain", "--recipe", str(out / "chosen.yaml"), "--out", str(tmp_path / "p"))
    rows = json.loads(terminal.run("tune", "status", str(out), "--json")[1])
    assert [row["stage"] for row in rows] == ["done"] * 3


def report_of(out: Path, found: dict[str, Any]) -> Path:
    return out / found["reported"]["report"] / "cells" / LOG / "iql" / "online"


def written(run: Path) -> list[int]:
    """Return when each file of a run's parameters was written."""
    return [path.stat().st_mtime_ns for path in sorted(run.rglob("*.safetensors"))]


def test_a_search_that_goes_on_may_report_another_trial_and_keeps_the_report_before(
    terminal: Terminal, log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, chosen = tmp_path / "s", 0
    monkeypatch.setattr(Search, "best", lambda search: search.trials()[chosen])

    def reported(trials: int) -> Path:
        words = tune(out, *SEARCH, *SEEDS, "--trials", str(trials), "--json")
        return report_of(out, json.loads(terminal.run(*words)[1]))

    first = reported(1)
    chosen = 1
    second = reported(2)
    assert first != second
    before, other = written(first), written(second)
    (out / "report-0000").rename(out / "report")  # as earlier versions called it
    chosen = 0
    former = reported(2)
    assert former.is_relative_to(out / "report")
    assert [written(former), written(second)] == [before, other], "neither was trained again"


def test_from_offline_estimates_choose_and_no_environment_step_is_spent(
    terminal: Terminal, log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baq_cli.envs import making

    def none(*words: Any) -> None:
        raise AssertionError("an environment was made")

    monkeypatch.setattr(making.gym, "make", none)
    out, few = tmp_path / "s", ("--trials", "2", "evaluation.estimate_updates=2")
    words = tune(out, *SEARCH, "--seeds", "2", "--from", "offline", *few)
    found = json.loads(terminal.run(*words, "--json")[1])
    assert found["choosing_env_steps"]["total"] == 0
    assert found["reported"] is None
    for trial in found["trials"]:
        cell = out / "trials" / f"{trial['trial']:04d}"
        rows = read_metrics(cell / "offline")
        assert {row["source"] for row in rows} == {"estimate"}
        mean = sum(row["return_mean"] for row in rows[-2:]) / 2
        assert trial["choosing_score"] == pytest.approx(mean)
        assert not (cell / "online").exists()
    assert "seeds: [2, 3]" in (out / "chosen.yaml").read_text(), "seeds that didn't choose"
    assert " estimated discounted return " in terminal.run(*words, "--trials", "3")[2]


def test_a_pruned_cell_is_saved_where_its_evaluation_decided_and_goes_on_no_more() -> None:
    with own_data() as folder:
        (cell,) = cells_in(folder / "out", ["iql"], "evaluation.every_env_steps=10")
        high = [[1e6] * 9] * 5
        rule = Pruning(chosen_from="online", below=50, earlier=high).model_dump()
        pruned = Cell(cell.task, cell.method, cell.folder, cell.recipe, "baq tune", False, rule)
        pruned.save()
        assert work(pruned.folder, threads=1) == 0
        assert read_state(pruned.folder).stage == "pruned"
        online = pruned.folder / "online"
        rows = read_metrics(online)
        assert [row["env_steps"] for row in rows if row["phase"] == "online"] == [0, 10, 20]
        assert complete(online)[-1].name == "online-20"
        before = listing(online)
        assert work(pruned.folder, threads=1) == 0
        assert listing(online) == before
        assert read_state(pruned.folder).stage == "pruned"


def test_a_trial_that_diverges_is_one_that_failed_and_the_search_goes_on(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    search = ("--search", "iql.learning_rate=1e-3,1e30", *SEEDS, "--trials", "2")
    found = json.loads(terminal.run(*tune(tmp_path / "s", *search), "--json")[1])
    stages = {trial["settings"]["iql.learning_rate"]: trial for trial in found["trials"]}
    assert stages[1e-3]["stage"] == "done"
    assert stages[1e30]["stage"] == "failed"
    assert stages[1e30]["choosing_score"] is None
    assert "NaN" in stages[1e30]["error"]
    assert found["chosen"]["settings"] == {"iql.learning_rate": 1e-3}


def test_a_recipe_says_what_is_searched_and_the_command_goes_over_it(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "tune.yaml"
    recipe.write_text(
        f"algo: iql\ndataset: {LOG}\nseeds: [0, 1]\ngradient_steps: 4\nenv_steps: 6\n"
        "tune:\n  search: {iql.beta: 1..9:log, iql.critics: [1, 3]}\n  trials: 9\n"
        "  report_seeds: [5]\n  chosen_from: final\n"
    )
    out = tmp_path / "s"
    words = ("tune", "--recipe", str(recipe), "--trials", "2", "--workers", "1", *SMALL)
    found = json.loads(terminal.run(*words, "--out", str(out), "--json")[1])
    assert found["search"] == {"iql.beta": "1..9:log", "iql.critics": "1,3"}
    assert len(found["trials"]) == 2
    assert found["chosen_from"] == "final"
    for trial in found["trials"]:
        rows = read_metrics(out / "trials" / f"{trial['trial']:04d}" / "online")
        assert trial["choosing_score"] == pytest.approx(
            sum(r["return_mean"] for r in rows[-2:]) / 2
        )
    recipe.write_text(recipe.read_text().replace("trials", "trails"))
    assert "unknown recipe key 'tune.trails'; did you mean 'trials'?" in terminal.told(
        *words, "--out", str(out)
    )


# -- what messages advise


@follows(
    "nothing to search: give --search KEY=LOW..HIGH (repeatable), or 'search' in the recipe's ",
    "a search needs a dataset: give --dataset ID ('baq data list')",
    "'{}' is searched, and set to {}: leave one of them out",
)
def test_what_a_search_lacks_is_what_the_message_names(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    words = tune(tmp_path / "s", *SEEDS, "--trials", "1")
    terminal.told(*words)
    without = [word for word in [*words, *SEARCH] if word not in ("--dataset", LOG)]
    assert LOG in terminal.done(*quoted(terminal.told(*without), "baq data list"))
    assert "set to 0.8" in terminal.told(*words, *SEARCH, "iql.expectile=0.8")
    terminal.done(*words, *SEARCH)


@follows(
    "seeds that chose it. Give --report-seeds others than {}, as {}",
    "the chosen setting is reported on seeds that didn't choose it: give --report-seeds, as {}",
)
@pytest.mark.parametrize("report", [(), ("--report-seeds", "1,9")])
def test_seeds_that_a_message_proposes_report(
    report: tuple[str, ...], terminal: Terminal, log: str, tmp_path: Path
) -> None:
    words = tune(tmp_path / "s", *SEARCH, "--seeds", "2", "--trials", "1")
    said = terminal.told(*words, *report)
    (proposed,) = re.findall(r"as (\d+\.\.\d+)", said)
    terminal.done(*words, "--report-seeds", proposed)


@follows(
    "--from {}: '{}' has no online phase to choose by; say --from pretraining or --from offline",
    "--from {}: '{}' has no offline phase to choose by; say --from online or --from final",
    "can't be compared; say --from pretraining or --from online, which play",
)
@pytest.mark.parametrize(
    ("algo", "key", "chosen_from"),
    [
        ("bc", "policy_learning_rate=1e-3,1e-4", "online"),
        ("sac", "tau=0.01,0.02", "offline"),
        ("iql", "discount=0.9,0.99", "offline"),
    ],
)
def test_another_source_that_is_named_chooses(
    algo: str, key: str, chosen_from: str, terminal: Terminal, log: str, tmp_path: Path
) -> None:
    search = ("--search", f"{algo}.{key}", *SEEDS, "--trials", "1")
    said = terminal.told(*tune(tmp_path / "s", *search, "--from", chosen_from, algo=algo))
    named = re.findall(r"--from (\w+)", said.partition("say")[2])
    assert len(named) == 2
    for name in named:
        more = ("--from", name, "evaluation.estimate_updates=2")
        terminal.done(*tune(tmp_path / name, *search, *more, algo=algo))


@follows(
    "{} holds another search: {}. Give the values it was begun with, or choose another --out.",
    "{} holds no search: expected the --out of a 'baq tune'",
    ". 'baq tune status' shows how far a search is",
)
def test_a_folder_goes_on_with_its_own_search_alone(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    terminal.told("tune", "status", str(tmp_path), status=3)
    words = tune(tmp_path / "s", *SEARCH, *SEEDS, "--trials", "1")
    terminal.done(*words)
    told = terminal.told("compare", "status", str(tmp_path / "s"), status=3)
    assert "'baq tune status'" in told
    assert "trial 0" in terminal.done("tune", "status", str(tmp_path / "s"))
    for other, named in {
        ("iql.beta=2",): "iql.beta was 3.0, this command says 2",
        ("--env-steps", "9"): "protocol.env_steps was 6, this command says 9",
        ("--prune-below", "0"): "prune_below was 50.0, this command says 0",
        ("--search", "iql.tau=0.1..0.2"): "search.iql.tau was None, this command says 0.1..0.2",
        ("--seeds", "3"): "recipe.seeds",
    }.items():
        said = terminal.told(*words, *other)
        assert named.removeprefix("recipe.") in said
    terminal.done(*words)
    terminal.done(*words, "--trials", "2")
    terminal.done(*words, "iql.beta=2", "--out", str(tmp_path / "other"))
