"""Making the training of a run on the wall clock again, from what it logged, without a robot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from baq_cli.agents.registry import method_configs
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.restore import spaces_of
from baq_cli.engine.phases.clocked import ClockedLoop
from baq_cli.engine.phases.origin import Origin
from baq_cli.engine.phases.request import RunRequest
from baq_cli.envs.ref import EnvRef
from baq_cli.errors import DataError, UsageError
from baq_cli.plain_files import make_folder, opened, replaced
from baq_cli.recipes.load import reopen
from baq_cli.recipes.schema import Recipe
from baq_cli.runs import interleaving, transitions
from baq_cli.runs.checkpoints import complete, counter_of
from baq_cli.runs.events import Note
from baq_cli.runs.files import disk_errors, json_bytes, read_errors, read_json, replace_file
from baq_cli.runs.folder import MANIFEST, RECIPE, RunDirectory
from baq_cli.runs.log import LOGS

COPIED = (RECIPE, transitions.NAME, interleaving.NAME, *(f"{name}.csv" for name in LOGS))
OF_ITS_END = ("ended", "control", "limits")
BLOCK_BYTES = 2**20


def copy_beginning(run: Path, out: Path) -> None:
    """Make a folder of a run as it was at its hand-over, with all its logs.

    Raises UsageError where it was not on the wall clock, or the folder holds a run.
    """
    RunDirectory(out).check_free(resume=False)
    begun = [folder for folder in complete(run, "online") if counter_of(folder) == 0]
    if not (begun and (run / interleaving.NAME).exists()):
        raise UsageError(
            f"{run} is no run whose training can be repeated: expected one of 'baq finetune "
            "--control-hz HZ', with its first checkpoint and its logs"
        )
    manifest = {k: v for k, v in read_json(run / MANIFEST).items() if k not in OF_ITS_END}
    with disk_errors(f"start a run in {out}"):
        make_folder(out)
        for name in COPIED:
            _copy(run / name, out / name)
        replace_file(out / MANIFEST, json_bytes(manifest | {"repeats": str(run)}))
    ckpt.save(out, "online", 0, replace(ckpt.load(begun[-1]), folder=None))


def as_begun(out: Path) -> tuple[Recipe, ckpt.Checkpoint, Origin]:
    """Return what such a folder's run is made of; its environment isn't made: it may be a robot."""
    saved = ckpt.load(out)
    document, environment = saved.document, read_json(out / MANIFEST)["environment"]
    env, spaces = EnvRef.of_document(document), spaces_of(document)
    recipe = reopen(document["recipe"], method_configs())
    return recipe, saved, Origin(env, spaces, environment, document["dataset"])


def _copy(source: Path, target: Path) -> None:
    with read_errors(source), opened(source) as original, replaced(target) as file:
        while block := original.read(BLOCK_BYTES):
            file.write(block)


def repeat(loop: ClockedLoop, run: Path, order: RunRequest) -> None:
    """Repeat all turns, save, and say whether that came to a run's last parameters.

    Raises DataError where it came to others.
    """
    loop.repeat(order.resume_command)
    loop.save()
    newest = complete(run, "online")[-1]
    theirs = ckpt.load_agent_file(newest)
    mine = ckpt.load_agent_file(complete(order.out, "online")[-1])
    steps = ("env_steps", "gradient_steps")
    if any(theirs.document[key] != mine.document[key] for key in steps):
        order.observer(
            Note(
                f"repeated up to {mine.document['gradient_steps']:,} gradient_steps, which no "
                f"checkpoint of {run} was made at: there is nothing to compare with"
            )
        )
        return
    other = [n for n, tensor in theirs.agent.items() if not _same(tensor, mine.agent[n])]
    if other:
        before, now = theirs.document["versions"], mine.document["versions"]
        raise DataError(
            f"the training of {run}, repeated, came to other parameters ({other[0]}): its files "
            f"were made with {before}, this is {now}. Repeat it on the machine and with the "
            "versions that it was made on."
        )
    order.observer(Note(f"the same parameters as {newest}, bit for bit"))


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()
