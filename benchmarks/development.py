"""What BAQ's settings are chosen on: the development comparison of docs/results.md.

Every rule that its confidence can follow, with the bound on the policy's movement and without it,
each of its parts taken away, and its base, under `--protocol matched`: on the `medium` sets of
Pendulum, Hopper and HalfCheetah, with seeds 0 to 4. Nothing else is chosen on anything else
(docs/baq.md). The same command again goes on where it was stopped; `--dry-run` prints about how
many core-hours are left, `--report` makes the report of what is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

TASKS = {name: f"baq/{name}/medium-v0" for name in ("pendulum", "hopper", "halfcheetah")}
RULES = "spread,calibration,returns,dual"
BAQ = (sys.executable, "-m", "baq_cli.cli.main")


def comparison(arguments: argparse.Namespace) -> list[str]:
    """Return the command of the comparison."""
    base, width = arguments.base, arguments.width
    return [
        *(*BAQ, "compare", "--protocol", "matched", "--out", str(arguments.out)),
        *("--dataset", ",".join(TASKS[name] for name in arguments.task or TASKS)),
        *("--algos", f"baq,{base}", "--seeds", str(arguments.seeds), "--device", "cpu"),
        *("--gradient-steps", str(arguments.gradient_steps)),
        *("--env-steps", str(arguments.env_steps), "--workers", str(arguments.workers)),
        *("--grid", f"baq.confidence={arguments.rules}", "--grid", f"baq.bound={arguments.bounds}"),
        *("--ablate", "baq", "threads=1", f"baq.base={base}", f"shared.utd={arguments.utd}"),
        f"shared.batch_size={arguments.batch_size}",
        *(f"shared.hidden=[{width},{width}]", f"baq.behavior_hidden=[{width},{width}]"),
        f"evaluation.episodes={arguments.episodes}",
        f"evaluation.every_env_steps={max(1, arguments.env_steps // 20)}",
    ]


def report(out: Path) -> list[str]:
    """Return the command of the report."""
    return [*BAQ, "report", str(out), "--title", "BAQ's confidence: the development comparison"]


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/development"))
    parser.add_argument("--task", choices=TASKS, action="append", help="default: all three")
    parser.add_argument("--base", default="td3_bc", help="the method that BAQ adapts")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to one less")
    parser.add_argument("--gradient-steps", type=int, default=10_000)
    parser.add_argument("--env-steps", type=int, default=10_000)
    parser.add_argument("--utd", type=int, default=4, help="gradient steps an environment step")
    parser.add_argument("--width", type=int, default=128, help="units of both hidden layers")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rules", default=RULES, help="what κ follows, separated by commas")
    parser.add_argument("--bounds", default="null,0.01", help="δ of the policy's movement, too")
    parser.add_argument("--episodes", type=int, default=10, help="of an evaluation")
    parser.add_argument("--workers", type=int, default=2, help="cells at once, one thread each")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--report", action="store_true", help="only make the report again")
    arguments = parser.parse_args()
    if arguments.dry_run:
        print_hours(comparison(arguments))
    elif arguments.report:
        subprocess.run(report(arguments.out), check=True)
    else:
        subprocess.run(comparison(arguments), check=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
