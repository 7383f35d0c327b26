"""The hand-over: what is loaded, what begins anew, and what a method changes, once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor, nn

from baq_cli.agents.awac import AWAC
from baq_cli.agents.base import frozen_copy, per_seed
from baq_cli.agents.interface import Experience
from baq_cli.agents.registry import METHODS, make_agent, method_configs
from baq_cli.engine.checkpoints.continuing import continuing, renamed
from baq_cli.engine.checkpoints.folder import Checkpoint, agent_tensors, load
from baq_cli.engine.checkpoints.restore import load_exactly
from baq_cli.engine.phases.request import RunRequest
from baq_cli.engine.phases.start import Start, open_online
from baq_cli.errors import DataError, UsageError
from baq_cli.nets.streams import SeedStream
from baq_cli.recipes.load import resolve
from baq_cli.runs.events import Note
from support.builders import numbers, small_agent
from support.recordings import ID, own_folders
from support.runs import assert_same_end, execute, last_tensors, recipe_of, states, stopped_at
from support.small_data import write_steady
from support.small_methods import small

STEPS, EVERY = 12, 5
CPU = torch.device("cpu")


class Probe(AWAC):
    """Online it keeps a policy beside its own, and has a vector that pre-training knows not of."""

    name = "probe"
    inherits: ClassVar = {
        "iql": {"policy.": "prior."},
        "td3_bc": {"critic": "prior", "critic_": "other.critic_", "critic_target.": "critic."},
    }
    fresh_online = ("prior", "extra")
    calls: ClassVar[list[int]] = []
    """Rows of the dataset that each hand-over saw."""

    def build(self, init: SeedStream) -> None:
        super().build(init)
        self.switched: Tensor
        self.register_buffer("switched", per_seed(0.0, self.spec))
        if self.phase == "online":
            self.prior = frozen_copy(self.policy)
            self.extra = nn.Parameter(init.normal(3))

    def hand_over(self, data: Experience) -> frozenset[str]:
        self.switched += 1
        self.calls.append(sum(batch.obs.shape[1] for batch in data.chunks()))
        return frozenset({"critic"})


@pytest.fixture(scope="module", autouse=True)
def dataset() -> Iterator[None]:
    with own_folders(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "probe", Probe)
        write_steady(ID)
        yield


def recipe(algo: str, **settings: Any) -> Any:
    watched = {"episodes": 1, "background": False}
    watched |= {"every_gradient_steps": EVERY, "every_env_steps": EVERY}
    method = {"hidden": [8, 8], "reward_scale": 1.0, "warmup_env_steps": 2, **settings}
    return recipe_of(
        algo, method, dataset=ID, env="Steady-v0", gradient_steps=STEPS, env_steps=STEPS,
        evaluation=watched,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pre-trained runs, by their methods."""
    runs = {algo: tmp_path_factory.mktemp(algo) / "run" for algo in ("probe", "iql")}
    for algo, run in runs.items():
        execute(recipe(algo), run)
    return runs


def started(
    algo: str, source: Path, out: Path, **settings: Any
) -> tuple[Start, Checkpoint, list[str]]:
    """Return what an online phase begins with, what it was handed, and what was said."""
    said: list[str] = []
    order = RunRequest(out, lambda e: said.append(e.text) if isinstance(e, Note) else None, "", "")
    checkpoint = load(source)
    return open_online(recipe(algo, **settings), order, checkpoint, CPU), checkpoint, said


def assert_taken(agent: Any, checkpoint: Checkpoint, places: dict[str, str]) -> None:
    """Check parts of an agent, by where they come from in a checkpoint."""
    own = agent.state_dict()
    for here, there in places.items():
        names = [name for name in own if name.startswith(here)]
        assert names
        for name in names:
            assert torch.equal(own[name], checkpoint.agent[there + name.removeprefix(here)]), name


def assert_as_built(agent: Any, *parts: str) -> None:
    built = make_agent(agent.name, agent.config, agent.spec, "online").state_dict()
    for name, tensor in agent.state_dict().items():
        if name.startswith(parts):
            assert torch.equal(tensor, built[name]), name


def test_a_methods_own_checkpoint_is_loaded_and_what_it_lacks_begins_anew(
    made: dict[str, Path], tmp_path: Path
) -> None:
    start, checkpoint, _ = started("probe", made["probe"], tmp_path)
    agent = start.learner.agent
    assert agent.phase == "online"
    assert_taken(agent, checkpoint, {"policy.": "policy.", "critic": "critic"})
    assert_as_built(agent, "prior.", "extra")
    assert agent.get_buffer("switched").tolist() == [1.0, 1.0]
    assert start.learner.gradient_steps == STEPS


