"""A stranger's file executes nothing, reaches nothing outside of itself, and calls nobody."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pyarrow
import pytest
from gymnasium.envs.registration import EnvSpec
from pyarrow import parquet

import baq_cli
from baq_cli.cli.options import parse_seeds
from baq_cli.data import sizes
from baq_cli.data.minari.folder import dataset_path, open_minari
from baq_cli.data.minari.read import load_episodes, read_recording
from baq_cli.data.minari.serialized import parse_space
from baq_cli.data.minari.write import write_minari
from baq_cli.data.suite import SUITE
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.tensors import read_document, read_tensors, tensor_bytes
from baq_cli.envs.making import make_env
from baq_cli.errors import DataError, EnvironmentMismatch, ExitStatus, UsageError
from baq_cli.recipes.load import resolve
from baq_cli.runs.checkpoints import complete
from baq_cli.untrusted import TRUST_VARIABLE
from support.attempts import attempt
from support.cli import SMALL, baq
from support.logs import BOUNDS, NEW, d4rl_file, npz_file, written
from support.recordings import ID, own_folders, plain_recording, unseal

SOURCE = Path(baq_cli.__file__).parent
Command = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]

# -- the source

UNPICKLERS = {
    "pickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "joblib",
    "cloudpickle",
    "pickletools",
}
EVALUATORS = {"eval", "exec", "compile", "__import__", "execfile"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
ONLY_HERE = {
    "gym.make": {"envs/making.py"},
    "gym.spec": set(),
    "gym.make_vec": set(),
    "torch.load": set(),
    "torch.hub.load": set(),
    "torch.jit.load": {"deploy/graphs.py"},  # of the file that it has just written itself
    "import_module": {"deploy/graphs.py"},  # of packages that are named there
    "importlib.import_module": {
        "engine/phases/hands/module.py",  # of what a command names
        "envs/registered.py",  # of packages that are named there
    },
    "yaml.load": set(),
    "yaml.load_all": set(),
    "yaml.full_load": set(),
    "yaml.unsafe_load": set(),
    "yaml.safe_load": set(),  # unbounded: `untrusted.py` reads all YAML, by the same safe loader
    "yaml.SafeLoader": {"untrusted.py"},
    "yaml.Loader": set(),
    "yaml.UnsafeLoader": set(),
    "json.loads": {
        *("untrusted.py", "launch/ray/transfer.py", "runs/files.py"),
        *("bench/rival.py", "bench/d3rlpy_side.py"),
    },
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def dotted(node: ast.AST) -> str:
    """Return a name as it is written, with its owners."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def said(call: ast.Call, keyword: str) -> Any:
    """Return a constant that a call is given by name."""
    found = [k.value for k in call.keywords if k.arg == keyword]
    return found[0].value if found and isinstance(found[0], ast.Constant) else None


def test_the_source_imports_nothing_that_unpickles() -> None:
    for place, tree in modules():
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.partition(".")[0] for name in names} & UNPICKLERS, place


def test_the_source_evaluates_no_text_and_starts_no_shell() -> None:
    for place, tree in modules():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = dotted(call.func)
            assert name not in EVALUATORS | SHELLS, f"{place}, line {call.lineno}"
            assert said(call, "shell") is not True, f"{place}, line {call.lineno}"
            if name in ("np.load", "numpy.load"):
                assert said(call, "allow_pickle") is False, f"{place}, line {call.lineno}"


def test_what_could_run_or_import_something_is_where_it_is_watched() -> None:
    found: dict[str, set[str]] = {name: set() for name in ONLY_HERE}
    for place, tree in modules():
        for node in ast.walk(tree):
            name = dotted(node)
            if name in found:
                found[name].add(place)
    assert {name: places - ONLY_HERE[name] for name, places in found.items() if places} == {
        name: set() for name, places in found.items() if places
    }
    assert found["gym.make"] == {"envs/making.py"}


# -- what a process does while it reads

