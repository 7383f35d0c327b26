"""The speed that docs/performance.md promises: bounds and curves, measured on this machine.

`--part bounds` measures every bound and says which hold; `--part scaling` measures how an update's
cost grows with seeds, batch, width and dataset, and draws it. Ratios are of windows that took turns
within one run. Results go to `--out` as JSON. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from baq_cli.agents.adapted import BAQConfig
from baq_cli.agents.parts.sections import SHARED
from baq_cli.bench.loop import split_of
from baq_cli.bench.results import document, save
from baq_cli.bench.rival import compare_with_d3rlpy
from baq_cli.bench.updates import Case, Found, Sizes, measure_cases
from baq_cli.engine.updates.device import prepare
from baq_cli.envs.ref import EnvRef

SAMPLED = (("gradient", "sampled"),)
RIVALS = [
    (Case("iql", 1), 2.2),
    (Case("iql", 4), 3.0),
    (Case("awac", 1), 2.2),
    (Case("td3_bc", 1), 2.0),
    (Case("cql", 1), 1.3),
    (Case("cql", 1, settings=SAMPLED), 2.5),
]
BASES = ("td3_bc", "iql", "cql")


def say(name: str, value: float, bound: float, at_most: bool, detail: str) -> dict[str, Any]:
    """Print a bound's line and return it."""
    holds = value <= bound if at_most else value >= bound
    sign = "at most" if at_most else "at least"
    print(
        f"{'holds ' if holds else 'MISSES'}  {name}: {value:.2f} ({sign} {bound}) {detail}",
        flush=True,
    )
    return {"name": name, "value": value, "bound": bound, "at_most": at_most, "holds": holds}


def spread(values: list[float]) -> str:
    return f"[{min(values):.2f}–{max(values):.2f}, {len(values)} windows]"


def rival_bounds(rounds: int, seconds: float) -> tuple[list[dict[str, Any]], list[Any]]:
    cases = [case for case, _ in RIVALS]
    pairs = compare_with_d3rlpy(
        cases,
        Sizes(),
        torch.device("cpu"),
        rounds,
        seconds,
        lambda text: print(text, flush=True),
    )
    lines = []
    for (case, bound), found in zip(RIVALS, pairs, strict=True):
        for what in ("training", "update"):
            ratios = found.ratios(what)
            name = f"{case.title}, S = {case.seeds}, against d3rlpy's {what}"
            lines.append(say(name, statistics.median(ratios), bound, False, spread(ratios)))
    return lines, [p.as_dict() for p in pairs]


def base_case(base: str) -> Case:
    """Return the online case of a base as BAQ configures it."""
    shared = BAQConfig(base=base).base_config()
    given = {key: value for key, value in shared.model_dump(mode="json").items() if key in SHARED}
    given = {k: v for k, v in given.items() if k not in ("batch_size", "hidden")}
    return Case(base, phase="online", settings=tuple(given.items()))


def own_bounds(rounds: int, seconds: float) -> tuple[list[dict[str, Any]], list[Found]]:
    device = torch.device("cpu")
    (iql,) = measure_cases([Case("iql", 4)], Sizes(), device, rounds, seconds)
    lines = [
        say(
            "iql, S = 4, share of the limit",
            statistics.median(iql.shares()),
            0.65,
            False,
            spread(iql.shares()),
        )
    ]
    found = [iql]
    for base in BASES:
        baq = Case("baq", phase="online", settings=(("base", base),))
        pair = measure_cases([base_case(base), baq], Sizes(), device, rounds, seconds)
        ratios = [b / a for a, b in zip(pair[1].rates, pair[0].rates, strict=True)]
        lines.append(
            say(
                f"baq on {base}, online update over its base's",
                statistics.median(ratios),
                1.35,
                True,
                spread(ratios),
            )
        )
        found += pair
    million = replace(Sizes(), rows=1_000_000)
    cases = [Case("baq", seeds, phase="online") for seeds in (1, 4)]
    for f in measure_cases(cases, million, device, rounds, seconds):
        lines.append(
            say(
                f"prioritised draw at 1 M, S = {f.case.seeds}, share of an update",
                statistics.median(f.draw_shares),
                0.10,
                True,
                spread(f.draw_shares),
            )
        )
        found.append(f)
    return lines, found


