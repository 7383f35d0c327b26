"""A run that was continued is reported by the recipe by which it went on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from baq_cli.errors import DataError, UsageError
from baq_cli.report.joining import Found, join
from baq_cli.report.method_runs import course_of
from baq_cli.report.protocol import check_same_protocol
from baq_cli.report.run_facts import read_run
from baq_cli.runs.folder import RECIPE, RunDirectory, read_logged
from support.runs import execute, recipe_of


def of_steps(env_steps: int, *seeds: int, **more: Any) -> Any:
    evaluation = {"episodes": 1, "every_env_steps": 10, "background": False}
    run = {"env_workers": False, "threads": 1, "evaluation": evaluation} | more
    return recipe_of("sac", {}, env="Short-v0", env_steps=env_steps, seeds=list(seeds), **run)


def test_a_continued_run_is_compared_by_the_steps_it_has_come_to(
    short_env: str, tmp_path: Path
) -> None:
    continued, at_once, short = (tmp_path / name for name in ("continued", "at_once", "short"))
    execute(of_steps(20, 0), continued)
    begun = (continued / RECIPE).read_bytes()
    execute(of_steps(20, 0), continued, resume=True)
    assert (continued / RECIPE).read_bytes() == begun, "nothing has changed"
    execute(of_steps(40, 0), continued, resume=True)
    execute(of_steps(40, 1), at_once)
    execute(of_steps(20, 1), short)
    assert course_of([continued]).protocol["env_steps"] == 40
    joined, _ = join([Found(course_of([run])) for run in (continued, at_once)])
    assert [course.seeds for course in joined] == [(0, 1)]
    with pytest.raises(UsageError, match="env_steps is 40 and 20"):
        check_same_protocol(
            "task", {run.name: course_of([run]).protocol for run in (continued, short)}
        )


def test_what_is_written_again_is_sealed_and_says_what_it_goes_on_from(
    short_env: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    execute(of_steps(10, 0, gradient_steps=7), run)
    execute(of_steps(20, 0, gradient_steps=9), run, resume=True)
    recipe = read_run(run).recipe
    assert (recipe["env_steps"], recipe["gradient_steps"]) == (20, 7)
    (run / RECIPE).write_bytes(
        (run / RECIPE).read_bytes().replace(b"env_steps: 20", b"env_steps: 2")
    )
    with pytest.raises(DataError, match="damaged"):
        read_run(run)


def test_a_run_that_is_killed_while_its_recipe_is_written_is_not_damaged(
    short_env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    execute(of_steps(10, 0), run)
    write = RunDirectory.write_manifest

    def killed(directory: RunDirectory, manifest: dict[str, Any]) -> None:
        if manifest.get("files"):
            raise KeyboardInterrupt
        write(directory, manifest)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "write_manifest", killed)
        with pytest.raises(KeyboardInterrupt):
            execute(of_steps(20, 0), run, resume=True)
    read_logged(run, RECIPE)
    with pytest.raises(DataError, match="has not ended"):
        read_run(run)
    execute(of_steps(20, 0), run, resume=True)
    assert read_run(run).recipe["env_steps"] == 20
