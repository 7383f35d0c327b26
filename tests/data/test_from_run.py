"""What a run did online comes back as a dataset, digit for digit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from baq_cli.data.card import card
from baq_cli.data.exchange import export_file, import_file
from baq_cli.data.logs.logfile import Setting
from baq_cli.data.minari.folder import local_datasets, open_minari
from baq_cli.data.minari.read import load_episodes, read_recording
from baq_cli.data.recording import Recording
from baq_cli.engine.checkpoints.folder import load
from baq_cli.engine.collection.from_run import dataset_from_run
from baq_cli.engine.experience.columns import DATA_COLUMNS, Logged
from baq_cli.engine.experience.inputs import Inputs
from baq_cli.engine.experience.store import Layout
from baq_cli.engine.phases import recorder
from baq_cli.envs.spaces import flatten_parts
from baq_cli.errors import DataError, UsageError
from baq_cli.recipes.schema import Recipe
from baq_cli.runs.transitions import NAME, read
from support.acting_probes import PROBE, probe
from support.advice import Terminal, follows, quoted
from support.runs import assert_same_end, execute, recipe_of, states, stopped_at
from support.small_data import write_steady
from support.witness import JOURNAL

Command = Callable[..., tuple[int, str, str]]
__all__ = ["probe"]
NEW, EVERY, ENV_STEPS = "me/arm/tuesday-v0", 10, 40


@pytest.fixture
def expert(probe: str, tmp_path: Path) -> Path:
    """A policy that acts otherwise than the run's own."""
    out = tmp_path / "expert"
    run = {"env": "Witness-v0", "env_steps": 2, "seeds": [5], "keep_transitions": False}
    execute(recipe_of(PROBE, {"spread": 2.0, "warmup_env_steps": 0}, **run), out)
    return out


def recipe_for(env: str = "Witness-v0", expert: Path | None = None, **run: Any) -> Recipe:
    watched = {"episodes": 1, "every_env_steps": EVERY, "background": False}
    layer: dict[str, Any] = {"env": env, "env_steps": ENV_STEPS, "evaluation": watched}
    if expert is not None:
        rule = {"step_probability": 0.2, "steps": 3}
        layer["intervention"] = {"by": f"policy:{expert}", **rule}
    settings = {"warmup_env_steps": 6, "spread": 0.4, "reward_scale": 0.3}
    return recipe_of(PROBE, settings, **(layer | run))


def stored(dataset_id: str = NEW) -> Recording:
    return read_recording(open_minari(dataset_id))


def episodes_of(recording: Recording) -> list[dict[str, Any]]:
    """Return a dataset's episodes as the witness's journal has them."""
    found, step, row = [], 0, 0
    flat = flatten_parts(recording.observations)
    for length, seed in zip(recording.lengths.tolist(), recording.seeds, strict=True):
        of = slice(step, step + length)
        parts = {"done": recording.actions, "reward": recording.rewards}
        parts |= {"over": recording.terminated, "cut": recording.truncated}
        episode = {name: part[of] for name, part in parts.items()}
        found.append({**episode, "seed": seed, "obs": flat[row : row + length + 1]})
        step, row = step + length, row + length + 1
    return found


def assert_as_witnessed(recording: Recording, running: int) -> None:
    """Check episodes against what their environments saw; so many ends may be this side's."""
    ours = 0
    for episode in episodes_of(recording):
        length = len(episode["reward"])
        seen = [e for e in JOURNAL if e["seed"] == episode["seed"] and len(e["done"]) >= length]
        assert seen, "the journal has no such episode"
        true = seen[-1]
        for name in ("done", "reward", "over"):
            assert_array_equal(episode[name], np.array(true[name][:length]), strict=True)
        obs = true["obs"][: length + 1]
        if isinstance(obs[0], dict):
            obs = [np.concatenate([o[part] for part in recording.observations]) for o in obs]
        assert_array_equal(episode["obs"], np.array(obs))
        assert not episode["cut"][:-1].any()
        cut = true["cut"][length - 1] or not true["over"][length - 1]
        assert episode["cut"][-1] == cut
        ours += not (true["cut"][length - 1] or true["over"][length - 1])
    assert ours <= running


