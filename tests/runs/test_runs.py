"""Runs end to end, as a user starts, stops and continues them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from baq_cli.errors import ExitStatus
from support.cli import SMALL, baq, baq_json

DATASET = "made/pendulum-v0"
PRETRAIN = (
    *("pretrain", "--dataset", DATASET, "--algo", "baq", "--seeds", "2"),
    *("--gradient-steps", "60", "evaluation.every_gradient_steps=20", *SMALL),
    "baq.behavior_hidden=[16,16]",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("minari")
    words = ("--env", "Pendulum-v1", "--behavior", "random", "--env-steps", "600")
    baq("data", "collect", DATASET, *words, data=folder)
    return folder


@pytest.fixture(scope="module")
def pretrained(data: Path) -> Path:
    run = data / "runs" / "offline"
    baq(*PRETRAIN, "--out", run, data=data)
    return run


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def same_tensors(a: Path, b: Path) -> bool:
    first, second = safetensors.torch.load_file(a), safetensors.torch.load_file(b)
    return first.keys() == second.keys() and all(
        torch.equal(first[k], second[k]) or bool((first[k] != first[k]).any()) for k in first
    )


def agent_file(run: Path) -> Path:
    return run / "checkpoints" / (run / "checkpoints" / "latest").read_text() / "agent.safetensors"


def test_a_run_directory_holds_what_the_design_says(pretrained: Path) -> None:
    for name in ("recipe.yaml", "manifest.json", "metrics.csv", "curves.png", "curves.svg"):
        assert (pretrained / name).stat().st_size > 0, name
    assert (pretrained / "recipe.yaml").read_text().startswith("# baq pretrain")
    manifest = json.loads((pretrained / "manifest.json").read_text())
    assert len(manifest["dataset"]["sha256"]) == 64
    assert manifest["environment"]["id"] == "Pendulum-v1"
    assert {"torch", "gymnasium", "minari", "python"} <= manifest["versions"].keys()
    assert manifest["ended"] >= manifest["started"]
    folder = agent_file(pretrained).parent
    assert {p.name for p in folder.iterdir()} == {
        *("agent.safetensors", "training.safetensors", "state.json")
    }
    assert [r["gradient_steps"] for r in rows(pretrained)] == ["20", "20", "40", "40", "60", "60"]


def test_finetune_takes_a_run_a_folder_or_a_lone_file(
    pretrained: Path, data: Path, tmp_path: Path
) -> None:
    lone = tmp_path / "agent.safetensors"
    lone.write_bytes(agent_file(pretrained).read_bytes())
    ends = []
    for i, source in enumerate((pretrained, agent_file(pretrained).parent, lone)):
        out = tmp_path / str(i)
        words = ("finetune", "--checkpoint", source, "--env-steps", "30", "--out", out)
        words = (*words, "evaluation.every_env_steps=10", "baq.warmup_env_steps=10")
        done = baq(*words, data=data)
        found = rows(out)
        assert [r["phase"] for r in found[:6]] == ["offline"] * 6, "the curve goes on"
        handover = [r for r in found if r["phase"] == "online" and r["env_steps"] == "0"]
        assert [r["gradient_steps"] for r in handover] == ["60", "60"]
        assert (found[-1]["env_steps"], found[-1]["gradient_steps"]) == ("30", "80")
        ends.append([r["return_mean"] for r in found])
        assert ("optimisers start fresh" in done.stderr) == (source == lone)
    assert ends[0] == ends[1]
    whole, folder, alone = (agent_file(tmp_path / str(i)) for i in range(3))
    assert same_tensors(whole, folder)
    assert not same_tensors(whole, alone), "a whole checkpoint keeps the optimisers' moments"


def test_eval_repeats_its_start_states_and_prints_json(pretrained: Path, data: Path) -> None:
    words = ("eval", "--checkpoint", pretrained, "--episodes", "3")
    first, again = (baq_json(*words, data=data) for _ in range(2))
    other = baq_json(*words, "--number", "1", data=data)
    assert first == again
    assert first["return_mean"] != other["return_mean"]
    assert [row["seed"] for row in first["seeds"]] == [0, 1]


def test_a_folder_that_holds_a_run_is_not_overwritten(pretrained: Path, data: Path) -> None:
    before = agent_file(pretrained).read_bytes()
    done = baq(*PRETRAIN, "--out", pretrained, data=data, expect=ExitStatus.USAGE)
    assert "--resume" in done.stderr
    assert agent_file(pretrained).read_bytes() == before


def test_a_run_that_stopped_before_its_first_checkpoint_starts_over(
    pretrained: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("recipe.yaml", "manifest.json", "metrics.csv", "diagnostics.csv"):
        (run / name).write_bytes((pretrained / name).read_bytes())
    done = baq(*PRETRAIN, "--out", run, "--resume", data=data)
    assert "starting from the beginning" in done.stderr
    assert same_tensors(agent_file(run), agent_file(pretrained))
    assert len(rows(run)) == len(rows(pretrained))


def test_inputs_are_fixed_at_pretraining(pretrained: Path, data: Path, tmp_path: Path) -> None:
    words = ("finetune", "--checkpoint", pretrained, "--env-steps", "5", "--out", tmp_path / "run")
    done = baq(*words, "baq.reward_scale=7", data=data, expect=ExitStatus.USAGE)
    assert "fixed at pre-training" in done.stderr


def test_a_behaviour_file_acts_like_the_checkpoint_it_was_made_from(
    data: Path, tmp_path: Path
) -> None:
    run, kept = tmp_path / "run", tmp_path / "kept.safetensors"
    words = ("pretrain", "--dataset", DATASET, "--algo", "baq", "--seeds", "1")
    words = (*words, "--gradient-steps", "3", "--out", run, *SMALL, "baq.behavior_hidden=[16]")
    baq(*words, data=data)
    baq("data", "behavior", kept, "--checkpoint", run, "--episodes", "1", data=data)
    returns = [
        baq_json("eval", "--checkpoint", path, "--episodes", "2", data=data)["return_mean"]
        for path in (run, kept)
    ]
    assert returns[0] == pytest.approx(returns[1], rel=0.05), "but for half precision"
    assert kept.stat().st_size < agent_file(run).stat().st_size / 3


def test_resuming_another_method_or_recipe_is_refused(pretrained: Path, data: Path) -> None:
    words = (*PRETRAIN, "--out", pretrained, "--resume")
    done = baq(*words, "baq.k_q=7", data=data, expect=ExitStatus.USAGE)
    assert "baq.k_q" in done.stderr
    baq(*words, "--seeds", "1", data=data, expect=ExitStatus.USAGE)


ONLINE = ("--env-steps", "420", "baq.warmup_env_steps=30", "evaluation.every_env_steps=70")


@pytest.fixture(scope="module")
def whole(pretrained: Path, data: Path) -> Path:
    """A fine-tuning that nothing interrupted."""
    run = data / "runs" / "online"
    baq("finetune", "--checkpoint", pretrained, *ONLINE, "--out", run, data=data)
    return run


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_resumes_to_the_same_end(
    signal_number: int, pretrained: Path, whole: Path, data: Path, tmp_path: Path
) -> None:
    online, parts = ("finetune", "--checkpoint", pretrained, *ONLINE), tmp_path / "parts"
    command = [sys.executable, "-m", "baq_cli.cli.main", *map(str, online), "--out", str(parts)]
    environment = os.environ | {"MINARI_DATASETS_PATH": str(data)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(parts.glob("checkpoints/online-*")):
        time.sleep(0.05)
    process.send_signal(signal_number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == ExitStatus.INTERRUPTED
    assert "--resume" in said
    assert len(rows(parts)) < len(rows(whole))
    baq(*online, "--out", parts, "--resume", data=data)
    assert same_tensors(agent_file(whole), agent_file(parts))
    assert [r["return_mean"] for r in rows(whole)] == [r["return_mean"] for r in rows(parts)]


def test_a_damaged_checkpoint_is_a_message_and_status_3(
    pretrained: Path, data: Path, tmp_path: Path
) -> None:
    content = agent_file(pretrained).read_bytes()
    for name, damaged in (("cut", content[:-100]), ("noise", b"\0" * 64), ("empty", b"")):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(damaged)
        done = baq("eval", "--checkpoint", path, data=data, expect=ExitStatus.DATA)
        assert str(path) in done.stderr


def test_training_that_becomes_non_finite_stops_with_its_status(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("pretrain", "--dataset", DATASET, "--algo", "iql", "--seeds", "2")
    words = (*words, "--gradient-steps", "10", "--out", run, *SMALL, "iql.reward_scale=1e38")
    done = baq(*words, data=data, expect=ExitStatus.NON_FINITE)
    assert "NaN or infinite" in done.stderr
    assert not list(run.glob("checkpoints/*")), "what is not finite is not saved"


def test_an_environment_that_does_not_fit_the_checkpoint_is_refused(
    pretrained: Path, data: Path, tmp_path: Path
) -> None:
    words = ("finetune", "--checkpoint", pretrained, "--env", "Hopper-v5", "--env-steps", "5")
    done = baq(*words, "--out", tmp_path / "x", data=data, expect=ExitStatus.ENVIRONMENT)
    assert "obs_dim" in done.stderr


def test_a_full_disk_keeps_the_last_checkpoint(
    pretrained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from baq_cli.engine.checkpoints import folder as checkpoint
    from baq_cli.errors import DataError
    from baq_cli.runs import files

    saved = checkpoint.load(pretrained)
    run = tmp_path / "run"
    first = checkpoint.save(run, "offline", 1, saved)

    def full(path: Path, content: bytes) -> None:
        if path.name == "training.safetensors":
            path.write_bytes(content[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        files.write_synced(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_synced", full)
        with pytest.raises(DataError, match="No space left on device") as caught:
            checkpoint.save(run, "offline", 2, saved)
    assert caught.value.status == ExitStatus.DATA
    assert checkpoint.locate(run) == first / "agent.safetensors"
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"latest", first.name}
    assert checkpoint.save(run, "offline", 2, saved).name == "offline-2"


def test_changing_the_method_takes_over_what_fits(data: Path, tmp_path: Path) -> None:
    offline, online = tmp_path / "cql", tmp_path / "sac"
    words = ("pretrain", "--dataset", DATASET, "--algo", "cql")
    baq(*words, "--gradient-steps", "5", "--out", offline, *SMALL, "cql.cql_actions=2", data=data)
    words = ("finetune", "--checkpoint", offline, "--algo", "sac", "--env-steps", "5")
    done = baq(*words, "--out", online, "sac.warmup_env_steps=2", data=data)
    assert "taken from the checkpoint: critic, critic_target, log_alpha, policy" in done.stderr
    words = ("finetune", "--checkpoint", offline, "--algo", "td3_bc", "--env-steps", "5")
    baq(*words, "--out", tmp_path / "no", data=data, expect=ExitStatus.USAGE)
