"""Keys that one phase alone reads: a grid of them makes cells of the methods that have it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from baq_cli.launch.matrix import PHASE_OF
from baq_cli.recipes.closed import Closed
from baq_cli.recipes.schema import EvaluationConfig, RunConfig
from baq_cli.units import UNITS, Phase
from support.runs import execute, recipe_of
from support.small_data import write_counting

SECTIONS: dict[type[Closed], str] = {RunConfig: "", EvaluationConfig: "evaluation."}
COUNTING = "me/counting/small-v0"


@contextmanager
def reading(found: set[str]) -> Iterator[None]:
    """Add to `found` what is read meanwhile of a run's keys, also inside its evaluation's."""
    with pytest.MonkeyPatch.context() as patch:
        for model, prefix in SECTIONS.items():

            def read(self: Any, name: str, prefix: str = prefix) -> Any:
                if name in type(self).model_fields:
                    found.add(prefix + name)
                return object.__getattribute__(self, name)

            patch.setattr(model, "__getattribute__", read)
        yield


def test_a_key_that_one_phase_alone_reads_is_of_that_phase(folder: Path) -> None:
    """A method without the phase would run once for each of its values, to the same numbers."""
    write_counting(COUNTING)
    steps = {"gradient_steps": 4, "env_steps": 4}
    recipe = recipe_of("awac", {}, dataset=COUNTING, env="Counting-v0", **steps)
    read: dict[Phase, set[str]] = {phase: set() for phase in UNITS}
    with reading(read["offline"]):
        execute(recipe, folder / "offline")
    with reading(read["online"]):
        execute(recipe, folder / "online", source=folder / "offline")
    alone: dict[Phase, set[str]] = {
        "offline": read["offline"] - read["online"],
        "online": read["online"] - read["offline"],
    }
    assert "gradient_steps" in alone["offline"]
    assert "overlap" in alone["online"]
    for phase, keys in alone.items():
        assert {key: PHASE_OF.get(key) for key in keys} == dict.fromkeys(keys, phase)
    for key, phase in PHASE_OF.items():
        assert key in read[phase]