@pytest.mark.parametrize(
    ("source", "algo", "settings", "taken"),
    [
        ("sac_n", "edac", {"layer_norm": True}, True),
        ("sac_n", "edac", {"layer_norm": False}, False),
        ("rebrac", "td3_bc", {"layer_norm": True}, False),  # ReBRAC's are behind the activations
    ],
)
def test_critics_go_on_in_another_method_only_where_they_are_the_same_function(
    source: str, algo: str, settings: dict[str, Any], taken: bool, tmp_path: Path
) -> None:
    """Their weights without their LayerNorms would be other values, of the same shapes."""
    same = {"normalize_observations": False}
    execute(recipe(source, layer_norm=True, **same), tmp_path / "source")
    start, checkpoint, said = started(
        algo, tmp_path / "source", tmp_path / "on", **settings, **same
    )
    names = [n for n in start.learner.agent.state_dict() if n.startswith("critic.net.layers")]
    own = start.learner.agent.state_dict()
    assert all(torch.equal(own[n], checkpoint.agent[n]) == taken for n in names if "weight" in n)
    if taken:
        assert_taken(start.learner.agent, checkpoint, {"critic": "critic"})
    (told,) = [text for text in said if text.startswith("taken from the checkpoint")]
    assert ("critic" in told.partition("fresh")[0]) == taken


def test_a_policy_of_other_activations_is_none_to_go_on_with() -> None:
    """SDM-GAN's network has the shapes of FQL's where a state is as small as an action."""
    assert "fql" not in continuing("sdm_gan")


def test_a_part_that_a_checkpoint_lacks_is_refused_unless_the_method_says_that_it_begins_anew(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Probe, "fresh_online", ("prior",))
    with pytest.raises(DataError, match="extra"):
        started("probe", made["probe"], tmp_path)


def test_the_optimisers_that_a_method_renews_start_fresh_and_the_others_go_on(
    made: dict[str, Path], tmp_path: Path
) -> None:
    start, checkpoint, said = started("probe", made["probe"], tmp_path)
    moments = start.learner.optimizer_state()
    assert moments.keys() == {n for n in checkpoint.training if n.startswith("optimizer.")}
    for name, tensor in moments.items():
        kept = checkpoint.training[name]
        assert kept.any()
        renewed = name.startswith("optimizer.critic.")
        assert torch.equal(tensor, torch.zeros_like(kept) if renewed else kept), name
    assert "optimisers start fresh: critic" in said


def test_a_method_is_handed_over_once_with_the_dataset_and_not_at_a_resume(
    made: dict[str, Path], tmp_path: Path
) -> None:
    Probe.calls.clear()
    whole = tmp_path / "whole"
    execute(recipe("probe"), whole, source=made["probe"])
    rows = Probe.calls[0]
    assert Probe.calls == [rows]
    assert rows > 20
    for name in list(states(whole))[:-1]:
        parts = stopped_at(whole, name, tmp_path / name)
        execute(recipe("probe"), parts, resume=True, source=made["probe"])
        assert_same_end(whole, parts)
    assert Probe.calls == [rows]
    assert last_tensors(whole)["agent/switched"].tolist() == [1.0, 1.0]


def test_a_pretrained_part_may_have_another_name_online_and_keeps_that_from_then_on(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Probe, "inherits", {"probe": {"policy.": "prior."}})
    monkeypatch.setattr(Probe, "fresh_online", ("policy", "extra"))
    start, checkpoint, _ = started("probe", made["probe"], tmp_path / "offline")
    assert_taken(start.learner.agent, checkpoint, {"prior.": "policy.", "critic": "critic"})
    assert_as_built(start.learner.agent, "policy.", "extra")
    execute(recipe("probe"), tmp_path / "online", source=made["probe"])
    start, checkpoint, _ = started("probe", tmp_path / "online", tmp_path / "more")
    every = {part: part for part in ("prior.", "policy.", "critic", "extra")}
    assert_taken(start.learner.agent, checkpoint, every)


# -- from another method's checkpoint


def test_parts_of_another_methods_checkpoint_go_where_this_one_says(
    made: dict[str, Path], tmp_path: Path
) -> None:
    start, checkpoint, said = started("probe", made["iql"], tmp_path)
    agent = start.learner.agent
    assert_taken(agent, checkpoint, {"prior.": "policy.", "critic": "critic"})
    assert_as_built(agent, "policy.", "extra")
    assert not torch.equal(agent.policy.net.layers[0].weight, agent.prior.net.layers[0].weight)
    taken = (
        "taken from the checkpoint: critic, critic_target, prior; fresh: extra, policy, switched"
    )
    assert taken in said
    assert "optimisers start fresh: critic, policy" in said
    assert not any(tensor.any() for tensor in start.learner.optimizer_state().values())


