"""Trackers hold the run's own rows, and no tracker can change or end a run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from baq_cli.cli.finetune import inherited
from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.phases.commands import run_finetune, run_pretrain
from baq_cli.engine.phases.online import OnlineLoop
from baq_cli.engine.phases.request import RunRequest
from baq_cli.errors import ExitStatus, Interrupted, UsageError
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.events import Event, Note
from baq_cli.runs.trackers.interface import Followed
from baq_cli.runs.trackers.mlflow import Mlflow
from baq_cli.runs.trackers.scalars import Scalars, metric_scalars
from baq_cli.runs.trackers.tensorboard import TensorBoard
from baq_cli.runs.trackers.wandb import Wandb
from support.cli import SMALL, baq_json
from support.recordings import ID, own_folders
from support.runs import assert_same_end, assert_same_logs, recipe_of, states, stopped_at
from support.small_data import write_pendulum
from support.tracked import (
    NAMES,
    by_seed,
    events_of,
    history_of,
    mlflow_run,
    no_network,
    read,
    records_of,
    rows_of,
    single,
    still,
)

EVERY, ENV_STEPS, GRADIENT_STEPS = 16, 48, 240
UTD = {"warmup_env_steps": 4, "utd": 10}
"""Enough updates for diagnostics, which are read every hundred, to fall between evaluations."""
SETTINGS = (
    *("WANDB_MODE", "WANDB_PROJECT", "WANDB_NAME", "WANDB_RESUME", "WANDB_DIR"),
    *("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"),
)


def recipe(*track: str, **run: Any) -> Recipe:
    watched = {"every_env_steps": EVERY, "every_gradient_steps": GRADIENT_STEPS // 2}
    place = {"dataset": ID, "env": "Pendulum-v1", "gradient_steps": GRADIENT_STEPS}
    place |= {"env_steps": ENV_STEPS, "track": list(track)} | run
    return recipe_of(
        "iql", UTD, **place, evaluation={"episodes": 1, "background": False, **watched}
    )


def follow(asked: Recipe, out: Path, source: Path | None = None, resume: bool = False) -> list[str]:
    """Pre-train, or fine-tune what a run pre-trained; return the notes that an observer heard."""
    notes: list[str] = []

    def observe(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    order = RunRequest(out, observe, "baq", "baq --resume", resume)
    if source is None:
        run_pretrain(asked, order)
    else:
        run_finetune(asked, order, load(source))
    return notes


class Runs(NamedTuple):
    """The same runs without trackers and with all of them; fine-tuned is what was pre-trained."""

    source: Path
    offline: Path
    plain: Path
    online: Path
    tried: Callable[[], list[str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    out = tmp_path_factory.mktemp("runs")
    with own_folders(), no_network() as tried, pytest.MonkeyPatch.context() as patch:
        for name in SETTINGS:
            patch.delenv(name, raising=False)
        write_pendulum(ID)
        made = Runs(out / "source", out / "offline", out / "plain", out / "online", tried)
        follow(recipe(), made.source)
        follow(recipe(*NAMES), made.offline)
        follow(recipe(), made.plain, made.source)
        follow(recipe(*NAMES), made.online, made.source)
        yield made


def same(name: str, found: Any, run: Path) -> bool:
    """Whether a tracker's curves are a run's rows; TensorBoard keeps single precision."""
    expected = rows_of(run)
    return bool(by_seed(found) == (single(expected) if name == "tensorboard" else expected))


# -- what is logged


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_holds_the_rows_of_both_logs_and_nothing_else(name: str, runs: Runs) -> None:
    assert same(name, read(name, runs.offline), runs.offline)
    found = read(name, runs.online)
    assert same(name, found, runs.online)
    assert [step for step, _ in found["offline/return_mean/seed_1"]] == [120, 240]
    assert [step for step, _ in found["online/return_mean/seed_1"]] == [0, 16, 32, 48]
    assert [step for step, _ in found["diagnostics/online/loss_critic/seed_0"]] == [16, 32, 48]


@pytest.mark.parametrize("name", NAMES)
def test_every_curve_has_its_mean_over_seeds(name: str, runs: Runs) -> None:
    found, expected = read(name, runs.online), rows_of(runs.online)
    means = {curve.rpartition("/")[0] for curve in found if curve.endswith("/mean")}
    assert means == {curve.rpartition("/")[0] for curve in expected}
    for curve in means:
        seeds = [[value for _, value in expected[f"{curve}/seed_{seed}"]] for seed in (0, 1)]
        values = [value for _, value in found[f"{curve}/mean"]]
        assert values == pytest.approx(np.mean(seeds, axis=0), rel=1e-6), curve


def test_recipe_and_manifest_are_told(runs: Runs) -> None:
    manifest = json.loads((runs.online / "manifest.json").read_text())
    sha = manifest["dataset"]["sha256"]
    _, found = mlflow_run(runs.online)
    assert found.data.params["iql.utd"] == "10"
    assert found.data.params["seeds"] == "[0, 1]"
    assert found.data.tags["dataset.sha256"] == sha
    assert found.data.tags["versions.torch"] == manifest["versions"]["torch"]
    assert found.info.status == "FINISHED"
    (record,) = (record.run for record in records_of(runs.online) if record.HasField("run"))
    config = {entry.key: json.loads(entry.value_json) for entry in record.config.update}
    assert config["iql"]["utd"] == 10
    assert config["manifest"]["dataset"]["sha256"] == sha
    events = events_of(runs.online)
    assert sha in str(events.Tensors("manifest/text_summary")[0].tensor_proto.string_val)
    start = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    assert b"iql.utd" in start


def test_rows_of_an_earlier_run_at_the_same_counter_are_kept_apart() -> None:
    row = dict.fromkeys(("gradient_steps", "env_steps", "episodes", "evaluation_episodes"), 0)
    row |= dict.fromkeys(("return_std", "length_env_steps", "wall_seconds"), 0.0)
    rows = [row | {"phase": "online", "seed": 0, "return_mean": value} for value in (1.0, 2.0)]
    found = metric_scalars(rows)
    assert [moment.values["online/return_mean/mean"] for moment in found] == [1.0, 2.0]


# -- resuming


def gone_on(runs: Runs, parts: Path) -> None:
    """A run that died after its first checkpoint; its logs and trackers have gone on.

    Its clock ran ahead of the one it resumes by.
    """
    stopped_at(runs.online, next(iter(states(runs.online))), parts)
    (events,) = (parts / "tensorboard").glob("events.*")
    events.rename(events.with_name("events.out.tfevents.9999999999.elsewhere.1.0"))


def interrupted(runs: Runs, parts: Path) -> None:
    """A run that was asked to stop between two evaluations."""
    step = OnlineLoop.step

    def stopping(loop: OnlineLoop) -> None:
        step(loop)
        if loop.run.env_steps == EVERY + 4:
            loop.run.interruption.requested = "SIGTERM"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnlineLoop, "step", stopping)
        with pytest.raises(Interrupted):
            follow(recipe(*NAMES), parts, runs.source)
    assert mlflow_run(parts)[1].info.status == "KILLED"


def unfollowed(runs: Runs, parts: Path) -> None:
    """A run that nothing followed, stopped at its first checkpoint."""
    stopped_at(runs.plain, next(iter(states(runs.plain))), parts)


@pytest.mark.parametrize("stop", [gone_on, interrupted, unfollowed])
def test_stopped_and_resumed_shows_what_an_uninterrupted_run_shows(
    stop: Callable[[Runs, Path], None], runs: Runs, tmp_path: Path
) -> None:
    parts = tmp_path / "parts"
    stop(runs, parts)
    kept = parts / "trackers.json"
    before = kept.read_text() if kept.exists() else None
    follow(recipe(*NAMES), parts, runs.source, resume=True)
    assert_same_end(runs.plain, parts)
    for name in NAMES:
        found = read(name, parts)
        assert still(found) == still(read(name, runs.online)), name
        counts = [
            {curve: len(points) for curve, points in f.items()} for f in (found, rows_of(parts))
        ]
        assert by_seed(counts[0]) == counts[1], f"{name} has no time twice"  # type: ignore[arg-type]
        if name != "mlflow":  # which keeps the times it was given first
            assert same(name, found, parts)
    assert before is None or kept.read_text() == before, "the same runs go on"
    assert mlflow_run(parts)[1].info.status == "FINISHED"
    assert [still(row) for row in history_of(parts)] == [still(r) for r in history_of(runs.online)]


def test_another_result_after_a_resume_is_the_newest(runs: Runs, tmp_path: Path) -> None:
    gone_on(runs, parts := tmp_path / "parts")
    evaluation = {"episodes": 2, "every_env_steps": EVERY, "background": False}
    asked = recipe(*NAMES, keep_checkpoints=3)
    run = asked.run.model_copy(update={"evaluation": type(asked.run.evaluation)(**evaluation)})
    follow(Recipe(run, asked.method), parts, runs.source, resume=True)
    last = rows_of(parts)["online/return_mean/seed_0"][-1]
    assert last[1] != rows_of(runs.online)["online/return_mean/seed_0"][-1][1]
    assert same("tensorboard", read("tensorboard", parts), parts)
    assert same("wandb", read("wandb", parts), parts)
    _, found = mlflow_run(parts)
    assert found.data.metrics["online/return_mean/seed_0"] == last[1]
    assert found.data.tags["resumed.evaluation.episodes"] == "2"


def test_rows_that_a_server_has_are_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which rows those are, W&B says by the step that a resumed run goes on from."""
    import wandb

    asked: dict[str, Any] = {}
    sent: list[tuple[int, float]] = []

    class Server:
        starting_step = 2

        def log(self, row: dict[str, float], step: int, commit: bool) -> None:
            sent.append((step, row["online/env_steps"]))

        def define_metric(self, *_: Any, **__: Any) -> None: ...

    def init(**settings: Any) -> Server:
        asked.update(settings)
        return Server()

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "init", init)
    tracker = Wandb()
    assert tracker.begin(Followed(tmp_path, {}, {}, {"id": "before"})) == {"id": "before"}
    for i in range(4):
        tracker.log(Scalars("online", 10 * i, 0, {}))
    assert (asked["mode"], asked["resume"], asked["id"]) == ("online", "allow", "before")
    assert sent == [(2, 20), (3, 30)]


