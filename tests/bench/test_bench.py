"""What `baq bench` counts, measures and keeps."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from baq_cli.agents.registry import METHODS
from baq_cli.bench import results, rival, updates
from baq_cli.bench.loop import Split
from baq_cli.bench.rival import Pairs
from baq_cli.bench.updates import Case, Found, Sizes, Subject, recipe_of, spec_of
from baq_cli.engine.updates.synthetic import operations_of, synthetic_updater
from baq_cli.units import Phase

Baq = Callable[..., tuple[int, str, str]]
TINY = (
    *("--batch", "8", "--hidden", "8,8", "--rows", "64", "--obs-dim", "3", "--action-dim", "1"),
    *("--rounds", "2", "--seconds", "0.02", "--threads", "1", "--device", "cpu"),
)


@pytest.fixture(autouse=True)
def _small_and_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The large product is small here, and threads end as they began."""
    monkeypatch.setattr(updates, "LARGE", 64)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# -- operations, counted by hand


def operations(case: Case, sizes: Sizes) -> float:
    spec = spec_of(case, sizes, torch.device("cpu"))
    return operations_of(synthetic_updater(recipe_of(case, sizes), spec, case.phase, sizes.rows))


def passes(rows: int, *widths: int) -> tuple[int, int]:
    """Return the operations of a network's forward pass, and of its backward pass.

    Biases and whatever else isn't a matrix product count as nothing; so does the gradient of a
    layer's input where the layer has one output, which is a product of a column and a row.
    """
    layers = list(pairwise(widths))
    forward = sum(2 * rows * n_in * n_out for n_in, n_out in layers)
    inputs = sum(2 * rows * n_in * n_out for n_in, n_out in layers[1:] if n_out > 1)
    return forward, forward + inputs  # the weights' gradients are as much as the forward pass


@pytest.mark.parametrize("phase", ["offline", "online"])
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("action_dim", [1, 2])
@pytest.mark.parametrize(
    ("batch", "hidden"),
    [(8, (5, 4)), (8, (6,)), (64, (5, 8)), (64, (7, 5, 9))],  # 64 rows: narrow layers transposed
)
def test_iqls_operations_are_those_of_a_count_by_hand(
    batch: int, hidden: tuple[int, ...], action_dim: int, seeds: int, phase: Phase
) -> None:
    obs, critics = 3, 2
    sizes = Sizes(batch, hidden, obs, action_dim, rows=128)
    value, value_back = passes(batch, obs, *hidden, 1)
    critic, critic_back = passes(batch, obs + action_dim, *hidden, 1)
    policy, policy_back = passes(batch, obs, *hidden, action_dim)
    targets = critics * critic + value  # Q̄(s, a) and V(s')
    losses = value + value_back + critics * (critic + critic_back) + policy + policy_back
    found = operations(Case("iql", seeds, phase), sizes)
    assert found == seeds * (targets + losses)


def test_a_count_by_hand_in_numbers() -> None:
    # 8 rows through 3-5-1: 8 · 2 · 15 and 8 · 2 · 5; back: both weights, no input's gradient
    assert passes(8, 3, 5, 1) == (320, 320)
    # with two outputs: 240 + 160, and back the hidden layer's gradient beside the weights'
    assert passes(8, 3, 5, 2) == (400, 560)


def test_a_group_that_steps_every_kth_time_counts_a_kth() -> None:
    sizes = Sizes(8, (5, 4), 3, 2, rows=64)
    every, second, fourth = (
        operations(Case("td3_bc", settings=(("policy_every", k),)), sizes) for k in (1, 2, 4)
    )
    assert every > second > fourth
    assert every - second == 2 * (second - fourth), "a half, and a quarter"


@pytest.mark.parametrize("algo", [name for name, m in METHODS.items() if m.learns_offline])
def test_operations_grow_with_the_seeds(algo: str) -> None:
    sizes = Sizes(8, (5, 4), 3, 2, rows=64)
    one, three = (operations(Case(algo, seeds), sizes) for seeds in (1, 3))
    assert three == 3 * one > 0


@pytest.mark.parametrize("gradient", ["full", "sampled"])
def test_more_actions_a_state_cost_their_passes_without_the_states_part(gradient: str) -> None:
    batch, (wide, narrow), action_dim, critics = 8, (5, 4), 2, 2
    sizes = Sizes(batch, (wide, narrow), 3, action_dim, rows=64)
    two, six = (
        operations(Case("cql", settings=(("cql_actions", k), ("gradient", gradient))), sizes)
        for k in (2, 6)
    )
    rows = critics * batch * 3 * (6 - 2)  # of each of three kinds
    forward, backward = passes(rows, action_dim, wide, narrow, 1)
    assert six - two == forward + (backward if gradient == "full" else 0)


# -- measuring


def test_a_window_is_measured_beside_its_limit_and_its_draws() -> None:
    subject = Subject(Case("iql", 2, threads=1), Sizes(8, (8, 8), 3, 1, 64), torch.device("cpu"))
    for _ in range(3):
        subject.measure(0.02)
    found = subject.found
    for numbers in (found.rates, found.ceilings, found.draw_shares):
        assert len(numbers) == 3
        assert min(numbers) > 0
    assert found.threads == 1