def test_of_beginnings_that_fit_a_name_the_longest_says_where_it_goes() -> None:
    names = ["critic.w", "critic_target.w", "critic_x", "policy.w"]
    found = renamed(Probe, "td3_bc", {name: name for name in names})
    assert found == {
        "prior.w": "critic.w",
        "critic.w": "critic_target.w",
        "other.critic_x": "critic_x",
        "policy.w": "policy.w",
    }
    assert renamed(Probe, "sac", dict.fromkeys(names, 0)) == dict.fromkeys(names, 0)


def test_a_method_continues_those_whose_policy_it_has_a_place_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "probe" in continuing("iql")
    monkeypatch.setattr(Probe, "inherits", {"iql": {"policy.": "nowhere."}})
    assert "probe" not in continuing("iql")


# -- networks of one form

OBS, ACTION = (torch.from_numpy(numbers(2, 9, width)).float() for width in (3, 1))


def assert_alike(one: Any, other: Any, *at: Tensor) -> None:
    assert_allclose(one(*at).detach(), other(*at).detach(), rtol=1e-5, atol=1e-6)


def grown(algo: str, out: Path, **method: Any) -> Path:
    """Return a run whose every number is another than at first, those of LayerNorms too."""
    fast = {"learning_rate": 0.05, "policy_learning_rate": 0.05, "normalize_observations": False}
    execute(other_recipe(algo, **small(algo) | fast | method), out)
    return out


def other_recipe(algo: str, **method: Any) -> Any:
    watched = {"episodes": 1, "background": False}
    run = {"dataset": ID, "env": "Steady-v0", "gradient_steps": 10, "env_steps": 4}
    return recipe_of(algo, method | {"reward_scale": 1.0}, evaluation=watched, **run)


def handed(source: Path, algo: str, out: Path, **method: Any) -> tuple[Any, Any]:
    """Return who made a checkpoint, and the method that has taken it over."""
    document = load(source).document
    settings = small(algo) | {"normalize_observations": False, "critics": 2} | method
    order = RunRequest(out, lambda event: None, "", "")
    agent = open_online(other_recipe(algo, **settings), order, load(source), CPU).learner.agent
    before = resolve([document["recipe"]], method_configs()).method
    maker: Any = make_agent(document["algo"], before, agent.spec, "offline")
    load_exactly(maker, agent_tensors(load(source)), source)
    return maker, agent


def test_critics_whose_layer_norms_stand_elsewhere_begin_anew_and_the_policy_goes_on(
    tmp_path: Path,
) -> None:
    """ReBRAC's stand behind the activations, TD3+BC's before them: the same shapes say nothing."""
    source = grown("rebrac", tmp_path / "rebrac")
    for norm in (True, False):
        before, after = handed(source, "td3_bc", tmp_path / "a", layer_norm=norm)
        assert_alike(before.policy.mode, after.policy.mode, OBS)
        assert_as_built(after, "critic.", "critic_target.")
    source = grown("td3_bc", tmp_path / "td3_bc", layer_norm=True)
    before, after = handed(source, "adaptive_bc", tmp_path / "b", layer_norm=True)
    assert_alike(before.critic, after.critic, OBS, ACTION)
    _, after = handed(source, "adaptive_bc", tmp_path / "c", layer_norm=False)
    assert_as_built(after, "critic.", "critic_target.")


def test_a_policy_with_layer_norms_is_not_continued_as_one_without(tmp_path: Path) -> None:
    source = grown("wsrl", tmp_path / "wsrl", critics=2)
    with pytest.raises(UsageError) as refused:
        handed(source, "sac_n", tmp_path / "a", layer_norm=True)
    assert "networks differ" in str(refused.value)
    assert str(refused.value).endswith("or set sac_n.policy_layer_norm=true.")
    norms = {"layer_norm": True, "policy_layer_norm": True}
    before, after = handed(source, "sac_n", tmp_path / "b", **norms)
    assert_alike(before.policy.mode, after.policy.mode, OBS)
    assert_alike(before.critic, after.critic, OBS, ACTION)


# -- a form for each phase


@pytest.mark.parametrize("algo", sorted(METHODS))
def test_what_both_phases_have_begins_alike_in_either(algo: str) -> None:
    offline, online = (
        dict(small_agent(algo, (3, 5), phase=phase).named_parameters())
        for phase in ("offline", "online")
    )
    offline = renamed(METHODS[algo], algo, offline)
    shared = offline.keys() & online.keys()
    assert shared
    for name in shared:
        assert torch.equal(offline[name], online[name]), name
