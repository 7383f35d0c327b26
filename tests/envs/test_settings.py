"""What datasets, checkpoints and recipes say of their environment is what episodes are played in.

Every step's reward in these environments is their speed, so a return is speed times length.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from baq_cli.data.card import card
from baq_cli.data.exchange import import_file
from baq_cli.data.logs.logfile import Setting
from baq_cli.data.minari.folder import dataset_path, open_minari
from baq_cli.data.minari.read import load_episodes, read_recording
from baq_cli.data.minari.seal import SEAL, sealed
from baq_cli.data.suite import Uniform
from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.checkpoints.restore import evaluate_checkpoint
from baq_cli.engine.collection.datasets import check_dataset, collect_dataset
from baq_cli.engine.collection.scoring import find_reference, measure_random, store_reference
from baq_cli.engine.evaluation.environment import limited
from baq_cli.envs.limits import DEFAULT_LIMIT
from baq_cli.envs.ref import EnvChoice, EnvRef
from baq_cli.errors import DataError, EnvironmentMismatch, UsageError
from baq_cli.launch.cell_runs import beside
from baq_cli.launch.matrix import lay_out
from baq_cli.report.method_runs import course_of
from baq_cli.untrusted import TRUST_VARIABLE
from support.advice import follows
from support.counting_envs import COUNTING
from support.logs import npz_file, written
from support.policies import write_policy
from support.recordings import own_folders, unseal
from support.runs import execute, recipe_of
from support.small_data import write_counting

Command = Callable[..., tuple[int, str, str]]
FAST, OTHER = "me/fast-v0", "me/other-v0"
FIVE = EnvRef.of("Counting-v0", {"ends_at": 5, "speed": 2.0}, DEFAULT_LIMIT)
SMALL = ["threads=1", "evaluation.episodes=1", "evaluation.background=false"]
SMALL += ["shared.hidden=[8]", "shared.batch_size=4"]


def spec_of(limit: int | None = None, **kwargs: Any) -> Any:
    spec = gym.spec("Counting-v0")
    return replace(spec, max_episode_steps=limit, kwargs=kwargs)


def training(dataset_id: str = FAST, algo: str = "iql", **run: Any) -> Any:
    return recipe_of(algo, {}, dataset=dataset_id, gradient_steps=2, env_steps=4, **run)


def returns(heard: Any) -> set[float]:
    """Return the different returns that an observer heard of."""
    return {found for _, rows in heard for row in rows for found in row}


def environment(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "manifest.json").read_text())["environment"]
    return found


@pytest.fixture(autouse=True)
def _trusting_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `--trust-env` sets in this process is undone at a test's end."""
    monkeypatch.setenv(TRUST_VARIABLE, "0")


@pytest.fixture(scope="module")
def runs() -> Iterator[Path]:
    """A dataset of `Counting-v0` with arguments, and runs of both phases on it."""
    with own_folders() as place:
        choice = EnvChoice("Counting-v0", {"speed": 2.0, "ends_at": 5})
        collect_dataset(FAST, [Uniform()], choice, 20, 0, False, lambda event: None)
        assert returns(execute(training(), place / "offline")) == {10.0}
        online = execute(training(), place / "online", source=place / "offline")
        assert returns(online) == {10.0}
        yield place


# -- the whole way


def test_a_dataset_knows_the_arguments_that_it_was_collected_with(runs: Path) -> None:
    episodes = load_episodes(FAST)
    assert episodes.returns.tolist() == [10.0] * 4
    assert episodes.origin.kwargs == {"speed": 2.0, "ends_at": 5}
    assert "settings" not in [finding.check for finding in check_dataset(FAST, EnvChoice())]
    plain = [finding.check for finding in check_dataset(FAST, EnvChoice("Counting-v0"))]
    assert plain.count("settings") == 2, "the limit and the arguments"


@pytest.mark.parametrize("phase", ["offline", "online"])
def test_runs_and_checkpoints_say_what_they_acted_in(runs: Path, phase: str) -> None:
    saved = load(runs / phase)
    assert EnvRef.of_document(saved.document) == FIVE
    found = environment(runs / phase)
    assert (found["id"], found["name"]) == ("Counting-v0", str(FIVE))
    assert found["max_episode_steps"] == DEFAULT_LIMIT
    assert course_of([runs / phase]).environment == found
    played, lengths, _ = evaluate_checkpoint(runs / phase, None, 2, 0)
    assert (played == 10.0).all()
    assert (lengths == 5).all()


