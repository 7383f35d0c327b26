"""What BAQ's settings are chosen on: the development comparison of docs/results.md.

Under `--protocol matched`, on the `medium` sets of Pendulum, Hopper and HalfCheetah with seeds 0
to 4, in parts, each a comparison: `PARTS` says what each one varies, `rules` has the base beside
BAQ, `base` another base, and that base by itself. What is chosen is chosen among these and on
nothing else (docs/baq.md). Those of `EXPLAINING`, which ran after the test tasks, explain and
choose nothing: `ablation` takes each part of what was chosen away, `bound` adds a bound on the
policy's movement, and `stronger` lets the weight fall faster with distance. The same command again
goes on where it was stopped; `--dry-run` prints about how many core-hours are left, and `--table`
what came of the parts that are there, with the variant that is chosen.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from baq_cli.bootstrap import Array, interval
from baq_cli.report.aggregates import iqm, mean

TASKS = {name: f"baq/{name}/medium-v0" for name in ("pendulum", "hopper", "halfcheetah")}
FORMER = {"confidence": "spread", "align_weight": 3, "align_to": "behavior", "constraint": "auto"}
"""BAQ's settings before the choice, where a part says no other."""
PARTS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "rules": ({"confidence": "spread,calibration,returns,dual"}, {}),
    "mechanisms": ({"align": "false", "relax": "false"}, {}),
    "handover": ({"confidence": "spread,relative_spread", "align_to": "handover"}, {}),
    "kept": ({"constraint": "kept", "align_weight": "1"}, {}),
    "kept-relative": (
        {"confidence": "relative_spread"},
        {"constraint": "kept", "align_weight": "1"},
    ),
    "kept-handover": (
        {"align_to": "handover", "align_weight": "1,3"},
        {"confidence": "relative_spread", "constraint": "kept"},
    ),
    "base": ({}, {}),
    "ablation": ({}, {}),
    "bound": ({"bound": "0.001,0.01"}, {}),
    "stronger": ({"k_q": "10,30"}, {}),
}
"""Of each part, what it varies, which its variants are named by, and what it holds at one value."""
EXPLAINING = ("ablation", "bound", "stronger")
WITH_DEFAULTS = ("base", *EXPLAINING)
"""Parts that begin with today's settings, not the former ones."""
WITH_BASE = ("rules", "base")
"""Parts that have the base by itself beside BAQ."""
BAQ = (sys.executable, "-m", "baq_cli.cli.main")
MOST_DIP = 5.0
"""Per cent of the hand-over score that the median run of what is chosen may fall by."""


def comparison(arguments: argparse.Namespace) -> list[str]:
    """Return the command of one part of the comparison."""
    base, width = arguments.base, arguments.width
    grid, fixed = PARTS[arguments.part]
    folder = arguments.out / arguments.part
    if arguments.part == "base":
        grid, folder = {"base": base}, folder.with_name(f"base-{base}")
    former = {} if arguments.part in WITH_DEFAULTS else FORMER
    held = {"base": base} | former | fixed
    words = [f"baq.{key}={value}" for key, value in held.items() if key not in grid]
    words += [word for key, of in grid.items() for word in ("--grid", f"baq.{key}={of}")]
    if arguments.part == "ablation":
        words += ["--ablate", "baq"]
    return [
        *(*BAQ, "compare", "--protocol", "matched", "--out", str(folder)),
        *("--dataset", ",".join(TASKS[name] for name in arguments.task or TASKS)),
        *("--seeds", str(arguments.seeds), "--device", "cpu"),
        *("--gradient-steps", str(arguments.gradient_steps)),
        *("--env-steps", str(arguments.env_steps), "--workers", str(arguments.workers)),
        *("--algos", f"baq,{base}" if arguments.part in WITH_BASE else "baq", *words),
        *("threads=1", f"shared.utd={arguments.utd}"),
        f"shared.batch_size={arguments.batch_size}",
        *(f"shared.hidden=[{width},{width}]", f"baq.behavior_hidden=[{width},{width}]"),
        f"evaluation.episodes={arguments.episodes}",
        f"evaluation.every_env_steps={max(1, arguments.env_steps // 10)}",
    ]


def print_hours(command: list[str]) -> None:
    """Print about how many hours of one core each task's cells take, of what is left to do."""
    done = subprocess.run(
        [*command, "--dry-run", "--json"], check=True, stdout=subprocess.PIPE, text=True
    )
    cells = json.loads(done.stdout)["cells"]
    for task in dict.fromkeys(cell["task"] for cell in cells):
        of_task = [cell["seconds"] for cell in cells if cell["task"] == task]
        print(f"{task}: {len(of_task)} cells, {sum(of_task) / 3600:.1f} core-hours left")
    print(f"in all {sum(cell['seconds'] for cell in cells) / 3600:.1f} core-hours left")