def loop_bounds() -> tuple[list[dict[str, Any]], list[Any]]:
    lines, splits = [], []
    env = EnvRef("Hopper-v5")
    for algo in ("iql", "baq", "sac"):
        for seeds in (1, 3):
            split = split_of(Case(algo, seeds), Sizes(), env, 1500, torch.device("cpu"))
            lines.append(
                say(
                    f"{algo}, S = {seeds}, online loop outside step, act and update",
                    split.own_share,
                    0.10,
                    True,
                    "",
                )
            )
            splits.append(split.as_dict())
    return lines, splits


CURVES: dict[str, tuple[str, list[tuple[Any, Case, Sizes]]]] = {
    "seeds": ("seeds", [(s, Case("iql", s), Sizes()) for s in (1, 2, 4, 8, 16)]),
    "batch": (
        "transitions a batch",
        [(b, Case("iql"), Sizes(batch=b)) for b in (64, 128, 256, 512, 1024)],
    ),
    "width": (
        "width of hidden layers",
        [(w, Case("iql"), Sizes(hidden=(w, w))) for w in (64, 128, 256, 512)],
    ),
    "dataset": (
        "transitions in each store",
        [(r, Case("baq", phase="online"), Sizes(rows=r)) for r in (10_000, 100_000, 1_000_000)],
    ),
}


def scaling(rounds: int, seconds: float) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for name, (label, points) in CURVES.items():
        found[name] = []
        for value, case, sizes in points:
            (f,) = measure_cases([case], sizes, torch.device("cpu"), rounds, seconds)
            facts = f.as_dict() | {"x": value}
            found[name].append(facts)
            print(f"{label} {value}: {facts['median_rate']:.0f} seed-updates/s", flush=True)
    return found


def draw(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw the curves: milliseconds a seed-update, and what the limit would allow."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), constrained_layout=True)
    for axis, (name, points) in zip(axes, found.items(), strict=True):
        x = [p["x"] for p in points]
        measured = [1e3 / p["median_rate"] for p in points]
        limit = [p["gflop_a_seed_update"] / statistics.median(p["ceilings"]) * 1e3 for p in points]
        axis.plot(x, measured, "o-", color="#0072b2", label="measured")
        axis.plot(x, limit, "s--", color="#d55e00", label="matrix products alone, at the limit")
        if name == "dataset":
            parts = [
                m * statistics.median(p["draw_shares"])
                for m, p in zip(measured, points, strict=True)
            ]
            axis.plot(x, parts, "^:", color="#009e73", label="of it, the prioritised draw")
        axis.set_xscale("log", base=10 if name == "dataset" else 2)
        axis.set_yscale("log")
        axis.set_xlabel(CURVES[name][0])
        axis.set_title(points[0]["algo"] + (" online" if name == "dataset" else ""))
        if name != "dataset":
            axis.set_xticks(x, [str(v) for v in x])
        axis.set_ylim(0.4, 40)
        axis.set_yticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("ms a seed-update")
    axes[0].legend(fontsize=7)
    axes[-1].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=["bounds", "scaling", "all"], default="all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--figure", type=Path, default=Path("docs/images/speed.png"))
    given = parser.parse_args()
    device = prepare("cpu", None)
    missed = 0
    if given.part in ("bounds", "all"):
        rivals, pairs = rival_bounds(given.rounds, given.seconds)
        own, found = own_bounds(given.rounds, given.seconds)
        loop, splits = loop_bounds()
        lines = rivals + own + loop
        missed = sum(not line["holds"] for line in lines)
        facts = {
            "bounds": lines,
            "against_d3rlpy": pairs,
            "updates": [f.as_dict() for f in found],
            "splits": splits,
        }
        print(save(given.out, "bounds", document(device, Sizes(), facts)))
    if given.part in ("scaling", "all"):
        curves = scaling(given.rounds, given.seconds)
        print(save(given.out, "scaling", document(device, Sizes(), {"curves": curves})))
        draw(curves, given.figure)
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