def test_shares_are_of_the_limit_beside_them() -> None:
    found = Found(Case("iql"), 1, gflop_a_seed_update=0.5)
    found.rates, found.ceilings, found.draw_shares = [100.0, 300.0], [100.0, 200.0], [0.1, 0.3]
    assert found.shares() == [0.5, 0.75]
    facts = found.as_dict()
    assert (facts["shares"], facts["median_rate"]) == ([0.5, 0.75], 200.0)
    row = results.speed_rows([found])[0]
    assert row["seed-updates/s"] == "200 [100–300]"
    assert row["GFLOP/s"] == "100"
    assert row["draw"] == "20.0 %"
    found.ceilings.pop()
    with pytest.raises(ValueError, match="shorter"):
        found.shares()


def test_ratios_are_pair_by_pair() -> None:
    pairs = Pairs(Case("iql", 4), threads=2)
    pairs.ours = [8.0, 9.0, 1.0]
    pairs.theirs |= {"update": [4.0, 3.0, 0.25], "training": [2.0, 1.0, 4.0]}
    assert pairs.ratios("update") == [2.0, 3.0, 4.0]
    assert pairs.ratios("training") == [4.0, 9.0, 0.25]
    # a median of ratios, not a ratio of medians, which would be 8 / 3 for the update
    assert pairs.as_dict()["median_ratios"] == {"update": 3.0, "training": 4.0}
    assert results.pair_rows([pairs])[0]["ratio, update"] == "3.00 [2.00–4.00]"


def test_a_split_leaves_out_the_pauses() -> None:
    seconds = {"act": 1.0, "environment": 3.0, "update": 5.0, "store": 1.0}
    pauses = {"evaluate": 70.0, "write": 20.0}
    split = Split("sac", "Pendulum-v1", 2, 100, 1, False, seconds | pauses)
    assert split.stepping == 10.0
    assert split.own_share == 0.1
    assert results.split_rows([split])[0]["env_steps/s"] == "20"


# -- the command


def printed(out: str) -> Any:
    """Read JSON as the standard has it: no NaN, no infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(out, parse_constant=refuse)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--seconds", "inf"), "--seconds"),
        (("--threads", "999999"), "--threads"),
        (("--seeds", "1,999999999999"), "--seeds 1,999999999999: expected 10,000 seeds at most"),
    ],
)
def test_what_no_machine_has_is_refused_at_once(
    baq_here: Baq, words: tuple[str, ...], said: str
) -> None:
    code, _, error = baq_here("bench", *TINY, *words)
    assert code == 2
    assert said in error


@pytest.mark.parametrize("word", ["gradient_steps=1", "iql=1", "awac.temperature=2", "iqll.beta=1"])
def test_an_override_of_what_is_not_measured_is_refused(baq_here: Baq, word: str) -> None:
    code, _, said = baq_here("bench", "--algo", "iql,td3_bc", "--seeds", "1", *TINY, word)
    assert code == 2
    assert f"'{word.partition('=')[0].partition('.')[0]}' sets nothing that is measured" in said
    assert "expected iql.KEY=VALUE, td3_bc.KEY=VALUE, shared.KEY=VALUE" in " ".join(said.split())


def test_a_shared_override_holds_for_each_method_that_has_the_key(baq_here: Baq) -> None:
    words = ("--algo", "iql,bc", "--seeds", "1", "--no-capture", *TINY, "shared.tau=0.1")
    code, out, said = baq_here("bench", *words, "shared.layer_norm=true", "--json")
    assert code == 0, said
    settings = {case["algo"]: case["settings"] for case in printed(out)["updates"]}
    assert settings["iql"] == {"tau": 0.1, "layer_norm": True}
    assert settings["bc"] == {}


def test_bench_prints_a_case_for_each_method_and_number_of_seeds(
    baq_here: Baq, tmp_path: Path
) -> None:
    words = ("bench", "--algo", "iql,td3_bc", "--seeds", "1,3", *TINY, "iql.expectile=0.8")
    code, out, said = baq_here(*words, "--json", "--save", tmp_path / "kept")
    assert code == 0, said
    found = printed(out)
    cases = found["updates"]
    assert [(c["algo"], c["seeds"], c["path"]) for c in cases] == [
        (algo, seeds, path)
        for algo in ("iql", "td3_bc")
        for seeds in (1, 3)
        for path in ("eager", "captured")
    ]
    for case in cases:
        assert case["settings"] == ({"expectile": 0.8} if case["algo"] == "iql" else {})
        assert (case["phase"], case["threads"]) == ("offline", 1)
        for key in ("rates", "draw_shares", "ceilings", "shares"):
            assert len(case[key]) == 2, key
            assert min(case[key]) > 0, key
    assert found["sizes"] == {
        **{"batch": 8, "hidden": [8, 8], "obs_dim": 3, "action_dim": 1, "rows": 64}
    }
    assert found["versions"]["torch"] == torch.__version__
    assert found["hardware"]["processor"] == results.processor()
    assert found["splits"] == []
    kept = list((tmp_path / "kept").iterdir())
    assert len(kept) == 1
    assert json.loads(kept[0].read_text()) == found
    assert str(kept[0]) in said


def test_results_are_kept_by_the_hardwares_name(tmp_path: Path) -> None:
    cpu = {"hardware": {"processor": "Made(R) CPU @ 3.10GHz", "cores": 2}}
    card = {"hardware": cpu["hardware"] | {"card": "NVIDIA H200"}}
    names = {
        results.save(tmp_path / "deep" / "er", suffix, found).name
        for suffix, found in ((None, cpu), ("against-d3rlpy", cpu), (None, card))
    }
    assert names == {
        "made-r-cpu-3-10ghz-2-cores.json",
        "made-r-cpu-3-10ghz-2-cores-against-d3rlpy.json",
        "nvidia-h200.json",
    }
    results.save(tmp_path / "deep" / "er", None, card | {"again": 1})
    found = json.loads((tmp_path / "deep" / "er" / "nvidia-h200.json").read_text())
    assert found["again"] == 1, "the last results win"


def test_bench_splits_the_time_of_a_fine_tuning(baq_here: Baq) -> None:
    started = time.perf_counter()
    words = ("--env", "Pendulum-v1", "--env-steps", "20")
    words = (*words, "--phase", "online", "--json")
    code, out, said = baq_here("bench", "--algo", "sac", "--seeds", "2", *TINY, *words)
    wall = time.perf_counter() - started
    assert code == 0, said
    (split,) = printed(out)["splits"]
    assert (split["algo"], split["env_id"]) == ("sac", "Pendulum-v1")
    assert (split["seeds"], split["env_steps"], split["threads"]) == (2, 20, 1)
    seconds = split["seconds"]
    assert seconds.keys() == {"act", "environment", "store", "update", "evaluate", "write"}
    assert min(seconds.values()) >= 0
    assert seconds["update"] > 0, "every step is followed by updates: there is no warm-up"
    assert sum(seconds.values()) < wall
    assert 0 <= split["own_share"] <= 1


def test_without_json_bench_prints_tables(baq_here: Baq) -> None:
    words = ("--env", "Pendulum-v1", "--env-steps", "5")
    code, out, said = baq_here("bench", "--algo", "iql", "--seeds", "1", *TINY, *words)
    assert code == 0, said
    for word in ("seed-updates/s", "of the limit", "env_steps/s", "peak memory"):
        assert word in out


def test_the_hardware_is_the_same_whatever_threads_were_measured_on(baq_here: Baq) -> None:
    torch.set_num_threads(2)
    cores = []
    for more in ((), ("--env", "Pendulum-v1", "--env-steps", "2")):
        code, out, said = baq_here("bench", "--seeds", "1", *TINY, *more, "--json")
        assert code == 0, said
        cores.append(printed(out)["hardware"]["cores"])
    assert cores == [2, 2]


STAND_IN = """
import json, sys

