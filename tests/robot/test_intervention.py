"""Somebody acts in the policy's place: when, what is stored of it, and resumes that repeat it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from baq_cli.cli.finetune import inherited
from baq_cli.cli.progress import counter_cells
from baq_cli.engine.checkpoints.folder import load, load_newest
from baq_cli.engine.checkpoints.tensors import read_tensors, tensor_bytes
from baq_cli.engine.phases.intervention import Intervention
from baq_cli.errors import DataError, EnvironmentMismatch, UsageError
from baq_cli.recipes.intervention import InterventionConfig
from baq_cli.recipes.schema import Recipe
from baq_cli.report.notes import notes_on
from baq_cli.runs.events import Progress
from support.acting_probes import LOW, PROBE, Probe, place_of, probe
from support.advice import Terminal, follows
from support.runs import (
    assert_same_end,
    execute,
    last_tensors,
    recipe_of,
    states,
    stopped_at,
    stored_rows,
)

Array = np.ndarray[Any, Any]
__all__ = ["probe"]
EVERY, ENV_STEPS = 5, 30
CHUNK = 3

# -- the rule


class Chance:
    """A stream whose uniform numbers are known, `[S, 2]` a step."""

    def __init__(self, steps: list[list[tuple[float, float]]]):
        self.seeds = tuple(range(len(steps[0])))
        self._steps = iter(steps)

    def uniform(self, *shape: int) -> torch.Tensor:
        return torch.tensor(next(self._steps))


def of_rule(drawn: list[list[tuple[float, float]]], **rule: Any) -> Intervention:
    """Return somebody who does 1 wherever the policy does 0."""
    chance: Any = Chance(drawn)
    spec = SimpleNamespace(action_dim=1)
    other: Any = SimpleNamespace(
        agent=SimpleNamespace(chunk=1, spec=spec),
        decide=lambda obs, noise: np.ones((len(obs), 1), dtype=np.float32),
        digest="",
    )
    return Intervention(InterventionConfig(by="policy:x", **rule), other, chance)


def taken_at(somebody: Intervention, episodes: list[list[int]]) -> Array:
    """Return who acted at each step, `[T, S]`: 1 where it was somebody else."""
    found = []
    for episode in episodes:
        own = np.zeros((len(episode), 1), dtype=np.float32)
        found.append(somebody.choose(own, own, np.array(episode))[:, 0])
        assert_array_equal(found[-1], somebody.taken)
        somebody.done()
    return np.stack(found)


def test_a_take_over_begins_by_chance_in_episodes_that_are_watched_and_lasts() -> None:
    """Of two seeds, half the episodes are watched, take-overs begin below 0.3 and last 2 steps."""
    steps = [
        [(0.4, 0.9), (0.6, 0.1)],  # the first seed is watched, the second is not
        [(0.9, 0.2), (0.0, 0.0)],  # it begins: what is drawn for an episode counts at its start
        [(0.9, 0.9), (0.0, 0.0)],
        [(0.9, 0.9), (0.1, 0.9)],  # over after two; the second seed's next episode is watched
        [(0.9, 0.1), (0.9, 0.3)],  # 0.3 is not below 0.3
        [(0.9, 0.9), (0.9, 0.1)],  # the first seed's episode ended: so did the take-over
        [(0.1, 0.9), (0.9, 0.9)],
    ]
    episodes = [[0, 0], [0, 0], [0, 0], [0, 1], [0, 1], [1, 1], [1, 1]]
    somebody = of_rule(steps, episode_share=0.5, step_probability=0.3, steps=2)
    expected = [[0, 0], [1, 0], [1, 0], [0, 0], [1, 0], [0, 1], [0, 1]]
    assert taken_at(somebody, episodes).tolist() == expected


def test_without_a_number_of_steps_it_goes_on_to_the_episodes_end() -> None:
    steps = [[(0.0, 0.9)], [(0.0, 0.0)], *[[(0.0, 0.9)]] * 5]
    somebody = of_rule(steps, step_probability=0.5, steps=None)
    found = taken_at(somebody, [[0]] * 5 + [[1]] * 2)
    assert found[:, 0].tolist() == [0, 1, 1, 1, 1, 0, 0]


def test_a_take_over_begins_where_a_limit_asks_for_it() -> None:
    somebody = of_rule([[(0.9, 0.9), (0.9, 0.9)]] * 3, episode_share=0.5, steps=2)
    own = np.zeros((2, 1), dtype=np.float32)
    found = []
    for why in ([None, None], ["far off", None], [None, None]):
        found.append(somebody.choose(own, own, np.array([0, 0]), why)[:, 0].tolist())
        somebody.done()
    assert found == [[0, 0], [1, 0], [1, 0]]


def test_a_step_that_failed_is_chosen_again_and_costs_nothing_of_a_take_over() -> None:
    somebody = of_rule([[(0.0, 0.0)], [(0.0, 0.9)], [(0.0, 0.9)], [(0.0, 0.9)]], steps=2)
    own = np.zeros((1, 1), dtype=np.float32)
    somebody.choose(own, own, np.array([0]))  # no step came of it
    assert taken_at(somebody, [[0]] * 3)[:, 0].tolist() == [1, 1, 0]


@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 1), st.integers(1, 4))
def test_nobody_acts_in_an_episode_that_is_not_watched_nor_longer_than_was_said(
    seed: int, share: float, probability: float, steps: int
) -> None:
    rng = np.random.default_rng(seed)
    chance = rng.random((20, 1, 2))
    drawn = [[(float(a), float(b)) for a, b in step] for step in chance]
    episode = np.cumsum(rng.random(20) < 0.2)
    rule = {"episode_share": share, "step_probability": probability, "steps": steps}
    found = taken_at(of_rule(drawn, **rule), [[int(e)] for e in episode])[:, 0]
    first = {int(e): t for t, e in reversed(list(enumerate(episode)))}
    begun = 0
    for t, e in enumerate(episode):
        watched = np.float32(chance[first[int(e)], 0, 0]) < share
        goes_on = t > 0 and episode[t - 1] == e and found[t - 1] and begun < steps
        begins = bool(watched and np.float32(chance[t, 0, 1]) < probability)
        assert bool(found[t]) == bool(goes_on or begins)
        begun = begun + 1 if goes_on else int(found[t])


# -- runs


@pytest.fixture
def expert(probe: str, tmp_path: Path) -> Path:
    """A policy of three actions a decision, each with noise of its own."""
    settings = {"chunk": CHUNK, "spread": 0.5, "warmup_env_steps": 0}
    out = tmp_path / "expert"
    execute(recipe_of(PROBE, settings, env="Filtered-v0", env_steps=2, seeds=[5, 6]), out)
    return out


def recipe_for(expert: Path | None, seeds: tuple[int, ...] = (0, 1), **run: Any) -> Recipe:
    watched = {"episodes": 1, "every_env_steps": EVERY, "background": False}
    layer = {"env": "Steady-v0", "env_steps": ENV_STEPS, "seeds": list(seeds)}
    if expert is not None:
        layer["env"] = "Filtered-v0"
        rule = {"episode_share": 0.8, "step_probability": 0.3, "steps": 4}
        layer["intervention"] = {"by": f"policy:{expert}"} | rule
    settings = {"warmup_env_steps": 3, "spread": 0.1}
    return recipe_of(PROBE, settings, **(layer | {"evaluation": watched} | run))


@pytest.mark.parametrize("overlap", [False, True])
def test_a_resume_goes_on_with_whoever_had_taken_over(
    overlap: bool, expert: Path, tmp_path: Path
) -> None:
    recipe, notes = recipe_for(expert, overlap=overlap), []
    execute(recipe, tmp_path / "whole", notes=notes)
    assert [n for n in notes if n.startswith("takes over now and then: expert: probe on Filtered")]
    names, midway = list(states(tmp_path / "whole")), 0
    for name in names[:-1]:
        parts = stopped_at(tmp_path / "whole", name, tmp_path / name)
        kept = read_tensors(parts / "checkpoints" / name / "replay.safetensors")
        midway += int((kept["intervene.queue_left"] > 0).sum())
        execute(recipe, parts, resume=True)
        assert_same_end(tmp_path / "whole", parts)
        manifests = [
            json.loads((r / "manifest.json").read_text()) for r in (tmp_path / "whole", parts)
        ]
        assert manifests[0]["intervention"] == manifests[1]["intervention"]
    assert midway, "somebody was in the middle of a chunk"


def test_a_seed_is_taken_over_alike_alone_and_among_others(expert: Path, tmp_path: Path) -> None:
    execute(recipe_for(expert), tmp_path / "both")
    execute(recipe_for(expert, seeds=(1,)), tmp_path / "alone")
    both, alone = (
        json.loads((tmp_path / name / "manifest.json").read_text())["intervention"]
        for name in ("both", "alone")
    )
    assert both["taken_over"][1:] == alone["taken_over"]
    torch.testing.assert_close(
        stored_rows(tmp_path / "both")[1], stored_rows(tmp_path / "alone")[0]
    )


def test_what_somebody_did_is_stored_marked_and_counted(
    expert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expert's actions tell their place in a chunk, the policy's lie near the middle."""
    monkeypatch.setattr(Probe, "data_columns", ("intervention",))
    recipe = recipe_for(expert, env="Bounded-v0")
    execute(recipe, tmp_path / "run")
    rows = stored_rows(tmp_path / "run")
    action, taken = rows[..., 3].numpy(), rows[..., -1].numpy() > 0
    assert 5 < taken.sum() < taken.size - 5
    for seed in (0, 1):
        begins = np.flatnonzero(taken[seed] & ~np.roll(taken[seed], 1))
        for first in begins[begins > 0].tolist():
            follow = np.flatnonzero(~taken[seed, first:])
            length = min(follow[0] if len(follow) else ENV_STEPS - first, CHUNK)
            places = place_of(action[seed, first : first + length], CHUNK)
            assert places.tolist() == list(range(length)), "a chunk from its beginning"
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    counts = taken.sum(1).tolist()
    found = manifest["intervention"]
    assert (found["env_steps"], found["taken_over"]) == (ENV_STEPS, counts)
    course = [[at, taken[:, :at].sum(1).tolist()] for at in range(0, ENV_STEPS + 1, EVERY)]
    assert found["course"] == course, "at every evaluation"
    lines = (tmp_path / "run" / "diagnostics.csv").read_text().splitlines()
    last = [line.split(",") for line in lines if "taken_over_env_steps" in line][-2:]
    assert [float(line[-1]) for line in last] == counts


