"""What reports of several runs advise is done here to the letter, and helps."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from support.advice import Terminal, follows
from support.commands import LOG, compared, finetune, log, pretrain, run

__all__ = ["compared", "log", "run"]
HEADER = "dataset,algo,seed_index,phase,eval_index,return,gradient_steps\n"


def curves_of(name: str) -> str:
    """Return a file of curves of one seed, in raw returns."""
    return HEADER + "".join(f"{LOG},{name},7,offline,{k},{-k},{k + 1}\n" for k in range(2))


@follows(
    "leave one out, or name it, NAME={}, to have both.",
    "name it once.",
    "'{}' names two settings: {} is {} in {} and {} in {}. Give them names of their own, or none: ",
    "cannot read {}: expected a folder, or NAME=RUN",
)
def test_runs_are_named_apart_or_once(terminal: Terminal, run: Path, tmp_path: Path) -> None:
    copy, other = tmp_path / "copy", tmp_path / "other"
    shutil.copytree(run, copy)
    terminal.done(*pretrain("iql", other, "iql.expectile=0.9"))
    report = ["report", "--out", str(tmp_path / "report")]
    said = terminal.told(*report, run, copy)
    (form,) = re.findall(r"NAME=\S+(?=, to have both)", said)
    terminal.done(*report, run)
    rest = copy if form.endswith(str(run)) else run
    terminal.done(*report, form.replace("NAME", "again"), rest)
    assert "name it once" in terminal.told(*report, run, run)
    assert "names two settings" in terminal.told(*report, f"a={run}", f"a={other}")
    terminal.done(*report, f"a={run}", f"b={other}")
    assert "expectile=0.9" in terminal.done(*report, run, other)
    assert "NAME=RUN" in terminal.told(*report, f"a={run}", "=b")
    terminal.done(*report, f"a={run}", f"b={other}")


@follows("{} has evaluations {} in {}, and {} in {}, so their seeds can't be put together: report")
def test_runs_of_other_phases_are_reported_alike_or_named(
    terminal: Terminal, run: Path, tmp_path: Path
) -> None:
    online, first = tmp_path / "online", tmp_path / "first"
    report = ["report", "--out", str(tmp_path / "report")]
    terminal.done(*pretrain("iql", first, "--seeds", "1,"))
    terminal.done(*finetune(first, online))
    assert "report runs of the same phases" in terminal.told(*report, run, online)
    terminal.done(*report, run, first)
    terminal.done(*report, run, f"online={online}")


@follows(
    "{}={}: a name is for a run, and {} is of a comparison, whose methods have names: give it",
)
def test_a_comparison_is_given_without_a_name(
    terminal: Terminal, compared: Path, tmp_path: Path
) -> None:
    report = ["report", "--out", str(tmp_path / "report")]
    assert "give it without one" in terminal.told(*report, f"mine={compared}")
    terminal.done(*report, compared)


@follows(
    "{}: two courses are called '{}', and one of them is from a file of curves: rename it there",
    "{}: two courses are called '{}': rename one of them",
)
def test_curves_of_a_name_that_a_run_has_are_renamed(
    terminal: Terminal, run: Path, tmp_path: Path
) -> None:
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    one.write_text(curves_of("iql"))
    other.write_text(curves_of("theirs"))
    report = ["report", "--out", str(tmp_path / "report"), "--curves"]
    assert "column algo" in terminal.told(*report, one, run)
    terminal.done("report", "--curves", one, "--out", tmp_path / "report", f"ours={run}")
    terminal.done(*report, other, run)
    assert "two courses" in terminal.told(*report, one, "--curves", one)
    terminal.done(*report, one, "--curves", other)


@follows("Runs were made with different versions of the simulator: see the runs.")
def test_the_runs_of_a_report_say_their_versions(
    terminal: Terminal, run: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    terminal.done(*pretrain("awac", other))
    manifest = other / "manifest.json"
    from baq_cli.runs.files import json_bytes, read_json

    content = read_json(manifest)
    content["versions"]["gymnasium"] = "0.1.2"
    manifest.write_bytes(json_bytes(content))
    terminal.done("report", run, other, "--out", tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "see the runs" in text
    assert "0.1.2" in text