def test_a_command_s_own_arguments_go_over_those_that_are_known(runs: Path, tmp_path: Path) -> None:
    heard = execute(training(env_args={"speed": 3.0}), tmp_path / "a")
    assert returns(heard) == {15.0}
    heard = execute(training(env="Counting-v0", max_episode_steps=3), tmp_path / "b")
    assert returns(heard) == {3.0}
    faster = training(env_args={"speed": 4.0})
    assert returns(execute(faster, tmp_path / "c", source=runs / "offline")) == {20.0}


def phases(run: Path) -> set[str]:
    """Return the phases of which a report of a run has scores."""
    return set(course_of([run]).curves)


def test_scores_of_another_environment_stand_in_no_report_of_a_fine_tuning(
    runs: Path, tmp_path: Path
) -> None:
    for name, changed in (
        ("args", {"env_args": {"speed": 4.0}}),
        ("limit", {"max_episode_steps": 3}),
        ("id", {"env": "Counting-v0"}),
    ):
        notes: list[str] = []
        out = tmp_path / name
        execute(training(**changed), out, source=runs / "offline", notes=notes)
        assert phases(out) == {"online"}
        (said,) = [note for note in notes if "was evaluated in" in note]
        assert str(FIVE) in said
        again = training(**changed)
        longer = replace(again, run=again.run.model_copy(update={"env_steps": 6}))
        execute(longer, out, resume=True, source=runs / "offline")
        assert phases(out) == {"online"}


def test_scores_of_the_same_environment_stand_beside_each_other(runs: Path, tmp_path: Path) -> None:
    assert phases(runs / "online") == {"offline", "online"}
    said_anew = training(env="Counting-v0", env_args={"speed": 2.0, "ends_at": 5})
    execute(said_anew, tmp_path / "same", source=runs / "offline")
    assert phases(tmp_path / "same") == {"offline", "online"}


def test_a_run_is_resumed_in_its_environment_or_not_at_all(runs: Path, tmp_path: Path) -> None:
    recipe = training(algo="bc", env_args={"speed": 3.0})
    execute(recipe, tmp_path / "run")
    with pytest.raises(UsageError, match=r"env_args.speed was 3.0, this command says 4.0"):
        execute(training(algo="bc", env_args={"speed": 4.0}), tmp_path / "run", resume=True)
    longer = replace(recipe, run=recipe.run.model_copy(update={"gradient_steps": 3}))
    assert returns(execute(longer, tmp_path / "run", resume=True)) == {15.0}


