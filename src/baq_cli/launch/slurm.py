"""Running cells as Slurm jobs, through submitit."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from baq_cli.errors import UsageError
from baq_cli.launch.cells import Cell
from baq_cli.launch.child import HOW, run_in_child
from baq_cli.launch.drive import Watcher
from baq_cli.launch.journal import Reader, write_state
from baq_cli.machine import usable_cores
from baq_cli.runs.events import Event, Note
from baq_cli.runs.files import disk_errors, json_bytes, read_json, replace_file
from baq_cli.safe_python import running
from baq_cli.surroundings import cache_folder
from baq_cli.untrusted import parse_yaml, read_text

JOB = "slurm.json"
SLOTS = 1_000
"""Jobs in the queue at once, unless said otherwise: Slurm decides which of them run."""

TIMEOUT_MIN = 240
"""A job's time limit, unless said otherwise; a cell that needs more goes on in another job."""

LOOK_SECONDS = 1.0
ASK_SECONDS = 60.0
ASK_SECONDS_STOPPING = 3.0
"""How often a job's files are looked at, and how often Slurm is asked of all jobs at once."""

MOST_WORDS = 10_000
NUMBER = re.compile(r"[0-9]{1,18}(_[0-9]{1,18})?")
"""Of a job, or of one in an array of them."""
ALIVE = ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED")
CLUSTERS = ("slurm", "local")
SHARED = ("name", "timeout_min", "mem_gb", "stderr_to_stdout")
"""What submitit knows everywhere; what else is asked for are sbatch's options."""

OWN = {
    "cpus_per_task": "use --cpus",
    "gpus_per_node": "use --gpus",
    "nodes": "a cell runs on one machine",
    "tasks_per_node": "a cell is one task",
}
"""What isn't the user's to set, and why."""


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """Read `KEY=VALUE` words; values are YAML.

    Raises UsageError for a word of another form.
    """
    options: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        try:
            value = parse_yaml(text)
        except ValueError:
            value = None
        if not key or not equals or value is None:
            raise UsageError(f"cannot read --slurm {word}: expected KEY=VALUE")
        options[key] = value
    return options


class Slurm:
    """Runs each cell as a Slurm job with `cpus` CPUs, which are its threads, and `gpus` GPUs.

    `out` is the comparison's folder, on a disk that the machines share; submitit's files go to
    `own_folder(out)`. `options` are sbatch's (partition, account, …) or submitit's (timeout_min,
    mem_gb, …), and `cluster`: 'slurm', or 'local' for processes of this machine, to try it.
    Raises UsageError when submitit isn't installed, there is no Slurm here, or an option is none.
    """

    def __init__(
        self,
        out: Path,
        cpus: int = 1,
        gpus: float = 0,
        options: Mapping[str, Any] | None = None,
        slots: int | None = None,
    ):
        asked = dict(options or {})
        self._cluster = str(asked.pop("cluster", "slurm"))
        self._cpus = cpus
        self._executor = _executor(own_folder(out), self._cluster, asked, cpus, gpus)
        at_once = SLOTS if self._cluster == "slurm" else usable_cores() // cpus
        self.slots = slots or max(1, at_once)
        self._asked_at = time.monotonic()
        self.stopping = False

    def start(self, cell: Cell, watch: Watcher) -> SlurmJob:
        reader = Reader(cell.folder)  # before anything can happen in the cell
        job = self.known_job(cell)
        if job is not None:
            watch(cell.name, Note(f"{cell.name}: already Slurm job {job.job_id}"))
            return SlurmJob(self, cell, reader, job)
        write_state(cell.folder, "waiting")
        return SlurmJob(self, cell, reader, self._submit(cell))

    def close(self) -> None:
        """Hold nothing: Slurm has the jobs."""

    def may_ask(self) -> bool:
        """Return whether it is time to ask Slurm again; it is asked of all jobs at once."""
        now = time.monotonic()
        if now - self._asked_at < (ASK_SECONDS_STOPPING if self.stopping else ASK_SECONDS):
            return False
        self._asked_at = now
        return True

    def cancel(self, job: Any) -> None:
        """Have a job save and stop, or not begin."""
        self.stopping = True
        if self._cluster == "slurm":
            job.cancel(check=False)
        elif not job.done():  # submitit's own cancelling kills within a second
            os.kill(int(job.job_id), signal.SIGTERM)

    def _submit(self, cell: Cell) -> Any:
        folder = Path(os.path.abspath(cell.folder))
        try:
            job = self._executor.submit(run_in_child, folder, self._cpus)
        except Exception as error:  # submitit's own kinds, and those of the command it runs
            raise UsageError(
                f"Slurm takes no job for '{cell.name}': {' '.join(str(error).split())}. Jobs that "
                "it has already go on; the same command watches them and submits the others "
                "(--workers N: no more than N at once)."
            ) from error
        with disk_errors(f"write {cell.folder / JOB}"):
            known = {"cluster": self._cluster, "job_id": job.job_id}
            replace_file(cell.folder / JOB, json_bytes(known))
        return job

    def known_job(self, cell: Cell) -> Any | None:
        """Return a cell's job that was submitted earlier and is queued or running still.

        What the cell's folder says may be a stranger's: only a job that was submitted from here,
        for this comparison, is one.
        """
        if self._cluster != "slurm" or not (cell.folder / JOB).exists():
            return None
        import submitit

        known = read_json(cell.folder / JOB)
        if known.get("cluster") != self._cluster:
            return None
        number = str(known.get("job_id"))
        if not NUMBER.fullmatch(number):
            return None
        job = submitit.SlurmJob(self._executor.folder, number)
        if not job.paths.submission_file.is_file():
            return None
        return job if job.get_info(mode="force").get("State") in ALIVE else None


