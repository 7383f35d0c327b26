"""Documents as `baq compare` makes them, with numbers drawn here: what renderings are tested on."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from baq_cli.agents.registry import METHODS
from baq_cli.report.page_view import OF_PAIRS

HEADINGS = {
    "offline": ("offline", "score", "higher", "The last evaluation of pre-training."),
    "handover": ("at hand-over", "score", "higher", "The evaluation before any online update."),
    "deepest_dip": ("deepest dip", "score", "lower", "Hand-over score minus the lowest early one."),
    "dip_env_steps": ("dip length", "env_steps", "lower", "Until the hand-over score is back."),
    "online_mean": ("online mean", "score", "higher", "Area under the online curve, per step."),
    "regret": ("regret", "score·env_steps", "lower", "Area between the optimum and the curve."),
    "final": ("final", "score", "higher", "The last online evaluation."),
    "best": ("best", "score", "higher", "The highest online evaluation."),
    "env_steps_to_threshold": ("steps to threshold", "env_steps", "lower", "First at or above it."),
}
STATISTICS = {
    name: {"heading": heading, "unit": unit, "better": better, "definition": definition}
    for name, (heading, unit, better, definition) in HEADINGS.items()
}
PWN = "window.__pwned = 1"
HOSTILE = (
    f"<script>{PWN}</script>",
    f'<a href="javascript:{PWN}">link</a>',
    "<b>bold</b> $x$ %{x} &amp; & 'single' \"double\"",
    f'"><img src=x onerror="{PWN}">',
    "two\nlines\u2028and\u2029more </script><!-- {{ 7 * 7 }}",
    "__proto__",
    "constructor",
    "a name without a single space " + "x" * 120,
)


def rich() -> dict[str, Any]:
    """4 methods on 2 tasks with 5 seeds: everything there is to show, notes and a failure too."""
    methods = ["baq", "baq k_q=3", "awac", "iql"]
    tasks = ["baq/hopper/medium-v0", "baq/pendulum/mixed-v0"]
    document = compared(methods, tasks, seeds=5, evaluations=21)
    hopper, pendulum = document["tasks"]
    statistics = hopper["methods"]["awac"]["statistics"]
    statistics["env_steps_to_threshold"] = statistic([None, 42_000, None, 61_000, None], never=3)
    statistics = pendulum["methods"]["iql"]["statistics"]
    statistics["env_steps_to_threshold"] = statistic([None] * 5, never=5)
    pendulum["dataset"]["warnings"] = ["3 episodes are identical"]
    document["title"] = "BAQ against AWAC and IQL on the reference suite"
    document["recipes"] = [
        recipe(task, key, {"baq": one, "baq k_q=3": other})
        for task in tasks
        for key, one, other in (("baq.k_q", "10.0", "3.0"), ("online.utd", "1", "4"))
    ]
    numbers = {
        name: {"value": 12.25, "low": -3.5, "high": 28.0} for name in ("online_mean", "final")
    }
    document["against_base"] = [
        {"method": "baq", "base": "iql", "task": task, "unit": "return", "pairs": 5}
        | {"unlike": [], "statistics": numbers}
        for task in (*tasks, None)
    ]
    document["notes"] = ["Only 5 seeds a cell: read the intervals with care."]
    document["failures"] = [
        {
            "task": tasks[1],
            "method": "awac",
            "error": "NonFiniteError: the actor's loss is nan\nat gradient step 1200 of seed 3",
            "seeds": [3, 4],
        }
    ]
    return document


def hostile() -> dict[str, Any]:
    """Names that try to be markup, scripts, templates and properties; curves from a file."""
    methods, tasks = list(HOSTILE), [HOSTILE[0], HOSTILE[4]]
    document = compared(methods, tasks, seeds=2, evaluations=6)
    document["title"] = HOSTILE[3]
    document["commands"] = [f"baq report --title '{HOSTILE[0]}'"]
    document["notes"] = list(HOSTILE)
    numbers = {"value": 1.0, "low": None, "high": None}
    document["against_base"] = [
        {"method": HOSTILE[0], "base": HOSTILE[1], "task": tasks[0], "unit": "return", "pairs": 1}
        | {"unlike": list(HOSTILE), "statistics": {"online_mean": numbers, "final": numbers}}
    ]
    document["failures"] = [
        {"task": HOSTILE[1], "method": HOSTILE[2], "error": HOSTILE[4], "seeds": []}
    ]
    document["recipes"] = [recipe(tasks[0], HOSTILE[1], {name: name for name in methods})]
    of_file = document["tasks"][1]
    of_file |= {"reference": None, "dataset": None, "unit": "normalized score"}
    of_file["protocol"] |= {"steps_known": False, "env_steps": None, "gradient_steps": None}
    del of_file["methods"]["constructor"]
    for method in of_file["methods"].values():
        method["source"] = "file"
        for name in ("dip_env_steps", "regret", "env_steps_to_threshold"):
            method["statistics"][name] = statistic([None, None])
        for phase in method["curves"].values():
            phase |= {"unit": "evaluations", "counters": list(range(6))}
    for run in document["runs"]:
        run |= {"versions": {HOSTILE[0]: HOSTILE[3]}, "hardware": {HOSTILE[1]: {"a": HOSTILE[0]}}}
    return document


def far_below(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document whose first method began far below all others, on the first task."""
    changed = copy.deepcopy(document)
    of = next(iter(changed["tasks"][0]["methods"].values()))["curves"]["offline"]
    for scores in of["scores"]:
        scores[0] = -20_000.0
    return changed


