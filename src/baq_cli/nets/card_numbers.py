"""Random numbers on a card, all seeds by one kernel, where they are drawn and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["normal", "uniform", "index"]
PLACES = 1 << 18
"""Numbers a seed and draw for which the places in the draw are kept ready."""

PHILOX = """
template <typename T> T draw_{kind}(T draw, T place, T low, T high) {{
  unsigned int c0 = place, c1 = 0, c2 = draw, c3 = 0, k0 = low, k1 = high;
  for (int round = 0; round < 10; ++round) {{
    unsigned int h0 = __umulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
    unsigned int h1 = __umulhi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
    c0 = h1 ^ c1 ^ k0; c1 = l1; c2 = h0 ^ c3 ^ k1; c3 = l0;
    k0 += 0x9E3779B9u; k1 += 0xBB67AE85u;
  }}
  {number}
}}
"""
"""Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

The counter is the place in a draw and the number of the draw; the key is the seed's. An elementwise
kernel returns what it takes, integers, so the bits of a float are returned as those of an integer.
"""
NUMBERS: dict[Kind, str] = {
    "uniform": "return __float_as_int((c0 >> 8) * 5.9604644775390625e-08f);",
    "normal": "float u = c0 * 2.3283064365386963e-10f + 1.1641532182693481e-10f;"
    " return __float_as_int(sqrtf(-2.0f * logf(u)) * cospif(c1 * 4.656612873077393e-10f));",
    "index": "unsigned long long bits = ((unsigned long long)c0 << 32) | c1;"
    " return __double_as_longlong((bits >> 11) * 1.1102230246251565e-16);",
}


@cache
def _kernel(kind: Kind) -> Callable[..., Tensor]:
    """Return PyTorch's elementwise kernel of such code; a card compiles it when it first runs."""
    from torch.cuda.jiterator import _create_jit_fn

    return _create_jit_fn(PHILOX.format(kind=kind, number=NUMBERS[kind]))


@cache
def _places(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.arange(PLACES, dtype=dtype, device=device)


class CardNumbers:
    """S sequences of pseudo-random numbers on a card, one from each start.

    A number depends on its sequence's start, on how many draws were before, and on its place in the
    draw. The count lies on the card and moves with every draw, so a CUDA graph that draws goes on
    where the last replay ended, and the host has nothing to prepare.

    Raises ValueError for a start of 64 bits or more.
    """

    def __init__(self, starts: Sequence[int], device: torch.device):
        keys = torch.tensor([[s & 0xFFFFFFFF, s >> 32] for s in starts], dtype=torch.int64)
        self._starts = torch.tensor(list(starts), dtype=torch.int64)
        self._keys = {t: keys.to(device).to(t).unsqueeze(-1) for t in (torch.int32, torch.int64)}
        self._draws = torch.zeros(1, dtype=torch.int64, device=device)
        for dtype in self._keys:  # made now: within a capture it would be the graph's
            _places(device, dtype)

    def draw(self, kind: Kind, shape: tuple[int, ...]) -> Tensor:
        """Return `[S, *shape]`: `normal` and `uniform` float32, `index` uniform in float64."""
        wide = kind == "index"
        dtype, result = (torch.int64, torch.float64) if wide else (torch.int32, torch.float32)
        count, keys = prod(shape), self._keys[dtype]
        places = _places(keys.device, dtype)[:count]
        if count > PLACES:
            places = torch.arange(count, dtype=dtype, device=keys.device)
        number = self._draws.view(dtype)[0]  # a little-endian integer begins with its low half
        bits = _kernel(kind)(number, places, keys[:, 0], keys[:, 1])
        self._draws.add_(1)
        return bits.view(result).view(len(self._starts), *shape)

    def state(self) -> Tensor:
        """Return the starts and how many draws there were, `[S, 16]` uint8."""
        draws = self._draws.cpu().expand_as(self._starts)
        return torch.stack([self._starts, draws], dim=1).view(torch.uint8)

    def restore(self, state: Tensor) -> None:
        """Go on from what `state()` returned.

        Raises ValueError where it is of other sequences, or not all were drawn from equally often.
        """
        held = state.contiguous().view(torch.int64)
        starts, draws = held[:, 0], held[:, -1]
        if (
            held.shape != (len(self._starts), 2)
            or not torch.equal(starts, self._starts)
            or not bool((draws == draws[0]).all())
        ):
            raise ValueError("the states are not those of this stream's sequences")
        self._draws.fill_(int(draws[0]))