class SlurmJob:
    """A cell that is a Slurm job."""

    def __init__(self, launcher: Slurm, cell: Cell, reader: Reader, job: Any):
        self._launcher, self._cell, self._reader, self._job = launcher, cell, reader, job
        self._looked_at = float("-inf")
        self._how: str | None = None

    def events(self) -> Iterable[Event]:
        return self._reader.new()

    def ended(self) -> str | None:
        now = time.monotonic()
        if self._how is None and now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            if self._is_over():
                (self._cell.folder / JOB).unlink(missing_ok=True)
                self._how = self._in_words()
        return self._how

    def stop(self) -> None:
        self._launcher.cancel(self._job)

    def _is_over(self) -> bool:
        if self._job.done(force_check=self._launcher.may_ask()):
            return True
        return self._job.state.startswith("PREEMPTED")  # which Slurm doesn't requeue: --no-requeue

    def _in_words(self) -> str:
        name = f"job {self._job.job_id}"
        if not self._job.paths.result_pickle.exists():
            return f"{name} ended as {self._job.state}, see {self._job.paths.stderr}"
        try:  # submitit's own result is a pickle, in a folder that may be a stranger's
            return f"{name}: {read_text(self._cell.folder / HOW, MOST_WORDS)}"
        except (OSError, ValueError):
            return f"{name} failed, see {self._job.paths.stderr}"


def own_folder(out: Path) -> Path:
    """Return where submitit keeps what concerns a comparison: its pickles are the user's own."""
    name = hashlib.sha256(os.path.abspath(out).encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder() / "slurm" / name[:16]


def _executor(folder: Path, cluster: str, asked: Mapping[str, Any], cpus: int, gpus: float) -> Any:
    """Return submitit's executor with what a job asks for."""
    try:
        import submitit
    except ImportError as error:
        raise UsageError("--launcher slurm needs submitit: pip install 'baq-cli[slurm]'") from error
    if cluster not in CLUSTERS:
        raise UsageError(f"--slurm cluster={cluster}: expected one of {', '.join(CLUSTERS)}")
    for key in asked:
        if key in OWN:
            raise UsageError(f"--slurm {key}: {OWN[key]}")
    additional = asked.get("additional_parameters", {})
    if not isinstance(additional, dict):
        raise UsageError("--slurm additional_parameters: expected {option: value, …}")
    additional = {"no_requeue": True} | additional  # lost cells are started again by us
    parameters = {key: value for key, value in asked.items() if key in SHARED}
    parameters |= {f"slurm_{key}": asked[key] for key in asked if key not in SHARED}
    parameters |= {"cpus_per_task": cpus, "slurm_additional_parameters": additional}
    # Since Slurm 22.05, srun doesn't take the job's CPUs a task for its own.
    parameters["slurm_srun_args"] = [f"--cpus-per-task={cpus}", *asked.get("srun_args", [])]
    if gpus % 1:
        raise UsageError(f"--gpus {gpus:g}: expected whole ones with --launcher slurm")
    if gpus:
        parameters["gpus_per_node"] = int(gpus)
    try:
        python = {f"{cluster}_python": running("submitit.core._submit")}
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster, **python)
        executor.update_parameters(**{"name": "baq", "timeout_min": TIMEOUT_MIN} | parameters)
    except RuntimeError as error:  # no srun
        raise UsageError(
            f"{error} Use --launcher slurm where sbatch and srun are; '--slurm cluster=local' "
            "tries it in processes of this machine."
        ) from error
    except (AssertionError, NameError, TypeError, ValueError) as error:
        raise UsageError(f"--slurm: {_first_line(error)}") from error
    return executor


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
