"""Random streams, one a seed or an episode, that don't depend on what else runs beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from baq_cli.nets.card_numbers import CardNumbers, Kind

DTYPES: dict[Kind, torch.dtype] = {
    "normal": torch.float32,
    "uniform": torch.float32,
    "index": torch.float64,
}


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and `names` alone (BLAKE2b of their text)."""
    text = "/".join(str(part) for part in (seed, *names))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class SeedStream:
    """One sequence of pseudo-random numbers a seed; every draw has a leading seed axis.

    Seed 3 draws the same numbers alone as among ten others: its sequence is started from
    `(seed, name)` and advances only with the stream's draws. On a CPU each seed owns a generator of
    PyTorch's; on a card, where a call for each seed would cost more than its numbers, one kernel
    draws for all of them (`CardNumbers`). The two draw different numbers.

    On the meta device nothing is drawn: there are shapes without numbers.

    Shapes: a draw of `shape` returns `[S, *shape]`.
    """

    def __init__(self, seeds: Sequence[int], name: str, device: torch.device | str = "cpu"):
        self.seeds = tuple(seeds)
        self.name = name
        self.device = torch.device(device)
        starts = [derive_seed(seed, name) for seed in seeds]
        self._card = CardNumbers(starts, self.device) if self.device.type == "cuda" else None
        self._generators = [
            torch.Generator().manual_seed(start)
            for start in (starts if self.device.type == "cpu" else ())
        ]

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers, `[S, *shape]` float32."""
        return self._fill(shape, "normal")

    def uniform(self, *shape: int) -> Tensor:
        """Draw numbers uniform on [0, 1), `[S, *shape]` float32."""
        return self._fill(shape, "uniform")

    def index(self, *shape: int) -> Tensor:
        """Draw numbers uniform on [0, 1) in float64, fine enough to index millions of rows."""
        return self._fill(shape, "index")

    def permutation(self, length: int) -> Tensor:
        """Draw a permutation of `range(length)` a seed, `[S, length]` int64."""
        if self._card is not None:
            return self.index(length).argsort(1)
        return torch.stack([torch.randperm(length, generator=g) for g in self._generators])

    def _fill(self, shape: tuple[int, ...], kind: Kind) -> Tensor:
        if self._card is not None:
            return self._card.draw(kind, shape)
        out = torch.empty(len(self.seeds), *shape, dtype=DTYPES[kind], device=self.device)
        for row, generator in zip(out, self._generators, strict=bool(self._generators)):
            _draw(row, kind, generator)
        return out

    def state(self) -> Tensor:
        """Return where each seed's sequence is, `[S, state_bytes]` uint8."""
        if self._card is not None:
            return self._card.state()
        return torch.stack([generator.get_state() for generator in self._generators])

    def restore(self, state: Tensor) -> None:
        """Continue from what `state()` returned."""
        if self._card is not None:
            self._card.restore(state.cpu())
            return
        for generator, row in zip(self._generators, state, strict=True):
            generator.set_state(row.cpu().clone())


def _draw(row: Tensor, kind: Kind, generator: torch.Generator) -> None:
    draw = row.normal_ if kind == "normal" else row.uniform_
    draw(generator=generator)


class EpisodeNoise(SeedStream):
    """Noise to act with: one pseudo-random generator for each episode that each seed is in.

    S seeds have `width` places each, where one episode follows another. An episode's generator is
    started from `(seed, name, number of the episode)`, so what it draws depends neither on the
    other episodes nor on how many are played side by side. Generators are made when they are first
    drawn from, on the CPU; `device` is where the numbers go.

    Shapes: a draw of `(width, …)` returns `[S, width, …]`.
    Raises ValueError for a draw that doesn't lead with the width.
    """

    def __init__(
        self, seeds: Sequence[int], width: int, name: str, device: torch.device | str = "cpu"
    ):
        super().__init__((), name, device)
        self.seeds, self.width = tuple(seeds), width
        self._numbers: Sequence[int] = [*range(width)] * len(self.seeds)
        self._made: dict[int, tuple[int, torch.Generator]] = {}

    def enter(self, numbers: Sequence[int]) -> None:
        """Say which episode each place is in, `[S · width]`, the places of a seed together."""
        self._numbers = numbers

    def _fill(self, shape: tuple[int, ...], kind: Kind) -> Tensor:
        if shape[:1] != (self.width,):
            raise ValueError(
                f"a draw of {list(shape)} for {self.width} episodes a seed: what acts draws "
                f"[{self.width}, ...], a row for each"
            )
        out = torch.empty(len(self.seeds), *shape, dtype=DTYPES[kind])
        for place, row in enumerate(out.flatten(0, 1)):
            _draw(row, kind, self._generator(place))
        return out.to(self.device)

    def _generator(self, place: int) -> torch.Generator:
        number = int(self._numbers[place])
        if place not in self._made or self._made[place][0] != number:
            start = derive_seed(self.seeds[place // self.width], self.name, number)
            self._made[place] = number, torch.Generator().manual_seed(start)
        return self._made[place][1]
