"""`baq ope`: what a dataset alone says of a checkpoint's policies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from baq_cli.cli import completion
from baq_cli.cli import options as opt
from baq_cli.units import amount


def ope(
    checkpoint: Annotated[
        Path,
        typer.Option(
            help="A run, a checkpoint folder or an agent.safetensors.",
            autocompletion=completion.checkpoint,
        ),
    ],
    dataset: Annotated[
        str,
        typer.Option(
            help="A Minari dataset of the same spaces.", autocompletion=completion.dataset
        ),
    ],
    steps: Annotated[
        int | None,
        typer.Option(help="Gradient steps of the fit; default: 5,000.", min=1, max=opt.MOST_STEPS),
    ] = None,
    device: opt.Device = None,
    out: Annotated[
        Path | None, typer.Option(help="Where estimate.json and a figure go; default: nowhere.")
    ] = None,
    json: opt.Json = False,
) -> None:
    """Estimate a policy's value from a dataset, without an environment (off-policy evaluation).

    Fitted Q evaluation learns the values of the policies as they are from logged transitions. It
    is an estimate: 'baq eval' measures, where there is an environment.
    """
    from baq_cli.cli.estimates import prepare_folder, save_estimate, show_estimate
    from baq_cli.cli.progress import told
    from baq_cli.cli.results import print_json
    from baq_cli.engine.checkpoints.folder import load_agent_file
    from baq_cli.engine.collection.datasets import open_dataset
    from baq_cli.engine.estimation.assessment import assess
    from baq_cli.engine.estimation.estimate import STEPS
    from baq_cli.runs.events import Note

    document = load_agent_file(checkpoint).document
    episodes = open_dataset(dataset, told, document["recipe"].get("end_at_reward"))
    if out is not None:
        prepare_folder(out)
    told(Note(f"fitting the values of its policies: {amount(steps or STEPS, 'gradient step')}"))
    found = assess(checkpoint, episodes, steps or STEPS, device or "cpu").as_dict()
    files = None if out is None else save_estimate(found, out)
    if json:
        print_json(found)
    else:
        show_estimate(found, files)
