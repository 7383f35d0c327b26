"""MOORe: odds that leave the dataset, rewards of the model, rollouts, and the course of a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from baq_cli.agents.interface import Batch
from baq_cli.agents.moore import MOORe
from baq_cli.agents.parts import rollouts
from baq_cli.agents.parts.dynamics import GaussianDynamics, judges
from baq_cli.agents.parts.model_based import MODEL
from baq_cli.agents.parts.rollouts import roll_out
from baq_cli.agents.plans import Draw
from baq_cli.engine.experience.reader import StoreReader
from baq_cli.engine.experience.stores import odds_of, stores_by_name
from baq_cli.engine.phases.online import OnlineLoop
from baq_cli.engine.updates import updater
from baq_cli.errors import Interrupted
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.schema import Recipe
from baq_cli.units import Phase
from support.builders import (
    GAMMA,
    KnownNoise,
    add_online,
    dataset_store,
    numbers,
    plan_of,
    small_agent,
    squashed_sample,
    stores_in_reach,
    tensor,
    tiny_agent,
    tiny_batch,
)
from support.recordings import ID
from support.runs import assert_same_end, execute, last_tensors, recipe_of
from support.small_methods import FEW, small

pytestmark = pytest.mark.usefixtures("steady_dataset")

# -- the odds of the dataset

OFFLINE_ROWS, WEIGHT = 1_000, {"decay": 2.0, "decay_floor": 0.05}


@pytest.mark.parametrize(
    ("share", "online", "expected"),
    [
        (0.0, 0, 1.0),
        (0.5, 400, 1_000 * np.exp(-1) / (1_000 * np.exp(-1) + 400)),  # 0.479
        (1.0, 800, 1_000 * np.exp(-2) / (1_000 * np.exp(-2) + 800)),  # 0.145
    ],
)
def test_the_dataset_counts_for_less_as_the_phase_goes_on(
    share: float, online: int, expected: float
) -> None:
    agent = tiny_agent("moore", phase="online", **WEIGHT)
    agent.clock.write(0, 0, share)
    assert_allclose(agent.odds_at(OFFLINE_ROWS, online), [expected] * 2, rtol=1e-6)


def test_it_never_counts_for_less_than_the_floor() -> None:
    agent = tiny_agent("moore", phase="online", decay=50.0, decay_floor=0.05)
    agent.clock.write(0, 0, 0.9)
    assert_allclose(agent.odds_at(OFFLINE_ROWS, 450), [50 / (50 + 450)] * 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("sampling", "expected"), [("uniform", 1_000 / 1_400), ("half", 0.5), ("online_only", 0.0)]
)
def test_other_samplings_have_odds_that_the_clock_does_not_change(
    sampling: str, expected: float
) -> None:
    agent = tiny_agent("moore", phase="online", sampling=sampling)
    for share in (0.1, 1.0):
        agent.clock.write(0, 0, share)
        assert_allclose(agent.odds_at(OFFLINE_ROWS, 400), [expected] * 2)
    assert_allclose(agent.odds_at(OFFLINE_ROWS, 0), [1.0] * 2)


def test_a_refit_begins_with_the_odds_of_now_and_the_members_that_are_kept() -> None:
    agent = tiny_agent("moore", phase="online", **WEIGHT)
    held = agent.odds
    agent.clock.write(0, 0, 0.5)
    sizes: Any = SimpleNamespace(size={"offline": OFFLINE_ROWS, "online": 400}.get)
    agent.begin_stage("dynamics", sizes)
    assert agent.odds is held, "draws that are recorded read this tensor"
    assert_allclose(held, agent.odds_at(OFFLINE_ROWS, 400))
    for p, kept in zip(
        agent.dynamics.learner.parameters(), agent.dynamics.kept.parameters(), strict=True
    ):
        assert torch.equal(p, kept)


def test_the_first_fit_takes_the_units_of_the_rows_it_sees_and_looks_ten_times() -> None:
    agent, batch = tiny_agent("moore"), tiny_batch(rows=7)
    asked: list[dict[str, Any]] = []

    def chunks(**how: Any) -> list[Batch]:
        asked.append(how)
        return [batch]

    data: Any = SimpleNamespace(chunks=chunks)
    agent.begin_stage("dynamics", data)
    assert asked == [{"held_out": False}]
    pairs = torch.cat([batch.obs, batch.action], dim=-1)
    assert_allclose(agent.dynamics.input_mean[:, 0], pairs.mean(1), rtol=1e-9)
    assert [agent.fit(steps).assess_every for steps in (1, 10, 95)] == [1, 1, 10]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [("decaying", 0.5), ("uniform", 120 / 160), ("half", 0.5), ("online_only", 0.0)],
)
def test_starts_and_rows_of_a_fit_are_drawn_from_either_store_as_the_sampling_says(
    sampling: str, expected: float
) -> None:
    """Of 120 and 40 rows; w is 1/3 half way through the phase, which makes them equal."""
    settings = {"sampling": sampling, "decay": np.log(9), "real_share": 0.5}
    agent: Any = small_agent("moore", (0, 1), phase="online", **settings)
    plan = plan_of(agent)
    offline, online = stores_in_reach(agent, plan, dataset_store(agent))
    for step in range(40):
        add_online(agent, online, step)
    reader = StoreReader(agent, stores_by_name(offline, online), GAMMA, odds_of(agent, plan))
    agent.clock.write(0, 40, 0.5)
    (fit,) = plan.stages
    agent.begin_stage(fit.name, reader)
    for draws in (fit.draws, (agent.real,), plan.draws[:1]):
        batch = reader.sample(draws, 4_000, SeedStream((0, 1), "drawn"))
        assert_allclose(1 - batch.online.mean(1), [expected] * 2, atol=0.05)


def test_rows_that_judge_members_count_as_rows_are_drawn() -> None:
    held_out, online = tiny_batch(rows=4), tiny_batch(rows=3)
    held_out, online = (replace(b, weight=torch.ones_like(b.weight)) for b in (held_out, online))

    def chunks(
        held_out_only: bool | None = None, most_rows: int = 0, store: str = "offline", **asked: bool
    ) -> Iterator[Batch]:
        assert asked.get("held_out", store == "online")
        yield from [held_out] if store == "offline" else [online]

    data: Any = SimpleNamespace(chunks=chunks)
    found = [batch.weight for batch in judges(data, tensor([0.25, 1.0]))]
    assert_allclose(found[0], [[0.25 / 4] * 4, [1 / 4] * 4])
    assert_allclose(found[1], [[0.75 / 3] * 3, [0.0] * 3])


# -- the model


def test_a_transition_of_the_model_is_rewarded_less_where_its_members_are_unsure() -> None:
    """r = 2 s₀ − a₁ of both members, deviations (3, 4, 0) and (1, 2, 2): u is 5."""
    agent = tiny_agent("moore", penalty=0.3)
    model = agent.dynamics = GaussianDynamics(agent.spec, (), members=2, elites=1).double()
    spreads = tensor([[[3.0, 4.0, 1e-9]], [[1.0, 2.0, 2.0]]])
    with torch.no_grad():
        for p in model.kept.parameters():
            p.zero_()
        model.kept.highest.fill_(40.0)
        model.kept.lowest.fill_(-60.0)
        layer = model.kept.net.layers[0]
        layer.weight[..., 0, 2], layer.weight[..., 3, 2] = 2.0, -1.0
        layer.bias[..., 3:6] = 2 * spreads.log()
        layer.bias[..., 6] = tensor([-1.0, 1.0]).view(2, 1, 1)  # the second seed's all terminate
        model.losses.copy_(tensor([[0.0, 1.0]] * 2))
    obs, noise = tensor(numbers(2, 3, 2, phase=0.3)), KnownNoise()
    made = agent.imagine(obs, noise)
    action, _ = squashed_sample(agent.policy, obs.numpy(), noise.normals[0])
    assert_allclose(made["action"].detach(), action)
    reward = 2 * obs[..., 0].numpy() - action[..., 1] - 0.3 * 5.0
    assert_allclose(made["reward"].detach(), reward, rtol=1e-7)
    after = obs.numpy() + np.array([3.0, 4.0]) * noise.normals[1][..., :2]
    assert_allclose(made["next_obs"].detach(), after, rtol=1e-7)
    assert_allclose(made["bootstrap"], [[1] * 3, [0] * 3])


@dataclass
class Made:
    """Data whose rows start at −1, −2, … in the order in which they are drawn; keeps what comes."""

    rows: list[dict[str, torch.Tensor]] = field(default_factory=list)
    drawn: int = 0

    def sample(self, draws: Any, rows: int, noise: Any) -> Any:
        first, self.drawn = self.drawn + 1, self.drawn + rows
        obs = -torch.arange(first, first + rows).float().view(1, rows, 1)
        return SimpleNamespace(obs=obs.expand(2, -1, -1))

    def put(self, store: str, rows: dict[str, torch.Tensor]) -> None:
        assert store == "model"
        self.rows.append(rows)


def test_a_rollout_goes_on_from_the_next_state_and_anew_where_it_terminated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rollouts, "AT_ONCE", 2)
    # which rollouts terminate, of each seed: in first and third steps, and in second ones
    ends = tensor([[1, 0], [0, 0]]), tensor([[0, 0], [0, 1]])
    data: Any = Made()

    def imagine(obs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "obs": obs,
            "next_obs": obs + 100,
            "bootstrap": 1 - ends[len(data.rows) % 3 % 2][:, : obs.shape[1]],
        }

    noise: Any = None
    roll_out(imagine, data, Draw(), rollouts=3, horizon=3, noise=noise)
    found = [made["obs"][..., 0].tolist() for made in data.rows]
    assert found[:3] == [
        [[-1, -2], [-1, -2]],
        [[-3, 98], [99, 98]],  # the first seed's first rollout began anew
        [[97, 198], [199, -6]],
    ]
    assert [len(row) for rows in found[3:] for row in rows] == [1] * 6, "three in all"
    assert found[3] == [[-9], [-9]]
    made = {name: torch.cat([rows[name] for rows in data.rows], 1) for name in data.rows[0]}
    for i in range(2):
        over = made["next_obs"][i, made["bootstrap"][i] == 0]
        assert len(over)
        assert not torch.isin(made["obs"][i], over).any(), "nothing follows a termination"


# -- plans


def test_a_stage_trains_the_model_alone_and_main_updates_all_but_it() -> None:
    agent = tiny_agent("moore")
    batch = tiny_batch(held_out=[[0, 1, 0], [0, 0, 1]])
    noise: Any = KnownNoise()
    losses = agent.loss(batch, noise, MODEL)
    assert losses.terms.keys() == MODEL
    assert_allclose(
        losses.terms["dynamics"].detach(), agent.dynamics.fit_loss(batch).detach(), rtol=0
    )
    phases: tuple[Phase, ...] = ("offline", "online")
    for phase in phases:
        agent = tiny_agent("moore", phase=phase)
        plan = plan_of(agent)
        assert plan.train == agent.groups().keys() - MODEL
        stages = [*plan.first, *plan.routines[0].stages]
        assert [(stage.groups, bool(plan.first)) for stage in stages] == [
            (MODEL, phase == "offline")
        ]


@pytest.mark.parametrize("phase", ["offline", "online"])
def test_a_batch_is_of_the_model_but_for_its_share_of_real_rows(phase: Phase) -> None:
    agent = tiny_agent("moore", phase=phase, real_share=0.25, rollouts=10, rollouts_kept=3)
    plan = plan_of(agent)
    real, model = plan.draws
    assert (real.share, model.share) == (0.25, 0.75)
    assert model.stores == ("model",)
    assert "offline" in real.stores
    assert ("online" in real.stores) == (real.odds == "odds") == (phase == "online")
    assert plan.model_capacity == 10 * agent.config.horizon * 3
    alone = tiny_agent("moore", phase=phase, real_share=0.0)
    assert plan_of(alone).draws == (Draw(("model",)),)


def test_more_elites_than_members_and_stores_beyond_any_memory_are_refused() -> None:
    for settings in ({"members": 2, "elites": 3}, {"rollouts": 10**9}):
        with pytest.raises(ValueError, match="expected"):
            MOORe.Config(**settings)  # type: ignore[arg-type]


# -- runs

STEPS, EVERY = 20, FEW
"""Of a phase. Routines run after 0, 6, 12 and 18 of them, as checkpoints are written: what is
resumed may begin with a routine."""


def recipe(seeds: list[int]) -> Recipe:
    watched = {"episodes": 1, "background": False}
    watched |= {"every_gradient_steps": EVERY, "every_env_steps": EVERY}
    place = {"dataset": ID, "env": "Steady-v0", "seeds": seeds, "evaluation": watched}
    settings = small("moore") | {"warmup_env_steps": 0}
    return recipe_of("moore", settings, **place, gradient_steps=STEPS, env_steps=STEPS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Return a function that gives the folder of both phases of so many seeds, each run once."""
    known: dict[int, Path] = {}

    def run(seeds: int) -> Path:
        if seeds not in known:
            known[seeds] = tmp_path_factory.mktemp(f"of-{seeds}")
            execute(recipe([*range(seeds)]), known[seeds] / "offline")
            execute(
                recipe([*range(seeds)]), known[seeds] / "online", source=known[seeds] / "offline"
            )
        return known[seeds]

    return run