def single() -> dict[str, Any]:
    """One run of one seed: no aggregates, no intervals, no online phase beyond its start."""
    document = compared(["iql"], ["baq/pendulum/medium-v0"], seeds=1, evaluations=9)
    task = document["tasks"][0]
    task |= {"reference": None, "threshold": None, "optimum": None, "unit": "return"}
    task["dataset"]["return_mean"] = 21.0
    for name in ("regret", "env_steps_to_threshold"):
        task["methods"]["iql"]["statistics"][name] = statistic([None])
    return document | {"title": "IQL on Pendulum", "aggregates": None}


def crowded() -> dict[str, Any]:
    """As many methods as there are, three seeds each, with recipes that differ in many keys."""
    methods, task_name = list(METHODS), "baq/pendulum/replay-v0"
    document = compared(methods, [task_name], seeds=3, evaluations=11)
    values = ("[256, 256]", "0.0003", "min_of_two_draws")
    document["recipes"] = [
        recipe(task_name, f"a_rather_long_key_{k}", {m: values[i % 3] for i, m in enumerate(each)})
        for k, each in enumerate((methods, methods[:9]))
    ]
    numbers = {name: {"value": -12.25, "low": -1310.5, "high": 28.0} for name in OF_PAIRS}
    document["against_base"] = [
        {"method": "baq", "base": "td3_bc", "task": task_name, "unit": "return", "pairs": 3}
        | {"unlike": [], "statistics": numbers}
    ]
    return document


def thousand() -> dict[str, Any]:
    """10 methods × 10 tasks × 10 seeds, 21 evaluations in each of two phases."""
    methods = [f"method {i}" for i in range(10)]
    tasks = [f"suite/task-{i}/medium-v0" for i in range(10)]
    return compared(methods, tasks, seeds=10, evaluations=21)


# -- parts


def compared(
    methods: Sequence[str], tasks: Sequence[str], seeds: int, evaluations: int
) -> dict[str, Any]:
    """A comparison of every method on every task, with rising curves and no failure."""
    rng = np.random.default_rng(0)
    return {
        "title": f"{len(methods)} methods on {len(tasks)} tasks",
        "made": {"baq": "0.1.0", "at": "2026-11-22T18:00:00+00:00"},
        "commands": ["baq compare --methods baq,awac,iql --seeds 5 --out runs/compare"],
        "methods": list(methods),
        "statistics": STATISTICS,
        "tasks": [task(name, methods, seeds, evaluations, rng) for name in tasks],
        "aggregates": aggregates(methods, tasks, seeds, rng),
        "against_base": [],
        "failures": [],
        "recipes": [],
        "runs": [run(task, method) for task in tasks for method in methods],
        "notes": [],
    }


def task(
    name: str, methods: Sequence[str], seeds: int, evaluations: int, rng: np.random.Generator
) -> dict[str, Any]:
    return {
        "name": name,
        "environment": "Hopper-v5",
        "unit": "normalized score",
        "reference": {"label": "suite", "random": 20.0, "expert": 3200.0, "source": "measured"},
        "dataset": {
            "id": name,
            "sha256": "8f1e0c" * 10,
            "episodes": 400,
            "transitions": 98_765,
            "return_mean": 38.194,
            "return_std": 10.1,
            "warnings": [],
        },
        "threshold": 80.0,
        "optimum": 100.0,
        "protocol": {
            "gradient_steps": 20_000,
            "env_steps": 100_000,
            "evaluation_episodes": 10,
            "environment": {"id": "Hopper-v5", "max_episode_steps": 1000, "kwargs": {}},
            "steps_known": True,
        },
        "methods": {
            method: results(i, seeds, evaluations, rng) for i, method in enumerate(methods)
        },
    }


