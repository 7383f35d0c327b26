"""The hand-written pass of a perceptron, against autograd over the operations it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from baq_cli.nets import perceptron as module
from baq_cli.nets.perceptron import NORM_EPS, TALL, perceptron

EXACT = {"rtol": 1e-10, "atol": 1e-10}
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}


@dataclass(frozen=True)
class Sizes:
    """A network of N members for S seeds, and B rows to send through it."""

    seeds: int = 2
    members: int = 2
    rows: int = 5
    widths: tuple[int, ...] = (4, 6, 5, 2)
    norms: bool = False


class Net:
    """Float64 parameters and inputs that take gradients, from a generator of the case's own."""

    def __init__(self, sizes: Sizes, own_inputs: bool = False):
        self.sizes = sizes
        self.generator = torch.Generator().manual_seed(hash(sizes) % 2**31)
        self.affine: list[Tensor] = []
        self.norms: list[Tensor] = []
        for n_in, n_out in pairwise(sizes.widths):
            self.affine += [self.parameter(n_in, n_out), self.parameter(1, n_out)]
        for width in sizes.widths[1:-1] if sizes.norms else ():
            self.norms += [self.parameter(1, width), self.parameter(1, width)]
        lead = (sizes.seeds, sizes.members) if own_inputs else (sizes.seeds,)
        self.x = self.draw(*lead, sizes.rows, sizes.widths[0])

    def draw(self, *shape: int) -> Tensor:
        values = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        return values.requires_grad_()

    def parameter(self, *shape: int) -> Tensor:
        return self.draw(self.sizes.seeds, self.sizes.members, *shape)

    @property
    def parameters(self) -> list[Tensor]:
        return [*self.affine, *self.norms]

    def __call__(self, x: Tensor, frozen: bool = False, each: Tensor | None = None) -> Tensor:
        return perceptron(x, self.affine, self.norms, frozen, each)

    def plainly(self, x: Tensor) -> Tensor:
        """Return the output by single operations, for x `[S, B, n_in]` or `[S, N, B, n_in]`."""
        h = x.unsqueeze(1) if x.ndim == 3 else x
        for i in range(0, len(self.affine), 2):
            h = h @ self.affine[i] + self.affine[i + 1]
            if i == len(self.affine) - 2:
                return h
            if self.norms:
                h = F.layer_norm(h, h.shape[-1:], eps=NORM_EPS) * self.norms[i] + self.norms[i + 1]
            h = torch.relu(h)
        raise AssertionError("a network has layers")


def slopes(y: Tensor, wanted: list[Tensor]) -> tuple[Tensor, ...]:
    """Return the gradients of a sum in which every output counts differently."""
    weight = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape)
    return torch.autograd.grad((y * weight).sum(), wanted, retain_graph=True)


def assert_same_pass(y: Tensor, expected: Tensor, wanted: list[Tensor]) -> None:
    torch.testing.assert_close(y, expected, **EXACT)
    for found, true in zip(slopes(y, wanted), slopes(expected, wanted), strict=True):
        torch.testing.assert_close(found, true, **EXACT)


some_rows = st.sampled_from([1, 2, TALL - 1, TALL, TALL + 1, 130])
hidden = st.lists(st.sampled_from([1, 3, 8, 16]), min_size=1, max_size=3)


@st.composite
def some_sizes(draw: st.DrawFn) -> Sizes:
    n_in, n_out = draw(st.sampled_from([1, 2, 7, 12])), draw(st.sampled_from([1, 2, 4, 16]))
    return Sizes(
        seeds=draw(st.integers(1, 3)),
        members=draw(st.integers(1, 3)),
        rows=draw(some_rows),
        widths=(n_in, *draw(hidden), n_out),
        norms=draw(st.booleans()),
    )


@given(some_sizes(), st.booleans())
def test_values_and_gradients_are_those_of_the_single_operations(
    sizes: Sizes, own_inputs: bool
) -> None:
    net = Net(sizes, own_inputs)
    y = net(net.x)
    assert y.shape == (sizes.seeds, sizes.members, sizes.rows, sizes.widths[-1])
    assert_same_pass(y, net.plainly(net.x), [net.x, *net.parameters])


@given(some_sizes(), st.integers(1, 5), st.integers(1, 3), st.booleans())
def test_many_inputs_a_row_are_the_row_repeated_before_each_of_them(
    sizes: Sizes, count: int, width: int, own_inputs: bool
) -> None:
    widths = (sizes.widths[0] + width, *sizes.widths[1:])
    net = Net(Sizes(sizes.seeds, sizes.members, sizes.rows, widths, sizes.norms))
    lead = (sizes.seeds, sizes.members) if own_inputs else (sizes.seeds,)
    x = net.draw(*lead, sizes.rows, sizes.widths[0])
    each = net.draw(sizes.seeds, sizes.rows, count, width)
    theirs = each.flatten(1, 2)
    if own_inputs:
        theirs = theirs.unsqueeze(1).expand(-1, sizes.members, -1, -1)
    whole = torch.cat([x.repeat_interleave(count, dim=-2), theirs], dim=-1)
    assert_same_pass(net(x, each=each), net.plainly(whole), [x, each, *net.parameters])


@pytest.mark.parametrize("norms", [False, True])
def test_a_single_affine_layer_is_a_network_too(norms: bool) -> None:
    net = Net(Sizes(widths=(4, 3), norms=norms))
    assert_same_pass(net(net.x), net.plainly(net.x), [net.x, *net.parameters])


