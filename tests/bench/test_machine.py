"""What a process may use of the machine: affinity, cgroups of both versions, schedulers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baq_cli import machine
from baq_cli.data import sizes
from baq_cli.engine.updates.device import hardware, prepare
from baq_cli.launch.child import Child
from baq_cli.launch.local import share_of_cores, share_of_threads, slots_for
from baq_cli.machine import memory_left_by_cgroups, most_threads, usable_cores

V2 = "30 23 0:26 {mounted} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 {mounted} /sys/fs/cgroup/{name} rw,relatime - cgroup cgroup rw,{name}"
GIB = 2**30


class Fake:
    """A machine of eight CPUs with files of cgroups that a test writes."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch):
        self.root, self.patch = root, patch
        for job, names in machine.ALLOTTED.items():
            for name in (job, *names):
                patch.delenv(name, raising=False)
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.setattr(machine, "ROOT", root)
        patch.setattr(os, "cpu_count", lambda: 8)
        self.affinity(8)

    def affinity(self, cpus: int) -> None:
        self.patch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)), raising=False)

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def v2(self, ours: str, mounted: str = "/") -> None:
        self.write("proc/self/cgroup", f"0::{ours}\n")
        self.write("proc/self/mountinfo", V2.format(mounted=mounted) + "\n")

    def v1(self, ours: str, mounted: str = "/", name: str = "cpu") -> None:
        self.write("proc/self/cgroup", f"9:name=systemd:/x\n4:{name},{name}acct:{ours}\n0::/\n")
        self.write("proc/self/mountinfo", V1.format(mounted=mounted, name=name) + "\n")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(tmp_path, monkeypatch)


# -- CPUs


def test_without_limits_all_cpus_are_usable(fake: Fake) -> None:
    assert usable_cores() == 8


def test_affinity_limits_and_elsewhere_the_machine_is_counted(fake: Fake) -> None:
    fake.affinity(1)
    assert usable_cores() == 1
    fake.patch.delattr(os, "sched_getaffinity")  # as on macOS and Windows
    assert usable_cores() == 8
    fake.patch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("400000 100000", 4), ("150000 100000", 1), ("50000 100000", 1),
     ("199999 100000", 1), ("200000 100000", 2), ("9900000 100000", 8), ("30000 10000", 3)],
)  # fmt: skip
def test_a_quota_counts_in_whole_cpus(fake: Fake, quota: str, cores: int) -> None:
    fake.v2("/job")
    fake.write("sys/fs/cgroup/job/cpu.max", quota + "\n")
    assert usable_cores() == cores


def test_the_least_of_affinity_and_quota_counts(fake: Fake) -> None:
    fake.v2("/")
    fake.write("sys/fs/cgroup/cpu.max", "400000 100000")
    fake.affinity(1)
    assert usable_cores() == 1
    fake.affinity(6)
    assert usable_cores() == 4


@given(quotas=st.lists(st.none() | st.integers(1, 12), min_size=1, max_size=4))
def test_the_tightest_of_nested_cgroups_counts(
    quotas: list[int | None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fake = Fake(tmp_path_factory.mktemp("root"), patch)
        names = ["a", "b c", "d", "e"][: len(quotas)]
        fake.v2("/" + "/".join(names))
        for depth, quota in enumerate(quotas, start=1):
            limit = "max" if quota is None else str(quota * 1000)
            fake.write("/".join(["sys/fs/cgroup", *names[:depth], "cpu.max"]), f"{limit} 1000")
        assert usable_cores() == min([8, *(quota for quota in quotas if quota)])


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("250000", 2)])
def test_the_first_version_of_cgroups(fake: Fake, quota: str, cores: int) -> None:
    fake.v1("/slurm/job_7/step_0")
    for folder, value in (("slurm/job_7", quota), ("slurm/job_7/step_0", "-1")):
        fake.write(f"sys/fs/cgroup/cpu/{folder}/cpu.cfs_quota_us", value)
        fake.write(f"sys/fs/cgroup/cpu/{folder}/cpu.cfs_period_us", "100000")
    assert usable_cores() == cores


@pytest.mark.parametrize(
    ("ours", "mounted"),
    [
        ("/docker/abc", "/docker/abc"),  # the container's own, mounted at the top
        ("/", "/"),  # with a namespace of its own
        ("/docker/abc", "/other"),  # as another namespace tells it
        ("/../../elsewhere", "/"),
    ],
)
def test_in_a_container_the_mount_is_its_own_cgroup(fake: Fake, ours: str, mounted: str) -> None:
    fake.v2(ours, mounted)
    fake.write("sys/fs/cgroup/cpu.max", "300000 100000")
    fake.write("elsewhere/cpu.max", "100000 100000")
    assert usable_cores() == 3


@pytest.mark.parametrize("text", ["", "\n", "max", "a b", "100000 0", "-5 100000", "x" * 10_000])
def test_what_cant_be_read_limits_nothing(fake: Fake, text: str) -> None:
    fake.v2("/job")
    fake.write("sys/fs/cgroup/job/cpu.max", text)
    fake.write("sys/fs/cgroup/job/memory.max", text)
    fake.write("proc/self/mountinfo", f"{text}\n - \n{V2.format(mounted='/')}\n1 2 - cgroup2\n")
    assert (usable_cores(), memory_left_by_cgroups()) == (8, None)