def documents(out: Path) -> dict[str, Mapping[str, Any]]:
    """Return the documents of those parts that are there, each as `baq report` makes it."""
    found = {}
    for part in sorted(place.parent.name for place in out.glob("*/matrix.json")):
        with tempfile.TemporaryDirectory() as folder:
            words = ["report", str(out / part), "--out", folder, "--json"]
            done = subprocess.run([*BAQ, *words], check=True, stdout=subprocess.PIPE, text=True)
        found[part] = json.loads(done.stdout)
    return found


def normalised(task: Mapping[str, Any], method: str, statistic: str) -> Array:
    """Return a statistic of every seed on the scale of the task's reference, `[S]`."""
    low, high = task["reference"]["random"], task["reference"]["expert"]
    scores = np.array(task["methods"][method]["statistics"][statistic]["per_seed"], dtype=float)
    return 100 * (scores - (0 if statistic == "deepest_dip" else low)) / (high - low)


def dips(task: Mapping[str, Any], method: str) -> Array:
    """Return every seed's deepest dip in per cent of its hand-over score, `[S]`."""
    start = normalised(task, method, "handover")
    return 100 * normalised(task, method, "deepest_dip") / np.abs(start)


def print_table(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print each variant's row, best first, and which is chosen.

    Chosen is, where there is more than `EXPLAINING` ones, of BAQ's variants whose median dip is at
    most `MOST_DIP` per cent of the hand-over score, the one with the highest interquartile mean of
    the online mean, pooled over tasks and seeds; of all of BAQ's, where none falls so little.
    """
    names = [task["name"].split("/")[1] for task in next(iter(found.values()))["tasks"]]
    print(
        f"| part | variant | online mean, IQM | median dip, % | final, IQM | {' | '.join(names)} |"
    )
    print("|---" * (5 + len(names)) + "|")
    rows = [
        (interval([normalised(task, method, "online_mean") for task in tasks], iqm), part, method)
        for part, tasks in ((part, document["tasks"]) for part, document in found.items())
        for method in tasks[0]["methods"]
    ]
    steady, others = list[str](), list[str]()
    for online, part, method in sorted(rows, key=lambda row: -row[0].value):
        tasks = found[part]["tasks"]
        final = interval([normalised(task, method, "final") for task in tasks], iqm)
        dip = float(np.median([dips(task, method) for task in tasks]))
        means = [f"{normalised(task, method, 'online_mean').mean():.1f}" for task in tasks]
        cells = [f"{each.value:.1f} [{each.low:.1f}, {each.high:.1f}]" for each in (online, final)]
        print(f"| {part} | {method} | {cells[0]} | {dip:.1f} | {' | '.join([cells[1], *means])} |")
        if method.startswith("baq") and part not in EXPLAINING:
            (steady if dip <= MOST_DIP else others).append(f"{part}, {method}")
    if steady or others:
        print(f"\nchosen: {(steady or others)[0]}{'' if steady else ' (none falls so little)'}")


def print_differences(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print BAQ, as the ablation has it, minus each variant that explains, seed by seed."""
    print("\n| variant | BAQ's online mean, more by | BAQ's final score, more by |\n|---|---|---|")
    whole = found["ablation"]["tasks"]
    for part in (name for name in EXPLAINING if name in found):
        tasks = found[part]["tasks"]
        for method in (name for name in tasks[0]["methods"] if name != "baq"):
            more = [
                interval(
                    [
                        normalised(all_of, "baq", of) - normalised(task, method, of)
                        for all_of, task in zip(whole, tasks, strict=True)
                    ],
                    mean,
                )
                for of in ("online_mean", "final")
            ]
            cells = [f"{each.value:.1f} [{each.low:.1f}, {each.high:.1f}]" for each in more]
            print(f"| {method.removeprefix('baq ')} | {' | '.join(cells)} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS, nargs="?", default="rules")
    parser.add_argument("--out", type=Path, default=Path("runs/development"))
    parser.add_argument("--task", choices=TASKS, action="append", help="default: all three")
    parser.add_argument("--base", default="td3_bc", help="the method that BAQ adapts")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to one less")
    parser.add_argument("--gradient-steps", type=int, default=10_000)
    parser.add_argument("--env-steps", type=int, default=10_000)
    parser.add_argument("--utd", type=int, default=4, help="gradient steps an environment step")
    parser.add_argument("--width", type=int, default=64, help="units of both hidden layers")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--episodes", type=int, default=5, help="of an evaluation")
    parser.add_argument("--workers", type=int, default=2, help="cells at once, one thread each")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--table", action="store_true", help="print what came of what is there")
    arguments = parser.parse_args()
    if arguments.table:
        found = documents(arguments.out)
        print_table(found)
        if "ablation" in found:
            print_differences(found)
    elif arguments.dry_run:
        print_hours(comparison(arguments))
    else:
        subprocess.run(comparison(arguments), check=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
