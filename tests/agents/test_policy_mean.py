"""The same weights under another mean would be another policy: no method takes them over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from baq_cli.cli.finetune import inherited
from baq_cli.engine.checkpoints.folder import load
from baq_cli.errors import UsageError
from support.recordings import ID
from support.runs import execute, recipe_of

pytestmark = pytest.mark.usefixtures("steady_dataset")

RUN: dict[str, Any] = {"env": "Steady-v0", "gradient_steps": 2, "env_steps": 2}
PLAIN = {"normalize_observations": False, "reward_scale": 1.0}


def pretrained(algo: str, out: Path, **method: Any) -> Path:
    execute(recipe_of(algo, PLAIN | method, dataset=ID, **RUN), out)
    return out


def test_a_method_takes_over_the_mean_of_the_policy_that_it_continues(tmp_path: Path) -> None:
    source = pretrained("iql", tmp_path / "iql")
    (layer,) = inherited(load(source), "awac", {})
    assert layer["awac"] == {"mean": "tanh"}
    execute(recipe_of("awac", PLAIN | layer["awac"], **RUN), tmp_path / "on", source=source)
    assert load(tmp_path / "on").document["algo"] == "awac"


def test_awac_with_a_linear_mean_refuses_a_squashed_policy_and_says_the_way(tmp_path: Path) -> None:
    source = pretrained("iql", tmp_path / "iql")
    asked = recipe_of("awac", PLAIN | {"mean": "linear"}, **RUN)
    with pytest.raises(UsageError, match=r"policy is tanh, .* linear: say awac\.mean=tanh"):
        execute(asked, tmp_path / "on", source=source)


def test_a_linear_mean_is_continued_by_its_own_method_alone(tmp_path: Path) -> None:
    source = pretrained("awac", tmp_path / "awac", mean="linear")
    with pytest.raises(UsageError, match=r"pre-train with awac\.mean=tanh, or continue it by 'aw"):
        execute(recipe_of("iql", PLAIN, **RUN), tmp_path / "iql", source=source)
    (layer,) = inherited(load(source), None, {})
    assert layer["awac"]["mean"] == "linear"
    asked = recipe_of("awac", layer["awac"], **RUN)
    execute(asked, tmp_path / "on", source=source)
    assert load(tmp_path / "on").document["recipe"]["awac"]["mean"] == "linear"


@pytest.mark.parametrize(
    ("algo", "tanh", "linear", "key"),
    [
        ("awac", {"mean": "tanh"}, {"mean": "linear"}, "awac.mean"),
        *(
            (
                wrapper,
                *({"base": "awac", "awac": {"mean": mean}} for mean in ("tanh", "linear")),
                key,
            )
            for wrapper, key in (("baq", "baq.awac.mean"), ("famo2o", "famo2o.awac.mean"))
        ),
    ],
)
def test_its_own_method_does_not_make_another_policy_of_a_checkpoint_either(
    algo: str, tanh: dict[str, Any], linear: dict[str, Any], key: str, tmp_path: Path
) -> None:
    source = pretrained(algo, tmp_path / "source", **tanh)
    with pytest.raises(UsageError, match=rf"policy is tanh, .* linear: say {key}=tanh\."):
        execute(recipe_of(algo, PLAIN | linear, **RUN), tmp_path / "on", source=source)
    execute(recipe_of(algo, PLAIN | tanh, **RUN), tmp_path / "on", source=source)
