"""Objects and sets among an environment's arguments are told apart alike in every process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from baq_cli.engine.phases.origin import Origin
from baq_cli.envs.ref import EnvRef, argument_text
from baq_cli.report.method_runs import course_of
from baq_cli.runs.files import read_json
from baq_cli.runs.folder import MANIFEST, RunDirectory
from support.counting_envs import Counting
from support.runs import execute, recipe_of

SHAPED = "Shaped-v0"


class Shape:
    """An argument that is equal to none but itself."""


class Shaped(Counting):
    def __init__(self, shape: Any, tags: Any, render_mode: str | None = None):
        super().__init__(render_mode=render_mode)


def register(monkeypatch: pytest.MonkeyPatch, shape: Any) -> None:
    """Register the environment as a process does that begins, with an object of its own."""
    with monkeypatch.context() as patch:
        patch.delitem(gym.registry, SHAPED, raising=False)
        gym.register(SHAPED, Shaped, max_episode_steps=4, kwargs={"shape": shape, "tags": {2, 1}})
        registered = gym.registry[SHAPED]
    monkeypatch.setitem(gym.registry, SHAPED, registered)


def short(env_steps: int) -> Any:
    evaluation = {"episodes": 1, "every_env_steps": 4, "background": False}
    run = {"env": SHAPED, "env_workers": False, "evaluation": evaluation, "env_steps": env_steps}
    return recipe_of("sac", {}, **run)


def test_the_text_of_an_argument_names_no_address_and_no_order() -> None:
    assert argument_text(Shape()) == argument_text(Shape())
    assert argument_text({"b", "a"}) == "{'a', 'b'}"
    assert argument_text("a at 1x0") != argument_text("a")
    assert argument_text(9.81) == "9.81"


def test_a_run_goes_on_and_is_compared_where_an_argument_is_an_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = Shape(), Shape()
    register(monkeypatch, shapes[0])
    execute(short(4), tmp_path / "one")
    register(monkeypatch, shapes[1])
    execute(short(4), tmp_path / "two")
    assert Origin.make(EnvRef(SHAPED), lambda event: None).environment == environment(
        tmp_path / "one"
    )
    said = environment(tmp_path / "two")
    said["kwargs"]["shape"] = repr(shapes[0])  # as earlier versions wrote it
    assert " at 0x" in said["kwargs"]["shape"]
    RunDirectory(tmp_path / "two").note({"environment": said})
    one, two = (course_of([tmp_path / name]).protocol for name in ("one", "two"))
    assert one == two
    execute(short(8), tmp_path / "one", resume=True)
    execute(short(8), tmp_path / "two", resume=True)


def environment(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(run / MANIFEST)["environment"]
    return found
