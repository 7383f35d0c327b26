"""What a stranger might write where this program reads: refused in words, or read; never a fault.

5 000 cases here, forty times as many, and others each time, with BAQ_TORTURE=1 (`make torture`).
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from baq_cli.agents.registry import METHODS, method_configs
from baq_cli.data.logs.mapping import expand, expand_one, read_mapping
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.engine.checkpoints.tensors import tensor_bytes
from baq_cli.engine.phases.commands import run_finetune
from baq_cli.engine.phases.request import RunRequest
from baq_cli.errors import BaqError, DataError, ExitStatus
from baq_cli.launch.cells import load_cells, save_matrix
from baq_cli.launch.journal import Reader, read_progress, read_state, write_state
from baq_cli.launch.matrix import lay_out, parse_grid
from baq_cli.launch.standing import standing_of
from baq_cli.recipes.load import parse_overrides, read_layer, resolve
from baq_cli.recipes.schema import Recipe, RunConfig
from baq_cli.report.document import ReportInfo, build_document
from baq_cli.report.external import read_curves
from baq_cli.report.markdown import write_markdown
from baq_cli.report.method_runs import course_of
from baq_cli.report.page import write_page
from baq_cli.runs.checkpoints import complete
from baq_cli.runs.events import Evaluated, Note, Progress
from baq_cli.runs.files import json_bytes, read_json
from baq_cli.runs.folder import MATRIX, read_metrics
from baq_cli.units import UNITS
from support.attempts import attempt
from support.junk import FLOATS, JUNK, NUMBERS, SCALARS, WORDS, changed, deep
from support.limits import little_memory
from support.places import TESTS
from support.recordings import own_folders
from support.runs import execute, recipe_of
from support.small_data import collect_pendulum

pytestmark = pytest.mark.torture
TORTURE = bool(os.environ.get("BAQ_TORTURE"))
SECONDS = 20
"""How long one case may take, on any machine: a hang, not a slow moment."""
GIGABYTES = 3
DATASET = "made/pendulum-v0"


def cases(count: int) -> Callable[..., Any]:
    return settings(
        max_examples=count * (40 if TORTURE else 1),
        deadline=SECONDS * 1_000,
        derandomize=not TORTURE,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True)
def _limits() -> Iterator[None]:
    """Of each test anew: Hypothesis remembers what it has tried, gigabytes of it in the end."""
    with little_memory(GIGABYTES):
        yield


@dataclass(frozen=True)
class Made:
    """A folder for what is tried, and below `true` what it is made from."""

    place: Path
    true: Path
    recipe: Recipe

    @property
    def inside(self) -> Path:
        return self.place / "inside"


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    """A run of each phase with a running episode, and a comparison with a cell."""
    with own_folders() as folder:
        collect_pendulum(DATASET)
        true = folder / "true"
        asked = {"dataset": DATASET, "gradient_steps": 2, "env_steps": 3, "seeds": [0]}
        recipe = recipe_of("awac", {}, **asked)
        execute(recipe, true / "offline")
        source = ckpt.load(true / "offline")
        run_finetune(recipe, RunRequest(true / "online", lambda _: None, "baq", "baq"), source)
        layer = recipe.as_dict()
        (cell,) = lay_out([[layer]], ["awac"], {}, true / "matrix", "baq compare")
        save_matrix([cell], true / "matrix")
        write_state(cell.folder, "running")
        place = folder / "place"
        (place / "inside").mkdir(parents=True)
        yield Made(place, true, recipe)


def lawful(made: Made, call: Callable[[], Any], *statuses: int) -> None:
    """Read something: it is read, or refused in words; nothing is written outside the folder."""
    _, error = attempt(call)
    if error is not None:
        assert error.status in statuses, f"status {error.status}: {error}"
        assert 0 < len(str(error)) < 20_000
    assert os.listdir(made.place) == ["inside"]


# -- what is not what it should be


def mangled(texts: st.SearchStrategy[str], odd: str) -> st.SearchStrategy[str]:
    """Return texts with pieces put in, taken out and exchanged."""

    @st.composite
    def mangle(draw: st.DrawFn) -> str:
        text = draw(texts)
        for _ in range(draw(st.integers(0, 4))):
            at = draw(st.integers(0, len(text)))
            until = min(len(text), at + draw(st.integers(0, 5)))
            put = draw(st.text(odd, max_size=4) | WORDS | st.sampled_from(["9" * 400, '"']))
            text = text[:at] + put + text[until:]
        return text

    return mangle()


# -- recipes, overrides, grids

METHOD_KEYS = sorted({key for config in method_configs().values() for key in config.model_fields})
KEYS = st.sampled_from([*RunConfig.model_fields, *METHODS, "shared", "compare", *METHOD_KEYS])
VALUES = JUNK | st.lists(st.integers(-1, 3), max_size=3) | st.dictionaries(KEYS, SCALARS)
LAYERS = st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, max_size=4), max_size=5)
YAML_ODD = ":-{}[]&*!|>'\"%@`#,?\n\t 0.eE~<=\\"


def as_yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False))


RECIPES = mangled(LAYERS.map(as_yaml), YAML_ODD)
NINE = ",".join(["*a"] * 9)
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)


@cases(700)
@given(text=RECIPES, algo=st.sampled_from(sorted(METHODS)))
@example(text="seeds: 2001-99-99", algo="iql")  # PyYAML's own constructors raise anything
@example(text="env: !!timestamp x", algo="iql")
@example(text="seeds: [!!bool x]", algo="iql")
@example(text="seeds: [0b_]", algo="iql")
@example(text=f"gradient_steps: 0x{'f' * 9_000}", algo="iql")  # which can't be printed
@example(text="[" * 3_000, algo="iql")
@example(text=LAUGHS, algo="iql")
@example(text="&a [*a]", algo="iql")
@example(text='env: "\\ud800"', algo="iql")  # which can't be written
@example(text="env: 2001-01-01", algo="iql")
@example(text="compare: {grid: {seeds: [2001-01-01]}}", algo="iql")
@example(text="iql: {learning_rate: .inf}", algo="iql")
@example(text="iql: {reward_shift: .nan}", algo="iql")
@example(text="enoto: {hidden: [-3]}", algo="enoto")
@example(text="baq: {behavior_hidden: [0]}", algo="baq")
@example(text="iql: {hidden: [1000000000]}", algo="iql")
@example(text="threads: 100000000000000000000", algo="iql")
@example(text="dataset: ../../x", algo="iql")
@example(text="guard: {max_online_episodes_below: {episode: 1}}", algo="iql")  # perhaps a section
def test_recipes(made: Made, text: str, algo: str) -> None:
    path = made.inside / "recipe.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")

    def read() -> None:
        recipe = resolve([read_layer(path), {"algo": algo}], method_configs())
        assert resolve([recipe.as_dict()], method_configs()) == recipe

    lawful(made, read, ExitStatus.USAGE)


KEY_TEXTS = st.lists(KEYS | WORDS, min_size=1, max_size=4).map(".".join)
WORD_TEXTS = st.builds("{}={}".format, KEY_TEXTS, JUNK.map(json.dumps) | RECIPES)


@cases(700)
@given(words=st.lists(WORD_TEXTS | st.text(max_size=9), max_size=3))
@example(words=[".".join("a" * 2_000) + "=1"])  # as deep as it is long
@example(words=["iql.hidden=[1000000000]"])
@example(words=["seeds=[2001-01-01]"])
@example(words=["env={1: 2}"])
def test_overrides(made: Made, words: list[str]) -> None:
    lawful(
        made,
        lambda: resolve([parse_overrides(words), {"algo": "awac"}], method_configs()),
        ExitStatus.USAGE,
    )


@cases(250)
@given(words=st.lists(WORD_TEXTS, max_size=2))
@example(words=["iql.beta=2001-01-01"])  # which JSON can't hold
@example(words=["iql.hidden=" + ",".join(map(str, range(20_000)))])
@example(words=[f"iql.{key}=" + ",".join(["1"] * 50) for key in METHOD_KEYS])
def test_grids(made: Made, words: list[str]) -> None:
    def plan() -> None:
        layer = {"dataset": DATASET, "gradient_steps": 5}
        cells = lay_out([[layer]], ["iql", "awac"], parse_grid(words), made.inside, "baq")
        assert all(c.folder.resolve().is_relative_to(made.inside.resolve()) for c in cells)

    lawful(made, plan, ExitStatus.USAGE)


# -- checkpoints

AGENTS: dict[Path, ckpt.Checkpoint] = {}


def agent_of(run: Path) -> ckpt.Checkpoint:
    if run not in AGENTS:
        AGENTS[run] = ckpt.load(run)
    return AGENTS[run]


@cases(750)
@given(data=st.data(), phase=st.sampled_from(["offline", "online"]))
def test_headers_of_checkpoints(made: Made, data: st.DataObject, phase: str) -> None:
    saved = agent_of(made.true / phase)
    document = data.draw(changed(saved.document))
    path = made.inside / "agent.safetensors"
    path.write_bytes(tensor_bytes(saved.agent, document))
    lawful(made, lambda: ckpt.load_agent_file(path), ExitStatus.DATA)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("recipe", "awac", "hidden"), [10**9]),
        (("recipe", "awac", "hidden"), [60_000, 60_000]),
        (("recipe", "awac", "critics"), 1_000),
        (("spaces", "obs_dim"), 10**7),
        (("seeds",), list(range(9_999))),
        (("seeds",), list(range(10**5))),
        (("seeds",), [0, 0]),
        (("return_range",), [0, float("nan")]),
        (("return_range",), [0, "1"]),
        (("spaces", "action_low"), [float("-inf")]),
        (("spaces", "action_high"), [2, 2]),
        (("dataset", "id"), 3),
        (("history", 0, "return_mean"), "much"),
        (("env_id",), None),
        (("env_steps",), -1),
        (("algo",), "iql"),
        (("algo",), "nothing"),
        (("phase",), "offlime"),
        (("recipe",), deep(150)),
    ],
)
def test_a_header_that_claims_what_its_file_has_not_is_refused(
    made: Made, place: tuple[Any, ...], value: Any
) -> None:
    saved = agent_of(made.true / "online")
    document = copy.deepcopy(saved.document)
    *above, key = place
    owner = document
    for step in above:
        owner = owner[step]
    owner[key] = value
    path = made.inside / "agent.safetensors"
    path.write_bytes(tensor_bytes(saved.agent, document))
    with pytest.raises(BaqError) as caught:
        ckpt.load_agent_file(path)
    assert caught.value.status == ExitStatus.DATA
    assert str(path) in str(caught.value)


TENSORS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "BF16", "U8", "I64", "F4", "F8_E8M0", "C64", "Q"]),
        "shape": st.lists(NUMBERS, max_size=3),
        "data_offsets": st.lists(st.sampled_from([0, 4, 8, 64]) | NUMBERS, max_size=3),
    }
)
HEADERS = st.dictionaries(WORDS, TENSORS | JUNK, max_size=3)


@cases(250)
@given(header=HEADERS, size=st.sampled_from([0, 4, 64]), claimed=st.none() | NUMBERS)
@example({"a": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 4]}}, 4, None)
@example({"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}, 4, None)
@example({"a": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}, 4, None)
def test_tensors(made: Made, header: Any, size: int, claimed: int | None) -> None:
    text = json.dumps(header).encode()
    length = len(text) if claimed is None else claimed % 2**64
    path = made.inside / "training.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + text + bytes(size))
    lawful(made, lambda: ckpt.read_tensors(path), ExitStatus.DATA)


@cases(350)
@given(data=st.data())
def test_states_of_checkpoints(made: Made, data: st.DataObject) -> None:
    saved = agent_of(made.true / "online")
    assert saved.folder is not None
    run = made.inside / "run"
    folder = run / "checkpoints" / saved.folder.name
    if not folder.exists():
        shutil.copytree(saved.folder, folder)
    state = data.draw(changed(saved.state))
    (folder / "state.json").write_bytes(json_bytes(state))
    lawful(made, lambda: ckpt.load_newest(run, lambda _: None), ExitStatus.DATA)


JSON_TEXTS = mangled((JUNK | st.just({"a": [1, {"b": 2.5}]})).map(json.dumps), '{}[],:"\\ue019-. ')


@cases(350)
@given(text=JSON_TEXTS)
@example(text="[" * 100_000)
@example(text='{"a": ' * 120 + "1" + "}" * 120)
@example(text='{"a": ' + "9" * 5_000 + "}")
@example(text='{"a": "\\ud800"}')
def test_json(made: Made, text: str) -> None:
    path = made.inside / "state.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    lawful(made, lambda: read_json(path), ExitStatus.DATA)


# -- comparisons and runs

CELL_FILES = ("cell.json", "state.json")


@cases(200)
@given(data=st.data(), name=st.sampled_from([MATRIX, *CELL_FILES]))
def test_comparisons(made: Made, data: st.DataObject, name: str) -> None:
    out, true = made.inside / "matrix", made.true / "matrix"
    if not out.exists():
        shutil.copytree(true, out)
    (cell,) = load_cells(true)
    places = {MATRIX: Path(MATRIX), **{n: cell.folder.relative_to(true) / n for n in CELL_FILES}}
    for place in places.values():
        shutil.copyfile(true / place, out / place)
    path = out / places[name]
    path.write_bytes(json_bytes(data.draw(changed(read_json(path)))))

    def look() -> None:
        for cell in load_cells(out):
            assert cell.folder.resolve().is_relative_to(out.resolve())
            read_state(cell.folder)
            json.dumps(asdict(standing_of(cell)))

    lawful(made, look, ExitStatus.DATA)


@pytest.mark.parametrize("folder", [{"x" * 20_000: None}, "x" * 20_000, "a\0b", "../..", 3])
def test_a_cells_folder_is_a_name_within_the_comparisons(made: Made, folder: Any) -> None:
    out = made.inside / "named"
    out.mkdir(exist_ok=True)
    (out / MATRIX).write_bytes(json_bytes({"cells": [{"folder": folder}]}))
    with pytest.raises(DataError) as caught:
        load_cells(out)
    assert len(str(caught.value)) < 1_000


@cases(100)
@given(text=JSON_TEXTS, data=st.data())
def test_what_watchers_read(made: Made, text: str, data: st.DataObject) -> None:
    """Nothing depends on events and progress: what can't be read is passed over."""
    progress = asdict(Progress("offline", 1, 2, 1, 5.0, 0.5))
    (made.inside / "events.jsonl").write_text(f"{text}\n", encoding="utf-8", errors="replace")
    (made.inside / "progress.json").write_text(json.dumps(data.draw(changed(progress))))
    for event in Reader(made.inside).new():
        assert isinstance(event, Note | Evaluated | Progress)
    Reader(made.inside)
    found = read_progress(made.inside)
    if found is not None:
        shown = f"{found.done:,} {UNITS[found.phase]} {found.seconds_left:.0f}"
        assert shown.split()[1] in UNITS.values()


