"""MLflow: a store of files in the run's folder, unless MLFLOW_TRACKING_URI names another."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from typing import Any

from baq_cli.runs.trackers.interface import Followed, Kept
from baq_cli.runs.trackers.scalars import Scalars, flat

FOLDER = "mlflow"
LONGEST = 5000
"""Characters of a parameter or tag, of which stores take no more than 6000 and 8000."""
MOST_METRICS, MOST_FACTS = 1000, 100
"""Entries of one batch."""


class Mlflow:
    """An MLflow run: scalars as metrics, the recipe as parameters, the manifest as tags.

    A resumed run keeps its run id. Stores take nothing back, so what one has of a metric at a step
    is not logged again; another value than that (an evaluation with other settings) is logged
    beside it, as the newer one. A parameter that changed becomes a tag `resumed.<key>`.
    """

    def __init__(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
        import mlflow
        from mlflow.tracking import MlflowClient

        self._entities: Any = mlflow.entities
        self._make: Any = MlflowClient
        self._known: dict[str, Counter[tuple[int, float]]] = {}

    def begin(self, run: Followed) -> Kept:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        store = re.sub("//[^/]*@", "//", uri) if uri else FOLDER  # without a password
        if not uri:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (run.folder / FOLDER).resolve().as_uri()
        self._client = self._make(tracking_uri=uri)
        self._resumed = run.kept.get("store") == store
        self._id = run.kept["run_id"] if self._resumed else self._create(run.name)
        self._client.update_run(self._id, status="RUNNING")
        self._describe(_texts(run.recipe), _texts(run.manifest))
        return {"store": store, "run_id": self._id}

    def _create(self, name: str) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "baq"
        known = self._client.get_experiment_by_name(experiment)
        if known is None:
            try:
                self._client.create_experiment(experiment)
            except Exception:  # another run made it in between
                if self._client.get_experiment_by_name(experiment) is None:
                    raise
            known = self._client.get_experiment_by_name(experiment)
        created: str = self._client.create_run(known.experiment_id, run_name=name).info.run_id
        return created

    def _describe(self, recipe: dict[str, str], manifest: dict[str, str]) -> None:
        before = self._client.get_run(self._id).data.params
        changed = {f"resumed.{k}": v for k, v in recipe.items() if before.get(k, v) != v}
        new = [self._entities.Param(k, v) for k, v in recipe.items() if k not in before]
        tags = [self._entities.RunTag(k, v) for k, v in (manifest | changed).items()]
        for part in _parts(new, MOST_FACTS):
            self._client.log_batch(self._id, params=part)
        for part in _parts(tags, MOST_FACTS):
            self._client.log_batch(self._id, tags=part)

    def log(self, scalars: Scalars) -> None:
        now = int(time.time() * 1000)
        metrics = [
            self._entities.Metric(name, value, now, scalars.step)
            for name, value in scalars.values.items()
            if not (self._resumed and self._has(name, value, scalars.step))
        ]
        for part in _parts(metrics, MOST_METRICS):
            self._client.log_batch(self._id, metrics=part)

    def _has(self, name: str, value: float, step: int) -> bool:
        """Return whether an earlier session logged this; each entry of the store answers once."""
        timing = "/wall_seconds/" in name  # differs when the same is done again
        if name not in self._known:
            history = self._client.get_metric_history(self._id, name)
            self._known[name] = Counter((m.step, 0.0 if timing else m.value) for m in history)
        entry = step, 0.0 if timing else value
        self._known[name][entry] -= 1
        return self._known[name][entry] >= 0

    def close(self, done: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if done else "KILLED")


def _texts(nested: dict[str, Any]) -> dict[str, str]:
    return {key: str(value)[:LONGEST] for key, value in flat(nested).items()}


def _parts(entries: list[Any], most: int) -> list[list[Any]]:
    return [entries[i : i + most] for i in range(0, len(entries), most)]
