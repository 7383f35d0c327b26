"""Random streams, one a seed or an episode, that don't depend on what else runs beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and `names` alone (BLAKE2b of their text)."""
    text = "/".join(str(part) for part in (seed, *names))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class SeedStream:
    """One pseudo-random generator a seed; every draw has a leading seed axis.

    Seed 3 draws the same numbers alone as among ten others, because each seed owns a generator
    that was started from `(seed, name)` and advances only with its own draws.

    On the meta device nothing is drawn: there are shapes without numbers.

    Shapes: a draw of `shape` returns `[S, *shape]`.
    """

    def __init__(self, seeds: Sequence[int], name: str, device: torch.device | str = "cpu"):
        self.seeds = tuple(seeds)
        self.name = name
        self.device = torch.device(device)
        self.generators = [
            torch.Generator(self.device).manual_seed(derive_seed(seed, name))
            for seed in (() if self.device.type == "meta" else seeds)
        ]

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers, `[S, *shape]` float32."""
        return self._fill(shape, torch.float32, lambda row, g: row.normal_(generator=g))

    def uniform(self, *shape: int) -> Tensor:
        """Draw numbers uniform on [0, 1), `[S, *shape]` float32."""
        return self._fill(shape, torch.float32, lambda row, g: row.uniform_(generator=g))

    def index(self, *shape: int) -> Tensor:
        """Draw numbers uniform on [0, 1) in float64, fine enough to index millions of rows."""
        return self._fill(shape, torch.float64, lambda row, g: row.uniform_(generator=g))

    def permutation(self, length: int) -> Tensor:
        """Draw a permutation of `range(length)` a seed, `[S, length]` int64."""
        rows = [torch.randperm(length, generator=g, device=self.device) for g in self.generators]
        return torch.stack(rows)

    def _fill(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        draw: Callable[[Tensor, torch.Generator], Tensor],
    ) -> Tensor:
        out = torch.empty(len(self.seeds), *shape, dtype=dtype, device=self.device)
        for row, generator in zip(out, self.generators, strict=bool(self.generators)):
            draw(row, generator)
        return out

    def state(self) -> Tensor:
        """Return the generators' states, `[S, state_bytes]` uint8."""
        return torch.stack([generator.get_state() for generator in self.generators])

    def restore(self, state: Tensor) -> None:
        """Continue from what `state()` returned."""
        for generator, row in zip(self.generators, state, strict=True):
            generator.set_state(row.cpu().clone())


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

    def _fill(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        draw: Callable[[Tensor, torch.Generator], Tensor],
    ) -> Tensor:
        if shape[:1] != (self.width,):
            raise ValueError(
                f"a draw of {list(shape)} for {self.width} episodes a seed: what acts draws "
                f"[{self.width}, ...], a row for each"
            )
        out = torch.empty(len(self.seeds), *shape, dtype=dtype)
        for place, row in enumerate(out.flatten(0, 1)):
            draw(row, self._generator(place))
        return out.to(self.device)

    def _generator(self, place: int) -> torch.Generator:
        number = int(self._numbers[place])
        if place not in self._made or self._made[place][0] != number:
            start = derive_seed(self.seeds[place // self.width], self.name, number)
            self._made[place] = number, torch.Generator().manual_seed(start)
        return self._made[place][1]
