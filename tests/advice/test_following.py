"""Which fine-tunings a stance leads to, in which order, and the commands that start them."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baq_cli.advice.following import Continued, Option, follow, options
from baq_cli.advice.regimes import compare
from baq_cli.agents.registry import METHODS
from baq_cli.engine.checkpoints.continuing import continuing
from baq_cli.envs.ref import EnvRef


def continued(algo: str = "iql", **section: Any) -> Continued:
    own = METHODS[algo].Config(**section).model_dump(mode="json")
    document = {"algo": algo, "recipe": {"algo": algo, algo: own}}
    return Continued(Path("runs/a b"), document, "me/arm/log-v0", True, EnvRef("Arm-v0"), True)


def words(option: Option) -> list[str]:
    return shlex.split(option.command)


@pytest.mark.parametrize("algo", ["iql", "td3_bc", "cal_ql", "wsrl", "bc", "pex"])
@pytest.mark.parametrize("stance", ["policy", "both"])
def test_only_methods_that_can_go_on_are_named_and_each_has_the_stance(
    algo: str, stance: Any
) -> None:
    found = options(stance, continued(algo))
    names = [option.method for option in found]
    assert set(names) <= {algo, *continuing(algo)}
    assert len(set(names)) == len(names)
    assert all(option.anchors.stance == stance for option in found)
    assert all(not option.scratch for option in found)
    if METHODS[algo].learns_online:
        assert names[0] == algo
        assert "--algo" not in words(found[0])
    others = [option for option in found[1:] if METHODS[option.method].learns_offline]
    assert sorted(others, key=lambda option: bool(option.settings)) == others


def test_where_the_data_are_better_from_scratch_goes_before_all_and_the_loosest_first() -> None:
    first, *rest = options("data", continued("iql"))
    assert (first.method, first.scratch, first.anchors.stance) == ("rlpd", True, "data")
    assert "--checkpoint" not in words(first)
    assert words(first)[words(first).index("--env") + 1] == "Arm-v0"
    assert words(first)[words(first).index("--dataset") + 1] == "me/arm/log-v0"
    order = [option.anchors.constraint for option in rest]
    assert order == sorted(order, key=["none", "ends", "relaxes", "stays"].index)
    assert all(option.anchors.data for option in rest)


def test_what_a_checkpoints_own_recipe_says_counts() -> None:
    """An IQL that leaves the data already needs a key to have them, and none to leave them."""
    alone = continued("iql", online_share=1.0, warmup_env_steps=9)
    assert options("policy", alone)[0].settings == {}
    assert options("both", alone)[0].settings == {"online_share": 0.5}
    usual = continued("iql")
    assert options("both", usual)[0].settings == {}
    assert "iql.online_share=1" in words(options("policy", usual)[0])


def test_commands_say_what_the_checkpoint_does_not() -> None:
    base = continued()
    assert words(options("both", base)[0]) == [
        *("baq", "finetune", "--checkpoint", "runs/a b"), *("--out", "runs/iql-online"),
    ]  # fmt: skip
    other = replace(base, same_dataset=False, same_env=False, env=EnvRef.of("Arm-v0", {"g": "a b"}))
    said = words(options("both", other)[0])
    assert said[4:10] == [
        *("--dataset", "me/arm/log-v0"), *("--env", "Arm-v0"), *("--env-arg", 'g="a b"'),
    ]  # fmt: skip
    nowhere = replace(base, same_env=False, env=None)
    assert words(options("both", nowhere)[0])[4:6] == ["--env", "ID"]


def test_with_little_to_lose_every_start_from_scratch_is_named() -> None:
    near = compare(np.zeros((1, 9)), np.zeros(9), 1.0)
    found = follow(near, continued(), True)
    scratch = [option["method"] for option in found["options"] if option["scratch"]]
    assert scratch == [name for name, method in METHODS.items() if not method.learns_offline]
    assert "little to lose" in found["because"][-1]
    assert not any(o["scratch"] for o in follow(near, continued(), False)["options"])
