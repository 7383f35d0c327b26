"""From imitation to reinforcement: a cloned policy goes on, with critics that begin anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from baq_cli.agents.base import Agent
from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.cli.finetune import inherited
from baq_cli.engine.checkpoints.continuing import carried, continuing
from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.phases import stages
from baq_cli.engine.phases.request import RunRequest
from baq_cli.engine.phases.start import open_online
from baq_cli.engine.updates.updater import Updater
from baq_cli.errors import UsageError
from baq_cli.nets.policies import DeterministicPolicy, GaussianPolicy, TanhGaussianPolicy
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.load import resolve
from support.builders import forward, numbers, squashed_mode, tanh_mean, tensor
from support.recordings import ID
from support.runs import assert_same_end, execute, recipe_of, states, stopped_at
from support.small_methods import small

pytestmark = pytest.mark.usefixtures("steady_dataset")

STEPS, WARMUP, FIT = 12, 4, 3
CPU = torch.device("cpu")
TAKING = continuing("bc")
JUDGING = [algo for algo in TAKING if "critics" not in METHODS[algo].Config.unused]

# -- policies as another


def policies(kind: type[Any], action_dim: int = 2, hidden: tuple[int, ...] = (4, 3)) -> Any:
    policy = kind(SeedStream((0, 1), "init"), 3, action_dim, hidden).double()
    with torch.no_grad():
        for k, parameter in enumerate(policy.parameters()):
            parameter.copy_(tensor(numbers(*parameter.shape, phase=0.7 * k)))
    return policy


def test_a_squashed_policy_as_a_gaussian_has_its_mode_and_its_spread_in_the_middle() -> None:
    gaussian, other = policies(GaussianPolicy), policies(TanhGaussianPolicy)
    with torch.no_grad():
        gaussian.log_std.copy_(tensor([[[-1.5, 0.5]], [[-9.0, -0.2]]]))  # one is below its range
    taken = other.as_another(gaussian.state_dict())
    other.load_state_dict(taken, strict=True)
    obs = numbers(2, 5, 3, phase=0.2)
    assert_allclose(squashed_mode(other, obs), tanh_mean(gaussian, obs), rtol=1e-12)
    log_std = np.split(forward(other.net, obs)[:, 0], 2, axis=-1)[1]
    expected = np.array([[[-1.5, 0.5]], [[-9.0, -0.2]]])
    assert_allclose(log_std, np.broadcast_to(expected, log_std.shape))


def test_a_deterministic_policy_takes_a_gaussians_mean_and_no_gaussian_takes_it() -> None:
    gaussian, other = policies(GaussianPolicy), policies(DeterministicPolicy)
    other.load_state_dict(other.as_another(gaussian.state_dict()), strict=True)
    obs = numbers(2, 5, 3, phase=0.2)
    assert_allclose(tanh_mean(other, obs), tanh_mean(gaussian, obs), rtol=1e-12)
    for kind in (GaussianPolicy, TanhGaussianPolicy):
        assert policies(kind).as_another(other.state_dict()) is None


@pytest.mark.parametrize("kind", [DeterministicPolicy, GaussianPolicy, TanhGaussianPolicy])
@pytest.mark.parametrize("sizes", [{"action_dim": 1}, {"hidden": (4, 4)}, {"hidden": (4,)}])
def test_a_policy_of_another_size_is_not_taken(kind: type[Any], sizes: dict[str, Any]) -> None:
    assert policies(kind).as_another(policies(GaussianPolicy, **sizes).state_dict()) is None


def test_which_methods_go_on_with_a_clone_follows_from_their_policies() -> None:
    """Not from a list: what acts by one perceptron, whose mean or whose μ the clone's can be."""
    plain = (DeterministicPolicy, GaussianPolicy, TanhGaussianPolicy)
    for name, method in METHODS.items():
        if not method.learns_online or (
            method.needs_own_pretraining and "bc" not in method.inherits
        ):
            assert name not in TAKING
            continue
        agent = of_policy(name)
        alone = (
            isinstance(agent.policy, plain) and agent.chunk == 1 and "policy" not in method.inherits
        )
        one = alone and agent.policy.net.members == 1 and not agent.policy.net.norms
        assert (name in TAKING) == one, name


def of_policy(name: str) -> Any:
    from support.builders import small_spec

    return METHODS[name](
        METHODS[name].Config(hidden=(8,), **carried(name, {})), small_spec((0,)), "online"
    )


# -- runs


def recipe(algo: str, critic_updates: int | None = FIT, **method: Any) -> Any:
    watched = {"episodes": 1, "background": False}
    watched |= {"every_gradient_steps": STEPS, "every_env_steps": 3}
    settings = small(algo) | {"normalize_observations": True}
    if algo != "bc":
        settings |= {"warmup_env_steps": WARMUP} | carried(algo, {})
    return recipe_of(
        algo, settings | method, dataset=ID, env="Steady-v0", gradient_steps=STEPS,
        env_steps=STEPS, evaluation=watched, critic_updates=critic_updates,
    )  # fmt: skip


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bc") / "run"
    execute(recipe("bc", None), out)
    return out


def tensors_of(agent: Agent) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in agent.state_dict().items()}