def results(i: int, seeds: int, evaluations: int, rng: np.random.Generator) -> dict[str, Any]:
    """The i-th method's curves: it rises to 30 offline, dips, and rises to 60 and more online."""
    part = np.linspace(0, 1, evaluations)
    level = 50 + 8 * (i % 5)
    offline = level * 0.6 * (1 - np.exp(-5 * part)) + rng.normal(0, 2.5, (seeds, evaluations))
    dip = 12 * np.exp(-(((part - 0.12) / 0.08) ** 2)) * (i % 3)
    online = level * (0.6 + 0.4 * part**0.7) - dip + rng.normal(0, 3, (seeds, evaluations))
    values = {
        "offline": offline[:, -1],
        "handover": online[:, 0],
        "deepest_dip": np.maximum(online[:, 0] - online[:, :5].min(axis=1), 0),
        "dip_env_steps": rng.integers(0, 12, seeds) * 5000.0,
        "online_mean": online.mean(axis=1),
        "regret": (100 - online.mean(axis=1)) * 100_000,
        "final": online[:, -1],
        "best": online.max(axis=1),
        "env_steps_to_threshold": rng.integers(4, 20, seeds) * 5000.0,
    }
    return {
        "source": "run",
        "seeds": list(range(seeds)),
        "curves": {
            "offline": curve("gradient_steps", 20_000, offline),
            "online": curve("env_steps", 100_000, online),
        },
        "statistics": {name: statistic(found.tolist()) for name, found in values.items()},
        "best_in": ["final", "best"] if i == 3 else [],
    }


def curve(unit: str, end: int, scores: Any) -> dict[str, Any]:
    counters = np.linspace(0, end, scores.shape[1]).astype(int).tolist()
    return {"unit": unit, "counters": counters, "scores": scores.tolist()}


def statistic(per_seed: Sequence[float | None], never: int = 0) -> dict[str, Any]:
    """A statistic of seeds, `never` of which didn't get there; its interval is a stand-in."""
    values = np.array([value for value in per_seed if value is not None], dtype=float)
    filled: dict[str, Any] = {"per_seed": list(per_seed), "count": len(values), "never": never}
    filled |= dict.fromkeys(("mean", "std", "low", "high"))
    if len(values) and not never:  # a mean of those that got there would flatter
        filled["mean"] = float(values.mean())
    if len(values) > 1 and not never:
        filled["std"] = float(values.std(ddof=1))
        half = 1.96 * filled["std"] / len(values) ** 0.5
        filled |= {"low": filled["mean"] - half, "high": filled["mean"] + half}
    return filled


def improvements(level: Mapping[str, float], half: float) -> list[dict[str, Any]]:
    return [
        {"x": x, "y": y} | interval(0.5 + (level[x] - level[y]) / 85, half)
        for x in level
        for y in level
        if x != y
    ]


def aggregates(
    methods: Sequence[str], tasks: Sequence[str], seeds: int, rng: np.random.Generator
) -> dict[str, Any]:
    thresholds, share = np.linspace(0, 100, 51), np.linspace(0, 1, 21)
    level = {method: 50.0 + 8 * (i % 5) for i, method in enumerate(methods)}
    return {
        "statistic": "final",
        "unit": "normalized score",
        "tasks": list(tasks),
        "runs": {method: seeds * len(tasks) for method in methods},
        "methods": {
            method: {
                "mean": interval(level[method], 2.0 + rng.random()),
                "median": interval(level[method] + 1, 3.0 + rng.random()),
                "iqm": interval(level[method] + 0.5, 2.2 + rng.random()),
                "optimality_gap": interval(100 - level[method], 2.0),
            }
            for method in methods
        },
        "improvement": improvements(level, 0.08),
        "on_the_way": {
            "methods": {
                method: {
                    "online_mean": interval(level[method] - 4, 2.0),
                    "dip_percent": interval(30 - level[method] / 4, 1.5),
                }
                for method in methods
            },
            "improvement": improvements(level, 0.1),
        },
        "profile": {
            "thresholds": thresholds.tolist(),
            "methods": {
                method: band(1 / (1 + np.exp((thresholds - level[method]) / 4)), 0.06, top=1.0)
                for method in methods
            },
        },
        "efficiency": {
            "x": share.tolist(),
            "x_label": "share of the online budget",
            "methods": {
                method: band(level[method] * (0.6 + 0.4 * share**0.7), 3.0) for method in methods
            },
        },
    }


def interval(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def band(values: Any, half: float, top: float = np.inf) -> dict[str, Any]:
    low, high = np.maximum(values - half, 0), np.minimum(values + half, top)
    lines = {"value": values, "low": low, "high": high}
    return {name: line.tolist() for name, line in lines.items()}


def run(task: str, method: str) -> dict[str, Any]:
    return {
        "task": task,
        "method": method,
        "folder": f"runs/compare/{method}",
        "command": f"baq pretrain --dataset {task} --method '{method}' --seeds 0-4",
        "versions": {"baq": "0.1.0", "python": "3.11.7", "torch": "2.9.0", "gymnasium": "1.2.2"},
        "hardware": {"machine": "x86_64", "cores": 2, "threads": 1, "device": "cpu"},
        "git_revision": "7d776d6c0ffee",
        "started": "2026-11-22T10:00:00+00:00",
        "ended": "2026-11-22T11:23:45+00:00",
    }


def recipe(task: str, key: str, values: dict[str, str]) -> dict[str, Any]:
    return {"task": task, "key": key, "values": values}