def test_what_an_environment_does_of_itself_is_counted_too(probe: str, tmp_path: Path) -> None:
    execute(recipe_for(None, env="Filtered-v0"), tmp_path)
    state = next(reversed(states(tmp_path).values()))
    assert sum(state["taken_over"]) > 0
    execute(recipe_for(None), tmp_path / "steady")
    manifest = json.loads((tmp_path / "steady" / "manifest.json").read_text())
    assert "intervention" not in manifest


def test_a_flag_names_who_may_act_and_keys_say_when(
    terminal: Terminal, short_env: str, tmp_path: Path
) -> None:
    small = ("threads=1", "evaluation.episodes=1", "evaluation.background=false")
    words = ("finetune", "--algo", "sac", "--env", short_env, "--env-steps", "6", *small)
    terminal.done(*words, "--out", str(tmp_path / "expert"), "shared.hidden=[8,8]")
    whom = ("--intervene", f"policy:{tmp_path / 'expert'}")
    rule = ("intervention.step_probability=1", "intervention.steps=null")
    terminal.done(*words, "--out", str(tmp_path / "run"), *whom, *rule, "shared.hidden=[8,8]")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["intervention"]["taken_over"] == [6]


# -- what is said


def test_a_report_says_how_much_was_not_the_policys() -> None:
    manifest = {"intervention": {"env_steps": 200, "taken_over": [10, 40]}}
    runs = (SimpleNamespace(manifest={}), SimpleNamespace(manifest=manifest))
    course: Any = SimpleNamespace(
        task="t", method="hi_ors", runs=runs, notes=(), seeds=(0, 1), steps_known=True
    )
    said = "t, hi_ors: somebody acted in the policy's place in 12.5% of its online steps (50 of 400"
    assert any(note.startswith(said) for note in notes_on([course], 1))


