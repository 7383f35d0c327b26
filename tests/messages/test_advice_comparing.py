"""What comparing, reporting and deploying advise is done here to the letter, and helps."""

from __future__ import annotations

import json
import re
import shlex
import sys
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from baq_cli.envs.ref import EnvRef
from baq_cli.errors import UsageError
from support.advice import Terminal, follows, quoted
from support.commands import (
    ENV,
    LOG,
    ONLINE,
    SMALL,
    SMALLEST,
    compare,
    compared,
    log,
    pretrain,
    run,
)
from support.fake_slurm import fake_slurm

__all__ = ["compared", "log", "run"]
EXTRAS = {"parquet": "pyarrow", "ray": "ray", "slurm": "submitit", "onnx": "onnx"}
EXTRAS |= {"tune": "optuna"}
EXTRAS |= {"tensorboard": "tensorboard", "robotics": "gymnasium_robotics", "box2d": "Box2D"}


# -- what must be installed


@follows(
    ".parquet files need pyarrow: pip install 'baq-cli[parquet]'",
    "dataset '{}' is stored as {}, which needs pyarrow: pip install 'baq-cli[parquet]'",
    "--launcher ray needs Ray: pip install 'baq-cli[ray]'",
    "--launcher slurm needs submitit: pip install 'baq-cli[slurm]'",
    "baq tune needs Optuna: pip install 'baq-cli[tune]'",
    "--format {} needs the package {}: pip install 'baq-cli[{}]'",
    "tracking with {} needs a package that can't be imported: {}. Install it with: pip install ",
)
@pytest.mark.parametrize("extra", [*EXTRAS, "wandb", "mlflow"])
def test_an_extra_that_a_message_names_brings_the_package_that_was_missing(
    extra: str, terminal: Terminal, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = EXTRAS.get(extra, extra)
    (tmp_path / "log.parquet").write_bytes(b"")
    words: dict[str, list[Any]] = {
        "parquet": ["data", "import", tmp_path / "log.parquet", "--id", "me/log-v0"],
        "onnx": ["export", "--checkpoint", run, "--format", "onnx", "--out", tmp_path / "x.onnx"],
        "ray": compare(tmp_path / "c", "--launcher", "ray"),
        "slurm": compare(tmp_path / "c", "--launcher", "slurm"),
        "tune": ["tune", "--algo", "iql", "--dataset", LOG, "--search", "iql.beta=1..2",
                 "--report-seeds", "5,", "--seeds", "1,", "--out", tmp_path / "s"],
        "robotics": ["data", "collect", "me/maze-v0", "--behavior", "random", "--env-steps", "2",
                     "--env", "PointMaze_UMaze-v3"],
        "box2d": ["data", "collect", "me/land-v0", "--behavior", "random", "--env-steps", "2",
                  "--env", "LunarLanderContinuous-v3"],
    }  # fmt: skip
    tracked = pretrain("iql", tmp_path / "t", "--track", extra)
    wrapping = (package, "gymnasium.envs.box2d") if extra == "box2d" else (package,)
    for name in [n for n in sys.modules if any(f"{n}.".startswith(f"{w}.") for w in wrapping)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    if extra == "robotics":
        for name in [name for name in gym.registry if name.startswith("PointMaze")]:
            monkeypatch.delitem(gym.registry, name)
    status, _, said = terminal.run(*words.get(extra, tracked))
    assert status in (2, 3, 4)
    (named,) = re.findall(r"pip install 'baq-cli\[(\w+)\]'", said)
    requires = metadata("baq-cli").get_all("Requires-Dist") or []
    brought = [line for line in requires if line.endswith(f'extra == "{named}"')]
    brought += [line.replace("'", '"') for line in requires if f"extra == '{named}'" in line]
    lines = [line.lower().replace("-", "_") for line in brought]
    assert any(line.startswith(package.lower()) for line in lines), brought


# -- a matrix


@follows("a comparison needs a dataset: give --dataset ID ('baq data list')")
def test_a_comparison_gets_a_dataset_that_the_list_names(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    said = terminal.told(*compare(tmp_path / "c", dataset=None))
    assert LOG in terminal.done(*quoted(said, "baq data list"))
    terminal.done(*compare(tmp_path / "c"))


@follows("cannot read --grid {}: expected key.sub=value,value,…")
def test_a_grid_is_written_as_the_message_says(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    words = compare(tmp_path / "c", "--dry-run")
    said = terminal.told(*words, "--grid", "iql.expectile")
    form = said.rpartition("expected ")[2].rstrip(",…")
    asked = form.replace("key.sub", "iql.expectile").replace("value,value", "0.7,0.9")
    terminal.done(*words, "--grid", asked)


@follows(
    "--recipe {}: one of them is a matrix of recipes: give it alone",
    "{} recipes name their own datasets: expected no --dataset beside them",
)
def test_a_matrix_of_recipes_is_given_alone_and_recipes_without_a_dataset(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    matrix, one = tmp_path / "matrix.yaml", tmp_path / "one.yaml"
    one.write_text(f"dataset: {LOG}\n")
    matrix.write_text(f"compare: {{algos: [iql], recipes: [{one}]}}\n")
    words = ["compare", "--dry-run", "--out", str(tmp_path / "c"), *SMALLEST, "--recipe"]
    assert "give it alone" in terminal.told(*words, f"{matrix},{one}")
    terminal.done(*words, str(matrix))
    other = tmp_path / "other.yaml"
    other.write_text("dataset: me/other-v0\n")
    both = [*words, f"{one},{other}", "--algos", "iql"]
    assert "expected no --dataset" in terminal.told(*both, "--dataset", LOG)
    terminal.done(*words, str(one), "--algos", "iql")


@follows("--ablate {}: expected one of --algos whose parts can be taken away: {}")
def test_what_the_message_names_can_be_ablated(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    words = compare(tmp_path / "c", "--dry-run", algos="iql,baq")
    said = terminal.told(*words, "--ablate", "iql")
    assert "baq" in said.rpartition("taken away: ")[2]
    assert "align=false" in terminal.done(*words, "--ablate", "baq")


@follows(
    "--protocol matched: '{}' is {} of '{}' and {} of '{}'. Set {}.{} for all of them, or leave"
)
def test_matched_methods_get_a_value_together_or_are_not_matched(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    words = compare(tmp_path / "c", "--dry-run", algos="iql,awac")
    said = terminal.told(*words, "--protocol", "matched", "iql.critics=3")
    assert "Set shared.critics" in said
    terminal.done(*words, "--protocol", "matched", "shared.critics=3")
    terminal.done(*words, "iql.critics=3")


@follows("{} holds '{}' with another recipe: {}. Give the values it was begun with, or choose")
def test_a_matrix_goes_on_with_its_values_or_elsewhere(
    terminal: Terminal, compared: Path, tmp_path: Path
) -> None:
    terminal.told(*compare(compared, "iql.expectile=0.9"))
    terminal.done(*compare(compared))
    terminal.done(*compare(tmp_path / "other", "iql.expectile=0.9", "--dry-run"))


@follows("{} holds no comparison: expected the --out of a 'baq compare'")
def test_the_status_is_that_of_a_comparisons_folder(
    terminal: Terminal, compared: Path, tmp_path: Path
) -> None:
    assert "the --out of" in terminal.told("compare", "status", tmp_path, status=3)
    terminal.done("compare", "status", compared)


@follows("stopped by {}; finished and half-finished methods are saved. Continue with the same")
def test_a_stopped_comparison_continues_with_the_command_that_it_prints(
    terminal: Terminal, log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baq_cli.launch.local import Here
    from support.launching import ask_to_stop

    start = Here.start
    with monkeypatch.context() as patch:
        patch.setattr(Here, "start", lambda *given: (start(*given), ask_to_stop())[0])
        said = terminal.told(*compare(tmp_path / "c", "--workers", "2"), status=130)
    (command,) = re.findall(r"Continue with the same command: (baq compare .*)$", said)
    terminal.done(*shlex.split(command)[1:])


# -- where cells run


@follows("{} needs --launcher {}")
def test_an_option_of_a_launcher_is_given_with_that(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    words = compare(tmp_path / "c", "--dry-run", "--cpus", "1")
    said = terminal.told(*words)
    for launcher in said.rpartition("--launcher ")[2].split(" or "):
        terminal.done(*words, "--launcher", launcher)


@follows(
    "cannot read --slurm {}: expected KEY=VALUE", "use --cpus", "use --gpus",
    "--gpus {}: expected whole ones with --launcher slurm",
    "{} Use --launcher slurm where sbatch and srun are; '--slurm cluster=local' tries it in",
)  # fmt: skip
def test_slurms_options_are_given_as_the_messages_say(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baq_cli.launch.slurm import Slurm, parse_options

    with pytest.raises(UsageError, match="expected KEY=VALUE"):
        parse_options(["partition"])
    assert parse_options(["partition=gpu"]) == {"partition": "gpu"}
    with pytest.raises(UsageError, match="cluster=local") as refused:
        Slurm(tmp_path / "c")
    (option,) = re.findall(r"--slurm (cluster=\w+)", str(refused.value))
    Slurm(tmp_path / "c", options=parse_options([option]))
    with fake_slurm(tmp_path):
        Slurm(tmp_path / "c")
        for key, own, value in (("cpus_per_task", "cpus", 2), ("gpus_per_node", "gpus", 1)):
            with pytest.raises(UsageError, match=f"use --{own}"):
                Slurm(tmp_path / "c", options={key: value})
            Slurm(tmp_path / "c", **{own: value})
        with pytest.raises(UsageError, match="whole ones"):
            Slurm(tmp_path / "c", gpus=0.5)
        Slurm(tmp_path / "c", gpus=1)


@follows("Slurm takes no job for '{}': {}. Jobs that")
def test_a_job_that_slurm_refuses_is_submitted_by_the_same_command(
    folder: Path, tmp_path: Path
) -> None:
    from baq_cli.launch.drive import run_cells
    from baq_cli.launch.slurm import Slurm
    from support.launching import cells_in, own_data, stage

    with own_data() as place, fake_slurm(tmp_path) as jobs:
        cells = cells_in(place / "c", ["bc"])
        (jobs / "refuse").write_text("")
        with pytest.raises(UsageError, match="takes no job"):
            run_cells(cells, Slurm(place / "c"), lambda name, event: None)
        (jobs / "refuse").unlink()
        assert not run_cells(cells, Slurm(place / "c"), lambda name, event: None)
        assert stage(cells[0]) == "done"


# -- a report


@follows(
    "nothing to report: give a comparison's folder, runs, or --curves FILE",
    "give --out DIR: where the report goes",
    "{} holds neither a comparison nor a run: expected the --out of 'baq compare', 'baq pretrain'",
)
def test_a_report_is_of_what_the_messages_name(
    terminal: Terminal, compared: Path, run: Path, tmp_path: Path
) -> None:
    curves = tmp_path / "curves.csv"
    curves.write_text(
        "dataset,algo,seed_index,phase,eval_index,return\nd,a,0,online,0,1\nd,a,0,online,1,2\n"
    )
    assert "nothing to report" in terminal.told("report")
    terminal.done("report", compared)
    terminal.done("report", run, "--out", tmp_path / "a")
    assert "give --out" in terminal.told("report", "--curves", curves)
    terminal.done("report", "--curves", curves, "--out", tmp_path / "b")
    terminal.told("report", tmp_path, status=3)
    online = tmp_path / "online"
    terminal.done("finetune", "--checkpoint", run, "--out", online, *ONLINE, *SMALL[:3])
    terminal.done("report", online, "--out", tmp_path / "c")


@follows("the run in {} has not ended: continue it, then report it")
def test_a_run_under_way_is_continued_and_then_reported(
    terminal: Terminal, log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baq_cli.engine.updates.learner import Learner
    from support.launching import ask_to_stop

    compute = Learner.compute
    words = pretrain("iql", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "compute", lambda *a, **k: (ask_to_stop(), compute(*a, **k))[1])
        terminal.told(*words, status=130)
    report = ["report", str(tmp_path / "run"), "--out", str(tmp_path / "report")]
    assert "has not ended" in terminal.told(*report, status=3)
    terminal.done(*words, "--resume")
    terminal.done(*report)


@follows("{}: '{}' and '{}' can't be compared: {} is {} and {}. Run them with the same, or report")
def test_runs_that_cant_be_compared_are_run_alike_or_reported_apart(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    one, other, same = (tmp_path / name for name in ("one", "other", "same"))
    terminal.done(*pretrain("iql", one))
    terminal.done(*pretrain("awac", other, "evaluation.every_gradient_steps=1"))
    terminal.done(*pretrain("awac", same))
    report = ["report", "--out", str(tmp_path / "report")]
    assert "can't be compared" in terminal.told(*report, one, other)
    terminal.done(*report, one, same)
    terminal.done("report", other, "--out", tmp_path / "apart")


@follows(
    "{}: the returns of '{}' can't be put beside normalised scores, for want of a reference: ",
    "dataset '{}' has no reference scores{}: store them with '{} --dataset {}'",
    "a stored reference needs an expert too: give --checkpoint PATH",
    "{} no reference scores for {}: measure them with '{} --dataset ID', then name that dataset",
    "baq data score-reference {} --checkpoint PATH",
)
def test_references_are_measured_with_the_command_that_is_named(
    terminal: Terminal, run: Path, tmp_path: Path
) -> None:
    curves = tmp_path / "curves.csv"
    curves.write_text(
        "dataset,algo,seed_index,phase,eval_index,normalized_score\n"
        f"{LOG},other,0,offline,0,1\n{LOG},other,0,offline,1,2\n"
    )
    evaluate = ["eval", "--checkpoint", str(run), "--episodes", "1", "--reference"]
    kept = terminal.told(*evaluate, LOG)
    published = terminal.told(*evaluate, "d4rl")
    few = ["--episodes", "20"]
    assert "needs an expert" in terminal.told(
        "data", "score-reference", ENV, "--dataset", LOG, *few
    )
    expert = run
    for said in (kept, published):
        named = {"PATH": str(expert), "ID": LOG}
        command = [named.get(word, word) for word in quoted(said, "baq data score-reference")]
        status, _, answer = terminal.run(*command, *few)
        assert status == 0 or "is not above random's" in answer
    if status:  # a policy of four updates may be no expert
        from baq_cli.engine.collection import scoring

        measured = {"random": {"return_mean": -9.0, "return_std": 1.0, "episodes": 2}}
        measured["expert"] = measured["random"] | {"return_mean": -1.0, "policy": "made"}
        scoring.store_reference(LOG, EnvRef(ENV), measured)
    terminal.done(*evaluate, LOG)
    fresh = tmp_path / "fresh"
    terminal.done(*pretrain("iql", fresh))
    beside = ["--curves", curves, "--out", tmp_path / "report"]
    assert "for want of a reference" in terminal.told("report", run, *beside)
    terminal.done("report", run, f"fresh={fresh}", *beside)


@follows("; '--reference {}' is this tool's own")
def test_where_this_tool_has_references_of_its_own_they_are_named_and_taken(
    terminal: Terminal, run: Path
) -> None:
    evaluate = ["eval", "--checkpoint", run, "--env", "Pendulum-v1", "--episodes", "1"]
    said = terminal.told(*evaluate, "--reference", "d4rl")
    (name,) = quoted(said, "--reference")
    _, shown, _ = terminal.run(*evaluate, "--json", "--reference", name)
    returned, score = (json.loads(shown)[key] for key in ("return_mean", "score"))
    assert score["mean"] == pytest.approx(100 * (returned + 1302.79) / (1302.79 - 154.39))
    heavier = [*evaluate, "--env-arg", "g=5", "--reference"]
    for reference in ("baq", "d4rl"):  # they are of the environment as it is registered
        said = terminal.told(*heavier, reference)
        assert "for Pendulum-v1(g=5)" in said
        assert "this tool's own" not in said
        words = quoted(said, "baq data score-reference")
        assert words[2:5] == ["Pendulum-v1", "--env-arg", "g=5"]


# -- measuring


@follows(
    "--against measures offline updates: leave out --phase and --env",
    "'{}' has no {} phase: choose another, or leave it out",
    "'{}' has no counterpart here: choose among {}",
)
def test_a_benchmark_is_asked_for_as_the_messages_say(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baq_cli.bench import rival

    monkeypatch.setattr(rival, "prepared_environment", lambda note: Path("python"))
    asked: list[str] = []

    class Counterpart:
        def __init__(self, python: Path, algo: str, *rest: Any):
            asked.append(algo)

        def rate(self, what: str, seconds: float) -> float:
            return 1.0

        def close(self) -> None: ...

    monkeypatch.setattr(rival, "D3rlpy", Counterpart)
    quick = ["--seeds", "1", "--rounds", "1", "--seconds", "0.01", "--hidden", "8", "--batch", "8"]
    against = ["bench", "--algo", "iql", "--against", "d3rlpy", *quick]
    assert "leave out --phase" in terminal.told(*against, "--phase", "online")
    assert "has no online phase" in terminal.told(
        "bench", "--algo", "iql,bc", "--phase", "online", *quick
    )
    terminal.done("bench", "--algo", "iql", "--phase", "online", *quick)
    said = terminal.told("bench", "--algo", "enoto", "--against", "d3rlpy", *quick)
    for algo in said.rpartition("among ")[2].split(", "):
        terminal.done("bench", "--algo", algo, "--against", "d3rlpy", *quick, "--device", "cpu")
        assert asked[-1] == algo


# -- acting


@follows(
    "{} holds the seeds {}, not {}: choose among them",
    "device '{}', but PyTorch sees no CUDA device: use 'cpu'",
    "the way '{}' acts has no export: {}; use load_policy",
)
def test_a_policy_is_loaded_as_the_messages_say(
    terminal: Terminal, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from baq_cli import load_policy
    from baq_cli.agents.registry import METHODS

    with pytest.raises(UsageError, match="choose among") as refused:
        load_policy(run, seed=7)
    (held,) = re.findall(r"seeds \[(\d+)\]", str(refused.value))
    policy = load_policy(run, seed=int(held))
    assert policy(np.zeros(3)).shape == (1,)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(UsageError, match="use 'cpu'"):
            load_policy(run, device="cuda")
        load_policy(run, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(METHODS["iql"], "act", lambda agent, obs, _: -agent.policy.mode(obs))
        words = ["export", "--checkpoint", run, "--format", "torchscript", "--out"]
        assert "use load_policy" in terminal.told(*words, tmp_path / "policy.pt")
        np.testing.assert_allclose(load_policy(run)(np.ones(3)), -policy(np.ones(3)), atol=1e-6)


@follows("--device cuda, but PyTorch sees no CUDA device: use --device cpu or auto")
def test_a_device_that_is_here_is_used(
    terminal: Terminal, log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    terminal.told(*pretrain("bc", tmp_path / "a", "--device", "cuda"))
    for device in ("cpu", "auto"):
        terminal.done(*pretrain("bc", tmp_path / device, "--device", device))
