"""Runs under limits, and in another's shadow: what is stored, counted, stopped and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from baq_cli.cli.finetune import inherited
from baq_cli.engine.checkpoints.folder import load, load_newest
from baq_cli.engine.checkpoints.restore import evaluate_checkpoint
from baq_cli.engine.phases.shadow import Agreement
from baq_cli.envs import safety
from baq_cli.errors import DataError, ExitStatus, LimitReached, UsageError
from baq_cli.recipes.schema import Recipe
from baq_cli.report.notes import notes_on
from baq_cli.runs.transitions import LIMIT, NAME, SOMEBODY, read
from support.acting_probes import HIGH, LOW, PROBE, Bounded, Probe, probe
from support.advice import Terminal, follows
from support.runs import assert_same_end, execute, recipe_of, states, stopped_at, stored_rows
from support.small_data import write_steady

Array = np.ndarray[Any, Any]
__all__ = ["probe"]
EVERY, ENV_STEPS = 4, 24
CHANGE = 0.2
DATA = "me/steady-v0"
SMALL = ("threads=1", "evaluation.episodes=1", "evaluation.background=false", "shared.hidden=[8,8]")


def recipe_for(safety: Any, **run: Any) -> Recipe:
    watched = {"episodes": 1, "every_env_steps": EVERY, "background": False}
    layer = {"env": "Filtered-v0", "max_episode_steps": 5, "env_steps": ENV_STEPS}
    layer |= {"seeds": [0, 1], "evaluation": watched}
    method = {"chunk": 2, "spread": 2.0, "warmup_env_steps": 3, "utd": 2}
    return recipe_of(PROBE, method, **(layer | {"safety": safety} | run))


def manifest_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "manifest.json").read_text())
    return found


@pytest.fixture
def data(folder: Path) -> str:
    """A dataset whose observations are three numbers, as those of every environment here."""
    write_steady(DATA, env=Bounded())
    return DATA


def envelope(**keys: Any) -> dict[str, Any]:
    """Return a section whose limit is the episode's step, 2.5 ± 1.7 in the data or so."""
    return {"observation_envelope": {"sigmas": 1.0} | keys, "rest_action": 0}


# -- what is stored, counted and resumed


@pytest.mark.parametrize("overlap", [False, True])
def test_a_resume_under_limits_is_exact(
    overlap: bool, probe: str, data: str, tmp_path: Path
) -> None:
    """The environment filters actions too, each decision is on two of them, and a guard acts."""
    section = {"max_action_change": CHANGE} | envelope(then="hold")
    guard = {"action": "rollback", "max_drop": 0.1, "patience": 1}
    recipe, notes = recipe_for(section, overlap=overlap, dataset=data, guard=guard), []
    execute(recipe, tmp_path / "whole")
    near = 0
    for name in list(states(tmp_path / "whole"))[:-1]:
        parts = stopped_at(tmp_path / "whole", name, tmp_path / name)
        near += sum(states(parts)[name]["limits_near"]["outside"])
        execute(recipe, parts, resume=True, notes=notes)
        assert_same_end(tmp_path / "whole", parts)
        for fact in ("limits", "guard"):
            assert manifest_of(parts)[fact] == manifest_of(tmp_path / "whole")[fact]
    assert near, "some checkpoint was made outside of the envelope"
    assert manifest_of(tmp_path / "whole")["guard"]["events"]
    assert not [note for note in notes if "doesn't repeat itself" in note]


