"""`baq demo`: the whole road on a small task, in a few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from baq_cli.cli import options as opt
from baq_cli.cli.compare import plan_cells, run_comparison

DEMO_RECIPE = "pendulum/demo"


def demo(
    out: Annotated[Path, typer.Option(help="The comparison's folder.")] = Path("runs/demo"),
    json: opt.Json = False,
) -> None:
    """Compare BAQ with AWAC, IQL and CQL on Pendulum, 3 seeds each, offline to online."""
    from baq_cli.launch.places import Place

    run_comparison(plan_cells([DEMO_RECIPE], {}, [], {}, [], out), out, Place(), json)
