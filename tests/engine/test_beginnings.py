"""How a phase begins: from what, what comes before its first update, and whether any can."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baq_cli.data.minari.read import load_episodes
from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.phases.commands import run_finetune
from baq_cli.engine.phases.online import OnlineLoop
from baq_cli.engine.phases.request import RunRequest
from baq_cli.engine.updates.updater import Updater
from baq_cli.errors import UsageError
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import ignore
from baq_cli.runs.folder import read_metrics
from support import odd_envs
from support.advice import follows
from support.recordings import ID, own_folders
from support.runs import assert_same_end, execute, recipe_of, states, stop_at
from support.small_data import write_counting, write_steady
from support.small_methods import small

STEPS, WARMUP, LONGER, ALIKE = 12, 8, "made/longer-v0", "made/alike-v0"
CRITICS = 3
"""Updates of critics alone behind a warm-up; `support.small_methods` says how many of all."""


@pytest.fixture(scope="module", autouse=True)
def dataset() -> Iterator[None]:
    with own_folders():
        write_steady(ID)
        yield


def recipe(algo: str, **run: Any) -> Recipe:
    """Return a recipe whose warm-up is longer than until the run is stopped."""
    method = small(algo) | {"warmup_env_steps": WARMUP} | run.pop(algo, {})
    given = {"dataset": ID, "env": "Steady-v0", "gradient_steps": 4, "env_steps": STEPS}
    return recipe_of(algo, method, **(given | run))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A pre-trained run of each of some methods, one of which can't begin from scratch."""
    found = {}
    for algo in ("cql", "baq", "off2on"):
        found[algo] = tmp_path_factory.mktemp(algo)
        execute(recipe(algo), found[algo])
    return found


@pytest.mark.parametrize("algo", ["cql", "baq"])
def test_a_fine_tuning_goes_on_in_its_warm_up_without_the_checkpoint_it_began_from(
    algo: str, pretrained: dict[str, Path], tmp_path: Path
) -> None:
    """The policy that it was handed acts on; a run from scratch would act at random there."""
    asked = recipe(algo)
    execute(asked, tmp_path / "whole", source=pretrained[algo])
    stop_at(OnlineLoop, "step", 3, asked, tmp_path / "part", pretrained[algo])
    order = RunRequest(tmp_path / "part", ignore, "baq", "baq --resume", resume=True)
    run_finetune(asked, order, None)
    assert_same_end(tmp_path / "whole", tmp_path / "part")