sizes = json.loads(sys.argv[1])
assert sizes["device"] == "cpu" and sizes["algo"] == "iql" and sizes["hidden"] == [8, 8]
for line in sys.stdin:
    asked = json.loads(line)
    print(2.0 if asked["what"] == "update" else 1.0, flush=True)
"""


def test_d3rlpy_is_timed_in_turn_at_the_same_sizes_and_on_the_same_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(rival, "SCRIPT", script)
    monkeypatch.setattr(rival, "prepared_environment", lambda note: Path(sys.executable))
    case = Case("iql", seeds=2, threads=1)
    sizes = Sizes(batch=8, hidden=(8, 8), obs_dim=3, action_dim=1, rows=64)
    device = torch.device("cpu")
    (pairs,) = rival.compare_with_d3rlpy([case], sizes, device, 3, 0.01, lambda text: None)
    assert pairs.theirs == {"update": [2.0] * 3, "training": [1.0] * 3}
    assert pairs.ratios("update") == [ours / 2 for ours in pairs.ours]
    assert len(pairs.ours) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--algo", "iqk"), "unknown method 'iqk'; did you mean 'iql'?"),
        (("--algo", "iql,iqk"), "unknown method 'iqk'; did you mean 'iql'?"),
        (("--algo", ","), "expected methods, separated by commas, or all"),
        (("--seeds", "0"), "--seeds 0: expected numbers above zero"),
        (("--seeds", "two"), "--seeds two"),
        (("--hidden", "8,-8"), "--hidden 8,-8"),
        (("--phase", "x"), "expected offline or online"),
        (("--against", "other"), "only d3rlpy is known"),
        (("--against", "d3rlpy", "--algo", "baq"), "choose among iql, awac"),
        (("--algo", "bc", "--seeds", "1", "--env", "Pendulum-v1"), "no online phase"),
        (("--algo", "iql", "iql.expectil=0.8"), "did you mean 'expectile'?"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_what_can_t_be_measured_is_refused(
    words: tuple[str, ...],
    message: str,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rival, "prepared_environment", None)  # nothing is installed for it
    assert message in refused("bench", *TINY, *words, status=2)