def test_a_unit_that_is_off_passes_no_gradient_even_when_it_is_exactly_at_zero() -> None:
    net = Net(Sizes())
    with torch.no_grad():
        for i in (0, 1):
            net.affine[i][..., :3] = 0.0  # three units that are zero before their ReLU
    assert_same_pass(net(net.x), net.plainly(net.x), [net.x, *net.parameters])
    assert not slopes(net(net.x), [net.affine[1]])[0][..., :3].any()


# -- what takes gradients


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("rows", [5, TALL])
def test_a_frozen_network_is_constant_and_its_inputs_are_not(norms: bool, rows: int) -> None:
    net = Net(Sizes(rows=rows, norms=norms))
    each = net.draw(2, rows, 3, 1)
    y = net(net.x[..., :3], frozen=True, each=each)
    whole = torch.cat([net.x[..., :3].repeat_interleave(3, dim=1), each.flatten(1, 2)], dim=-1)
    assert_same_pass(y, net.plainly(whole), [net.x, each])
    y.sum().backward()
    assert net.x.grad is not None
    assert all(p.grad is None for p in net.parameters)


@pytest.mark.parametrize("takes", ["x", "each", "parameters"])
def test_what_takes_no_gradient_changes_none_of_the_others(takes: str) -> None:
    net = Net(Sizes(norms=True))
    each = net.draw(2, 5, 3, 1)
    inputs = {"x": [net.x], "each": [each], "parameters": net.parameters}
    x = net.x[..., :3]
    expected = slopes(net(x, each=each), inputs[takes])
    for name, tensors in inputs.items():
        for one in tensors:
            one.requires_grad_(name == takes)
    found = slopes(net(net.x[..., :3], each=each), inputs[takes])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_second_derivative_is_refused() -> None:
    net = Net(Sizes())
    (slope,) = torch.autograd.grad(net(net.x).square().sum(), net.x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.square().sum().backward()


# -- what is left as it was


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("widths", [(4, 3), (4, 6, 1), (4, 6, 5, 2)])
def test_a_pass_changes_neither_its_inputs_nor_the_gradient_that_arrives(
    norms: bool, widths: tuple[int, ...]
) -> None:
    net = Net(Sizes(widths=widths, norms=norms))
    each = net.draw(2, 5, 1, 1)
    given_ = [net.x, each, *net.parameters]
    before = [one.detach().clone() for one in given_]
    y = net(net.x[..., :3], each=each)
    value, arriving = y.detach().clone(), torch.randn_like(y)
    kept = arriving.clone()
    first = torch.autograd.grad(y, given_, arriving, retain_graph=True)
    again = torch.autograd.grad(y, given_, arriving, retain_graph=True)
    assert torch.equal(arriving, kept)
    assert torch.equal(y, value)
    assert all(torch.equal(a, b) for a, b in zip(before, given_, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)), "nor what it kept"


@pytest.mark.parametrize("widths", [(4, 3), (4, 6, 3)])
def test_two_networks_that_share_an_arriving_gradient_don_t_disturb_each_other(
    widths: tuple[int, ...],
) -> None:
    one, other = Net(Sizes(widths=widths)), Net(Sizes(widths=widths, norms=True))
    wanted = [*one.parameters, *other.parameters]
    y = one(one.x) + other(one.x)  # a sum hands one tensor to both
    assert_same_pass(y, one.plainly(one.x) + other.plainly(one.x), [one.x, *wanted])


# -- blocks


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize(
    ("rows", "blocks"), [(15, [15]), (16, [8, 8]), (17, [8, 8, 1]), (31, [8, 8, 8, 7])]
)
def test_blocks_of_rows_change_nothing_but_rounding(
    rows: int, blocks: list[int], norms: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = Sizes(rows=rows, norms=norms)
    for own_inputs in (False, True):
        net = Net(sizes, own_inputs)
        wanted = [net.x, *net.parameters]
        monkeypatch.setattr(module, "BLOCK_ROWS", 10**6)
        whole = net(net.x)
        monkeypatch.setattr(module, "BLOCK_ROWS", 8)
        assert [part.shape[-2] for part, _ in module.in_blocks(net.x, None)] == blocks
        cut = net(net.x)
        torch.testing.assert_close(cut, whole, **ROUNDING)
        for a, b in zip(slopes(cut, wanted), slopes(whole, wanted), strict=True):
            torch.testing.assert_close(a, b, **ROUNDING)


@pytest.mark.parametrize("count", [1, 3, 20])
def test_blocks_keep_the_inputs_of_a_row_together(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Net(Sizes(rows=9))
    each = net.draw(2, 9, count, 1)
    monkeypatch.setattr(module, "BLOCK_ROWS", 12)  # less than the twenty inputs of one row
    blocks = module.in_blocks(net.x[..., :3], each)
    rows = {1: [9], 3: [4, 4, 1], 20: [1] * 9}[count]
    assert [(x.shape[1], e.shape[1]) for x, e in blocks if e is not None] == [(b, b) for b in rows]
    whole = torch.cat([net.x[..., :3].repeat_interleave(count, 1), each.flatten(1, 2)], dim=-1)
    y = net(net.x[..., :3], each=each)
    assert_same_pass(y, net.plainly(whole), [net.x, each, *net.parameters])
