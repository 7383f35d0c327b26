"""Random numbers of a card are Philox's, each seed's its own, whatever draws them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from baq_cli.nets.streams import SeedStream, derive_seed

SEEDS = (5, 3, 8)
Words = npt.NDArray[np.uint64]
HALF = np.uint64(0xFFFFFFFF)


def philox(counter: Words, key: Words) -> Words:
    """Return four words for each counter `[4, ...]` and key `[2, ...]`, by the paper's rounds."""
    c, k = [w.copy() for w in counter], [w.copy() for w in key]
    for _ in range(10):
        low = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [
            (low[1] >> np.uint64(32)) ^ c[1] ^ k[0],
            low[1] & HALF,
            (low[0] >> np.uint64(32)) ^ c[3] ^ k[1],
            low[0] & HALF,
        ]
        k = [(k[0] + np.uint64(0x9E3779B9)) & HALF, (k[1] + np.uint64(0xBB67AE85)) & HALF]
    return np.stack(c)


def words(name: str, draw: int, count: int) -> Words:
    """Return what Philox gives each of SEEDS in a draw, `[4, S, count]`."""
    starts = np.array([derive_seed(seed, name) for seed in SEEDS], dtype=np.uint64)
    shape = len(SEEDS), count
    place = np.broadcast_to(np.arange(count, dtype=np.uint64), shape)
    zero = np.zeros(shape, dtype=np.uint64)
    key = [
        np.broadcast_to(half[:, None], shape) for half in (starts & HALF, starts >> np.uint64(32))
    ]
    return philox(np.stack([place, zero, zero + np.uint64(draw), zero]), np.stack(key))


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        (0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (0xFFFFFFFF, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ],
)
def test_the_reference_is_the_papers(fill: int, expected: list[int]) -> None:
    """Known answers that the authors publish with Random123."""
    found = philox(np.full((4, 1), fill, dtype=np.uint64), np.full((2, 1), fill, dtype=np.uint64))
    assert found[:, 0].tolist() == expected


@pytest.mark.cuda
def test_a_card_draws_philoxs_numbers() -> None:
    stream = SeedStream(SEEDS, "noise", "cuda")
    found = stream.uniform(7), stream.index(2, 5), stream.normal(1_000)
    one, two, three = words("noise", 0, 7), words("noise", 1, 10), words("noise", 2, 1_000)
    assert np.array_equal(found[0].cpu().numpy(), (one[0] >> np.uint64(8)) / 2**24)
    bits = (two[0] << np.uint64(32)) | two[1]
    assert np.array_equal(found[1].cpu().flatten(1).numpy(), (bits >> np.uint64(11)) / 2**53)
    radius = np.sqrt(-2 * np.log(three[0] / 2**32 + 2.0**-33))
    expected = radius * np.cos(2 * np.pi * three[1] / 2**32)
    np.testing.assert_allclose(found[2].cpu().numpy(), expected, rtol=1e-3, atol=2e-5)


@pytest.mark.cuda
def test_a_seed_of_a_card_draws_the_same_alone() -> None:
    together, alone = SeedStream(SEEDS, "noise", "cuda"), SeedStream((3,), "noise", "cuda")
    for draw in ("normal", "uniform", "index", "permutation"):
        assert torch.equal(getattr(together, draw)(300_000)[1:2], getattr(alone, draw)(300_000))


@pytest.mark.cuda
def test_a_stream_of_a_card_goes_on_where_it_was() -> None:
    stream = SeedStream(SEEDS, "noise", "cuda")
    stream.normal(3)
    state, expected = stream.state(), stream.normal(4, 2)
    fresh = SeedStream(SEEDS, "noise", "cuda")
    fresh.restore(state)
    assert torch.equal(fresh.normal(4, 2), expected)
    with pytest.raises(ValueError, match="not those of this stream"):
        SeedStream(SEEDS, "batch", "cuda").restore(state)


@pytest.mark.cuda
def test_a_replayed_draw_is_the_next_one() -> None:
    stream, other = SeedStream(SEEDS, "noise", "cuda"), SeedStream(SEEDS, "noise", "cuda")
    stream.normal(5)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        drawn = stream.normal(5)
    other.normal(5)
    for _ in range(3):
        graph.replay()
        assert torch.equal(drawn, other.normal(5))
    assert torch.equal(stream.state(), other.state())


@pytest.mark.cuda
def test_numbers_of_a_card_are_distributed_as_they_should() -> None:
    stream = SeedStream(SEEDS, "noise", "cuda")
    normal, uniform = stream.normal(1 << 20).double(), stream.uniform(1 << 20).double()
    moments = [normal.mean(1), normal.square().mean(1) - 1, normal.pow(4).mean(1) - 3]
    moments += [uniform.mean(1) - 0.5, uniform.square().mean(1) - 1 / 3]
    for moment, spread in zip(moments, (1, 2**0.5, 96**0.5, 12**-0.5, 0.3), strict=True):
        assert moment.abs().max() < 5 * spread / 2**10
    assert torch.corrcoef(normal).fill_diagonal_(0).abs().max() < 5 / 2**10