def test_a_run_is_not_resumed_where_its_environment_has_become_another(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = training(algo="bc", env="Fast-v0")
    assert returns(execute(recipe, tmp_path / "run")) == {12.0}
    longer = replace(recipe, run=recipe.run.model_copy(update={"gradient_steps": 3}))
    monkeypatch.setattr(gym.spec("Fast-v0"), "max_episode_steps", 5)
    with pytest.raises(UsageError, match="max_episode_steps was 6, it is 5 now"):
        execute(longer, tmp_path / "run", resume=True)
    assert returns(execute(longer, tmp_path / "another")) == {10.0}
    monkeypatch.setattr(gym.spec("Fast-v0"), "max_episode_steps", 6)
    assert returns(execute(longer, tmp_path / "run", resume=True)) == {12.0}


def test_a_checkpoint_of_before_acts_in_its_environment_as_it_is_registered(tmp_path: Path) -> None:
    path = write_policy(tmp_path / "a.safetensors", "bc", spaces=COUNTING, env_id="Fast-v0")
    played, lengths, _ = evaluate_checkpoint(path, None, 1, 0)
    assert (played.ravel().tolist(), lengths.ravel().tolist()) == ([12.0] * 2, [6] * 2)


def test_arguments_of_another_kind_make_a_checkpoint_damaged(tmp_path: Path) -> None:
    for odd in ({"env_args": 3}, {"env_args": {"id": "x"}}, {"max_episode_steps": 0}):
        path = write_policy(tmp_path / "a.safetensors", "bc", said=odd)
        with pytest.raises(DataError, match="is damaged"):
            evaluate_checkpoint(path, None, 1, 0)


# -- an environment for evaluation


def test_policies_act_in_the_environment_that_a_dataset_names_for_evaluation(
    folder: Path, tmp_path: Path
) -> None:
    evaluated = spec_of(4, speed=3.0)
    episodes = write_counting(
        OTHER, env_spec=spec_of(speed=1.0), eval_env_spec=evaluated, seeds=(1, 2)
    )
    assert episodes.origin.eval_env == EnvRef.of("Counting-v0", {"speed": 3.0}, 4)
    notes: list[str] = []
    assert returns(execute(training(OTHER), tmp_path / "a", notes=notes)) == {12.0}
    told = next(note for note in notes if "eval_env_spec" in note)
    assert "Counting-v0(speed=3.0, max_episode_steps=4)" in told
    assert "recorded in Counting-v0(speed=1.0)" in told
    facts = card(episodes, open_minari(OTHER).metadata)
    assert facts["environment"] == "Counting-v0(speed=1.0)"
    assert facts["evaluation_environment"] == "Counting-v0(speed=3.0, max_episode_steps=4)"
    recorded = training(OTHER, env="Counting-v0", max_episode_steps=2)
    assert returns(execute(recorded, tmp_path / "b")) == {2.0}


def test_starts_are_those_of_the_recording_where_another_environment_is_for_evaluation(
    folder: Path,
) -> None:
    """Observations hold the speed: starts differ between the two environments."""
    write_counting(
        OTHER, env_spec=spec_of(speed=1.0), eval_env_spec=spec_of(2, speed=3.0), seeds=(1, 2)
    )
    found = [finding.check for finding in check_dataset(OTHER, EnvChoice())]
    assert not {"starts", "settings", "lengths"} & set(found)
    write_counting(
        FAST, env_spec=spec_of(speed=3.0), eval_env_spec=spec_of(2, speed=1.0), seeds=(1, 2)
    )
    assert "starts" in [finding.check for finding in check_dataset(FAST, EnvChoice())]


def test_an_environment_for_evaluation_that_is_the_recording_s_is_no_other(folder: Path) -> None:
    episodes = write_counting(OTHER, env_spec=spec_of(9), eval_env_spec=spec_of(9))
    assert episodes.origin.eval_env is None
    spec = replace(spec_of(9), kwargs={"render_mode": "rgb_array"})
    assert write_counting(FAST, env_spec=spec).origin.env == EnvRef(
        "Counting-v0", max_episode_steps=9
    )


@pytest.mark.parametrize("form", ["npz", "hdf5"])
def test_a_log_keeps_both_environments(form: str, folder: Path, baq_here: Command) -> None:
    write_counting(OTHER, env_spec=spec_of(speed=1.0), eval_env_spec=spec_of(4, speed=3.0))
    path = folder / f"log.{form}"
    to = {"npz": "npz", "hdf5": "d4rl"}[form]
    assert baq_here("data", "export", OTHER, "--to", to, "--out", path)[0] == 0
    import_file(path, FAST, Setting(EnvRef.of("Counting-v0", {"speed": 1.0})), None)
    assert load_episodes(FAST).origin.eval_env == load_episodes(OTHER).origin.eval_env
    assert load_episodes(FAST).origin.env == load_episodes(OTHER).origin.env


def test_a_seal_covers_the_environment_for_evaluation(folder: Path) -> None:
    write_counting(OTHER, env_spec=spec_of(), eval_env_spec=spec_of(4))
    path = dataset_path(OTHER) / "data" / "metadata.json"
    whole = json.loads(path.read_text())
    before = sealed({k: v for k, v in whole.items() if k not in ("eval_env_spec", SEAL)})
    seal = whole[SEAL] | {"said": before[SEAL]["said"]}
    path.write_text(json.dumps(whole | {SEAL: seal}))
    open_minari(OTHER)  # sealed by an earlier version, which left it out
    path.write_text(json.dumps(whole | {"eval_env_spec": spec_of(5).to_json()}))
    with pytest.raises(DataError, match="not what was saved"):
        open_minari(OTHER)


# -- limits


def test_the_longest_episode_that_was_cut_is_the_limit_where_nothing_says_one(
    folder: Path, tmp_path: Path
) -> None:
    assert write_counting(OTHER, env_spec=spec_of()).cut_after == 4
    notes: list[str] = []
    assert returns(execute(training(OTHER), tmp_path / "a", notes=notes)) == {4.0}
    assert any("cut after 4 env_steps, as the longest one of the data was" in n for n in notes)
    assert load(tmp_path / "a").document["max_episode_steps"] == 4
    named = training(OTHER, env="Counting-v0")
    execute(named, tmp_path / "b")
    online = execute(named, tmp_path / "c", source=tmp_path / "b")
    assert returns(online) == {4.0}, "the limit of the first phase is that of the second"


def test_an_episode_that_terminated_says_no_limit(folder: Path, tmp_path: Path) -> None:
    assert write_counting(OTHER, cut=False, env_spec=spec_of(ends_at=9)).cut_after is None
    assert returns(execute(training(OTHER), tmp_path / "a")) == {9.0}


def test_a_known_limit_is_kept_for_the_same_environment() -> None:
    heard: list[Any] = []
    known = EnvRef("Counting-v0", max_episode_steps=4)
    assert limited(EnvRef("Counting-v0"), heard.append, known).max_episode_steps == 4
    assert limited(EnvRef("Wrapped-v0"), heard.append, known) == EnvRef("Wrapped-v0")
    assert len(heard) == 1


# -- what a file may say


def advised(said: str) -> list[str]:
    """Return the words of a command that a message tells to give."""
    found = re.search(r"give it yourself \((.*?)\), or add --trust-env", said)
    assert found is not None, said
    return shlex.split(found[1])


@follows("the argument {}={} of the environment '{}', which {} names, is refused: {}. If you know")
def test_a_dataset_s_argument_that_names_a_file_is_refused_and_the_advice_works(
    folder: Path, baq_here: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_counting(OTHER, env_spec=spec_of(4, ends_at="robot.xml", speed=2.0))
    words = ["pretrain", "--algo", "iql", "--dataset", OTHER, "--gradient-steps", "1", *SMALL]
    status, _, said = baq_here(*words, "--out", folder / "a")
    assert status == 4
    assert "ends_at='robot.xml'" in said
    assert OTHER in said
    for number, way in enumerate((advised(said), ["--trust-env"], ["--env-arg", "ends_at=2"])):
        out = folder / f"b{number}"
        monkeypatch.setenv(TRUST_VARIABLE, "0")
        assert baq_here(*words, *way, "--out", out)[0] == 0
        length = 2 if number == 2 else 4
        assert load(out).document["history"][-1]["return_mean"] == 2.0 * length


def test_a_checkpoint_s_argument_that_names_a_file_is_refused_and_the_advice_works(
    folder: Path, baq_here: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = {"env_args": {"ends_at": "robot.xml"}, "max_episode_steps": 4}
    path = write_policy(
        folder / "a.safetensors", "bc", spaces=COUNTING, env_id="Counting-v0", said=odd
    )
    words = ["eval", "--checkpoint", path, "--episodes", "1", "--json"]
    status, _, said = baq_here(*words)
    assert status == 4
    assert "a.safetensors" in said
    for way in (advised(said), ["--trust-env"]):
        monkeypatch.setenv(TRUST_VARIABLE, "0")
        status, out, said = baq_here(*words, *way)
        assert status == 0, said
        assert json.loads(out)["return_mean"] == 4.0
    monkeypatch.setenv(TRUST_VARIABLE, "0")
    status, _, said = baq_here("data", "collect", FAST, "--behavior", path, "--env-steps", "4")
    assert (status, "robot.xml" in said) == (4, True)


@follows("the recipe {} has the environment's argument {}={}, which is refused: {}. If you know it")
def test_a_recipe_s_argument_that_names_a_file_is_refused_and_the_advice_works(
    folder: Path, baq_here: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_counting(OTHER, env_spec=spec_of(4))
    text = f"algo: iql\ndataset: {OTHER}\nenv: Counting-v0\ngradient_steps: 1\n"
    text += "max_episode_steps: 3\n"
    recipe = written(folder / "r.yaml", text + "env_args: {ends_at: ../robot.xml}\n")
    words = ["pretrain", "--recipe", recipe, *SMALL]
    status, _, said = baq_here(*words, "--out", folder / "a")
    assert status == 4
    assert "--env-arg ends_at=VALUE" in said
    assert baq_here(*words, "--trust-env", "--out", folder / "b")[0] == 0
    monkeypatch.setenv(TRUST_VARIABLE, "0")
    recipe = written(folder / "r.yaml", text)
    words = ["pretrain", "--recipe", recipe, *SMALL, "--env-arg", "ends_at=../robot.xml"]
    assert baq_here(*words, "--out", folder / "c")[0] == 0
    assert load(folder / "c").document["history"][-1]["return_mean"] == 3.0


def test_a_flag_that_names_an_environment_leaves_a_recipe_s_arguments_behind(
    folder: Path, baq_here: Command
) -> None:
    write_counting(OTHER, env_spec=spec_of(4))
    text = f"algo: iql\ndataset: {OTHER}\nenv: Counting-v0\nenv_args: {{ends_at: 2}}\n"
    recipe = written(folder / "r.yaml", text + "gradient_steps: 1\n")
    words = ["pretrain", "--recipe", recipe, *SMALL]
    for name, way, env in (
        ("a", ["--env-arg", "speed=3"], EnvRef.of("Counting-v0", {"ends_at": 2, "speed": 3}, 4)),
        ("b", ["--env", "Fast-v0"], EnvRef("Fast-v0")),
        ("c", ["--env-arg", "speed=3", "env=Fast-v0"], EnvRef.of("Fast-v0", {"speed": 3})),
    ):
        assert baq_here(*words, *way, "--out", folder / name)[0] == 0
        assert EnvRef.of_document(load(folder / name).document) == env


# -- other commands


def test_an_import_keeps_the_arguments_that_it_is_given(folder: Path, baq_here: Command) -> None:
    rows = np.stack([np.arange(6), np.ones(6)], axis=1).astype(np.float32)
    path = npz_file(
        folder / "log.npz",
        observations=rows,
        actions=np.linspace(-0.5, 0.5, 6, dtype=np.float32)[:, None],
        rewards=np.ones(6, dtype=np.float32),
        terminals=np.zeros(6, dtype=np.bool_),
        timeouts=np.arange(6) == 5,
    )
    words = ("data", "import", path, "--id", OTHER)
    assert baq_here(*words, "--env", "Counting-v0", "--env-arg", "speed=1.5")[0] == 0
    assert load_episodes(OTHER).origin.kwargs == {"speed": 1.5}
    status, _, said = baq_here(*words[:-1], FAST, "--env-arg", "speed=1.5")
    assert (status, "--env ID" in said) == (2, True)


def test_references_are_of_the_settings_that_they_were_measured_with(folder: Path) -> None:
    write_counting(OTHER, env_spec=spec_of(4))
    env = EnvRef.of("Counting-v0", {"speed": 3.0}, 4)
    random = measure_random(env, 2)
    assert random["return_mean"] == 12.0
    expert = random | {"return_mean": 50.0, "policy": "x"}
    store_reference(OTHER, env, {"random": random, "expert": expert})
    assert find_reference(OTHER, env).random == 12.0
    with pytest.raises(UsageError, match=r"measured in Counting-v0\(speed=3.0"):
        find_reference(OTHER, EnvRef("Counting-v0", max_episode_steps=4))


def test_every_method_of_a_comparison_acts_in_the_same_environment(folder: Path) -> None:
    episodes = write_counting(OTHER, env_spec=spec_of(ends_at=9))
    cells = lay_out([[{"dataset": OTHER}]], ["iql", "sac"], {}, folder / "m", "baq compare")
    iql, sac = (beside(cell, episodes).recipe for cell in cells)
    assert (iql["env"], iql["env_args"], iql["max_episode_steps"]) == (None, None, None)
    assert (sac["env"], sac["env_args"]) == ("Counting-v0", {"ends_at": 9})
    assert sac["max_episode_steps"] == episodes.cut_after == 4
    grid = {"env_args.ends_at": [3, 9]}
    with pytest.raises(UsageError, match="can't be compared: env_args is"):
        lay_out([[{"dataset": OTHER}]], ["iql"], grid, folder / "g", "baq compare")


def test_a_dataset_without_an_environment_asks_for_one(folder: Path, tmp_path: Path) -> None:
    write_counting(OTHER)
    with pytest.raises(EnvironmentMismatch, match="--env ID"):
        execute(training(OTHER, env_args={"speed": 2.0}), tmp_path / "a")
    unseal(OTHER)
    assert asdict(read_recording(open_minari(OTHER)))["eval_env_spec"] is None