def test_a_report_says_how_the_share_changed_over_a_run_and_what_was_marked() -> None:
    """Of 8 steps of two seeds: 3 of 4 in the first quarter, then 1, then none; a half lies between.

    A second run of one seed has its evaluations elsewhere: 2 of 4 steps by the half, evenly.
    """
    course = [[0, [0, 0]], [2, [2, 1]], [4, [3, 1]], [6, [3, 1]], [8, [3, 1]]]
    one = {"env_steps": 8, "taken_over": [3, 1], "course": course}
    two = {"env_steps": 8, "taken_over": [2], "course": [[0, [0]], [4, [2]], [8, [2]]]}
    marks = {"successes": [2, 0], "failures": [1, 0]}
    runs = [SimpleNamespace(manifest={"intervention": each}) for each in (one | marks, two)]
    found: Any = SimpleNamespace(
        task="t", method="m", runs=runs, notes=(), seeds=(0, 1, 2), steps_known=True
    )
    (note,) = [note for note in notes_on([found], 1) if "in the policy's place" in note]
    assert "(6 of 24 env_steps); by quarters of the run: 66.7%, 33.3%, 0.0%, 0.0%;" in note
    assert note.endswith("marked episodes: 2 successes and 1 failures.")


def test_progress_says_it_where_somebody_did() -> None:
    cells = counter_cells(Progress("online", 10, 100, 10, 5.0, 18.0, taken_over=0.125))
    assert cells[-1] == "12.5% taken over"
    assert len(counter_cells(Progress("online", 10, 100, 10, 5.0, 18.0))) == len(cells) - 1