class KilledError(Exception):
    """Stands for the end of a process."""


STOPS: dict[Phase, list[tuple[str, int, type[Exception]]]] = {
    "offline": [
        ("assess", 3, Interrupted),
        ("refresh", 2, KilledError),
        ("refresh", 2, Interrupted),
    ],
    "online": [
        ("refresh", 3, KilledError),
        ("refresh", 1, Interrupted),
        ("assess", 3, Interrupted),
    ],
}
"""At which call, counted from the last stop, a run is killed or asked to stop: inside the stage
before the phase, or inside the stage of a routine, or at the end of a routine."""


def stopped(stop: tuple[str, int, type[Exception]], go_on: Callable[[], Any]) -> None:
    """Go on until the call of a method at which the run is to stop."""
    name, number, by = stop
    method, calls = getattr(MOORe, name), []

    def called(*arguments: Any) -> None:
        method(*arguments)
        calls.append(name)
        if len(calls) == number and by is KilledError:
            raise KilledError
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MOORe, name, called)
        with pytest.raises(by):
            go_on()


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("phase", ["offline", "online"])
def test_a_run_stopped_inside_its_stages_and_routines_ends_as_one_that_was_not(
    phase: Phase, seeds: int, whole: Callable[[int], Path], tmp_path: Path
) -> None:
    source = whole(seeds) / "offline" if phase == "online" else None

    def go_on() -> None:
        execute(recipe([*range(seeds)]), tmp_path / phase, resume=True, source=source)

    for stop in STOPS[phase]:
        stopped(stop, go_on)
    go_on()
    assert_same_end(whole(seeds) / phase, tmp_path / phase)


