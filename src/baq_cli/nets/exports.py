"""What a policy says about being written to a file that acts alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from baq_cli.nets.mlp import MLP
from baq_cli.nets.perceptron import NORM_EPS
from baq_cli.nets.plain import ACTIVATIONS


@dataclass(frozen=True)
class NoExport:
    """A policy that can't act from a file alone, and why: a clause, for a message."""

    reason: str


@dataclass(frozen=True)
class PlainMode:
    """A mode that plain layers compute: the first `action_dim` outputs of `net`.

    They are averaged over the members of `net`; then follows their tanh where it is `squashed`, and
    elsewhere they are clipped to ±1.
    """

    net: MLP
    squashed: bool

    def layers(self, action_dim: int) -> list[nn.Module]:
        """Return the modules of the first seed, from observations to the tanh, `[B, …]` each.

        They are of the kinds Linear, LayerNorm, Tanh and the activations of `plain.ACTIVATIONS`. A
        clipped mode ends with the affine layer: whoever acts clips to the action bounds anyway.
        Several members become one network whose hidden layers lie side by side.
        """
        found: list[nn.Module] = []
        last = len(self.net.layers) - 1
        for number in range(last + 1):
            weight, bias = _side_by_side(self.net, number, last)
            if number == last:  # some have standard deviations beside their means
                weight, bias = weight[:, :action_dim], bias[:action_dim]
            found.append(nn.Linear(*weight.shape))
            found[-1].load_state_dict({"weight": weight.mT, "bias": bias})
            if number < last:
                found += _between(self.net, number)
        return [*found, nn.Tanh()] if self.squashed else found


def plain_mode(net: MLP, squashed: bool) -> PlainMode | NoExport:
    """Return how a mode of this network is written, or why it can't be."""
    if net.members > 1 and len(net.norms):
        return NoExport("the normalisations of its members can't be laid side by side")
    return PlainMode(net, squashed)


def _side_by_side(net: MLP, number: int, last: int) -> tuple[Tensor, Tensor]:
    """Return weight `[n_in, n_out]` and bias `[n_out]` of a layer of the first seed's members.

    The last one averages the members.
    """
    layer: Any = net.layers[number]
    weight, bias = layer.weight[0].detach(), layer.bias[0, :, 0].detach()  # [N, n_in, n_out]
    if number == last:
        weight, bias = weight / net.members, bias.mean(0)
        return (weight.sum(0) if last == 0 else weight.flatten(0, 1)), bias
    if number == 0:
        return weight.transpose(0, 1).flatten(1), bias.flatten()
    return torch.block_diag(*weight), bias.flatten()


def _between(net: MLP, number: int) -> list[nn.Module]:
    """Return what follows a hidden affine layer, in its order."""
    activation = ACTIVATIONS[net.activation]
    if number >= len(net.norms):
        return [activation]
    own: Any = net.norms[number]
    gain, offset = own.weight[0, 0, 0], own.bias[0, 0, 0]
    norm = nn.LayerNorm(len(gain), eps=NORM_EPS)
    norm.load_state_dict({"weight": gain, "bias": offset})
    return [activation, norm] if net.layer_norm == "after" else [norm, activation]