WATCH = """
import sys, _pickle, pickle

def refuse(*args, **kwargs):
    raise AssertionError("something was unpickled")

for module in (pickle, _pickle):
    for name in ("load", "loads", "Unpickler", "_load", "_loads", "_Unpickler"):
        if hasattr(module, name):
            setattr(module, name, type("Unpickler", (), {"__init__": refuse}) if "U" in name
                    else refuse)

LOCAL = ("127.0.0.1", "::1", "localhost", None, "")
FORBIDDEN = set()

def watch(event, args):
    if event == "pickle.find_class":
        refuse()
    if event in FORBIDDEN:
        raise AssertionError(f"{event} {args}")
    if event == "socket.getaddrinfo" and args[0] not in LOCAL:
        raise AssertionError(f"{event} {args}")
    if event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] not in LOCAL:
        raise AssertionError(f"{event} {args}")

sys.addaudithook(watch)
"""
READ = """
from pathlib import Path
from baq_cli import load_policy
from baq_cli.agents.registry import method_configs
from baq_cli.data.minari.read import load_episodes, read_recording
from baq_cli.data.minari.folder import open_minari
from baq_cli.engine.checkpoints import folder as checkpoint
from baq_cli.recipes.load import read_layer, resolve
from baq_cli.report.method_runs import course_of
from baq_cli.report.document import ReportInfo, build_document
from baq_cli.report.external import read_curves
import h5py, matplotlib, numpy, pydantic, scipy, torch

FORBIDDEN |= {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"}
run, dataset, curves = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
checkpoint.load(run)
policy = load_policy(run)
policy(numpy.zeros(policy.obs_dim))
resolve([read_layer(run / "recipe.yaml")], method_configs())
load_episodes(dataset)
read_recording(open_minari(dataset))
build_document([course_of([run]), *read_curves(curves)], ReportInfo())
print("read", flush=True)
"""
RUN = """
from baq_cli.cli.main import main
for line in Path(sys.argv[1]).read_text().splitlines():
    sys.argv[1:] = json.loads(line)
    try:
        main()
    except SystemExit as end:
        assert not end.code, line
print("ran", flush=True)
"""


