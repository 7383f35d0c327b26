"""What trackers hold of a run, read by each backend's own means, and what they should hold."""

from __future__ import annotations

import contextlib
import csv
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from baq_cli.recipes.schema import TrackerName
from baq_cli.runs.log import METRICS
from baq_cli.units import UNITS

Curves = dict[str, list[tuple[int, float]]]
"""Points, step and value, by name."""
NAMES: tuple[TrackerName, ...] = get_args(TrackerName)
MOVING = {"wall_seconds", "_timestamp", "_runtime"}
"""What differs between a run and its repetition."""
WRITTEN_SECONDS = 20.0
"""How long W&B may take to write what it was told."""


def rows_of(run: Path) -> Curves:
    """Return what a run's metrics.csv and diagnostics.csv say, by the names trackers use."""
    found: Curves = {}
    for log in ("metrics", "diagnostics"):
        with (run / f"{log}.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                phase, unit = row["phase"], UNITS[row["phase"]]  # type: ignore[index]
                if log == "metrics":
                    numbers = {f"{phase}/{key}": row[key] for key in METRICS[2:] if key != unit}
                else:
                    numbers = {f"diagnostics/{phase}/{row['name']}": row["value"]}
                for name, value in numbers.items():
                    points = found.setdefault(f"{name}/seed_{row['seed']}", [])
                    points.append((int(row[unit]), float(value)))
    return found


def single(curves: Curves) -> Curves:
    """Return curves with values as single precision keeps them."""
    return {
        name: [(step, float(np.float32(value))) for step, value in points]
        for name, points in curves.items()
    }


def by_seed(curves: Curves) -> Curves:
    """Return curves without means."""
    return {name: points for name, points in curves.items() if "/seed_" in name}


def still(named: dict[str, Any]) -> dict[str, Any]:
    """Return curves, or a row, without times."""
    return {name: found for name, found in named.items() if not MOVING & {*name.split("/")}}


# -- readers


def read(name: str, run: Path) -> Curves:
    readers = {"tensorboard": read_tensorboard, "wandb": read_wandb, "mlflow": read_mlflow}
    return readers[name](run)


def events_of(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()


def read_tensorboard(run: Path) -> Curves:
    events = events_of(run)
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def records_of(run: Path) -> list[Any]:
    """Return the records of the newest offline folder of W&B, once it has written that it ended.

    Its own process writes on for a moment after a run has told it to finish.
    """
    until = time.monotonic() + WRITTEN_SECONDS
    while True:
        found = _records_now(run)
        if any(record.HasField("exit") for record in found) or time.monotonic() > until:
            return found
        time.sleep(0.05)


def _records_now(run: Path) -> list[Any]:
    """Return the records that the newest offline folder of W&B holds.

    Its file is a LevelDB log: blocks of 32 KiB, records split at their ends, each part after a
    checksum, its length and its kind (1 whole, 2 first, 3 middle, 4 last). W&B has no reader of
    its own for Python, but for what a record says.
    """
    from wandb.proto import wandb_internal_pb2

    record: Any = vars(wandb_internal_pb2)["Record"]  # of which its types know nothing

    folder = max((run / "wandb").glob("offline-run-*"), key=lambda path: path.stat().st_mtime_ns)
    (file,) = folder.glob("*.wandb")
    data, at, parts = file.read_bytes(), 7, b""
    found = []
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if left < 7 or kind == 0:
            at += left
            continue
        if at + 7 + length > len(data):  # it is being written
            break
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            found.append(record.FromString(parts))
            parts = b""
    return found


def history_of(run: Path) -> list[dict[str, Any]]:
    """Return the rows that W&B holds."""
    return [
        {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
        for record in records_of(run)
        if record.HasField("history")
    ]


def read_wandb(run: Path) -> Curves:
    found: Curves = {}
    for row in history_of(run):
        for name in (key for key in row if not key.startswith("_") and key.count("/") > 1):
            phase = name.removeprefix("diagnostics/").partition("/")[0]
            step = row[f"{phase}/{UNITS[phase]}"]  # type: ignore[index]
            found.setdefault(name, []).append((step, row[name]))
    return found


def mlflow_run(run: Path) -> tuple[Any, Any]:
    """Return a client of a run's own store, and what that has of the run."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(run / "mlflow").resolve().as_uri())
    experiment = client.get_experiment_by_name("baq")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    return client, found


def read_mlflow(run: Path) -> Curves:
    client, found = mlflow_run(run)
    histories = {
        key: client.get_metric_history(found.info.run_id, key) for key in found.data.metrics
    }
    return {key: [(m.step, m.value) for m in history] for key, history in histories.items()}


# -- the network


PROXY_VERBS = ("CONNECT", "GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE", "PATCH")


def _first_line(client: socket.socket) -> str:
    """Return what a client asks a proxy for; nothing when it doesn't speak to a proxy.

    A process of another test may knock at a port that was once its own.
    """
    client.settimeout(2)
    with client, contextlib.suppress(OSError):
        return client.recv(300).split(b"\r\n")[0].decode("latin-1")
    return ""


@contextmanager
def no_network() -> Iterator[Callable[[], list[str]]]:
    """Refuse connections to other machines; yield what says which were tried so far.

    Processes that this one starts are led to a proxy that notes who comes.
    """
    tried: list[str] = []
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(("127.", "::1")):
            tried.append(str(address))
            raise ConnectionRefusedError(f"a test tried to reach {address}")
        connect(self, address)

    with socket.create_server(("127.0.0.1", 0)) as proxy, pytest.MonkeyPatch.context() as patch:
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            patch.setenv(name, url)
            patch.setenv(name.lower(), url)
        patch.delenv("NO_PROXY", raising=False)
        patch.delenv("no_proxy", raising=False)
        patch.setattr(socket.socket, "connect", local_only)
        proxy.setblocking(False)

        def tried_so_far() -> list[str]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    asked = _first_line(proxy.accept()[0])
                    if asked.split(" ")[0] in PROXY_VERBS:
                        tried.append(f"a process, by the proxy: {asked}")
            return tried

        yield tried_so_far