@pytest.mark.parametrize("algo", JUDGING)
def test_critics_learn_of_the_policy_before_it_learns_of_them(
    algo: str, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []
    fit = stages.Stages.fit

    def watched(self: stages.Stages, updater: Updater, *rest: Any) -> int:
        agent, before = updater.learner.agent, tensors_of(updater.learner.agent)
        made = fit(self, updater, *rest)
        seen.append((updater.learner.env_steps, before, tensors_of(agent)))
        return made

    monkeypatch.setattr(stages.Stages, "fit", watched)
    notes: list[str] = []
    execute(recipe(algo), tmp_path / algo, source=clone, notes=notes)
    ((env_steps, before, after),) = seen
    assert env_steps == WARMUP + 1, "the policy has taken the warm-up as it was"
    moved = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert {"critic", "critic_target"} <= moved
    assert not moved & {"policy", "policy_target", "log_alpha"}
    net = load(clone).agent
    for name, was in net.items():
        if name.startswith("policy.net.layers.0."):
            assert torch.equal(before[name], was)
    done = load(tmp_path / algo)
    assert done.document["gradient_steps"] == STEPS + small(algo)["utd"] * (STEPS - WARMUP)
    for name in ("inputs.obs_mean", "inputs.obs_std"):
        assert torch.equal(done.agent[name], net[name])
    (told,) = [note for note in notes if note.startswith("taken from the checkpoint: policy; ")]
    assert "critic" in told.partition("fresh: ")[2]


def test_every_target_follows_each_update_of_the_fit(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TD3+BC's follow the policy's steps otherwise, and the policy takes none."""
    states_: list[dict[str, torch.Tensor]] = []
    step = Updater.step

    def watched(self: Updater) -> Any:
        states_.append(tensors_of(self.learner.agent))
        found = step(self)
        states_.append(tensors_of(self.learner.agent))
        return found

    monkeypatch.setattr(Updater, "step", watched)
    execute(recipe("td3_bc", tau=0.25), tmp_path / "run", source=clone)
    for before, after in zip(states_[: 2 * FIT : 2], states_[1 : 2 * FIT : 2], strict=True):
        for name in before:
            if name.startswith("critic."):
                target = name.replace("critic.", "critic_target.")
                expected = before[target] + 0.25 * (after[name] - before[target])
                assert_allclose(after[target], expected, rtol=1e-5, atol=1e-7)
                assert not torch.equal(after[target], before[target])


@pytest.mark.parametrize("algo", ["iql", "sac_n"])
def test_a_run_from_a_clone_is_resumed_exactly(algo: str, clone: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    execute(recipe(algo), whole, source=clone)
    names = list(states(whole))
    assert len(names) > 3
    for name in names[:-1]:
        parts = stopped_at(whole, name, tmp_path / name)
        execute(recipe(algo), parts, resume=True, source=clone)
        assert_same_end(whole, parts)


def test_a_method_that_cannot_take_a_clone_is_refused_with_those_that_can(
    clone: Path, tmp_path: Path
) -> None:
    order = RunRequest(tmp_path / "run", lambda event: None, "", "")
    with pytest.raises(UsageError) as refused:
        open_online(recipe("fql"), order, load(clone), CPU)
    assert "bc policy can't be continued by 'fql'" in str(refused.value)
    assert f"({', '.join(TAKING)})" in str(refused.value)
    with pytest.raises(UsageError) as refused:
        execute(recipe("spot"), tmp_path / "spot", source=clone)
    assert "'spot' builds on its own pre-training" in str(refused.value)
    assert str(refused.value).endswith(f"can be continued by {', '.join(TAKING)}.")


# -- what a recipe becomes


def continued(source: Path, algo: str, **section: Any) -> Any:
    layers = inherited(load(source), algo, {"algo": algo})
    return resolve([*layers, {"algo": algo, algo: section}], method_configs())


def test_a_clone_is_followed_by_a_warm_up_and_a_fit_that_a_recipe_may_change(clone: Path) -> None:
    iql = continued(clone, "iql")
    assert (iql.run.critic_updates, iql.method.warmup_env_steps) == (5_000, 1_000)
    assert (iql.method.hidden, iql.method.normalize_observations) == ((8, 8), True)
    sac = continued(clone, "sac")
    assert sac.method.warmup_env_steps == METHODS["sac"].Config().warmup_env_steps == 5_000
    assert continued(clone, "awac").method.mean == "tanh"
    assert continued(clone, "iql", warmup_env_steps=7).method.warmup_env_steps == 7


def test_a_checkpoint_with_critics_goes_on_without_a_fit(clone: Path, tmp_path: Path) -> None:
    execute(recipe("iql", None), tmp_path / "iql")
    awac = continued(tmp_path / "iql", "awac")
    assert (awac.run.critic_updates, awac.method.warmup_env_steps) == (None, 0)
    execute(recipe("iql"), tmp_path / "online", source=clone)
    for algo in ("iql", "awac"):  # nor is one made again where it was
        assert continued(tmp_path / "online", algo).run.critic_updates is None


def test_where_critics_of_another_form_begin_anew_they_are_fitted_as_beside_a_clone(
    tmp_path: Path,
) -> None:
    """ReBRAC's LayerNorms stand behind the activations, TD3+BC's before them."""
    execute(recipe("rebrac", None), tmp_path / "rebrac")
    td3 = continued(tmp_path / "rebrac", "td3_bc")
    assert (td3.run.critic_updates, td3.method.warmup_env_steps) == (5_000, 1_000)
    execute(recipe("td3_bc", None), tmp_path / "td3_bc")
    bc = continued(tmp_path / "td3_bc", "adaptive_bc")
    assert bc.run.critic_updates is None


def test_rewards_have_the_units_that_are_asked_for_where_cloning_fixed_none(
    clone: Path, tmp_path: Path
) -> None:
    order = RunRequest(tmp_path / "run", lambda event: None, "", "")
    asked = recipe("iql", reward_scale=0.25, reward_shift=-1.0)
    inputs = open_online(asked, order, load(clone), CPU).inputs
    assert (inputs.reward_scale, inputs.reward_shift) == (0.25, -1.0)
    assert continued(clone, "iql").method.reward_scale == 1.0