# -- round trips


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("env", ["Witness-v0", "InParts-v0"])
def test_a_dataset_is_what_the_environments_saw(env: str, probe: str, tmp_path: Path) -> None:
    """Observations and actions of their own types, what a filter did instead, ends and rewards."""
    JOURNAL.clear()
    execute(recipe_for(env), tmp_path / "run")
    done = dataset_from_run(tmp_path / "run", NEW)
    recording = stored()
    assert int(recording.lengths.sum()) == 2 * ENV_STEPS
    assert_as_witnessed(recording, running=2)
    types = {name: part.dtype for name, part in recording.observations.items()}
    space: Any = recording.observation_space
    assert types == {n: (space[n] if n else space).dtype for n in types}
    kept = read(tmp_path / "run" / NAME)
    filtered = ~np.isnan(kept.executed[:, 0])
    assert 5 < filtered.sum() < len(kept)
    assert (recording.infos["intervention"] > 0).sum() == filtered.sum()
    assert_array_equal(recording.infos["run_seed"], np.repeat([0, 1], ENV_STEPS))
    assert done.episodes.content_hash == load_episodes(NEW).content_hash
    assert recording.env_spec is not None
    assert recording.env_spec.id == env
    assert recording.env_spec.max_episode_steps == 50


@pytest.mark.usefixtures("folder")
def test_a_dataset_is_what_the_run_learned_from(probe: str, tmp_path: Path) -> None:
    """Rows of the store are those of the dataset, in the units of updates."""
    execute(recipe_for(), tmp_path / "run")
    dataset_from_run(tmp_path / "run", NEW)
    saved, episodes = load(tmp_path / "run"), load_episodes(NEW)
    rows = torch.cat([b["rows"] for b in saved.blocks if b is not None], dim=1).flatten(0, 1)
    inputs, at = Inputs.from_tensors(saved.agent), Layout(3, 2, ()).slices
    assert inputs.reward_scale == 0.3
    assert_array_equal(rows[:, at["obs"]], inputs.obs(episodes.obs))
    assert_array_equal(rows[:, at["next_obs"]], inputs.obs(episodes.next_obs))
    reward = inputs.reward(stored().rewards).astype(np.float32)
    assert_array_equal(rows[:, at["reward"].start], reward)
    assert_array_equal(rows[:, at["bootstrap"].start], 1.0 - episodes.terminated)
    spaces, action = episodes.spaces, rows[:, at["action"]].numpy()
    kept = read(tmp_path / "run" / NAME)
    told = ~np.isnan(np.concatenate([kept.of_seed(i).executed for i in (0, 1)])[:, 0])
    assert_array_equal(stored().actions[~told], spaces.to_env(action)[~told])
    assert_array_equal(action[told], episodes.action[told])


@pytest.mark.usefixtures("folder")
def test_who_acted_and_what_the_policy_asked_for_come_along(expert: Path, tmp_path: Path) -> None:
    JOURNAL.clear()
    execute(recipe_for(expert=expert), tmp_path / "run")
    done = dataset_from_run(tmp_path / "run", NEW)
    recording, kept = stored(), read(tmp_path / "run" / NAME)
    assert_as_witnessed(recording, running=2)
    taken = recording.infos["intervention"] != 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert taken.sum() == sum(manifest["intervention"]["taken_over"])
    asked = recording.infos["proposed_action"]
    other = (asked != recording.actions).any(axis=1)
    assert other.any()
    assert not (other & ~taken).any(), "where nobody took over, it was as the policy asked"
    assert any(f"in {taken.sum()} of 80 steps" in note for note in done.notes)
    assert kept.policy_version.max() == (ENV_STEPS - 1 - 6)  # chosen before this step's update


