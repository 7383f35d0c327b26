"""Whatever a command is refused by the system, it says so and can be given again.

A call of each command here, every call with BAQ_TORTURE=1 (`make torture`), by one of the faults
in turn: all of them at all calls would take a day.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from baq_cli.data.minari.folder import open_minari
from baq_cli.data.minari.stored import update_metadata
from baq_cli.errors import DataError
from support.here import TRAIN, TUNE, run_baq, settle
from support.odd_envs import STEADY
from support.refusing import FAULTS, Refusing, refusing
from support.small_data import write_steady

TORTURE = os.environ.get("BAQ_TORTURE") == "1"
SAMPLES = 1
"""Calls of a command that are refused in a usual test run."""
DOCUMENTED = (0, 2, 3, 4, 130)
ID, MINE = "made/first-v0", "made/mine-v0"
TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{16}\.partial")
"""A file while it is written, and its name after that."""


class Command(NamedTuple):
    """Words of a command; what stands for them when the command is given again."""

    words: tuple[str, ...]
    saves: str = ""
    """A dataset that it makes, or a run: the folder."""

    def again(self) -> tuple[str, ...]:
        began = self.saves and (Path(self.saves) / "recipe.yaml").exists()
        return (*self.words, "--resume") if began else self.words


def command(line: str, saves: str = "") -> Command:
    return Command(tuple(line.format(id=ID, mine=MINE).split()), saves)


TUNED = "--env-steps 6 evaluation.every_env_steps=6"
SEARCH = (
    f"tune --algo iql --dataset {ID} --search iql.beta=1..9 --trials 1 --seeds 1, --from offline "
    f"--workers 1 {TRAIN} evaluation.estimate_updates=1 --out "
)
COMMANDS = {
    "pretrain": command("pretrain --algo iql --dataset {id} --out new " + TRAIN, "new"),
    "pretrain resumed": command(
        "pretrain --algo iql --dataset {id} --out run --resume "
        + TRAIN.replace("steps 4", "steps 6")
    ),
    "finetune": command("finetune --checkpoint run --out new " + TUNE, "new"),
    "eval": command("eval --checkpoint run --episodes 1"),
    "advise": command("advise --dataset {id} --checkpoint run --episodes 5"),
    "export": command("export --checkpoint run --format torchscript --out new.pt"),
    "report": command("report run --out new"),
    "compare": command(
        f"compare --dataset {{id}} --algos iql,awac --seeds 1, --workers 1 --out new {TRAIN} "
        f"{TUNED}"
    ),
    "compare status": command("compare status comparison"),
    "tune": command(f"{SEARCH} new"),
    "tune status": command("tune status search"),
    "report of a comparison": command("report comparison --json"),
    "data list": command("data list"),
    "data show": command("data show {id} --plot new.png"),
    "data check": command("data check {id}"),
    "data collect": command(
        f"data collect {{mine}} --behavior run --env {STEADY} --env-steps 9", MINE
    ),
    "data behavior": command("data behavior new.safetensors --checkpoint run --episodes 1"),
    "data import": command("data import log.npz --id {mine} --action-low -1 --action-high 1", MINE),
    "data import d4rl": command(
        "data import log.hdf5 --id {mine} --action-low -1 --action-high 1", MINE
    ),
    "data export": command("data export {id} --to npz --out new.npz"),
    "data export d4rl": command("data export {id} --to d4rl --out new.hdf5"),
    "data score-reference": command(f"data score-reference {STEADY} --episodes 2 --checkpoint run"),
    "data suite list": command("data suite list"),
    "data suite build": command(
        "data suite build baq/pendulum/random-v0 --env-steps 300 --id {mine}", MINE
    ),
    "recipes show": command("recipes show recipe.yaml"),
    "recipes copy": command("recipes copy pendulum/iql new.yaml"),
    "recipes validate": command("recipes validate recipe.yaml"),
    "bench": command(
        "bench --save new --seconds 0.01 --rounds 1 --seeds 1 --hidden 8 --batch 8 --rows 99"
    ),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands read: a dataset, a run, a comparison, logs, a recipe."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        settle(folder, patch)
        write_steady(ID)
        for line in (
            f"pretrain --algo iql --dataset {ID} --out run {TRAIN}",
            f"compare --dataset {ID} --algos iql --seeds 1, --out comparison {TRAIN} {TUNED}",
            f"{SEARCH} search",
            f"data export {ID} --to npz --out log.npz",
            f"data export {ID} --to d4rl --out log.hdf5",
            "recipes copy pendulum/iql recipe.yaml",
        ):
            status, _, said = run_baq(*line.split())
            assert status == 0, said
    return folder


def attempt(
    template: Path, folder: Path, given: Command, at: int | None, fault: str
) -> tuple[Refusing, int]:
    """Give a command where a call is refused, and look at what it says; then give it again."""
    shutil.copytree(template, folder)
    with pytest.MonkeyPatch.context() as patch:
        settle(folder, patch)
        with refusing(folder, at, fault) as system:
            status, _, said = run_baq(*given.words)
        where = f"{fault} of call {at}, {system.refused}: status {status}\n{said}"
        assert status in DOCUMENTED, where
        assert "fault of baq" not in said, where
        assert "Traceback" not in said, where
        errors = re.findall(r"^[eE]rror: .*", said, re.MULTILINE)
        assert len(errors) == (status not in (0, 130)), where
        if at is None:
            assert status == 0, where
        if system.refused and fault.startswith("E") and errors:
            names = Path(os.path.relpath(system.refused[1], folder)).parts
            names = tuple(TEMPORARY.sub(r"\1", name) for name in names)
            assert not names or any(name in said for name in names), where
        if fault == "interrupt" and system.refused:
            assert status in (0, 130), where
        if at is not None:
            check_again(given, where)
    shutil.rmtree(folder)
    return system, status


def check_again(given: Command, where: str) -> None:
    """Check that nothing half-written is left that the command, given again, stumbles over."""
    status, _, said = run_baq(*given.again())
    if "exists" in said or "already" in said:  # it was complete before the refusal
        assert status == 2, f"{where}\nagain: {said}"
        if given.saves == MINE:
            assert run_baq("data", "check", MINE)[0] == 0, f"{where}\nagain: {said}"
        return
    assert status == 0, f"{where}\nagain: {said}"


def test_whatever_call_is_refused_metadata_are_the_old_ones_or_the_new(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        settle(tmp_path, patch)
        write_steady(ID)
        old = open_minari(ID).metadata
        with refusing(tmp_path, None) as counted:
            update_metadata(open_minari(ID), {"note": 0})
        noted = 0
        for at, fault in itertools.product(range(1, len(counted.calls) + 1), FAULTS):
            with refusing(tmp_path, at, fault) as system:
                try:
                    update_metadata(open_minari(ID), {"note": at})
                    noted = at
                except (DataError, OSError, KeyboardInterrupt, UnicodeError):
                    assert system.refused
            found = open_minari(ID).metadata
            assert found.keys() == {*old, "note"}
            assert found["note"] in (noted, at)
            noted = found["note"]


@pytest.mark.torture
@pytest.mark.parametrize("name", COMMANDS)
def test_whatever_call_is_refused_a_command_says_so_and_can_be_given_again(
    name: str, template: Path, tmp_path: Path
) -> None:
    given = COMMANDS[name]
    counted, _ = attempt(template, tmp_path / "counted", given, None, "EIO")
    calls = len(counted.calls)
    assert calls > 3
    faults = list(FAULTS)
    places = [(at, faults[(at + len(name)) % len(faults)]) for at in range(1, calls + 1)]
    if not TORTURE:
        places = random.Random(name).sample(places, SAMPLES)
    outcomes = Counter(
        attempt(template, tmp_path / f"{at}", given, at, fault)[1] for at, fault in places
    )
    print(f"{name}: {calls} calls, statuses {dict(outcomes)}")