def test_what_is_stored_is_what_the_limits_let_pass(
    probe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An action of [−1, 1] is (HIGH − LOW) / 2 in the environment's units."""
    monkeypatch.setattr(Probe, "data_columns", ("intervention",))
    recipe = recipe_for({"max_action_change": CHANGE, "rest_action": 0}, env="Bounded-v0")
    execute(recipe, tmp_path)
    rows = stored_rows(tmp_path).double().numpy()
    scale = (float(HIGH) - float(LOW)) / 2
    action, first = float(LOW) + (rows[..., 3] + 1) * scale, rows[..., 2] == 0
    before = np.where(first, 0.0, np.roll(action, 1, axis=1))
    apart = np.abs(action - before)
    assert apart.max() < CHANGE + 1e-6
    limited = manifest_of(tmp_path)["limits"]["acted"]["max_action_change"]
    assert_array_equal(limited, (apart > CHANGE - 1e-6).sum(axis=1))
    assert min(limited) > 5
    assert not rows[..., -1].any(), "a limit is nobody who acts in the policy's place"
    assert "intervention" not in manifest_of(tmp_path)
    lines = (tmp_path / "diagnostics.csv").read_text().splitlines()
    last = [line.split(",") for line in lines if "max_action_change_env_steps" in line][-2:]
    assert [float(line[-1]) for line in last] == limited


def test_transitions_say_what_was_proposed_and_that_a_limit_decided(
    probe: str, tmp_path: Path
) -> None:
    section = {"max_action_change": CHANGE, "rest_action": 0}
    execute(recipe_for(section, env="Bounded-v0", keep_transitions=True), tmp_path)
    records = read(tmp_path / NAME).records
    limited = records["intervention"] == LIMIT
    assert_array_equal((records["proposed"] != records["action"]).any(axis=1), limited)
    counts = np.bincount(records["seed_index"][limited], minlength=2).tolist()
    assert counts == manifest_of(tmp_path)["limits"]["acted"]["max_action_change"]
    assert not (records["intervention"] == SOMEBODY).any()


def test_a_seed_is_limited_alike_alone_and_among_others(
    probe: str, data: str, tmp_path: Path
) -> None:
    section = {"max_action_change": CHANGE} | envelope(then="hold")
    for name, seeds in (("both", [0, 1]), ("alone", [1])):
        execute(recipe_for(section, dataset=data, seeds=seeds), tmp_path / name)
    torch.testing.assert_close(
        stored_rows(tmp_path / "both")[1], stored_rows(tmp_path / "alone")[0]
    )


def test_a_limit_holds_for_who_takes_over_too(probe: str, tmp_path: Path) -> None:
    expert = tmp_path / "expert"
    execute(recipe_for(None, env_steps=2, seeds=[5]), expert)
    whom = {"by": f"policy:{expert}", "step_probability": 1.0, "steps": None}
    section = {"max_action_change": CHANGE, "rest_action": 0}
    execute(recipe_for(section, env="Bounded-v0", intervention=whom), tmp_path / "run")
    found = manifest_of(tmp_path / "run")
    assert found["intervention"]["taken_over"] == [ENV_STEPS] * 2
    assert min(found["limits"]["acted"]["max_action_change"]) > 5


def test_evaluations_are_limited_as_commands_are(probe: str, data: str, tmp_path: Path) -> None:
    """`hold` acts there; `stop` would cut episodes, and make them look better than they are."""
    found = {}
    for then in ("hold", "stop"):
        section = {"max_action_change": 0.05} | envelope(then=then, sigmas=0.8, after_steps=9)
        heard = execute(recipe_for(section, dataset=data, env_steps=EVERY), tmp_path / then)
        returns, lengths, _ = evaluate_checkpoint(tmp_path / then, None, 4, 0)
        found[then] = returns
        assert heard
        assert lengths.max() == 5
    execute(recipe_for(None, dataset=data, env_steps=EVERY), tmp_path / "free")
    free, *_ = evaluate_checkpoint(tmp_path / "free", None, 4, 0)
    assert_array_equal(found["hold"], found["stop"])
    assert (found["hold"] != free).all()


# -- what a limit stops


@follows("a limit stopped the run: {}; everything is saved. When somebody has looked, continue")
def test_a_stop_saves_everything_and_the_run_goes_on_when_somebody_has_looked(
    probe: str, data: str, tmp_path: Path
) -> None:
    section = envelope(then="stop", sigmas=1.4, after_steps=2)  # the steps 4 and 5 lie outside
    recipe = recipe_for(section, dataset=data, env="Bounded-v0")
    with pytest.raises(LimitReached) as stopped:
        execute(recipe, tmp_path)
    said = str(stopped.value)
    assert said.startswith("a limit stopped the run: observation_envelope, seed ")
    assert said.endswith("When somebody has looked, continue with:\n  baq --resume")
    assert stopped.value.status == ExitStatus.LIMIT
    (stop, *_) = manifest_of(tmp_path)["limits"]["stops"]
    assert stop["limit"] == "observation_envelope"
    assert list(states(tmp_path).values())[-1]["done"] == stop["env_steps"]
    with pytest.raises(LimitReached):
        execute(recipe, tmp_path, resume=True)
    wider = recipe_for(envelope(then="stop", sigmas=50), dataset=data, env="Bounded-v0")
    execute(wider, tmp_path, resume=True)
    found = manifest_of(tmp_path)["limits"]
    assert found["env_steps"] == ENV_STEPS
    stopped_by = [stop["seed"] for stop in found["stops"]]
    assert found["acted"]["observation_envelope"] == [stopped_by.count(seed) for seed in (0, 1)]
    assert len({stop["env_steps"] for stop in found["stops"]}) == 2


def test_an_episode_that_a_limit_cut_is_not_told_to_the_method(
    probe: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Array] = []

    def heard(self: Any, over: Any, returns: Any, lengths: Any) -> dict[str, Any]:
        told.append(lengths[over].numpy())
        return {}

    monkeypatch.setattr(Probe, "on_episode_end", heard)
    section = {"observation_envelope": {"sigmas": 0.4, "after_steps": 2, "then": "stop"}}
    with pytest.raises(LimitReached):
        execute(recipe_for(section, dataset=data, env="Bounded-v0"), tmp_path)
    assert not told
    state = list(states(tmp_path).values())[-1]
    assert state["episodes"] == [1, 1], "they ended all the same"


def test_a_late_step_stops_where_that_is_asked(
    probe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(10**6))
    clock = SimpleNamespace(monotonic=lambda: 0.1 * next(ticks))
    monkeypatch.setattr(safety, "time", clock)
    dog = {"watchdog": {"max_late_seconds": 0.05, "then": "stop"}, "rest_action": 0}
    with pytest.raises(LimitReached, match="watchdog, seed 0, environment step 1: an action"):
        execute(recipe_for(dog), tmp_path)


# -- somebody to hand over to


@follows("safety.observation_envelope.then=hand_over, and nobody is there to take over: give ")
def test_handing_over_needs_somebody(
    terminal: Terminal, probe: str, data: str, tmp_path: Path
) -> None:
    words = ("finetune", "--algo", "sac", "--env", "Bounded-v0", "--env-steps", "12", *SMALL)
    words = (*words, "--dataset", data)
    terminal.done(*words, "--out", tmp_path / "expert")
    held = ("safety.observation_envelope={sigmas: 1, then: hand_over}", "safety.rest_action=0")
    out = ("--out", tmp_path / "run")
    said = terminal.told(*words, *out, *held)
    assert "give --intervene, or choose stop or hold" in said
    rule = ("intervention.step_probability=0", "intervention.steps=1")
    terminal.done(*words, *out, *held, "--intervene", f"policy:{tmp_path / 'expert'}", *rule)
    found = manifest_of(tmp_path / "run")
    (asked,) = found["limits"]["acted"]["observation_envelope"]
    (taken,) = found["intervention"]["taken_over"]
    assert asked > 0
    assert 0 < taken <= 12, "who is asked takes over"
    terminal.done(
        *words, "--out", tmp_path / "other", held[1], held[0].replace("hand_over", "hold")
    )


# -- a shadow


def test_agreement_is_the_distance_of_what_was_proposed_from_what_was_done() -> None:
    """By hand, of two dimensions: distances 0.1 and 0; 0.2 and 0.4; beyond 1 nothing counts."""
    found = Agreement((7,))
    assert found.rows() == []
    for proposed, done in [((0.5, 0.0), (0.6, 0.0)), ((0.0, 0.0), (0.2, -0.4)), ((3, -3), (1, -1))]:
        found.add(np.array([proposed]), np.array([done]))
    facts = found.facts(3)["shadow"]
    assert facts["env_steps"] == 3
    assert facts["difference"] == pytest.approx([(0.05 + 0.3 + 0) / 3])
    assert facts["agreed"] == pytest.approx([2 / 3])
    again = Agreement((7,))
    again.restore(found.state())
    assert again.rows() == found.rows()


@pytest.fixture
def actor(probe: str, tmp_path: Path) -> Path:
    execute(recipe_for(None, env_steps=2, seeds=[5]), tmp_path / "actor")
    return tmp_path / "actor"


def test_in_a_shadow_another_acts_at_every_step_and_a_resume_is_exact(
    actor: Path, tmp_path: Path
) -> None:
    recipe, notes = recipe_for(None, shadow=f"policy:{actor}"), []
    execute(recipe, tmp_path / "whole", notes=notes)
    assert [n for n in notes if n.startswith("acts at every step, this one proposes: actor: probe")]
    found = manifest_of(tmp_path / "whole")
    assert found["intervention"]["taken_over"] == [ENV_STEPS] * 2
    assert found["shadow"]["env_steps"] == ENV_STEPS
    assert 0 < found["shadow"]["difference"][0] < 2
    name = list(states(tmp_path / "whole"))[2]
    parts = stopped_at(tmp_path / "whole", name, tmp_path / "parts")
    execute(recipe, parts, resume=True)
    assert_same_end(tmp_path / "whole", parts)
    assert manifest_of(parts)["shadow"] == found["shadow"]


def test_a_policy_in_its_own_shadow_agrees_but_for_its_noise(
    probe: str, actor: Path, tmp_path: Path
) -> None:
    """With no updates and no noise, what acts and what proposes are the same policy."""
    recipe = recipe_for(None, shadow=f"policy:{actor}", seeds=[5])
    section = recipe.method.model_copy(update={"spread": 0.0, "warmup_env_steps": ENV_STEPS})
    plain = Recipe(recipe.run, section)
    execute(plain, tmp_path / "run", source=None)
    found = manifest_of(tmp_path / "run")["shadow"]
    assert found["agreed"][0] < 1, "from scratch it proposes at random during the warm-up"


@follows("another acts at every step already: leave 'intervention' out")
def test_a_shadow_flag_leaves_no_room_for_another(
    terminal: Terminal, short_env: str, tmp_path: Path
) -> None:
    words = ("finetune", "--algo", "sac", "--env", short_env, "--env-steps", "6", *SMALL)
    terminal.done(*words, "--out", tmp_path / "expert")
    whom = f"policy:{tmp_path / 'expert'}"
    out = ("--out", tmp_path / "run")
    said = terminal.told(*words, *out, "--shadow", whom, "--intervene", whom)
    assert "leave 'intervention' out" in said
    said = terminal.done(*words, *out, "--shadow", whom)
    assert "another acted, this policy proposed: within 0.1 of what was done at" in said
    assert "expected policy:PATH" in terminal.told(
        *words, "--out", tmp_path / "x", "--shadow", "me"
    )


def test_a_shadow_is_not_inherited_and_limits_are(actor: Path, tmp_path: Path) -> None:
    section = {"max_action_change": CHANGE}
    execute(recipe_for(section, shadow=f"policy:{actor}", env_steps=2), tmp_path / "run")
    (layer,) = inherited(load(tmp_path / "run"), None, {})
    assert "shadow" not in layer
    assert layer["safety"]["max_action_change"] == [CHANGE]


# -- what is said and refused


@follows("safety.observation_envelope is about the observations of data, and there are none: give")
def test_an_envelope_needs_data(terminal: Terminal, data: str, tmp_path: Path) -> None:
    words = ("finetune", "--algo", "sac", "--env", "Bounded-v0", "--env-steps", "2", *SMALL)
    words = (*words, "--out", tmp_path / "run", "safety.observation_envelope.sigmas=9")
    assert "there are none: give --dataset ID" in terminal.told(*words)
    terminal.done(*words, "--dataset", data)


@follows("what holding does before anything was done in an episode isn't known: give hold_action")
def test_holding_needs_an_action(terminal: Terminal, short_env: str, tmp_path: Path) -> None:
    words = ("finetune", "--algo", "sac", "--env", short_env, "--env-steps", "2", *SMALL)
    dog = "safety.watchdog.max_late_seconds=100"
    assert "give hold_action, or rest_action" in terminal.told(*words, dog, "--out", tmp_path / "a")
    for name in ("hold_action", "rest_action"):
        said = terminal.done(*words, dog, f"safety.{name}=0", "--out", tmp_path / name)
    assert "limits: watchdog acted in 0.0% of online steps (0 env_steps)." in said


@pytest.mark.parametrize(
    "section", [{}, {"rest_action": 0}, {"max_action_change": 0}, {"watchdog": {"then": "stop"}}]
)
def test_a_section_that_limits_nothing_is_refused(section: Any) -> None:
    with pytest.raises(UsageError, match="recipe key 'safety"):
        recipe_of("sac", {}, env="Steady-v0", safety=section)


def test_a_checkpoint_of_an_earlier_version_opens_its_dataset(
    probe: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(
        recipe_of("td3_bc", {}, dataset=data, env="Bounded-v0", gradient_steps=2), tmp_path / "pre"
    )
    source = load(tmp_path / "pre")
    kept = source.document["dataset"].pop("observations")
    monkeypatch.setattr("support.runs.load", lambda path: source)
    run = {"env": None, "dataset": data, "env_steps": 2, "safety": envelope(then="hold")}
    recipe = recipe_of("td3_bc", {}, **run)
    execute(recipe, tmp_path / "on", source=tmp_path / "pre")
    assert load(tmp_path / "on").document["dataset"]["observations"] == kept


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["limits_near"].update({"outside": [0]}),
        lambda state: state["limits_near"].update({"waiting": [0, 1]}),
        lambda state: state["limits"]["acted"].update({"max_action_change": [0]}),
        lambda state: state["limits"]["acted"].update({"force": [0, 0]}),
        lambda state: state.pop("shadow"),
        lambda state: state["shadow"].update({"near": [-1, 0]}),
    ],
)
def test_a_checkpoint_whose_counts_cant_be_is_refused(
    change: Any, actor: Path, tmp_path: Path
) -> None:
    section = {"max_action_change": CHANGE}
    out = tmp_path / "run"
    execute(recipe_for(section, shadow=f"policy:{actor}", env_steps=EVERY), out)
    for name in states(out):
        path = out / "checkpoints" / name / "state.json"
        state = json.loads(path.read_text())
        change(state)
        path.write_text(json.dumps(state))
    with pytest.raises(DataError):
        load_newest(out, lambda _: None)


def test_a_report_says_what_limits_did() -> None:
    limits = {"env_steps": 200, "acted": {"watchdog": [10, 40]}, "stops": [{}]}
    shadow = {"env_steps": 200, "near": 0.1, "difference": [0.2, 0.1], "agreed": [0.5, 0.7]}
    runs = (SimpleNamespace(manifest={"limits": limits, "shadow": shadow}),)
    course: Any = SimpleNamespace(
        task="t", method="sac", runs=runs, notes=(), seeds=(0, 1), steps_known=True
    )
    notes = notes_on([course], 1)
    assert (
        "t, sac: limits: watchdog acted in 12.5% of online steps (50 env_steps; by seed 10, 40); "
        "1 stop of the run."
    ) in notes
    assert any("within 0.1 of what was done at 60.0% of steps, 0.150 apart" in n for n in notes)
