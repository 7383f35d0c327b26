"""What pre-training and fine-tuning advise is done here to the letter, and helps."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from baq_cli.agents.awac import AWAC
from support.advice import Terminal, follows, quoted
from support.commands import ENV, LOG, ONLINE, SMALL, compare, finetune, log, pretrain, run, scratch
from support.small_methods import small_words

__all__ = ["log", "run"]

# -- which method, on what


@follows("pre-training needs a dataset: give --dataset ID ('baq data list')")
def test_a_dataset_that_the_list_names_is_what_was_missing(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    words = pretrain("iql", tmp_path / "run")
    said = terminal.told(*[w for w in words if w not in ("--dataset", LOG)])
    assert LOG in terminal.done(*quoted(said, "baq data list"))
    terminal.done(*words)


@follows("'{}' has no offline phase: use 'baq finetune --env ID {}--algo {}', or pre-train one of")
def test_a_method_without_an_offline_phase_starts_online(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    said = terminal.told(*pretrain("sac", tmp_path / "run"))
    command = [ENV if word == "ID" else word for word in quoted(said, "baq finetune")]
    rest = ["--out", str(tmp_path / "run"), *ONLINE, *SMALL]
    terminal.done(*command, *rest)
    named = said.rpartition("one of ")[2].rstrip(".").split(", ")
    assert "iql" in named
    for algo in named:
        terminal.done(*pretrain(algo, tmp_path / algo, *small_words(algo)))


@follows("'{}' has no online phase: continue its checkpoint with --algo, one of {}.")
def test_a_clone_goes_on_with_each_method_that_is_named(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    run = tmp_path / "bc"
    terminal.done(*pretrain("bc", run))
    said = terminal.told(*finetune(run, tmp_path / "x"))
    named = said.rpartition("one of ")[2].rstrip(".").split(", ")
    assert "awac" in named
    for algo in named:
        terminal.done(*finetune(run, tmp_path / algo, "--algo", algo))


@follows("'{}' builds on its own pre-training: run 'baq pretrain --algo {}' first, then fine-tune")
def test_a_method_that_needs_its_own_pretraining_gets_it(
    terminal: Terminal, run: Path, tmp_path: Path
) -> None:
    said = terminal.told(*finetune(run, tmp_path / "x", "--algo", "baq"))
    command = quoted(said, "baq pretrain")
    rest = ["--dataset", LOG, "--gradient-steps", "4", "--out", str(tmp_path / "baq"), *SMALL]
    terminal.done(*command, *rest)
    terminal.done(*finetune(tmp_path / "baq", tmp_path / "on"))


@follows(
    "'{}' draws a share of every batch from a dataset, and there is none: give --dataset ID ('baq ",
    ", as in 'baq finetune --env {} --dataset ID --algo {}'",
)
def test_a_share_of_a_dataset_is_given_one_or_is_not_asked_for(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    words = scratch(tmp_path / "a", "--env", ENV, "--algo", "iql", "iql.online_share=0.5")
    said = terminal.told(*words)
    assert LOG in terminal.done(*quoted(said, "baq data list"))
    command = [LOG if word == "ID" else word for word in quoted(said, "baq finetune")]
    rest = ["--out", str(tmp_path / "a"), *ONLINE, *SMALL, "iql.online_share=0.5"]
    terminal.done(*command, *rest)
    (instead,) = re.findall(r"iql\.online_share=\w+", said)
    words = scratch(tmp_path / "b", "--env", ENV, "--algo", "iql", "iql.online_share=0.5")
    terminal.done(*words, instead)


@follows("set baq.online_share below 1, or choose another baq.confidence.")
def test_values_are_calibrated_by_a_dataset_or_not_at_all(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    terminal.done(*pretrain("baq", tmp_path / "run"))
    alone = ["baq.confidence=calibration", "baq.online_share=1"]
    terminal.told(*finetune(tmp_path / "run", tmp_path / "a", *alone))
    terminal.done(*finetune(tmp_path / "run", tmp_path / "a", *alone, "baq.online_share=0.5"))
    terminal.done(*finetune(tmp_path / "run", tmp_path / "b", *alone, "baq.confidence=spread"))


@follows("fine-tuning needs --checkpoint PATH, or --env ID to start from scratch")
def test_fine_tuning_starts_from_a_checkpoint_or_an_environment(
    terminal: Terminal, run: Path, tmp_path: Path
) -> None:
    terminal.told(*scratch(tmp_path / "a", "--algo", "sac"))
    terminal.done(*scratch(tmp_path / "a", "--algo", "sac", "--env", ENV))
    terminal.done(*finetune(run, tmp_path / "b"))


@follows("the recipe names no method: give --algo NAME or 'algo: NAME'")
def test_a_method_is_named_by_a_flag_or_in_the_recipe(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"dataset: {LOG}\ngradient_steps: 4\n")
    words = ["pretrain", "--recipe", str(recipe), *SMALL, "--out"]
    terminal.told(*words, tmp_path / "a")
    terminal.done(*words, tmp_path / "a", "--algo", "iql")
    recipe.write_text(recipe.read_text() + "algo: iql\n")
    terminal.done(*words, tmp_path / "b")


# -- a recipe's keys


@follows("'{}' has no effect on this method: leave it out")
def test_a_key_without_effect_is_left_out(terminal: Terminal, log: str, tmp_path: Path) -> None:
    words = pretrain("bc", tmp_path / "run")
    said = terminal.told(*words, "bc.tau=0.1")
    assert "'tau'" in said
    terminal.done(*words)


@follows("'{}.{}' is shared with the base: set '{}' itself")
def test_a_key_that_the_base_shares_is_set_itself(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    words = pretrain("baq", tmp_path / "run")
    said = terminal.told(*words, "baq.base=td3_bc", "baq.td3_bc.discount=0.9")
    (key,) = re.findall(r"set '(\w+)' itself", said)
    terminal.done(*words, "baq.base=td3_bc", f"baq.{key}=0.9")


@follows("its aliases expand to more than {} values: write them out", "put words in quotes")
def test_a_recipe_is_written_out_and_its_words_are_quoted(
    terminal: Terminal, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.yaml"
    bomb = "a: &a [" + ", ".join(["1"] * 50) + "]\n"
    for before, name in zip("abcde", "bcdef", strict=True):
        bomb += f"{name}: &{name} [" + ", ".join([f"*{before}"] * 50) + "]\n"
    recipe.write_text(bomb)
    assert "write them out" in terminal.told("recipes", "validate", recipe)
    recipe.write_text("algo: iql\nseeds: [0, 1]\n")
    terminal.done("recipes", "validate", recipe)
    recipe.write_text("algo: iql\ndataset: 2024-05-06\n")
    assert "in quotes" in terminal.told("recipes", "validate", recipe)
    recipe.write_text("algo: iql\ndataset: '2024-05-06-v0'\n")
    terminal.done("recipes", "validate", recipe)


@follows("{} exists: choose another name, or overwrite it with --force")
def test_a_copied_recipe_gets_another_name_or_is_overwritten(
    terminal: Terminal, tmp_path: Path
) -> None:
    taken = tmp_path / "mine.yaml"
    taken.write_text("mine")
    terminal.told("recipes", "copy", "pendulum/iql", taken)
    terminal.done("recipes", "copy", "pendulum/iql", tmp_path / "other.yaml")
    terminal.done("recipes", "copy", "pendulum/iql", taken, "--force")
    terminal.done("recipes", "validate", taken)


def test_seeds_are_given_as_the_message_writes_them(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    words = pretrain("bc", tmp_path / "a")
    count, some = re.findall(r"\(([\d,]+)\)", terminal.told(*words, "--seeds", "some"))
    terminal.told(*words, "--seeds", "0")
    terminal.done(*words, "--seeds", count)
    terminal.done(*pretrain("bc", tmp_path / "b"), "--seeds", some)


# -- a run's folder


@follows("{} already holds a run: choose another --out, or continue that run by adding --resume to")
def test_a_folder_with_a_run_is_continued_or_another_is_chosen(
    terminal: Terminal, run: Path, tmp_path: Path
) -> None:
    terminal.told(*pretrain("iql", run))
    terminal.done(*pretrain("iql", tmp_path / "other"))
    terminal.done(*pretrain("iql", run), "--resume")


@follows("{} already holds {}, and this command makes {}: choose another --out.")
def test_what_a_folder_holds_is_kept_and_another_folder_is_chosen(
    terminal: Terminal, run: Path, tmp_path: Path
) -> None:
    """A run over a comparison, a comparison over a run; a search's folder is neither's."""
    made = {"run": pretrain, "comparison": lambda _, out: compare(out)}
    terminal.done(*compare(tmp_path / "comparison"))
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "search.json").write_text("{}")
    for taken in ("run", "comparison", "search"):
        before = files_of(tmp_path / taken)
        for name, words in made.items():
            if name != taken:
                said = terminal.told(*words("iql", tmp_path / taken))
                assert f"already holds a {taken}, and this command makes a {name}" in said
        assert files_of(tmp_path / taken) == before
    for name, words in made.items():
        terminal.done(*words("iql", tmp_path / f"other-{name}"))


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@follows("--out {} is a file: choose a folder")
def test_a_file_is_no_folder_for_a_run(terminal: Terminal, log: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    terminal.told(*pretrain("iql", tmp_path / "file"))
    terminal.done(*pretrain("iql", tmp_path / "folder"))


@follows("cannot resume {}: it holds an {} phase, and this command runs an {} one. Choose another")
def test_another_phase_gets_a_folder_of_its_own(
    terminal: Terminal, run: Path, tmp_path: Path
) -> None:
    terminal.told(*finetune(run, run), "--resume")
    terminal.done(*finetune(run, tmp_path / "on"), "--resume")


@follows(
    "cannot resume {} with another recipe: {}. Give the run's own values (its recipe.yaml), or"
)
def test_a_resume_takes_the_runs_own_values(terminal: Terminal, run: Path, tmp_path: Path) -> None:
    terminal.told(*pretrain("iql", run), "--resume", "iql.expectile=0.9")
    terminal.done("pretrain", "--recipe", run / "recipe.yaml", "--out", run, "--resume")
    terminal.done(*pretrain("iql", tmp_path / "other"), "--resume", "iql.expectile=0.9")


@follows("the run's cosine learning rate ends at {} {}, and this command says {}: resume with {}, ")
def test_a_schedule_is_resumed_as_long_as_it_was(
    terminal: Terminal, run: Path, tmp_path: Path
) -> None:
    longer = ["--gradient-steps", "8"]
    said = terminal.told(*pretrain("iql", run, *longer), "--resume")
    (before,) = re.findall(r"resume with (\d+)", said)
    terminal.done(*pretrain("iql", run, "--gradient-steps", before), "--resume")
    terminal.done(*pretrain("iql", tmp_path / "other", *longer))


@follows("the run has come to {} {} already, and this command says {}: resume ")
def test_a_run_does_not_end_before_where_it_is(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    terminal.done(*pretrain("awac", run))
    shorter = ["--gradient-steps", "1"]
    said = terminal.told(*pretrain("awac", run, *shorter), "--resume")
    (least,) = re.findall(r"resume with (\d+)", said)
    terminal.done(*pretrain("awac", run, "--gradient-steps", least), "--resume")
    terminal.done(*pretrain("awac", tmp_path / "other", *shorter))


@follows("'{}' changes over the whole phase, which was to end at {} {}, and this command says {}: ")
def test_a_phase_that_a_method_changes_over_is_resumed_as_long_as_it_was(
    terminal: Terminal, log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In either phase; where no loss reads the share of the phase, it may become longer."""
    offline, online = tmp_path / "offline", tmp_path / "online"
    phases = {
        "--gradient-steps": (pretrain, ("awac", offline)),
        "--env-steps": (finetune, (offline, online)),
    }
    for option, (words, places) in phases.items():
        monkeypatch.setattr(AWAC, "reads_clock", frozenset({"share", "env_steps"}))
        terminal.done(*words(*places))
        said = terminal.told(*words(*places, option, "9"), "--resume")
        (before,) = re.findall(r"resume with (\d+)", said)
        terminal.done(*words(*places, option, before), "--resume")
        terminal.done(*words(places[0], tmp_path / f"other{option}", option, "9"))
        monkeypatch.setattr(AWAC, "reads_clock", frozenset({"gradient_steps", "env_steps"}))
        terminal.done(*words(*places, option, "9"), "--resume")


