"""A Slurm of four small commands on this machine: jobs start at once, and run beside each other."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SBATCH = """#!/bin/bash
[ -e "$FAKE_SLURM/refuse" ] && { echo "sbatch: error: invalid partition" >&2; exit 1; }
id=$(($(ls "$FAKE_SLURM" | grep -c pid$) + 1))
export SLURM_JOB_ID=$id SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1
export SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0
setsid bash -c 'echo $$ > "$FAKE_SLURM/'$id'.pid"
bash "$0" && echo COMPLETED > "$FAKE_SLURM/'$id'.state"' "$1" > /dev/null 2>&1 &
while [ ! -s "$FAKE_SLURM/$id.pid" ]; do sleep 0.05; done
echo "Submitted batch job $id"
"""

SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do
    case $1 in
        --output) out=$2; shift;;
        --error) err=$2; shift;;
    esac
    shift
done
name() { local path=${1//%j/$SLURM_JOB_ID}; echo "${path//%t/0}"; }
exec "$@" > "$(name "$out")" 2> "$(name "$err")"
"""

SACCT = """#!/bin/bash
echo "JobID|State|NodeList"
for word; do
    [ -e "$FAKE_SLURM/$word.pid" ] || continue
    state=$(cat "$FAKE_SLURM/$word.state" 2> /dev/null || echo FAILED)
    kill -0 -- "-$(cat "$FAKE_SLURM/$word.pid")" 2> /dev/null && state=RUNNING
    echo "$word|$state|here"
done
"""

SCANCEL = """#!/bin/bash
echo "CANCELLED by 0" > "$FAKE_SLURM/$1.state"
kill -TERM -- "-$(cat "$FAKE_SLURM/$1.pid")"
"""


@contextmanager
def fake_slurm(folder: Path) -> Iterator[Path]:
    """Put the commands on the path; yield the folder where they keep their jobs."""
    commands, jobs = folder / "bin", folder / "jobs"
    commands.mkdir()
    jobs.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT), ("scancel", SCANCEL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("FAKE_SLURM", str(jobs))
        yield jobs
    for file in jobs.glob("*.pid"):
        try:
            os.killpg(int(file.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            continue
