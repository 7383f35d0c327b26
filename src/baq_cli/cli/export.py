"""`baq export`: a policy as a file that acts without this program."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from baq_cli.cli import completion
from baq_cli.cli import options as opt
from baq_cli.cli.say import say
from baq_cli.errors import UsageError


class Format(str, Enum):
    """What a policy can be exported to; the engine's formats, by name."""

    onnx = "onnx"
    torchscript = "torchscript"


def export(
    checkpoint: Annotated[
        Path,
        typer.Option(
            help="A run, a checkpoint folder or an agent.safetensors.",
            autocompletion=completion.checkpoint,
        ),
    ],
    format: Annotated[Format, typer.Option(help="What to write.")],
    out: Annotated[Path, typer.Option(help="A new file to write.", dir_okay=False)],
    seed: Annotated[
        int | None, typer.Option(help="Which seed's policy; default: the checkpoint's first.")
    ] = None,
    json: opt.Json = False,
) -> None:
    """Write a policy as ONNX or TorchScript: raw observations to the environment's actions.

    Normaliser and action scaling are inside. The file is checked against the checkpoint's policy
    on 1,000 observations before it is put in place.
    """
    from baq_cli.cli.results import print_json
    from baq_cli.deploy.export import export_policy

    if os.path.lexists(out):
        raise UsageError(f"{out} exists: choose another --out, or remove it")
    done = export_policy(checkpoint, format.value, out, seed)
    if json:
        print_json(done)
        return
    among = ", ".join(map(str, done["seeds"]))
    chosen = f"seed {done['seed']}" + (f" of {among}" if len(done["seeds"]) > 1 else "")
    say(
        f"{done['algo']} on {done['env_id'] or 'a dataset alone'}, {chosen}: obs "
        f"[batch, {done['obs_dim']}] to action [batch, {done['action_dim']}], float32"
    )
    for check in done["checks"]:
        say(
            f"checked on {check['count']} {check['observations']} observations: differs by at most "
            f"{check['largest_difference']:.1e} of half an action's range ({check['allowed']:.1e} "
            "allowed)"
        )
    say(f"{done['format']}: {out} ({done['bytes']:,} bytes)")
