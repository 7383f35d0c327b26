"""Numbers that are not finite, and environments that fail: what is said, kept and tried again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from baq_cli.agents.interface import Batch
from baq_cli.engine.checkpoints.tensors import tensor_bytes
from baq_cli.engine.evaluation.evaluator import NotFinite
from baq_cli.envs.faults import EnvironmentFault
from baq_cli.errors import EnvironmentMismatch, NonFiniteError
from baq_cli.plain_files import appended, make_folder
from baq_cli.runs.checkpoints import complete
from baq_cli.runs.events import Note, Observer
from baq_cli.runs.files import disk_errors, replace_file
from baq_cli.runs.provenance import now
from baq_cli.units import Phase, amount

Array = npt.NDArray[np.float32]
LOG, KEPT = "faults.jsonl", "faults"


class Faults:
    """A phase's faults. What is thrown away is kept for inspection in the run's folder `faults`.

    `count` is how often the environments failed; they are made anew `restarts` times.
    """

    def __init__(
        self, folder: Path, phase: Phase, seeds: tuple[int, ...], restarts: int, observer: Observer
    ):
        self._folder, self._phase, self._seeds = folder, phase, seeds
        self._restarts, self._observer = restarts, observer
        self.count = 0

    # -- numbers

    def check_losses(self, metrics: dict[str, Tensor], batch: Batch, gradient_steps: int) -> None:
        """Raise NonFiniteError when a loss `[S]` is NaN or infinite, and keep its batch."""
        for name, value in metrics.items():
            if name.startswith("loss_") and not bool(torch.isfinite(value).all()):
                found = {f"columns{n}" if n[0] == "." else n: t for n, t in batch.tensors().items()}
                kept = self._keep(found | metrics, f"gradient_step-{gradient_steps}")
                self._refuse(name, torch.isfinite(value), f"gradient step {gradient_steps}", kept)

    def check_parameters(self, odd: dict[str, Tensor], gradient_steps: int) -> None:
        """Raise NonFiniteError when there are parameters `[S, …]` that are not finite, and keep
        them.
        """
        for name, value in odd.items():
            kept = self._keep(odd, f"parameters-{gradient_steps}")
            ok = value.isfinite().reshape(len(value), -1).all(1)
            self._refuse(f"the parameter {name}", ok, f"gradient step {gradient_steps}", kept)

    def check_transition(self, parts: dict[str, Array], env_steps: int) -> None:
        """Raise NonFiniteError when a part `[S, …]` of the next transition is NaN or infinite.

        So is a number that is too large for the store's float32.
        """
        for name, value in parts.items():
            with np.errstate(over="ignore"):
                finite = np.isfinite(value.astype(np.float32))
            if not finite.all():
                tensors = {k: torch.from_numpy(np.array(v)) for k, v in parts.items()}
                kept = self._keep(tensors, f"env_step-{env_steps}")
                ok = torch.from_numpy(finite.reshape(len(finite), -1).all(axis=1))
                self._refuse(name, ok, f"environment step {env_steps}", kept)

    def _keep(self, tensors: dict[str, Tensor], name: str) -> Path:
        path = self._folder / KEPT / f"{self._phase}-{name}.safetensors"
        with disk_errors(f"keep what went wrong in {path}"):
            make_folder(path.parent)
            replace_file(path, tensor_bytes(tensors))
        return path

    def refuse_evaluation(self, odd: NotFinite, number: str) -> NonFiniteError:
        """Keep the step of an evaluation that is not finite; return the error that names it."""
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in odd.parts.items()}
        kept = self._keep(tensors, f"evaluation-{number.rpartition('/')[2]}")
        return NonFiniteError(f"{odd} It is kept in {kept}.")

    def _refuse(self, name: str, finite: Tensor, when: str, kept: Path) -> None:
        seeds = [seed for seed, ok in zip(self._seeds, finite.tolist(), strict=True) if not ok]
        raise NonFiniteError(
            f"{name} is NaN or infinite at {when} (seeds {seeds}); it is kept in {kept}. "
            f"{self._what_is_left()} "
            + (
                "Lower learning_rate or reward_scale, and look at the dataset with 'baq data show'."
                if name.startswith(("loss_", "the parameter "))
                else "Mend the environment, or the policy's learning rate, then resume."
            )
        )

    def _what_is_left(self) -> str:
        if complete(self._folder):
            return f"The last checkpoint in {self._folder} is intact."
        return f"No checkpoint was written to {self._folder} yet."

    # -- environments

    def failed(self, fault: EnvironmentFault, env_steps: int) -> None:
        """Note that the environments failed and will be made anew.

        Raises EnvironmentMismatch when that has happened too often.
        """
        self.count += 1
        line = {"at": now(), "phase": self._phase, "env_steps": env_steps, "fault": str(fault)}
        path = self._folder / LOG
        with disk_errors(f"write {path}"), appended(path) as file:
            file.write((json.dumps(line) + "\n").encode())
        if self.count > self._restarts:
            raise EnvironmentMismatch(
                f"the environment failed {amount(self.count, 'time')}, the last time at "
                f"environment step {env_steps}: {fault}. {self._what_is_left()} All faults are in "
                f"{LOG}. Mend the environment, or allow more with env_restarts=N."
            )
        self._observer(
            Note(f"environment step {env_steps}: {fault}; its environments are made anew")
        )