@cases(150)
@given(data=st.data())
def test_manifests(made: Made, data: st.DataObject) -> None:
    run = made.inside / "finished"
    if not run.exists():
        shutil.copytree(made.true / "online", run)
    true = read_json(made.true / "online" / "manifest.json")
    (run / "manifest.json").write_bytes(json_bytes(data.draw(changed(true))))
    lawful(made, lambda: reported(run), ExitStatus.DATA, ExitStatus.USAGE)


def reported(run: Path) -> None:
    """Write what a report of a run says, without its figures."""
    document = build_document([course_of([run])], ReportInfo())
    json.dumps(document, allow_nan=False)
    write_markdown(document, run / "report.md")
    write_page(document, run / "report.html")


@cases(50)
@given(data=st.data())
def test_recipes_of_finished_runs(made: Made, data: st.DataObject) -> None:
    run, true = made.inside / "recipes", made.true / "online"
    if not run.exists():
        shutil.copytree(true, run)
        unsealed = {**read_json(true / "manifest.json"), "files": {}}
        (run / "manifest.json").write_bytes(json_bytes(unsealed))
    recipe = data.draw(changed(yaml.safe_load((true / "recipe.yaml").read_text())))
    try:
        text = yaml.safe_dump(recipe)
    except ValueError:  # of what no file could hold
        return
    (run / "recipe.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    lawful(made, lambda: reported(run), ExitStatus.DATA, ExitStatus.USAGE)


@cases(50)
@given(data=st.data())
def test_runs_that_are_continued_from_what_a_stranger_wrote(
    made: Made, data: st.DataObject
) -> None:
    """Whatever is taken for a checkpoint can be gone on from, to the end."""
    run, true = made.inside / "continued", made.true / "online"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(true, run)
    for folder in complete(run)[:-1]:
        shutil.rmtree(folder)
    (folder,) = complete(run)
    state = data.draw(changed(read_json(folder / "state.json")))
    (folder / "state.json").write_bytes(json_bytes(state))

    def go_on() -> None:
        try:
            execute(made.recipe, run, resume=True, source=made.true / "offline")
        finally:
            torch.set_flush_denormal(False)  # Hypothesis needs them

    lawful(made, go_on, ExitStatus.DATA, ExitStatus.USAGE, ExitStatus.NON_FINITE)


LINES = st.lists(SCALARS.map(str) | st.sampled_from(["offline", "online", "0", "1"]), max_size=11)
SHEETS = st.lists(LINES.map(",".join), max_size=6).map("\n".join)
CURVE = "dataset,algo,seed_index,phase,eval_index,return,gradient_steps,env_steps\n"
METRIC = (
    "phase,seed,gradient_steps,env_steps,episodes,return_mean,return_std,length_env_steps,"
    "evaluation_episodes,wall_seconds\n"
)
GOOD = "".join(f"h,iql,{s},online,{i},{i}.5,{i},{i}\n" for s in (0, 1) for i in (0, 1))
CSV_ODD = ",\n\r\"'0123456789eE-+.naif\x00"


@cases(750)
@given(text=mangled(st.just(CURVE + GOOD) | SHEETS.map(CURVE.__add__) | SHEETS, CSV_ODD))
@example(text=",".join(["x" * 5_000] * 4))  # which no message repeats
@example(text=CURVE + "x" * 200_000 + ",iql,0,online,0,1,1,1\n")
@example(text=CURVE + f"h,iql,{'9' * 5_000},online,0,1,1,1\n")
@example(text=CURVE + f"h,iql,0,online,0,1,1,{'9' * 400}\n")
@example(text=CURVE + "h,iql,0,online,0,1e308,1,1\n")
@example(text=CURVE + "h,iql,0,online,0\n")
@example(text="algo,seed_index,phase,eval_index,return,dataset\niql,0,online,0,1\n")
def test_curves(made: Made, text: str) -> None:
    path = made.inside / "curves.csv"
    path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")

    def read() -> None:
        for course in read_curves(path):
            for curve in course.curves.values():
                assert np.isfinite(curve.returns).all()
                assert curve.returns.dtype == np.float64
                assert curve.counters.dtype.kind == "i"

    lawful(made, read, ExitStatus.DATA)


@cases(250)
@given(text=mangled(SHEETS.map(METRIC.__add__) | SHEETS, CSV_ODD))
@example(text=METRIC + "offline,nan,1,1,1,1,1,1,1,1\n")
@example(text=METRIC + "x" * 200_000 + "\n")
def test_metrics_of_a_run_that_goes_on(made: Made, text: str) -> None:
    run = made.inside / "going on"
    run.mkdir(exist_ok=True)
    path = run / "metrics.csv"
    path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    lawful(made, lambda: read_metrics(run), ExitStatus.DATA)


# -- imports

COLUMNS = [f"q_{i}" for i in range(12)] + ["u", "r", "done", "[a]", "*"]
NAMES = st.sampled_from([*COLUMNS, "q_*", "*", "?", "[", "[!a]*", "a*" * 12 + "b"]) | WORDS
MAPPING_KEYS = st.sampled_from(
    ["observation", "action", "reward", "terminated", "truncated", "episode", "env", "action_low"]
)
MAPPINGS = st.fixed_dictionaries(
    {"observation": NAMES | st.lists(NAMES, max_size=3), "action": NAMES, "reward": NAMES},
    optional={"terminated": NAMES, "action_low": FLOATS | st.lists(FLOATS, max_size=3)},
) | st.dictionaries(MAPPING_KEYS | WORDS, JUNK | NAMES, max_size=5)


@cases(400)
@given(text=mangled(MAPPINGS.map(as_yaml), YAML_ODD))
@example(text=LAUGHS)
@example(text="observation: [" + "*a, " * 30 + "]")
@example(text="? [a]\n: b")
@example(text='reward: "\\U99999999"')  # a letter beyond all letters
def test_mappings(made: Made, text: str) -> None:
    path = made.inside / "mapping.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")

    def read() -> None:
        mapping = read_mapping(path)
        if isinstance(mapping.reward, str):
            expand_one(mapping.reward, COLUMNS)
        for names in (mapping.observation or (), mapping.action or ()):
            for each in names.values() if isinstance(names, dict) else (names,):
                assert set(expand(each, COLUMNS)) <= set(COLUMNS)

    lawful(made, read, ExitStatus.USAGE)


# -- where atheris is installed

READERS = ("recipe", "overrides", "header", "state", "curves", "metrics", "mapping")


@pytest.mark.skipif(not TORTURE, reason="takes a minute a reader: BAQ_TORTURE=1")
@pytest.mark.parametrize("reader", READERS)
def test_what_reaches_new_branches_of_a_reader_is_no_fault_either(
    reader: str, tmp_path: Path
) -> None:
    pytest.importorskip("atheris", reason="pip install atheris, where it installs")
    script = TESTS / "atheris_targets.py"
    options = ("-max_total_time=60", "-max_len=2000", f"-artifact_prefix={tmp_path}/")
    done = subprocess.run(
        [sys.executable, script, reader, *options], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3_000:]