@pytest.mark.usefixtures("folder")
def test_a_seed_of_many_is_as_it_is_alone(probe: str, tmp_path: Path) -> None:
    execute(recipe_for(), tmp_path / "both")
    execute(recipe_for(seeds=[1]), tmp_path / "alone")
    one = dataset_from_run(tmp_path / "both", NEW, [1])
    other = dataset_from_run(tmp_path / "alone", "me/arm/alone-v0")
    assert one.episodes.content_hash == other.episodes.content_hash
    assert set(stored().infos["run_seed"].tolist()) == {1}


@pytest.mark.usefixtures("folder")
def test_a_dataset_can_be_trained_on(probe: str, tmp_path: Path) -> None:
    execute(recipe_for(), tmp_path / "run")
    dataset_from_run(tmp_path / "run", NEW)
    small = {"episodes": 1, "every_gradient_steps": 5, "background": False}
    recipe = recipe_of("bc", {}, dataset=NEW, gradient_steps=5, evaluation=small)
    execute(recipe, tmp_path / "bc")
    assert load(tmp_path / "bc").document["env_id"] == "Witness-v0"


@pytest.mark.usefixtures("folder")
def test_marks_and_limits_come_along(
    probe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever decides on a step says so, and may mark it."""
    add, codes = recorder.Recorder.add, np.array([2, 0], dtype=np.uint8)

    def marked(this: Any, asked: Any, reward: Any, ends: Any, by: Any, told: Any) -> None:
        over = ends[0] | ends[1]
        add(this, asked, reward, ends, codes, np.where(over, [1, -1], 0))

    monkeypatch.setattr(recorder.Recorder, "add", marked)
    execute(recipe_for(), tmp_path / "run")
    done, recording = dataset_from_run(tmp_path / "run", NEW), stored()
    assert not recording.infos["intervention"].any()  # nobody else acted: a limit did
    assert_array_equal(recording.infos["limited"], np.repeat([1, 0], ENV_STEPS))
    assert f"a limit changed what was done in {ENV_STEPS} of {2 * ENV_STEPS} steps" in done.notes
    marks, seed = recording.infos["success"], recording.infos["run_seed"]
    last = np.cumsum(recording.lengths) - 1
    running = (marks[last] == 0).sum()
    assert running <= 2
    assert (marks != 0).sum() == len(last) - running
    assert_array_equal(marks[marks != 0], np.where(seed == 0, 1, -1)[marks != 0])
    told = f"marked as a success: {(marks > 0).sum()} steps, as a failure: {(marks < 0).sum()}"
    assert told in done.notes


# -- resumes


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("waits", [1, 3, 1_000])
def test_a_resume_keeps_what_a_run_in_one_go_keeps(
    waits: int, expert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a copy that went on, or that died with half a record; however steps wait to be written."""
    recipe = recipe_for(expert=expert)
    execute(recipe, tmp_path / "whole")
    monkeypatch.setattr(recorder, "MOST_STEPS", waits)
    whole = (tmp_path / "whole" / NAME).read_bytes()
    for name in list(states(tmp_path / "whole"))[:-1]:
        parts = stopped_at(tmp_path / "whole", name, tmp_path / name)
        (parts / NAME).write_bytes(whole[: -len(whole) // 5])
        if json.loads((parts / "checkpoints" / name / "state.json").read_text())["done"] > 30:
            (parts / NAME).write_bytes(whole)
        execute(recipe, parts, resume=True)
        assert_same_end(tmp_path / "whole", parts)
        assert (parts / NAME).read_bytes() == whole


@pytest.mark.usefixtures("folder")
def test_a_killed_run_gives_what_it_has(probe: str, tmp_path: Path) -> None:
    """Records that no checkpoint knows of count as well: they were done."""
    JOURNAL.clear()
    execute(recipe_for(), tmp_path / "run")
    path = tmp_path / "run" / NAME
    content = path.read_bytes()
    size = read(path).records.itemsize
    path.write_bytes(content[: -3 * size - 5])
    done = dataset_from_run(tmp_path / "run", NEW)
    assert len(done.episodes) == 2 * ENV_STEPS - 4
    assert_as_witnessed(stored(), running=2)


@pytest.mark.usefixtures("folder")
def test_a_run_that_kept_none_before_keeps_them_from_a_resume_on(
    probe: str, tmp_path: Path
) -> None:
    """So do runs of an earlier version; episodes whose beginning is lost are left out."""
    JOURNAL.clear()
    execute(recipe_for(env_steps=EVERY, keep_transitions=False), tmp_path / "run")
    assert not (tmp_path / "run" / NAME).exists()
    notes: list[str] = []
    execute(recipe_for(), tmp_path / "run", resume=True, notes=notes)
    assert any(f"no transitions of the first {EVERY} env_steps" in note for note in notes)
    begun = load(tmp_path / "run").state["episodes"]
    done = dataset_from_run(tmp_path / "run", NEW)
    assert_as_witnessed(stored(), running=2)
    left = [note for note in done.notes if "left out, as the beginning was not kept" in note]
    assert left
    assert len(done.episodes) < 2 * (ENV_STEPS - EVERY)
    assert len(done.episodes.lengths) <= sum(begun)


@pytest.mark.usefixtures("folder")
def test_transitions_may_be_kept_now_and_then(probe: str, tmp_path: Path) -> None:
    """What was kept stays, and an episode in which nothing was kept for a while is cut there."""
    JOURNAL.clear()
    for reached, kept in ((10, True), (20, False), (30, False), (40, True)):
        recipe = recipe_for(env_steps=reached, keep_transitions=kept)
        execute(recipe, tmp_path / "run", resume=reached > 10)
    steps = read(tmp_path / "run" / NAME).env_step
    assert sorted(set(steps.tolist())) == [*range(10), *range(30, 40)]
    dataset_from_run(tmp_path / "run", NEW)
    assert_as_witnessed(stored(), running=4)


@pytest.mark.usefixtures("folder")
def test_a_damaged_file_stops_no_resume(probe: str, tmp_path: Path) -> None:
    """It is put aside, and what comes is kept."""
    execute(recipe_for(), tmp_path / "whole")
    name = list(states(tmp_path / "whole"))[1]
    for kind in ("changed", "short", "gone"):
        parts, notes = stopped_at(tmp_path / "whole", name, tmp_path / kind), []
        content = bytearray((parts / NAME).read_bytes())
        content[len(content) // 8] ^= 1
        (parts / NAME).write_bytes(content if kind == "changed" else content[:600])
        if kind == "gone":
            (parts / NAME).unlink()
        execute(recipe_for(), parts, resume=True, notes=notes)
        assert load(parts).document["env_steps"] == ENV_STEPS
        told = f"is begun here: it has no transitions of the first {2 * EVERY} env_steps"
        assert any(told in note for note in notes)
        assert (parts / f"damaged-{NAME}").exists() == (kind != "gone")
        assert read(parts / NAME).env_step.min() == 2 * EVERY


# -- the column of who acted


@pytest.mark.usefixtures("folder")
def test_a_dataset_tells_methods_who_acted(expert: Path, tmp_path: Path) -> None:
    """Read anew, out of the cache, and after an export and an import."""
    execute(recipe_for(expert=expert), tmp_path / "run")
    made = dataset_from_run(tmp_path / "run", NEW).episodes
    taken = stored().infos["intervention"] != 0
    export_file(NEW, "npz", tmp_path / "log.npz")
    import_file(tmp_path / "log.npz", "me/arm/again-v0", Setting(), None)
    again = load_episodes("me/arm/again-v0")
    for episodes in (made, load_episodes(NEW), load_episodes(NEW), again):
        column = DATA_COLUMNS["intervention"].of_dataset(Logged(episodes, made.reward, 0.99))
        assert_array_equal(column, taken)
        assert episodes.content_hash == made.content_hash


@pytest.mark.usefixtures("folder")
def test_its_card_says_which_run_it_is_from(probe: str, tmp_path: Path) -> None:
    execute(recipe_for(), tmp_path / "run")
    dataset_from_run(tmp_path / "run", NEW)
    facts = card(load_episodes(NEW), open_minari(NEW).metadata)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert facts["from_run"]["algo"] == PROBE
    assert facts["from_run"]["seeds"] == "[0, 1]"
    assert len(facts["from_run"]["manifest_sha256"]) == 64
    assert facts["from_run"]["started"] == manifest["started"]
    assert "2 of" in facts["import_notes"][0]


# -- what is refused


@follows(
    "{} holds no run{}: give the --out of a 'baq finetune'",
    "{} is a pre-training, which plays no episodes that are kept: fine-tune it first ",
    "compare' have, or an earlier version made it. Give keep_transitions=true to the command that",
)
def test_what_kept_no_transitions_is_refused_with_the_way(
    terminal: Terminal, folder: Path, short_env: str, tmp_path: Path
) -> None:
    small = ("threads=1", "evaluation.episodes=1", "evaluation.background=false")
    small = (*small, "shared.hidden=[8,8]", "--algo", "sac", "--env", short_env)

    def finetuned(*more: str) -> None:
        terminal.done("finetune", *small, "--out", tmp_path / "run", *more)

    def asked(run: Path) -> tuple[str | Path, ...]:
        return ("data", "from-run", run, "--id", NEW)

    write_steady("me/steady-v0")
    words = ("--dataset", "me/steady-v0", "--env", "Steady-v0", "--algo", "awac")
    words = (*words, "--gradient-steps", "4", "--out", tmp_path / "pretrained", *small[:4])
    terminal.done("pretrain", *words)
    said = terminal.told(*asked(tmp_path / "pretrained"))
    words = (*quoted(said, "baq finetune")[:-1], tmp_path / "tuned", "--env-steps", "4")
    terminal.done(*words, "--dataset", "me/steady-v0", *small[:4])
    assert "holds no run" in terminal.told(*asked(tmp_path))
    terminal.done("data", "from-run", tmp_path / "tuned", "--id", "me/steady/tuned-v0")
    finetuned("--env-steps", "8", "keep_transitions=false")
    said = terminal.told(*asked(tmp_path / "run"), status=3)
    assert "Give keep_transitions=true to the command that fine-tunes; with --resume" in said
    finetuned("--env-steps", "20", "--resume", "keep_transitions=true")
    terminal.done(*asked(tmp_path / "run"))
    assert NEW in local_datasets()


def test_a_run_that_has_only_begun_is_asked_to_go_on(
    terminal: Terminal, folder: Path, short_env: str, tmp_path: Path
) -> None:
    small = ("threads=1", "evaluation.episodes=1", "evaluation.background=false")
    words = ("finetune", *small, "shared.hidden=[8,8]", "--algo", "sac", "--env", short_env)
    words = (*words, "--env-steps", "8", "--out", str(tmp_path / "run"))
    terminal.done(*words)
    path = tmp_path / "run" / NAME
    path.write_bytes(path.read_bytes().partition(b"\n")[0] + b"\n")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    asked = ("data", "from-run", tmp_path / "run", "--id", NEW)
    assert "holds no episode: let" in terminal.told(*asked, status=3)
    terminal.done(*words, "--resume")
    terminal.done(*asked)


@pytest.mark.usefixtures("folder")
def test_other_seeds_and_ids_are_refused_and_nothing_is_saved(probe: str, tmp_path: Path) -> None:
    execute(recipe_for(), tmp_path / "run")
    with pytest.raises(UsageError, match="has no seed 7: it has 0, 1"):
        dataset_from_run(tmp_path / "run", NEW, [1, 7])
    with pytest.raises(UsageError, match="reference datasets"):
        dataset_from_run(tmp_path / "run", "baq/arm/x-v0")
    content = bytearray((tmp_path / "run" / NAME).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "run" / NAME).write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        dataset_from_run(tmp_path / "run", NEW)
    assert local_datasets() == []