# -- what is refused


@pytest.mark.parametrize(
    "by", ["joystick", "policy:", "policy", "keyboard:0", "me:", "../me:Class"]
)
def test_nobody_else_can_take_over(by: str) -> None:
    said = rf"'intervention.by': .*expected keyboard, gamepad, policy:PATH or module:Class.*'{by}'"
    with pytest.raises(UsageError, match=said):
        recipe_of("sac", {}, env="Steady-v0", intervention={"by": by})


def test_nothing_is_begun_with_a_policy_that_is_missing_or_of_another_environment(
    expert: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no checkpoint at"):
        execute(recipe_for(tmp_path / "nowhere"), tmp_path / "run")
    with pytest.raises(EnvironmentMismatch, match=f"the policy {expert}"):
        execute(recipe_for(expert, env="Steady-v0"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@follows("{}, which takes over in this run, is no longer what it was when the run was saved: its ")
def test_another_policy_in_its_place_is_refused_until_it_is_back(
    expert: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(expert)
    execute(recipe, tmp_path / "whole")
    name = list(states(tmp_path / "whole"))[1]
    parts = stopped_at(tmp_path / "whole", name, tmp_path / "parts")
    (newest,) = [expert / "checkpoints" / list(states(expert))[-1] / "agent.safetensors"]
    kept = newest.read_bytes()
    tensors = read_tensors(newest)
    other = {n: t + 0.01 if n.startswith("policy.") else t for n, t in tensors.items()}
    newest.write_bytes(tensor_bytes(other, load(expert).document))
    with pytest.raises(DataError, match="its content hash is"):
        execute(recipe, parts, resume=True)
    execute(recipe, tmp_path / "another")
    newest.write_bytes(kept)
    execute(recipe, parts, resume=True)
    assert_same_end(tmp_path / "whole", parts)


def test_who_took_over_is_not_inherited(expert: Path, tmp_path: Path) -> None:
    execute(recipe_for(expert), tmp_path / "run")
    (layer,) = inherited(load(tmp_path / "run"), None, {})
    assert "intervention" not in layer


def _without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda tensors: tensors.pop(name)


@pytest.mark.parametrize(
    "change",
    [
        _without("intervene.state"),
        _without("intervene.queue"),
        lambda tensors: tensors.update({"intervene.state": torch.zeros(2, 3, dtype=torch.int64)}),
        lambda tensors: tensors["intervene.state"][:, 2].fill_(-1),
        lambda tensors: tensors["intervene.queue_left"].fill_(CHUNK + 1),
    ],
)
def test_a_checkpoint_that_lacks_what_goes_on_is_refused(
    change: Callable[[dict[str, Any]], None], expert: Path, tmp_path: Path
) -> None:
    execute(recipe_for(expert, env_steps=EVERY), tmp_path / "run")
    for name in states(tmp_path / "run"):
        path = tmp_path / "run" / "checkpoints" / name / "replay.safetensors"
        tensors = read_tensors(path)
        change(tensors)
        path.write_bytes(tensor_bytes(tensors))
    with pytest.raises(DataError, match=r"intervene|takes over"):
        load_newest(tmp_path / "run", lambda _: None)


def test_a_chunk_of_another_policy_is_refused(expert: Path, tmp_path: Path) -> None:
    recipe = recipe_for(expert)
    execute(recipe, tmp_path / "run")
    parts = stopped_at(tmp_path / "run", list(states(tmp_path / "run"))[1], tmp_path / "parts")
    for name in states(parts):
        path = parts / "checkpoints" / name / "replay.safetensors"
        tensors = read_tensors(path)
        tensors["intervene.queue"] = torch.zeros(2, CHUNK + 1)
        path.write_bytes(tensor_bytes(tensors))
    with pytest.raises(DataError, match="its chunk is none of"):
        execute(recipe, parts, resume=True)
    assert last_tensors(tmp_path / "run")["replay/intervene.queue"].shape == (2, CHUNK)
    assert float(LOW) < 0