@pytest.mark.parametrize("algo", ["cql", "baq"])
def test_a_seed_goes_on_from_a_checkpoint_of_several_alone_as_it_does_among_them(
    algo: str, pretrained: dict[str, Path], tmp_path: Path
) -> None:
    """Its optimisers' moments too: fresh ones would take other steps."""
    ends = {}
    for seeds in ((0, 1), (1,), (1, 0)):
        out = tmp_path / str(seeds)
        execute(recipe(algo, seeds=seeds), out, source=pretrained[algo])
        ends[seeds] = load(out)
    for seeds, place in (((1,), 0), ((1, 0), 0)):
        assert ends[seeds].training["optimizer.critic.step"] == 4 + STEPS - WARMUP
        for name, together in ends[0, 1].agent.items():
            if not name.startswith("inputs."):
                own = ends[seeds].agent[name][place]
                torch.testing.assert_close(own, together[1], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("steps", [STEPS, WARMUP + 1])
@pytest.mark.parametrize(
    ("algo", "stops"), [("cql", [(1, 1, 0), (1, 2, 0)]), ("off2on", [(2, 2, 0), (4, 3, 3)])]
)
def test_a_signal_within_the_updates_behind_a_warm_up_is_answered_between_two(
    algo: str,
    stops: list[tuple[int, int, int]],
    steps: int,
    pretrained: dict[str, Path],
    tmp_path: Path,
) -> None:
    """There may be ten thousand. They are where they were when the run goes on, and stops again."""
    asked = recipe(algo, critic_updates=CRITICS, env_steps=steps)
    execute(asked, tmp_path / "whole", source=pretrained[algo])
    for number, (calls, critics, updates) in enumerate(stops):
        of_run = asked, tmp_path / "part", pretrained[algo]
        stop_at(Updater, "step", calls, *of_run, resume=number > 0)
        last = list(states(tmp_path / "part").values())[-1]
        assert (last["done"], last["owed"]) == (WARMUP + 1, True)
        assert last["behind"] == {"critics": critics, "updates": updates}
    execute(asked, tmp_path / "part", resume=True, source=pretrained[algo])
    assert_same_end(tmp_path / "whole", tmp_path / "part")


def test_updates_that_overlap_a_step_are_waited_for_those_behind_a_warm_up_too(
    pretrained: dict[str, Path], tmp_path: Path
) -> None:
    asked = recipe("off2on", critic_updates=CRITICS, overlap=True)
    execute(asked, tmp_path / "whole", source=pretrained["off2on"])
    stop_at(Updater, "step", 2, asked, tmp_path / "part", pretrained["off2on"])
    last = list(states(tmp_path / "part").values())[-1]
    assert (last["done"], last["owed"], last.get("behind")) == (WARMUP + 2, True, None)
    execute(asked, tmp_path / "part", resume=True, source=pretrained["off2on"])
    assert_same_end(tmp_path / "whole", tmp_path / "part")


def test_a_run_from_scratch_goes_on_at_random_whatever_checkpoint_it_is_given(
    pretrained: dict[str, Path], tmp_path: Path
) -> None:
    asked = recipe("cql", dataset=None)
    execute(asked, tmp_path / "whole")
    stop_at(OnlineLoop, "step", 3, asked, tmp_path / "part")
    execute(asked, tmp_path / "part", resume=True, source=pretrained["cql"])
    assert_same_end(tmp_path / "whole", tmp_path / "part")


@follows(
    "the policy won't learn: its first {} env_steps come without updates ({}.warmup_env_steps)"
)
def test_a_warm_up_that_no_update_follows_is_told_of_and_so_is_how_to_have_one(
    pretrained: dict[str, Path], tmp_path: Path
) -> None:
    def told(name: str, **run: Any) -> list[str]:
        notes: list[str] = []
        asked = recipe("cql", critic_updates=2, **run)
        execute(asked, tmp_path / name, source=pretrained["cql"], notes=notes)
        rows = [row for row in read_metrics(tmp_path / name) if row["phase"] == "online"]
        found = [note for note in notes if "won't learn" in note or "before the policy" in note]
        assert len(found) == 1
        learned = rows[-1]["gradient_steps"] > rows[0]["gradient_steps"]
        assert learned == found[0].startswith("before the policy learns")
        return found

    (said,) = told("none", env_steps=WARMUP)
    assert re.search(f"first {WARMUP} env_steps .* ends after {WARMUP}\\.", said)
    told("more steps", env_steps=WARMUP + 1)
    told("shorter", env_steps=WARMUP, cql={"warmup_env_steps": WARMUP - 1})


def test_updates_of_critics_that_a_method_has_none_of_are_told_of(tmp_path: Path) -> None:
    asked, notes = recipe("hi_ors", critic_updates=3), []
    execute(asked, tmp_path / "before")
    execute(asked, tmp_path / "run", source=tmp_path / "before", notes=notes)
    assert "'hi_ors' has no critics: critic_updates=3 changes nothing" in notes


@follows("critics of '{}' learn from {} steps in a row, and the longest episode of '{}' has {}:")
def test_chunks_that_no_episode_is_as_long_as_are_refused_with_the_longest_that_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chunks_of(chunk: int) -> Recipe:
        return recipe("qc_fql", qc_fql={"chunk": chunk})

    longest = int(load_episodes(ID).lengths.max())
    with pytest.raises(UsageError, match=f"{longest + 1} steps .* qc_fql.chunk to {longest},"):
        execute(chunks_of(longest + 1), tmp_path / "longer")
    execute(chunks_of(longest), tmp_path / "as long")
    monkeypatch.setattr(odd_envs, "LIMIT", longest + 1)
    write_steady(LONGER)
    execute(recipe("qc_fql", dataset=LONGER, qc_fql={"chunk": longest + 1}), tmp_path / "longer")


# -- the units of rewards


@pytest.mark.parametrize(
    ("scale", "rewards", "said"),
    [
        ("returns", [1, 1, 1, 1, 1, 0, 0], "updates multiply rewards by 1000, so that the dataset"),
        ("returns", [1, 1, 1, 1, 1, 1, 0], "scales no rewards: all episodes of the dataset return"),
        ("returns", [1, 1, 1, 1, 1, 1, 1], "updates multiply rewards by 1000, so that the dataset"),
        ("standard", [0, 0, 0, 0, 0, 0, 1], "rewards have a mean of 0 and a standard deviation"),
        ("standard", [2, 2, 2, 2, 2, 2, 2], "scales no rewards: all rewards of the dataset are"),
    ],
)
def test_what_is_said_of_the_units_of_rewards_is_so(
    scale: str, rewards: list[int], said: str, tmp_path: Path
) -> None:
    """Of two episodes, of three steps and of four."""
    notes: list[str] = []
    with own_folders():
        write_counting(ALIKE, rewards=np.array(rewards, dtype=np.float64))
        place = {"dataset": ALIKE, "env": "Counting-v0", "gradient_steps": 1}
        execute(recipe_of("iql", {"reward_scale": scale}, **place), tmp_path, notes=notes)
    units = [note for note in notes if "reward_scale" in note]
    assert len(units) == 1
    assert said in units[0]