# -- failing


def test_a_tracker_that_fails_is_dropped_with_one_note_and_changes_nothing(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def failing(self: Any, scalars: Any) -> None:
        calls.append(scalars.step)
        if len(calls) == 4:
            raise RuntimeError("the disk of TensorBoard\nis full")

    monkeypatch.setattr(TensorBoard, "log", failing)
    notes = follow(recipe("tensorboard", "mlflow"), tmp_path / "run", runs.source)
    (said,) = [note for note in notes if "tensorboard" in note]
    assert "no longer follows this run: RuntimeError: the disk of TensorBoard is full" in said
    assert len(calls) == 4, "it isn't called again"
    assert_same_end(runs.plain, tmp_path / "run")
    assert same("mlflow", read("mlflow", tmp_path / "run"), tmp_path / "run")


def test_a_tracker_that_does_not_begin_is_dropped_too(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at.all")
    notes = follow(recipe("mlflow"), tmp_path / "run", runs.source)
    assert sum("mlflow no longer follows this run" in note for note in notes) == 1
    assert_same_end(runs.plain, tmp_path / "run")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_extra_is_named_before_anything_is_written(
    name: str,
    folder: Path,
    baq_here: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    words = ("--algo", "iql", "--track", name, "--out", folder / "run", *SMALL)
    for command in (
        ("pretrain", "--dataset", "baq/pendulum/medium-v0"),
        ("finetune", "--env", "x"),
    ):
        if command[0] == "finetune":
            command, words = ("finetune", "--env", "Pendulum-v1", "--algo", "sac"), words[2:]
        status, out, said = baq_here(*command, *words)
        assert (status, out) == (ExitStatus.USAGE, "")
        assert f"pip install 'baq-cli[{name}]'" in said.replace("\n", " ")
    assert sorted(path.name for path in folder.rglob("*")) == ["datasets", "minari"]


# -- choosing


def test_nothing_is_imported_or_kept_when_nothing_is_asked(tmp_path: Path) -> None:
    words = ["finetune", "--env", "Pendulum-v1", "--algo", "sac", "--env-steps", "3", *SMALL]
    code = (
        "import sys\n"
        "from baq_cli.cli import main\n"
        f"sys.argv = ['baq', *{words!r}, '--out', {str(tmp_path / 'run')!r}]\n"
        "try:\n    main.main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print(sorted({set(NAMES)!r} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert not names & {"trackers.json", *NAMES}


def test_trackers_chosen_by_a_flag_leave_stdout_to_results_and_the_network_alone(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS", "JENKINS_URL"):
        monkeypatch.delenv(name, raising=False)  # packages report nothing where these are set
    words = ("finetune", "--env", "Pendulum-v1", "--algo", "sac", "--env-steps", "3", *SMALL)
    out = tmp_path / "run"
    assert baq_json(*words, "--track", "tensorboard, wandb,mlflow", "--out", out, data=tmp_path)
    for name in NAMES:
        assert same(name, read(name, out), out)
    assert runs.tried() == [], "neither this process nor that one looked for the network"


def test_what_the_user_has_set_decides_where_a_run_goes(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    out = tmp_path / "run"
    notes = follow(recipe("mlflow", "wandb"), out, runs.source)
    assert not [note for note in notes if "no longer" in note]
    assert same("mlflow", read("mlflow", tmp_path), out)
    assert not (out / "mlflow").exists()
    assert not list(out.glob("wandb/*run-*"))


def test_a_password_in_an_address_is_not_kept(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Store:
        def __init__(self, tracking_uri: str) -> None:
            assert "secret" in tracking_uri

        def get_experiment_by_name(self, name: str) -> Any:
            return SimpleNamespace(experiment_id="0")

        def create_run(self, experiment_id: str, run_name: str) -> Any:
            return SimpleNamespace(info=SimpleNamespace(run_id="id"))

        def get_run(self, run_id: str) -> Any:
            return SimpleNamespace(data=SimpleNamespace(params={}))

        def update_run(self, run_id: str, status: str) -> None: ...

    monkeypatch.setattr("mlflow.tracking.MlflowClient", Store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@store.example/base")
    kept = Mlflow().begin(Followed(tmp_path, {}, {}, {}))
    assert kept == {"store": "https://store.example/base", "run_id": "id"}


def test_an_unknown_tracker_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"'tensorboard', 'wandb' or 'mlflow', found 'tensorbord'"):
        recipe("tensorbord")


def test_fine_tuning_does_not_inherit_the_trackers_of_pre_training(runs: Runs) -> None:
    (layer,) = inherited(load(runs.offline), None, {})
    assert layer["iql"]["utd"] == 10
    assert "track" not in layer


def test_a_resumed_run_may_be_followed_no_longer(runs: Runs, tmp_path: Path) -> None:
    gone_on(runs, parts := tmp_path / "parts")
    shutil.rmtree(parts / "tensorboard")
    follow(recipe(), parts, runs.source, resume=True)
    assert_same_logs(runs.plain, parts)
    assert not (parts / "tensorboard").exists()