@follows("{} has checkpoints that this command hasn't read: another process wrote them meanwhile. ")
def test_a_command_is_given_again_after_another_process_wrote(
    terminal: Terminal, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baq_cli.engine.phases import start

    made = tmp_path / "made"
    words = pretrain("iql", made)

    def meanwhile(*given: Any) -> Any:
        shutil.copytree(run, made)
        return begin(*given)

    begin = start.offline_store
    with monkeypatch.context() as patch:
        patch.setattr(start, "offline_store", meanwhile)
        said = terminal.told(*words, "--resume")
    assert "another process" in said
    terminal.done(*words, "--resume")
    terminal.done(*pretrain("iql", tmp_path / "other"))


@follows("{} is in use by {}: wait until that has ended, or stop it")
def test_a_folder_in_use_is_free_once_its_writer_has_ended(terminal: Terminal, run: Path) -> None:
    from baq_cli.runs.lock import held

    with held(run):
        assert str(os.getpid()) in terminal.told(*pretrain("iql", run), "--resume")
    terminal.done(*pretrain("iql", run), "--resume")


@follows("stopped by {}; everything is saved. Continue with:\n  {}")
def test_a_stopped_run_continues_with_the_command_that_it_prints(
    terminal: Terminal, log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baq_cli.engine.updates.learner import Learner

    compute = Learner.compute

    def stopped(*given: Any, **also: Any) -> None:
        os.kill(os.getpid(), 2)
        compute(*given, **also)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "compute", stopped)
        said = terminal.told(*pretrain("iql", tmp_path / "run"), status=130)
    command = said.split("Continue with: ")[1]
    terminal.done(*shlex.split(command)[1:])


# -- checkpoints


@follows("no checkpoint at {}: expected a run's folder, a folder below its checkpoints, or an {}. ")
def test_a_checkpoint_is_found_wherever_the_message_says(
    terminal: Terminal, run: Path, tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    said = terminal.told("eval", "--checkpoint", nowhere, status=3)
    whole = next((run / "checkpoints").glob("offline-*"))
    places = [run, run / "checkpoints", run / "checkpoints" / "latest", whole]
    for place in [*places, whole / "agent.safetensors"]:
        terminal.done("eval", "--checkpoint", place, "--episodes", "1")
    named = {"ID": LOG, "NAME": "iql"}
    command = [named.get(word, word) for word in quoted(said, "baq pretrain")]
    terminal.done(*command, "--gradient-steps", "4", *SMALL)
    terminal.done("eval", "--checkpoint", nowhere, "--episodes", "1")


@follows(
    "{} here, and the checkpoint was trained with {}: its networks are of that size. Leave it out",
)
def test_networks_of_another_size_are_named_by_their_key(
    terminal: Terminal, run: Path, tmp_path: Path
) -> None:
    asked = ["iql.hidden=[16,16]", "iql.learning_rate=0.1"]
    said = terminal.told(*finetune(run, tmp_path / "a", *asked))
    assert "learning_rate" not in said
    (same,) = re.findall(r"iql\.hidden=\S+(?=:)", said)
    terminal.done(*finetune(run, tmp_path / "a", asked[1]))
    terminal.done(*finetune(run, tmp_path / "b", same))


@follows("size. Leave it out to continue them, or {} again.")
def test_what_an_online_checkpoint_began_without_is_asked_of_what_was_pre_trained(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    own, online = tmp_path / "own", tmp_path / "online"
    terminal.done(*pretrain("baq", own))
    terminal.done(*finetune(own, online))
    said = terminal.told(*finetune(online, tmp_path / "a", "baq.confidence=dual"))
    assert "fine-tune what was pre-trained again" in said
    terminal.done(*finetune(online, tmp_path / "a"))
    terminal.done(*finetune(own, tmp_path / "b", "baq.confidence=dual"))


@follows("the checkpoint holds seeds {}, not {}: choose among them")
def test_seeds_are_chosen_among_those_of_the_checkpoint(
    terminal: Terminal, run: Path, tmp_path: Path
) -> None:
    said = terminal.told(*finetune(run, tmp_path / "a", "--seeds", "4,"))
    (held,) = re.findall(r"holds seeds \[(\d+)\]", said)
    terminal.done(*finetune(run, tmp_path / "a", "--seeds", f"{held},"))


@follows("Choose a method that can take it ({})", ", or set {}")
def test_another_method_takes_a_policy_like_its_own(
    terminal: Terminal, run: Path, tmp_path: Path
) -> None:
    said = terminal.told(*finetune(run, tmp_path / "a", "--algo", "fql"))
    (names,) = re.findall(r"can take it \(([\w, ]+)\)", said)
    assert "awac" in names.split(", ")
    for algo in names.split(", "):
        terminal.done(*finetune(run, tmp_path / algo, "--algo", algo))
    said = terminal.told(*finetune(run, tmp_path / "b", "--algo", "awac", "awac.hidden=[16,16]"))
    (same,) = re.findall(r"awac\.hidden=\S+(?=\.)", said)
    terminal.done(*finetune(run, tmp_path / "b", "--algo", "awac", same))


@follows("{}.{} is {} here, and the checkpoint was trained with {}: inputs are fixed at pre-")
def test_inputs_stay_those_of_pretraining(terminal: Terminal, run: Path, tmp_path: Path) -> None:
    said = terminal.told(*finetune(run, tmp_path / "a", "iql.reward_scale=2"))
    (same,) = re.findall(r"say (\S+)\.$", said)
    terminal.done(*finetune(run, tmp_path / "a"))
    terminal.done(*finetune(run, tmp_path / "b", f"iql.{same}"))


@follows(
    "{} is damaged: its content is not what was written (its SHA-256 differs). Restore it from",
    ", or use an earlier checkpoint",
)
def test_a_damaged_file_is_restored_or_an_earlier_checkpoint_is_used(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    terminal.done(*pretrain("iql", run, "evaluation.every_gradient_steps=2"))
    first, last = sorted((run / "checkpoints").glob("offline-*"))
    file = last / "agent.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "or use an earlier" in terminal.told("eval", "--checkpoint", run, status=3)
    terminal.done("eval", "--checkpoint", first, "--episodes", "1")
    file.write_bytes(content)
    terminal.done("eval", "--checkpoint", run, "--episodes", "1")
    facts = (run / "manifest.json").read_text()
    (run / "manifest.json").write_text(facts.replace("iql", "bc", 1))
    said = terminal.told(*pretrain("iql", run), "--resume", status=3)
    assert "Restore" in said
    assert "checkpoint" not in said, "there is one manifest"


@follows(
    "{} is damaged: its content is not what was written (its SHA-256 differs from that in {}). ",
    ", or continue the run with --resume, which mends it",
)
def test_a_damaged_log_is_mended_by_a_resume_or_restored(
    terminal: Terminal, run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    rows = (run / "metrics.csv").read_bytes()
    (run / "metrics.csv").write_bytes(rows.replace(b"-", b"+", 1))
    said = terminal.told("report", run, "--out", tmp_path / "report", status=3)
    assert "--resume" in said
    terminal.done(*pretrain("iql", run), "--resume")
    assert (run / "metrics.csv").read_bytes() == rows
    (copy / "metrics.csv").write_bytes(rows.replace(b"-", b"+", 1))
    terminal.told("report", copy, "--out", tmp_path / "report", status=3)
    (copy / "metrics.csv").write_bytes(rows)
    terminal.done("report", copy, "--out", tmp_path / "report")


@follows("dataset '{}' has changed: its content hash is {}, the checkpoint was trained on {}. ")
def test_a_dataset_that_changed_is_restored_or_trained_on_anew(
    terminal: Terminal, log: str, tmp_path: Path, folder: Path
) -> None:
    minari, kept = folder / "minari" / "datasets" / LOG, tmp_path / "kept"
    run = tmp_path / "baq"
    terminal.done(*pretrain("baq", run))
    shutil.copytree(minari, kept)
    shutil.rmtree(minari)
    words = ("--env", ENV, "--behavior", "random", "--env-steps", "30", "--seed", "1")
    terminal.done("data", "collect", LOG, *words)
    terminal.told(*finetune(run, tmp_path / "a"), status=3)
    terminal.done(*pretrain("baq", tmp_path / "again"))
    terminal.done(*finetune(tmp_path / "again", tmp_path / "a"))
    shutil.rmtree(minari)
    shutil.copytree(kept, minari)
    terminal.done(*finetune(run, tmp_path / "b"))


@follows("{} is a link, and what it leads to is left alone. Remove it, or put what it stands for")
def test_a_link_in_a_runs_folder_is_removed_or_replaced(
    terminal: Terminal, run: Path, tmp_path: Path
) -> None:
    away, log = tmp_path / "away.csv", run / "diagnostics.csv"
    shutil.move(log, away)
    log.symlink_to(away)
    terminal.told(*pretrain("iql", run), "--resume", status=3)
    log.unlink()
    shutil.copy(away, log)
    terminal.done(*pretrain("iql", run), "--resume")


# -- environments


@follows(
    "the action space {} has infinite bounds: expected finite ones. Give it those that actions"
)
def test_infinite_action_bounds_are_given_as_the_message_says(
    terminal: Terminal, tmp_path: Path
) -> None:
    class Unbounded(gym.Env[Any, Any]):
        observation_space = gym.spaces.Box(-1, 1, (2,))
        action_space = gym.spaces.Box(-float("inf"), float("inf"), (2,))

        def reset(self, **options: Any) -> Any:
            super().reset(seed=options.get("seed"))
            return self.observation_space.low, {}

        def step(self, action: Any) -> Any:
            return self.observation_space.low, 0.0, True, False, {}

    gym.register("Unbounded-v0", Unbounded)
    words = ["--algo", "sac", "--env"]
    said = terminal.told(*scratch(tmp_path / "a", *words, "Unbounded-v0"), status=3)
    (advised,) = re.findall(r"gymnasium\.wrappers\.TransformAction\(.*?\)\)", said)
    names = {"low": -1.0, "high": 1.0, "shape": (2,), "gymnasium": gym}
    gym.register("Advised-v0", lambda: eval(advised, names | {"env": Unbounded()}))
    terminal.done(*scratch(tmp_path / "a", *words, "Advised-v0"))
    gym.registry.pop("Unbounded-v0")
    gym.registry.pop("Advised-v0")


@follows("the environment failed {}, the last time at environment step {}: {}. {} All faults ")
def test_more_faults_of_an_environment_are_allowed(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.odd_envs import PLAN, Odd

    words = ["--algo", "sac", "--env", "Odd-v0", "env_workers=false", "env_restarts=0"]
    for name in ("a", "b"):
        Odd.steps = Odd.resets = 0
        monkeypatch.setenv(PLAN, f"raises 3 {tmp_path / name}.fault")
        said = terminal.told(*scratch(tmp_path / name, *words), status=4)
        assert "env_restarts=N" in said
        words[-1] = "env_restarts=1"
        if name == "a":
            Odd.steps = Odd.resets = 0
            (tmp_path / "a.fault").unlink()
            terminal.done(*scratch(tmp_path / "again", *words))
            words[-1] = "env_restarts=0"