def test_recorded_fits_end_as_eager_ones_also_when_online_rows_come(
    whole: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updater, "RECORD_AFTER", 2)
    for phase, source in (("offline", None), ("online", whole(1) / "offline")):
        execute(recipe([0]), tmp_path / phase, source=source)
        assert_same_end(whole(1) / phase, tmp_path / phase)


def test_a_seed_learns_the_same_alone_and_among_others(
    whole: Callable[[int], Path], tmp_path: Path
) -> None:
    execute(recipe([1]), tmp_path / "offline")
    execute(recipe([1]), tmp_path / "online", source=tmp_path / "offline")
    for phase in ("offline", "online"):
        together, alone = last_tensors(whole(3) / phase), last_tensors(tmp_path / phase)
        parts = {name for name in alone if name.startswith(("agent/", "model"))}
        assert any("dynamics" in name for name in parts)
        for name in parts - {n for n in parts if "inputs." in n}:
            assert_allclose(
                together[name][1], alone[name][0], rtol=1e-4, atol=1e-4, err_msg=f"{phase} {name}"
            )


def test_fine_tuning_begins_without_model_rows_and_makes_them_before_the_first_step(
    whole: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = whole(1) / "offline"  # before anything is listened to
    seen: list[tuple[str, int, int, float]] = []
    step, refresh = OnlineLoop.step, MOORe.refresh
    offline = 0

    def refreshed(this: MOORe, routine: str, data: Any, noise: Any) -> None:
        nonlocal offline
        offline = data.size("offline")
        seen.append(("refresh", data.size("model"), data.size("online"), float(this.odds)))
        refresh(this, routine, data, noise)

    def stepped(this: OnlineLoop) -> None:
        assert this.intake.stores.model is not None
        seen.append(("step", this.intake.stores.model.size, this.intake.online.size, 0.0))
        step(this)

    monkeypatch.setattr(OnlineLoop, "step", stepped)
    monkeypatch.setattr(MOORe, "refresh", refreshed)
    execute(recipe([0]), tmp_path, source=source)
    made, config = FEW * MOORe.Config().horizon, MOORe.Config()
    assert seen[:2] == [("refresh", 0, 0, 1.0), ("step", made, 0, 0.0)]
    odds = [after for name, _, _, after in seen if name == "refresh"]
    for t, found in enumerate(odds):
        online = t * FEW
        weight = offline * max(config.decay_floor, np.exp(-config.decay * online / STEPS))
        assert found == pytest.approx(weight / (weight + online), rel=1e-5)
    assert len(odds) == 4
