"""What may change of cells that a comparison's folder holds, and what is refused before it runs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from baq_cli.errors import UsageError
from baq_cli.launch.cells import Cell, load_cells, save_matrix
from baq_cli.launch.drive import run_cells
from baq_cli.launch.journal import read_state
from baq_cli.launch.known import check_known, is_finished, left_to_run
from baq_cli.launch.local import launcher_for
from baq_cli.launch.matrix import lay_out
from baq_cli.launch.outcome import outcome
from baq_cli.launch.standing import standing_of
from support.advice import follows
from support.launching import cells_in, own_data, run_here

BASE: dict[str, Any] = {"dataset": "me/arm/monday-v0", "seeds": [0, 1]}
STEPS = {
    **{"gradient_steps": 20, "env_steps": 20, "evaluation.episodes": 1},
    **{"evaluation.every_gradient_steps": 10, "evaluation.every_env_steps": 10},
}
FINISHED = ("awac", "iql", "rebrac", "bc")


def cell_of(out: Path, algo: str, **changed: Any) -> Cell:
    """Return a cell of a few steps; keys' dots are written as two underscores."""
    asked = STEPS | {key.replace("__", "."): value for key, value in changed.items()}
    (cell,) = cells_in(out, [algo], *(f"{key}={value}" for key, value in asked.items()))
    return cell


@pytest.fixture(scope="module")
def ran() -> Iterator[Path]:
    """A folder for each method, with its finished cell."""
    with own_data() as folder:
        for algo in FINISHED:
            out = folder / algo
            save_matrix([cell_of(out, algo)], out)
            run_here([cell_of(out, algo)])
        yield folder


def refused(cell: Cell, out: Path) -> str:
    """Return why a cell is refused, and see that nothing of what was there has changed."""
    before = (cell.folder / "cell.json").read_bytes(), read_state(cell.folder)
    with pytest.raises(UsageError) as caught:
        check_known([cell], out)
    assert ((cell.folder / "cell.json").read_bytes(), read_state(cell.folder)) == before
    return str(caught.value)


def test_a_matrix_grows_and_keeps_its_recipes(tmp_path: Path) -> None:
    first = lay_out([[BASE]], ["iql"], {}, tmp_path, "one")
    save_matrix(first, tmp_path)
    second = lay_out([[BASE]], ["bc"], {}, tmp_path, "two")
    check_known(second, tmp_path)
    save_matrix(second, tmp_path)
    assert [cell.method for cell in load_cells(tmp_path)] == ["bc", "iql"]
    longer = lay_out([[BASE | {"gradient_steps": 7}]], ["iql", "bc"], {}, tmp_path, "three")
    check_known(longer, tmp_path)  # nothing was trained yet
    other = lay_out([[BASE | {"iql": {"expectile": 0.9}}]], ["iql"], {}, tmp_path, "four")
    with pytest.raises(UsageError, match=r"iql.expectile was 0.7, this command says 0.9"):
        check_known(other, tmp_path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"evaluation__episodes": 3}, "evaluation.episodes was 1, this command says 3"),
        ({"evaluation__every_env_steps": 5}, "evaluation.every_env_steps was 10, this"),
        ({"safety__max_action_change": 0.1}, "safety was None, this command says"),
        ({"env_steps": 10}, "come to 20 env_steps already, and this command says 10"),
        ({"gradient_steps": 40}, "fine-tuned from 20 gradient_steps, and this command says 40"),
    ],
)
def test_what_a_finished_cell_could_not_become_is_refused(
    ran: Path, changed: dict[str, Any], said: str
) -> None:
    out = ran / "awac"
    assert said in refused(cell_of(out, "awac", **changed), out)
    check_known([cell_of(out, "awac")], out)
    check_known([cell_of(out, "awac", env_steps=40, threads=2)], out)  # it may go on


@follows("{} holds '{}' fine-tuned from {} {}, and this command says {}: say --gradient-steps {}, ")
def test_a_fine_tuned_cell_keeps_its_pre_training(ran: Path) -> None:
    out = ran / "awac"
    said = refused(cell_of(out, "awac", gradient_steps=40), out)
    (first,) = re.findall(r"say --gradient-steps (\d+)", said)
    check_known([cell_of(out, "awac", gradient_steps=first)], out)
    check_known([cell_of(ran / "other", "awac", gradient_steps=40)], ran / "other")


def test_a_phase_that_follows_a_schedule_is_kept_before_its_state_is_written_over(
    ran: Path,
) -> None:
    out = ran / "rebrac"
    said = refused(cell_of(out, "rebrac", env_steps=40), out)
    assert "changes over the whole phase" in said
    (first,) = re.findall(r"resume with (\d+)", said)
    check_known([cell_of(out, "rebrac", env_steps=first)], out)
    half = ran / "half"
    shutil.copytree(ran / "iql", half)
    shutil.rmtree(cell_of(half, "iql").folder / "online")
    said = refused(cell_of(half, "iql", gradient_steps=40), half)
    assert "cosine learning rate ends at 20" in said
    check_known([cell_of(half, "iql", env_steps=10)], half)  # which has not begun


def test_a_pre_training_that_nothing_goes_on_from_may_be_longer(ran: Path) -> None:
    out = ran / "bc"
    check_known([cell_of(out, "bc", gradient_steps=40)], out)
    assert "come to 20 gradient_steps" in refused(cell_of(out, "bc", gradient_steps=10), out)


def test_a_finished_cell_that_was_to_go_on_and_did_not_is_not_finished(ran: Path) -> None:
    out = ran / "stopped"
    shutil.copytree(ran / "awac", out)
    assert left_to_run([cell_of(out, "awac")]) == []
    longer = cell_of(out, "awac", env_steps=40)
    assert left_to_run([longer]) == [longer]
    save_matrix([longer], out)  # and now the command is killed
    assert not is_finished(longer)


def test_a_cell_whose_state_cannot_be_read_is_missing_and_runs_again(ran: Path) -> None:
    out = ran / "damaged"
    shutil.copytree(ran / "awac", out)
    cell = cell_of(out, "awac")
    (cell.folder / "state.json").write_text("{")
    courses, (failure,) = outcome([cell])
    assert courses == []
    assert "state.json" in failure.error
    assert (standing_of(cell).stage, standing_of(cell).error) == ("waiting", failure.error)
    assert left_to_run([cell]) == [cell]
    assert run_cells([cell], launcher_for(1, 1), lambda name, event: None) == {}
    assert [course.method for course in outcome([cell])[0]] == ["awac"]
    assert left_to_run([cell]) == []


@follows("that task: name them all in one command to give them other budgets, or choose another")
def test_cells_that_could_not_be_reported_together_are_not_begun(tmp_path: Path) -> None:
    def laid_out(algos: list[str], env_steps: int, out: Path = tmp_path) -> list[Cell]:
        return lay_out([[BASE | {"env_steps": env_steps}]], algos, {}, out, "baq compare")

    save_matrix(laid_out(["awac", "bc"], 20), tmp_path)
    with pytest.raises(UsageError, match=r"env_steps is 20 and 40.*holds (awac, bc|bc, awac)"):
        check_known(laid_out(["td3_bc"], 40), tmp_path)
    with pytest.raises(UsageError, match=r"env_steps is 20 and 40"):
        check_known(laid_out(["td3_bc"], 40) + laid_out(["bc"], 40), tmp_path)
    check_known(laid_out(["td3_bc"], 20), tmp_path)
    check_known(laid_out(["td3_bc", "awac", "bc"], 40), tmp_path)
    check_known(laid_out(["td3_bc"], 40, tmp_path / "other"), tmp_path / "other")