@pytest.mark.parametrize(
    ("variables", "cores"),
    [
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "2", "SLURM_CPUS_ON_NODE": "6"}, 2),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "6"}, 6),
        ({"SLURM_CPUS_PER_TASK": "2"}, 8),  # left over: there is no job
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "64"}, 8),
        ({"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "many"}, 8),
        ({"SGE_ROOT": "/opt/sge", "NSLOTS": "3"}, 3),
        ({"SGE_ROOT": "/opt/sge"}, 8),
        ({"LSB_JOBID": "7", "LSB_DJOB_NUMPROC": "4"}, 4),
        ({"PBS_JOBID": "7.host", "NCPUS": "5"}, 5),
        ({"BAQ_CORES": "2"}, 2),
        ({"BAQ_CORES": "2", "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "6"}, 2),
        ({"OMP_NUM_THREADS": "1"}, 8),  # threads of a process, not processes
    ],
)
def test_what_a_scheduler_gave_to_a_job(fake: Fake, variables: dict[str, str], cores: int) -> None:
    for name, value in variables.items():
        fake.patch.setenv(name, value)
    assert usable_cores() == cores


# -- what follows from them


def test_cells_share_the_usable_cores_and_no_more_threads_than_openmp_is_asked_for(
    fake: Fake,
) -> None:
    fake.affinity(6)
    assert (slots_for(10, None), slots_for(10, 9), slots_for(2, None)) == (6, 9, 2)
    for share in (share_of_cores, share_of_threads):
        assert [share(slots) for slots in (1, 2, 4, 6, 9)] == [6, 3, 1, 1, 1]
    fake.patch.setenv("OMP_NUM_THREADS", "2,1")
    assert most_threads() == 2
    assert [share_of_threads(slots) for slots in (1, 2, 4)] == [2, 2, 1]
    assert [share_of_cores(slots) for slots in (1, 2, 4)] == [6, 3, 1]


def test_a_cell_knows_its_share_of_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import baq_cli.machine as m; print(m.usable_cores())"
    monkeypatch.setattr("baq_cli.launch.child.START", code)
    for cores in (1, usable_cores()):
        child = Child(tmp_path, threads=1, cores=cores)
        assert child.attend([]) == "its process ended with status 0, see worker.log in its folder"
    assert (tmp_path / "worker.log").read_text().split() == ["1", str(usable_cores())]


@pytest.mark.parametrize(("threads", "expected"), [(None, 2), (5, 5)])
def test_torch_takes_no_more_threads_than_are_usable_unless_told(
    fake: Fake, threads: int | None, expected: int
) -> None:
    before = torch.get_num_threads()
    fake.affinity(2)
    try:
        torch.set_num_threads(7)  # as it counts where a cgroup limits CPU time alone
        prepare("cpu", threads)
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_a_manifest_says_both_the_machines_cores_and_the_usable_ones(fake: Fake) -> None:
    fake.affinity(3)
    found = hardware("cpu")
    assert (found["cores"], found["usable_cores"]) == (8, 3)


# -- memory


def test_memory_is_what_the_tightest_cgroup_leaves(fake: Fake) -> None:
    fake.v2("/pod/box")
    pod, box = "sys/fs/cgroup/pod", "sys/fs/cgroup/pod/box"
    fake.write(f"{pod}/memory.max", f"{8 * GIB}")
    fake.write(f"{pod}/memory.current", f"{7 * GIB}")
    fake.write(f"{box}/memory.max", "max")
    fake.write(f"{box}/memory.current", f"{GIB}")
    assert memory_left_by_cgroups() == GIB
    cached = f"anon {GIB}\nactive_file {GIB}\ninactive_file {2 * GIB}\n"
    fake.write(f"{pod}/memory.stat", cached)
    assert memory_left_by_cgroups() == 4 * GIB, "what is held of files is given up when needed"
    fake.write(f"{box}/memory.max", f"{2 * GIB}")
    assert memory_left_by_cgroups() == GIB


def test_memory_of_the_first_version(fake: Fake) -> None:
    fake.v1("/job", name="memory")
    folder = "sys/fs/cgroup/memory/job"
    fake.write(f"{folder}/memory.limit_in_bytes", f"{4 * GIB}")
    fake.write(f"{folder}/memory.usage_in_bytes", f"{5 * GIB}")
    assert memory_left_by_cgroups() == 0
    fake.write(f"{folder}/memory.stat", f"inactive_file 1\ntotal_inactive_file {2 * GIB}\n")
    assert memory_left_by_cgroups() == GIB


def test_a_claim_beyond_the_cgroups_memory_is_refused(fake: Fake) -> None:
    fake.v2("/")
    fake.write("sys/fs/cgroup/memory.max", f"{GIB}")
    fake.write("sys/fs/cgroup/memory.current", "0")
    assert sizes.free_memory() <= GIB
    with pytest.raises(ValueError, match="free here: import it in parts"):
        sizes.check_size(GIB, GIB)
    fake.write("sys/fs/cgroup/memory.max", "max")
    sizes.check_size(GIB, GIB)