def in_a_fresh_process(script: str, *words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A Minari folder with a small dataset, and two runs: `offline`, and `online` from it."""
    from baq_cli.engine.phases.commands import run_finetune
    from baq_cli.engine.phases.request import RunRequest
    from support.runs import execute, recipe_of
    from support.small_data import collect_pendulum

    with own_folders() as folder:
        collect_pendulum(ID)
        recipe = recipe_of("awac", {}, dataset=ID, gradient_steps=2, env_steps=3, seeds=[0])
        execute(recipe, folder / "offline")
        source = ckpt.load(folder / "offline")
        run_finetune(recipe, RunRequest(folder / "online", lambda _: None, "baq", "baq"), source)
        yield folder


def test_reading_what_others_made_unpickles_nothing_starts_nothing_and_calls_nobody(
    place: Path,
) -> None:
    """A fresh process, in which unpickling, starting processes and connecting raise.

    Processes of our own (workers, evaluators) talk through pipes, and Python's multiprocessing
    unpickles what our own process sent: none is started to read a file.
    """
    curves = written(
        place / "curves.csv",
        "dataset,algo,seed_index,phase,eval_index,return\nother/task-v0,theirs,0,online,0,1.5\n",
    )
    assert in_a_fresh_process(WATCH + READ, place / "online", ID, curves).endswith("read\n")


def test_the_watch_notices() -> None:
    """Otherwise the test above could pass for a reason of its own."""
    for deed in (
        "import pickle; pickle.loads(b'')",
        "from _pickle import Unpickler; Unpickler(None)",
        "import subprocess; subprocess.run(['true'])",
        "import socket; socket.create_connection(('192.0.2.1', 80))",
        "import socket; socket.getaddrinfo('example.org', 80)",
    ):
        with pytest.raises(AssertionError):
            in_a_fresh_process(f"{WATCH}FORBIDDEN.add('subprocess.Popen')\n{deed}")


ONNX = """
import socket, threading, time
door = socket.create_server(("127.0.0.1", 0))
seen = []
def answer():
    while True:
        seen.append(door.accept())
threading.Thread(target=answer, daemon=True).start()
for name in ("https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
    os.environ[name] = f"http://127.0.0.1:{door.getsockname()[1]}"
os.environ.pop("ORT_DISABLE_TELEMETRY", None)
from baq_cli.deploy.graphs import require_format
require_format("onnx")
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
time.sleep(SECONDS)
print(len(seen))
"""


@pytest.mark.torture
def test_an_export_reports_to_nobody() -> None:
    """ONNX Runtime from 1.32 on calls its makers ten seconds after it was imported, unasked."""
    seconds = 20 if os.environ.get("BAQ_TORTURE") else 0
    assert in_a_fresh_process(f"import os\nSECONDS = {seconds}\n{ONNX}") == "0\n"


def test_nothing_calls_out_unless_it_is_asked_to(place: Path, tmp_path: Path) -> None:
    out, online = tmp_path / "offline", tmp_path / "online"
    small = [*SMALL, "evaluation.background=false", "device=cpu"]
    commands = [
        ["pretrain", "--dataset", ID, "--algo", "iql", "--gradient-steps", "3", "--out", out],
        ["finetune", "--checkpoint", out, "--env-steps", "4", "--out", online],
        ["eval", "--checkpoint", online, "--episodes", "1"],
        ["report", online, "--out", tmp_path / "report"],
        ["data", "show", ID],
        ["data", "list"],
    ]
    for command in commands[:2]:
        command += small
    lines = "\n".join(json.dumps([str(word) for word in command]) for command in commands)
    script = f"import json\nfrom pathlib import Path\n{WATCH}{RUN}"
    assert in_a_fresh_process(script, written(tmp_path / "commands", lines)).endswith("ran\n")


# -- environments that import

EVIL = "evil_robot:Evil-v0"


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stranger's module leaves its mark once it is imported."""
    path = tmp_path / "was imported"
    written(
        tmp_path / "evil_robot.py",
        f"from pathlib import Path\nPath({str(path)!r}).touch()\nimport gymnasium\n"
        "gymnasium.register('Evil-v0', 'gymnasium.envs.classic_control:PendulumEnv', "
        "max_episode_steps=4)\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv(TRUST_VARIABLE, "0")
    return path


def evil_agent(path: Path) -> Path:
    """Write a behaviour that says it acts in the stranger's environment."""
    behavior = SUITE["baq/pendulum/medium-v0"].behaviors[0].path  # type: ignore[union-attr]
    document = read_document(behavior) | {"env_id": EVIL}
    path.write_bytes(tensor_bytes(read_tensors(behavior), document))
    return path


def evil_dataset(folder: Path) -> str:
    """Save a dataset that says it was made there; what is in it fits."""
    space = gym.spaces.Box(-8.0, 8.0, (3,), np.float32)
    actions = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)
    recording = plain_recording(
        observation_space=space,
        action_space=actions,
        actions=np.linspace(-1, 1, 8, dtype=np.float32)[:, None],
        env_spec=EnvSpec(id=EVIL, entry_point="evil_robot:Robot"),
    )
    write_minari(ID, recording)
    return ID


def commands_that_name_it(folder: Path) -> dict[str, tuple[object, ...]]:
    agent, dataset = evil_agent(folder / "agent.safetensors"), evil_dataset(folder)
    recipe = written(folder / "r.yaml", f"algo: iql\ndataset: {ID}\nenv: '{EVIL}'\n")
    mapping = written(
        folder / "m.yaml",
        f"observation: o\naction: a\nreward: r\nterminated: t\nenv: '{EVIL}'\n",
    )
    log = written(folder / "log.csv", "o,a,r,t\n1,0,1,0\n2,0,1,1\n")
    out = ("--out", folder / "run")
    train = ("--gradient-steps", "2", *out)
    return {
        "a flag": ("finetune", "--env", EVIL, "--algo", "sac", "--env-steps", "3", *out, *SMALL),
        "a recipe": ("pretrain", "--recipe", recipe, *train, *SMALL),
        "a dataset": ("pretrain", "--dataset", dataset, "--algo", "iql", *train, *SMALL),
        "a checkpoint": ("eval", "--checkpoint", agent, "--episodes", "1"),
        "a mapping": ("data", "import", log, "--id", NEW, "--mapping", mapping),
        "a behaviour": ("data", "collect", NEW, "--behavior", agent, "--env-steps", "5"),
        "a reference": ("data", "score-reference", EVIL, "--episodes", "2"),
        "a check": ("data", "check", dataset, "--env", EVIL),
    }


KINDS = ["a flag", "a recipe", "a dataset", "a checkpoint"]
KINDS += ["a mapping", "a behaviour", "a reference", "a check"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_environment_that_would_import_is_refused_wherever_its_id_comes_from(
    kind: str, mark: Path, folder: Path, baq_here: Command
) -> None:
    status, _, said = baq_here(*commands_that_name_it(folder)[kind])
    assert status == ExitStatus.ENVIRONMENT, said
    assert EVIL in said
    assert "--trust-env" in said
    assert said.splitlines()[-1].startswith("error: ")
    assert not mark.exists()
    assert "evil_robot" not in sys.modules
    if kind == "a dataset":
        assert ID in said
    if kind == "a checkpoint":
        assert "agent.safetensors" in said


def test_reading_without_making_imports_nothing_even_where_it_is_trusted(
    mark: Path, folder: Path, baq_here: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, dataset = evil_agent(folder / "agent.safetensors"), evil_dataset(folder)
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    assert load_episodes(dataset).origin.env_id == EVIL
    read_recording(open_minari(dataset))
    baq_cli.load_policy(agent)
    assert baq_here("data", "show", dataset)[0] == 0
    assert baq_here("data", "export", dataset, "--to", "npz", "--out", folder / "a.npz")[0] == 0
    assert not mark.exists()


@pytest.mark.parametrize("variable", ["0", "", "yes", "true"])
def test_only_the_flag_and_its_variable_trust(
    variable: str, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUST_VARIABLE, variable)
    with pytest.raises(EnvironmentMismatch, match="--trust-env"):
        make_env(EVIL)
    assert not mark.exists()


@pytest.mark.parametrize("at", ["first", "last"])
def test_the_flag_reaches_every_process_wherever_it_stands(
    at: str, mark: Path, folder: Path, tmp_path: Path
) -> None:
    """Environments step, and policies are evaluated, in processes of their own here."""
    run = tmp_path / "run"
    words: list[str | Path] = ["finetune", "--env", EVIL, "--algo", "sac", "--env-steps", "6"]
    words += ["--out", run, "--seeds", "2", *SMALL, "sac.warmup_env_steps=2"]
    if at == "last":
        words += ["env_workers=true", "evaluation.background=true", "--trust-env"]
    else:
        words = ["--trust-env", *words, "env_workers=false", "evaluation.background=false"]
    done = baq(*words, data=folder / "minari" / "datasets")
    assert mark.exists()
    assert "process is gone" not in done.stderr
    manifest = json.loads((run / "manifest.json").read_text())
    assert "--trust-env" in manifest["command"], "the same command works again"


@pytest.mark.parametrize("env_id", ["a:b:c", "x" * 500, "", "../x", ":Pendulum-v1", "a:"])
def test_an_id_that_can_be_none_is_refused_in_words(
    env_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for trust in "01":
        monkeypatch.setenv(TRUST_VARIABLE, trust)
        with pytest.raises(EnvironmentMismatch):
            make_env(env_id)


# -- HDF5: other files

OTHER = "other.hdf5"


def linked(file: h5py.File, owner: str, name: str, other: Path, kind: str) -> None:
    """Put a name in the place of an array behind which another file's numbers lie."""
    group = file[owner]
    shape, dtype = group[name].shape, group[name].dtype
    del group[name]
    if kind == "external link":
        group[name] = h5py.ExternalLink(str(other), f"/{name}")
    elif kind == "link through a link":
        group["away"] = h5py.ExternalLink(str(other), "/")
        group[name] = h5py.SoftLink(f"{owner}/away/{name}")
    elif kind == "virtual":
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource(str(other), name, shape, dtype)
        group.create_virtual_dataset(name, layout)
    else:
        raw = other.with_suffix(".raw")
        raw.write_bytes(np.zeros(shape, dtype).tobytes())
        group.create_dataset(name, shape, dtype, external=[(str(raw), 0, h5py.h5f.UNLIMITED)])


LINKS = ["external link", "link through a link", "virtual", "raw"]


def other_file(path: Path, arrays: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("name", ["observations", "rewards", "infos/qpos"])
def test_a_log_reads_no_other_file(
    kind: str, name: str, folder: Path, refused_import: Refused
) -> None:
    qpos = np.arange(8.0)
    path = d4rl_file(folder / "a.hdf5", **{"infos/qpos": qpos})
    owner, _, last = f"/{name}".rpartition("/")
    with h5py.File(path, "r+") as file:
        true = file[name][()]
        linked(file, owner or "/", last, other_file(folder / OTHER, {last: true}), kind)
    said = refused_import(path)
    assert "link" in said or "other files" in said


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("name", ["rewards", "episode_1", "infos/qpos"])
def test_a_dataset_reads_no_other_file(kind: str, name: str, folder: Path) -> None:
    write_minari(ID, plain_recording(infos={"qpos": np.arange(8.0)}))
    unseal(ID)
    path = dataset_path(ID) / "data" / "main_data.hdf5"
    with h5py.File(path, "r+") as file:
        if name == "episode_1":
            del file[name]
            other_file(folder / OTHER, {})
            shutil.copyfile(path, folder / OTHER)
            file[name] = (
                h5py.SoftLink("/episode_0")
                if kind == "link through a link"
                else h5py.ExternalLink(str(folder / OTHER), "/episode_0")
            )
        else:
            owner, _, last = f"/episode_0/{name}".rpartition("/")
            true = file[f"episode_0/{name}"][()]
            linked(file, owner, last, other_file(folder / OTHER, {last: true}), kind)
    if name != "infos/qpos":
        with pytest.raises(DataError, match=r"link|other files"):
            load_episodes(ID)
    found, error = attempt(lambda: read_recording(open_minari(ID)))
    if found is None:
        assert "link" in str(error) or "other files" in str(error)
    else:
        assert name == "infos/qpos"
        assert "qpos" not in found.infos, "what lies elsewhere is left out"


def test_a_damaged_dataset_stands_in_no_others_way(folder: Path, baq_here: Command) -> None:
    for dataset_id in (ID, "made/other-v0"):
        write_minari(dataset_id, plain_recording())
    path = dataset_path(ID) / "data" / "metadata.json"
    path.write_text(path.read_text().replace("-2.0", "-3.0"))
    status, out, _ = baq_here("data", "list", "--json")
    about = {row["dataset"]: row["about"] for row in json.loads(out)}
    assert status == 0
    assert "metadata.json is not what was saved" in about[ID]
    assert about["made/other-v0"] == ""


# -- claims


@pytest.mark.parametrize("claim", [(2**40,), (2**60,), (8, 2**40)])
def test_an_array_that_claims_more_than_its_archive_holds_is_refused(
    claim: tuple[int, ...], folder: Path, refused_import: Refused
) -> None:
    path = folder / "log.npz"
    npz_file(path)
    with zipfile.ZipFile(path, "a") as archive:
        header = {"descr": "<f8", "fortran_order": False, "shape": claim}
        with archive.open("episode.npy", "w") as member:
            np.lib.format.write_array_header_1_0(member, header)
    assert "claims" in refused_import(path)


def test_an_archive_that_unpacks_to_gigabytes_is_refused(
    folder: Path, refused_import: Refused
) -> None:
    """Its directory says so: four gigabytes of zeros in 64 kB."""
    path = npz_file(folder / "log.npz")
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("episode.npy", "w") as member,
    ):
        header = {"descr": "|u1", "fortran_order": False, "shape": (2**26,)}
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(64):
            member.write(bytes(2**20))
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")  # what the directory says of the last entry
    content[at + 24 : at + 28] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(content)
    assert "claims" in refused_import(path)


def test_a_table_that_repeats_a_value_a_billion_times_is_refused(
    folder: Path, refused_import: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three million times here, with a limit to match: a row takes a thirtieth of a byte."""
    monkeypatch.setattr(sizes, "MOST_EXPANSION", 20)
    path, rows = folder / "log.parquet", 3_000_000
    zeros = pyarrow.array(np.zeros(rows, np.int8)).dictionary_encode()
    parquet.write_table(pyarrow.table({"reward": zeros}), path, compression="zstd")
    assert path.stat().st_size < rows / 20
    assert "claims" in refused_import(path)


def box(**changes: Any) -> str:
    fields = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-1, -1], "high": [1, 1]}
    return json.dumps(fields | changes)


@pytest.mark.parametrize(
    "text",
    [
        box(shape=[10**12], low=-1, high=1),
        box(shape=[10**12]),
        box(dtype="U1000000000"),
        box(dtype="V1000000000"),
        box(dtype="object"),
        box(dtype=["float32"]),
        box(shape=[-1]),
        box(low=[[-1], [-1]]),
        json.dumps({"type": "Tuple", "subspaces": [json.loads(box(dtype="U1000000000"))]}),
        '{"type": "Dict", "subspaces": {"a": ' * 200 + box() + "}}" * 200,
    ],
    ids=range(10),
)
def test_a_space_that_takes_more_than_its_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a space"):
        parse_space(text)


def test_a_list_of_a_billion_seeds_is_refused_before_it_is_made() -> None:
    with pytest.raises(UsageError, match="10,000"):
        parse_seeds("1000000000")


# -- paths

OUTSIDE = [
    "../../x",
    "/etc",
    "a/../../b-v0",
    "a/./b-v0",
    "a\\b-v0",
    "a\0b-v0",
    "",
    "a//b-v0",
    "~/x",
]


@pytest.mark.parametrize("dataset_id", [*OUTSIDE, "x" * 300])
def test_a_dataset_has_no_id_that_leads_out_of_its_folder(dataset_id: str, folder: Path) -> None:
    from baq_cli.agents.registry import method_configs

    with pytest.raises(DataError, match="can't be a dataset's id"):
        open_minari(dataset_id)
    with pytest.raises(UsageError, match="dataset"):
        resolve([{"algo": "iql", "dataset": dataset_id}], method_configs())
    with pytest.raises(UsageError):
        resolve([{"algo": "iql", "compare": {"datasets": [dataset_id]}}], method_configs())


def test_a_checkpoints_state_names_no_file_of_its_own(place: Path, tmp_path: Path) -> None:
    """What it says beside the sizes of the two logs is passed over."""
    from baq_cli.runs.folder import RunDirectory

    run = Path(shutil.copytree(place / "online", tmp_path / "run"))
    victim = written(tmp_path / "victim.csv", "mine")
    saved = ckpt.load(run)
    sizes = saved.state["sizes"] | {"../victim": {"bytes": 0, "sha256": ""}}
    RunDirectory(run).restore(sizes, saved.document["history"], lambda _: None)
    assert victim.read_text() == "mine"


def test_a_linked_folder_is_no_checkpoint(place: Path, tmp_path: Path) -> None:
    """Pruning would drop what it leads to."""
    run = Path(shutil.copytree(place / "online", tmp_path / "run"))
    (newest,) = complete(run)[-1:]
    (run / "checkpoints" / "online-999").symlink_to(newest)
    assert complete(run)[-1] == newest


# -- the command


@pytest.mark.parametrize("name", ["metrics.csv", "recipe.yaml", "manifest.json"])
def test_a_damaged_run_is_one_line_and_status_3_at_the_command(
    name: str, place: Path, tmp_path: Path, baq_here: Command
) -> None:
    run = Path(shutil.copytree(place / "online", tmp_path / "run"))
    path = run / name
    path.write_bytes(path.read_bytes().replace(b"0", b"1"))
    status, out, said = baq_here("report", run, "--out", tmp_path / "report")
    assert (status, out) == (ExitStatus.DATA, "")
    assert said.startswith(f"error: {path} is damaged")
    assert said.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_a_log_of_words_is_refused_before_anything_is_said_of_it(
    folder: Path, refused: Refused
) -> None:
    """A header of as many names as fit takes no longer than a file of that size does."""
    path = written(folder / "log.csv", ",".join(f"c{i}" for i in range(60_000)) + "\n1\n")
    assert "line 2 has 1 cells" in refused("data", "import", path, "--id", NEW, *BOUNDS)
