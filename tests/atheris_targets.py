"""Fuzzing of the readers that follows their branches, where atheris is installed.

`python tests/atheris_targets.py TARGET [-max_total_time=60]`; `make torture` runs each for a while.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["baq_cli", "yaml"]):
    from baq_cli.agents.registry import method_configs
    from baq_cli.data.logs.mapping import read_mapping
    from baq_cli.engine.checkpoints.document import check_document
    from baq_cli.engine.checkpoints.tensors import DOCUMENT, DOCUMENT_SEAL, read_document
    from baq_cli.launch.journal import read_state
    from baq_cli.launch.matrix import parse_grid
    from baq_cli.recipes.load import parse_overrides, read_layer, resolve
    from baq_cli.report.external import read_curves
    from baq_cli.runs.files import hash_of, json_bytes
    from baq_cli.runs.folder import read_metrics

from baq_cli.errors import BaqError
from support.limits import little_memory

GIGABYTES = 3
FOLDER = Path(tempfile.mkdtemp())
FILE = FOLDER / "metrics.csv"
(FOLDER / "state.json").symlink_to(FILE)


def recipe(content: bytes) -> None:
    FILE.write_bytes(content)
    resolve([read_layer(FILE), {"algo": "baq"}], method_configs())


def overrides(content: bytes) -> None:
    words = content.decode(errors="replace").split("\n")
    parse_grid(words)
    resolve([parse_overrides(words), {"algo": "cql"}], method_configs())


def header(content: bytes) -> None:
    """A checkpoint's header, whose document is sealed: its writer can do that."""
    text = content.decode(errors="replace")
    sealed = {DOCUMENT: text, DOCUMENT_SEAL: hash_of(text.encode())}
    raw = json.dumps({"__metadata__": sealed}).encode()
    FILE.write_bytes(len(raw).to_bytes(8, "little") + raw)
    check_document(read_document(FILE), FILE)


def state(content: bytes) -> None:
    """A cell's state, sealed where it is JSON."""
    try:
        FILE.write_bytes(json_bytes(json.loads(content)))
    except (ValueError, TypeError, RecursionError):
        FILE.write_bytes(content)
    read_state(FOLDER)


def curves(content: bytes) -> None:
    FILE.write_bytes(b"dataset,algo,seed_index,phase,eval_index,return\n" + content)
    read_curves(FILE)


def metrics(content: bytes) -> None:
    FILE.write_bytes(content)
    read_metrics(FOLDER)


def mapping(content: bytes) -> None:
    FILE.write_bytes(content)
    read_mapping(FILE)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (recipe, overrides, header, state, curves, metrics, mapping)
}


SEEDS = {
    "recipe": b"seeds: [0, 1]\ndataset: a/b-v0\nshared: &s {hidden: [8]}\nbaq: {<<: *s, k_q: .5}\n",
    "overrides": b"cql.critics=3\nseeds=[1, 2]\nenv=null\nevaluation.episodes=4",
    "header": b'{"format": 2, "phase": "offline", "recipe": {"algo": "iql"}, "spaces": {}}',
    "state": b'{"stage": "running", "error": null, "status": null, "host": "h", "pid": 7}',
    "curves": b"h,iql,0,online,0,1.5\nh,iql,0,offline,1,-2e3\nh,baq,1,online,0,0\n",
    "metrics": b"phase,seed,gradient_steps,env_steps,episodes,return_mean,return_std,"
    b"length_env_steps,evaluation_episodes,wall_seconds\nonline,0,1,2,3,-1.5,0,9,1,0.25\n",
    "mapping": b"observation: [q_*]\naction: u\nreward: r\nterminated: t\naction_low: -1\n",
}


def lawful(content: bytes) -> None:
    """Any exception but ours ends the fuzzing, and is shown with what caused it."""
    try:
        TARGETS[sys.argv[1]](content)
    except BaqError as error:
        if error.status not in (2, 3):
            raise


if __name__ == "__main__":
    (FOLDER / "seeds").mkdir()
    (FOLDER / "seeds" / "first").write_bytes(SEEDS[sys.argv[1]])
    # libFuzzer's own limit counts what the process that started this one has ever held.
    options = [*sys.argv[2:], "-rss_limit_mb=0", str(FOLDER / "seeds")]
    atheris.Setup([sys.argv[0], *options], lawful)
    with little_memory(GIGABYTES):
        atheris.Fuzz()
