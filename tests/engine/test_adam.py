"""The optimiser of flat groups, against PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from baq_cli.engine.updates.adam import STATE, Adam, Settings

STEPS = 20
SIZES = {"critic": 37, "policy": 5, "temperature": 1}
RATES: dict[str, float | Tensor] = {"critic": 3e-4, "policy": 1e-2, "temperature": 3e-4}
CLOSE = {torch.float32: {"rtol": 1e-5, "atol": 1e-7}, torch.float64: {"rtol": 1e-12, "atol": 0.0}}
SETTINGS = {name: Settings() for name in SIZES}
EVERY = {"critic": 1, "policy": 2, "temperature": 3}

Names = Sequence[str]


def all_groups(step: int) -> Names:
    return list(SIZES)


def some_groups(step: int) -> Names:
    return [name for name, every in EVERY.items() if step % every == 0]


def start(dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(size, generator=generator, dtype=dtype).requires_grad_()
        for name, size in SIZES.items()
    }


def give_gradients(groups: dict[str, Tensor], step: int) -> None:
    """Give every group a gradient, those that skip the step too; some entries stay at zero."""
    generator = torch.Generator().manual_seed(100 + step)
    for tensor in groups.values():
        drawn = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        tensor.grad = 10.0 ** (step % 5 - 3) * drawn * (drawn > -1)


def ours(
    dtype: torch.dtype, chosen: Callable[[int], Names], rates: dict[str, float | Tensor]
) -> tuple[dict[str, Tensor], Adam]:
    groups = start(dtype)
    adam = Adam(groups, SETTINGS)
    for step in range(STEPS):
        give_gradients(groups, step)
        adam.step(chosen(step), rates)
    return groups, adam


def pytorchs(
    dtype: torch.dtype, chosen: Callable[[int], Names]
) -> tuple[dict[str, Tensor], dict[str, torch.optim.Adam]]:
    groups = start(dtype)
    each = {
        name: torch.optim.Adam([tensor], lr=RATES[name], foreach=False)
        for name, tensor in groups.items()
    }
    for step in range(STEPS):
        give_gradients(groups, step)
        for name in chosen(step):
            each[name].step()
    return groups, each


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chosen", [all_groups, some_groups])
def test_groups_move_as_pytorchs_adam_moves_them_each_alone(
    dtype: torch.dtype, chosen: Callable[[int], Names]
) -> None:
    groups, adam = ours(dtype, chosen, RATES)
    expected, optimizers = pytorchs(dtype, chosen)
    for name, tensor in expected.items():
        torch.testing.assert_close(groups[name], tensor, **CLOSE[dtype])
        state = optimizers[name].state[tensor]
        for key in STATE:
            torch.testing.assert_close(adam.state[name][key], state[key], **CLOSE[dtype])


def test_a_group_that_skips_a_step_keeps_its_values_and_its_moments() -> None:
    groups, adam = ours(torch.float64, all_groups, RATES)
    kept = {name: tensor.detach().clone() for name, tensor in groups.items()}
    moments = {key: adam.state["policy"][key].clone() for key in STATE}
    give_gradients(groups, STEPS)
    adam.step(["critic", "temperature"], RATES)
    assert torch.equal(groups["policy"], kept["policy"])
    assert all(torch.equal(adam.state["policy"][key], value) for key, value in moments.items())
    assert not torch.equal(groups["critic"], kept["critic"])
    assert not torch.equal(groups["temperature"], kept["temperature"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_rate_in_a_tensor_is_the_same_rate(dtype: torch.dtype) -> None:
    held: dict[str, float | Tensor] = {
        name: torch.tensor(rate, dtype=torch.float64) for name, rate in RATES.items()
    }
    groups, adam = ours(dtype, some_groups, held)
    expected, known = ours(dtype, some_groups, RATES)
    for name in SIZES:
        assert torch.equal(groups[name], expected[name])
        assert all(torch.equal(adam.state[name][k], known.state[name][k]) for k in STATE)


def test_a_rate_in_a_tensor_is_read_at_each_step() -> None:
    groups = start(torch.float64)
    adam, rate = Adam(groups, SETTINGS), torch.tensor(0.0)
    moved = []
    for step, value in enumerate([1e-3, 0.0, 1e-3]):
        rate.fill_(value)
        before = groups["critic"].detach().clone()
        give_gradients(groups, step)
        adam.step(["critic"], {"critic": rate})
        moved.append(not torch.equal(before, groups["critic"]))
    assert moved == [True, False, True]


@pytest.mark.cuda
@pytest.mark.parametrize("settings", [Settings(), Settings((0.4, 0.99), 0.1), Settings((0.0, 0.9))])
def test_a_card_moves_groups_as_a_cpu_does(settings: Settings) -> None:
    each: Any = [
        {name: t.detach().to(device).requires_grad_() for name, t in start(torch.float32).items()}
        for device in ("cpu", "cuda")
    ]
    adams = [Adam(groups, dict.fromkeys(SIZES, settings)) for groups in each]
    rates = [{n: torch.tensor(r, device=d) for n, r in RATES.items()} for d in ("cpu", "cuda")]
    for step in range(300):
        give_gradients(each[0], step)
        for name, tensor in each[1].items():
            tensor.grad = each[0][name].grad.cuda()
        for adam, rate in zip(adams, rates, strict=True):
            adam.step(some_groups(step), rate)
    for name in SIZES:
        torch.testing.assert_close(each[1][name].cpu(), each[0][name], rtol=1e-4, atol=1e-6)
        for key in STATE:
            found, expected = (adam.state[name][key].cpu() for adam in adams)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
