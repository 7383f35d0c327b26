"""What messages about folders, disks and datasets advise is done here to the letter, and helps."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from typer.testing import CliRunner

from baq_cli import load_policy
from baq_cli.data.minari.folder import dataset_path
from baq_cli.data.minari.write import write_minari
from baq_cli.data.suite import SUITE
from baq_cli.errors import DataError
from baq_cli.launch.places import Place
from support.advice import Terminal, follows, quoted
from support.commands import LOG, SMALL, compare, log, pretrain
from support.fake_slurm import fake_slurm
from support.logs import ARRAYS, BOUNDS, NEW, npz_file
from support.odd_envs import Steady
from support.recordings import ID, plain_recording
from support.refusing import FAULTS, refusing

__all__ = ["log"]
LATIN = os.fsdecode(b"l\xe4ufe.yaml")
COPY = ["recipes", "copy", "--force", "pendulum/iql"]
COLLECT = ["--behavior", "random", "--env-steps", "6"]
HERE = ["env_workers=false"]
LIMITS = {"n": resource.RLIMIT_NOFILE, "f": resource.RLIMIT_FSIZE}


@contextmanager
def limited(letter: str, most: int) -> Iterator[None]:
    """Work under a limit of `ulimit`."""
    before = resource.getrlimit(LIMITS[letter])
    resource.setrlimit(LIMITS[letter], (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(LIMITS[letter], before)


def told_of(terminal: Terminal, folder: Path, fault: str, *words: str | Path) -> str:
    """Give a command to which the system refuses a call below a folder; return its message."""
    for call in range(1, 20):
        with refusing(folder, call, fault):
            status, _, said = terminal.run(*words)
        if status:
            return " ".join(said.split())
    raise AssertionError("no call that is refused makes it fail")


def minari(*words: str) -> str:
    """Give a command of Minari's own, in this process, and answer its question with yes."""
    from minari.cli import app

    done = CliRunner().invoke(app, list(words), input="y\n")
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of a benchmark that measures no updates."""
    monkeypatch.setattr("baq_cli.bench.updates.measure_cases", lambda *given: [])
    monkeypatch.setattr("baq_cli.bench.updates.large_ceiling", lambda *given: 1.0)
    return ["bench", "--seeds", "1", "--hidden", "8", "--batch", "8", "--rows", "99", "--json"]


# -- what the system refuses


@follows("What stands where a folder should be is none: name another place.")
@follows("It is a folder, and a file is expected: name another.", "Give it a shorter name.")
@follows("Its links lead in a circle: name what they should lead to.")
@follows("Look whether each folder of that path is there, also the one you are in.")
def test_a_recipe_is_copied_once_its_path_is_as_the_message_says(
    terminal: Terminal, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    for path, advised, instead in (
        ("file/mine.yaml", "another place", "folder/mine.yaml"),
        ("folder", "name another", "other.yaml"),
        ("x" * 300, "a shorter name", "x" * 100),
        ("one/here.yaml", "what they should lead to", "folder/here.yaml"),
    ):
        assert advised in terminal.told(*COPY, tmp_path / path, status=3)
        terminal.done(*COPY, tmp_path / instead)
    missing = tmp_path / "missing" / "mine.yaml"
    assert "each folder of that path" in terminal.told(*COPY, missing, status=3)
    missing.parent.mkdir()
    terminal.done(*COPY, missing)


@follows("What is there already is in the way: name another place.")
def test_measurements_are_saved_in_a_place_where_nothing_is_in_the_way(
    terminal: Terminal, tmp_path: Path, bench: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    said = terminal.told(*bench, "--save", tmp_path / "file", status=3)
    assert "name another place" in said
    terminal.done(*bench, "--save", tmp_path / "other")


@follows("That file system can only be read: name a place on another.")
@follows("Give this user access to it, or name another place.")
@follows("Choose a folder that can be written to.")
def test_another_place_or_access_to_it_is_what_a_refusal_asks_for(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_device(call: str, path: str) -> OSError:
        return OSError(errno.ENODEV, os.strerror(errno.ENODEV), path)

    monkeypatch.setitem(FAULTS, "ENODEV", no_device)
    for name, advised in (
        ("EROFS", "name a place on another"),
        ("EACCES", "Give this user access to it, or name another place"),
        ("ENODEV", "Choose a folder that can be written to"),
    ):
        here, other = tmp_path / name, tmp_path / f"{name}-other"
        here.mkdir()
        other.mkdir()
        assert advised in told_of(terminal, here, name, *COPY, here / "mine.yaml")
        terminal.done(*COPY, other / "mine.yaml")
        if "access" in advised:
            terminal.done(*COPY, here / "mine.yaml")


@follows("Files may not be that large here: raise the limit with 'ulimit -f'.")
@follows("Too much is open at once: raise the limit with 'ulimit -n', or do less at once (--work")
def test_with_a_higher_limit_or_less_at_once_a_command_succeeds(
    terminal: Terminal, log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*given: Any) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    terminal.done(*COPY, tmp_path / "before.yaml")  # what it imports is open no more
    next_one = os.dup(0)
    os.close(next_one)
    for letter, most in (("f", 9), ("n", next_one)):
        with limited(letter, most):
            said = terminal.told(*COPY, tmp_path / f"{letter}.yaml", status=3)
        assert re.findall(r"'ulimit -(\w)'", said) == [letter]
        terminal.done(*COPY, tmp_path / f"{letter}.yaml")
    words = pretrain("bc", tmp_path / "run", "evaluation.background=true")
    monkeypatch.setattr(multiprocessing.context.BaseContext, "Pipe", none_left)
    said = terminal.told(*words, status=3)
    ((workers, less),) = re.findall(r"do less at once \((.*), (.*)\)", said)
    terminal.done(*words, less, "--out", tmp_path / "less")
    assert workers in " ".join(compare(tmp_path)), "as comparisons are given here"


def test_a_dataset_is_not_mapped_from_the_cache_where_too_much_is_open(
    terminal: Terminal, log: str
) -> None:
    terminal.done("data", "show", LOG)
    next_one = os.dup(0)
    os.close(next_one)
    for more in range(8):
        with limited("n", next_one + more):
            status, _, said = terminal.run("data", "show", LOG)
        assert status == 0 or (status == 3 and "ulimit -n" in said), said


@follows("cannot write down a name or a text that is not UTF-8 ({}). Rename it, or choose another.")
def test_another_name_than_one_that_is_not_utf_8_is_taken(
    terminal: Terminal, tmp_path: Path
) -> None:
    said = told_of(terminal, tmp_path / LATIN, "unicode", *COPY, tmp_path / LATIN)
    assert "choose another" in said
    terminal.done(*COPY, tmp_path / "laeufe.yaml")


@follows("--launcher {} takes no folder whose name is not UTF-8, as {}: choose another --out, or ")
def test_a_comparison_in_a_folder_that_is_not_utf_8_stays_here_or_goes_elsewhere(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    words = compare(tmp_path / LATIN)
    with fake_slurm(tmp_path):
        said = terminal.told(*words, "--launcher", "slurm")
        Place("slurm").open(1, tmp_path / "another")
    (instead,) = re.findall(r"or (--launcher \w+)", said)
    terminal.done(*words, *instead.split())


# -- folders that no option names


@follows("{} is set, and names no folder: name one with it, or unset it")
@follows("this user has no home folder ($HOME is not set): name a folder with {}")
@follows("the Minari folder {} is a file, or a link that leads to no folder: name a folder with {}")
def test_the_variable_that_is_named_says_where_datasets_are(
    terminal: Terminal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_minari(ID, plain_recording())
    good = os.environ["MINARI_DATASETS_PATH"]
    show = ["data", "list"]
    home = folder / "home"
    (home / ".minari").mkdir(parents=True)
    shutil.copytree(good, home / ".minari" / "datasets")
    (folder / "file").write_text("")
    for value in ("", str(folder / "file")):
        monkeypatch.setenv("MINARI_DATASETS_PATH", value)
        said = terminal.told(*show, status=3)
        (name,) = set(re.findall(r"MINARI_\w+", said))
        monkeypatch.setenv(name, good)
        assert ID in terminal.done(*show)
        if "unset it" in said:
            monkeypatch.delenv(name)
            monkeypatch.setenv("HOME", str(home))
            assert ID in terminal.done(*show)
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "expanduser", lambda path: path)
        said = terminal.told(*show, status=3)
        (name,) = re.findall(r"name a folder with (\w+)", said)
        patch.setenv(name, good)
        assert ID in terminal.done(*show)


@follows("cannot {}: {}. Name a folder with {}.")
def test_a_temporary_folder_that_is_named_lets_a_benchmark_run(
    terminal: Terminal,
    tmp_path: Path,
    bench: list[str],
    short_env: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [*bench, "--env", short_env, "--env-steps", "4"]
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [os.environ["TMPDIR"]])
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    said = terminal.told(*words, status=3)
    (name,) = re.findall(r"Name a folder with (\w+)", said)
    monkeypatch.setenv(name, str(tmp_path))
    terminal.done(*words)


# -- datasets under their ids


@follows("ids below '{}' are those of reference datasets ('baq data suite list'): choose another")
@follows("dataset '{}' exists: choose another id (versions end in -v0, -v1, …) or delete it with")
@follows("the folder {} is there, but holds no whole dataset: remove it, or choose another id")
def test_a_dataset_is_saved_under_the_id_that_is_advised(
    terminal: Terminal, short_env: str, folder: Path
) -> None:
    words = ["--env", short_env, *COLLECT]
    said = terminal.told("data", "collect", "baq/short/mine-v0", *words)
    assert "baq/pendulum" in terminal.done(*quoted(said, "baq data suite list"), "--json")
    (mine,) = re.findall(r"as (me/\S+)", said)
    terminal.done("data", "collect", mine, *words)
    said = terminal.told("data", "collect", mine, *words)
    terminal.done("data", "collect", mine.replace("-v0", "-v1"), *words)
    minari(*quoted(said, "minari delete"))
    terminal.done("data", "collect", mine, *words)
    (dataset_path(mine) / "data" / "metadata.json").unlink()
    said = terminal.told("data", "collect", mine, *words)
    terminal.done("data", "collect", mine.replace("-v0", "-v2"), *words)
    (left,) = re.findall(r"the folder (\S+) is there", said)
    shutil.rmtree(left)
    terminal.done("data", "collect", mine, *words)


@follows("cannot save dataset '{}': another process saved one under this id meanwhile, which was")
@follows("cannot save dataset '{}': {}. Make room in the Minari folder, or name another with MIN")
def test_a_dataset_is_saved_under_another_id_or_once_there_is_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minari.dataset._storages.hdf5_storage import HDF5Storage

    def full(*given: Any) -> None:
        raise RuntimeError("Can't decrement id ref count (file write failed: errno = 28)")

    with monkeypatch.context() as patch:
        patch.setattr(HDF5Storage, "update_episodes", full)
        with pytest.raises(DataError, match="Make room") as caught:
            write_minari(ID, plain_recording())
    write_minari(ID, plain_recording())
    with pytest.raises(DataError, match="Choose another id"):
        write_minari(ID, plain_recording())
    write_minari(ID.replace("-v0", "-v1"), plain_recording())
    (name,) = re.findall(r"name another with (\w+)", str(caught.value))
    monkeypatch.setenv(name, str(folder / "another"))
    write_minari(ID, plain_recording())
    assert (folder / "another" / ID).is_dir()


@follows("dataset '{}' is damaged: {}. Remove the folder {}, then get it again: {}{}.")
@follows("'baq data suite build {}'")
@follows("import or collect it anew, or 'baq data download {}' for a public one")
@follows("; if another tool changed it on purpose, take the entry '{}' out of its metadata.json")
@pytest.mark.parametrize("where", ["metadata.json", "main_data.hdf5"])
def test_a_damaged_dataset_is_removed_and_got_again(
    where: str, terminal: Terminal, short_env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, mine = "baq/pendulum/random-v0", "me/short/mine-v0"
    collect = ["data", "collect", mine, "--env", short_env, *COLLECT]
    monkeypatch.setitem(SUITE, built, replace(SUITE[built], transitions=400))
    terminal.done("data", "suite", "build", built)
    terminal.done(*collect)

    def damage(dataset_id: str) -> str:
        file = dataset_path(dataset_id) / "data" / where
        content = bytearray(file.read_bytes())
        content[len(content) // 2 if where.endswith("hdf5") else 0] ^= 1
        file.write_bytes(content)
        said = terminal.told("data", "check", dataset_id, status=3)
        (folder,) = re.findall(r"Remove the folder (\S+), then", said)
        shutil.rmtree(folder)
        return said

    def fetch(dataset_id: str) -> None:
        write_minari(dataset_id, plain_recording())

    terminal.done(*quoted(damage(built), "baq data suite build"))
    terminal.done("data", "check", built)
    damage(mine)
    terminal.done(*collect)
    terminal.done("data", "check", mine)
    monkeypatch.setattr("minari.download_dataset", fetch)
    terminal.done(*quoted(damage(mine), "baq data download"))
    terminal.done("data", "check", mine)
    path = dataset_path(mine) / "data" / "metadata.json"
    said_of_it = json.loads(path.read_text())
    path.write_text(json.dumps(said_of_it | {"requirements": ["numpy"]}))
    said = terminal.told("data", "check", mine, status=3)
    (entry,) = re.findall(r"take the entry '(\w+)' out of its metadata\.json", said)
    said_of_it.pop(entry)
    path.write_text(json.dumps(said_of_it | {"requirements": ["numpy"]}))
    terminal.done("data", "check", mine)


@follows("dataset '{}' is not in the Minari folder {}. 'baq data list' shows what is there, 'baq ")
@follows("cannot download '{}': {}. Where there is a network, run 'minari download {}' and copy")
def test_a_dataset_that_is_missing_is_fetched_here_or_where_there_is_a_network(
    terminal: Terminal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(dataset_id: str) -> None:
        raise ConnectionError("no network")

    def fetch(dataset_id: str, *given: Any) -> None:
        write_minari(dataset_id, plain_recording())

    said = terminal.told("data", "show", ID, status=3)
    for begins in ("baq data list", "baq data suite list"):
        terminal.done(*quoted(said, begins))
    download = quoted(said, "baq data download")
    with monkeypatch.context() as patch:
        patch.setattr("minari.download_dataset", unreachable)
        said = terminal.told(*download, status=3)
        patch.setenv("HOME", str(folder / "there"))  # what Minari's commands do elsewhere
        patch.delenv("MINARI_DATASETS_PATH")
        assert quoted(said, "minari download") == ["download", ID]
        fetch(ID)
    source, target = re.findall(r"copy the folder ~/(\S+) to (\S+) here", said)[0]
    shutil.copytree(folder / "there" / source, target)
    terminal.done("data", "check", ID)
    shutil.rmtree(target)
    monkeypatch.setattr("minari.download_dataset", fetch)
    terminal.done(*download)
    terminal.done("data", "check", ID)


@follows("{} 'baq data check {}' shows every finding.")
def test_the_check_that_is_named_shows_what_loading_did_not(
    terminal: Terminal, folder: Path
) -> None:
    recording = plain_recording(lengths=(4, 3))
    recording.rewards[1] = np.nan
    recording.terminated[0] = True
    write_minari(ID, recording)
    said = terminal.told("data", "show", ID, status=3)
    status, out, _ = terminal.run(*quoted(said, "baq data check"))
    assert status == 3
    assert "NaN" in out
    assert "cut wrongly" in out


# -- what a dataset and an exported file can hold


@follows("{} can't be described in a dataset: {}. Register it with entry_point='module:Class', and")
def test_an_environment_that_is_registered_by_name_can_be_described(terminal: Terminal) -> None:
    words = ["data", "collect", "me/here-v0", "--env", "Here-v0", *COLLECT]
    pendulum = "gymnasium.envs.classic_control:PendulumEnv"

    def register(**how: Any) -> None:
        gym.registry.pop("Here-v0", None)
        gym.register("Here-v0", max_episode_steps=3, **how)

    register(entry_point=Steady)
    terminal.told(*words, status=4)
    register(entry_point=pendulum, kwargs={"g": np.float32(9)})  # JSON can't hold it
    said = terminal.told(*words, status=4)
    (name,) = re.findall(r"Register it with (\w+)='module:Class'", said)
    register(**{name: pendulum}, kwargs={"g": 9.0})
    terminal.done(*words)
    gym.registry.pop("Here-v0")


@follows("the log has infos named '{}', which can't be kept: rename it")
def test_infos_are_kept_under_a_name_of_their_own(terminal: Terminal, tmp_path: Path) -> None:
    steps = np.zeros(len(ARRAYS["rewards"]))
    words = ["--id", NEW, *BOUNDS]
    log = npz_file(tmp_path / "a.npz", **{"infos/a": steps, "infos/a/b": steps})
    said = terminal.told("data", "import", log, *words, status=3)
    (name,) = re.findall(r"infos named '(\S+)'.*rename it", said)
    renamed = {f"infos/{'c' if n == name else n}": steps for n in ("a", "a/b")}
    terminal.done("data", "import", npz_file(tmp_path / "b.npz", **renamed), *words)


@follows("an exported file computes in float32, and the action bounds are beyond its range: use ")
def test_a_policy_of_wide_actions_is_loaded_or_its_environment_rescaled(
    terminal: Terminal, folder: Path, tmp_path: Path
) -> None:
    class Wide(Steady):
        action_space = gym.spaces.Box(-1e39, 1e39, (1,), np.float64)

    def rescaled() -> gym.Env[Any, Any]:
        return gym.wrappers.RescaleAction(Wide(), np.array([-1.0]), np.array([1.0]))

    runs = {"Wide-v0": Wide, "Rescaled-v0": rescaled}
    for name, made in runs.items():
        gym.register(name, made, disable_env_checker=True)
        words = ["finetune", "--env", name, "--algo", "sac", "--env-steps", "6", *SMALL]
        terminal.done(*words, *HERE, "--out", tmp_path / name)
        gym.registry.pop(name)
    export = ["export", "--format", "torchscript", "--out", tmp_path / "policy.pt", "--checkpoint"]
    said = terminal.told(*export, tmp_path / "Wide-v0")
    assert "use baq_cli.load_policy" in said
    (action,) = load_policy(tmp_path / "Wide-v0")(np.zeros(3))
    assert abs(action) <= 1e39
    terminal.done(*export, tmp_path / "Rescaled-v0")


@follows("say {}.{}mean={}", "pre-train with {}.mean={}, or continue it by '{}'")
def test_a_policy_is_continued_with_the_mean_or_the_method_that_is_named(
    terminal: Terminal, log: str, tmp_path: Path
) -> None:
    def continued(run: str, out: str, *words: str) -> list[str]:
        given = ["--checkpoint", str(tmp_path / run), "--out", str(tmp_path / out)]
        return ["finetune", *given, "--env-steps", "6", *SMALL[:3], *HERE, *words]

    terminal.done(*pretrain("iql", tmp_path / "iql", *HERE))
    words = continued("iql", "on", "--algo", "awac")
    said = terminal.told(*words, "awac.mean=linear")
    (setting,) = re.findall(r"say (awac\.mean=\w+)", said)
    terminal.done(*words, setting)
    terminal.done(*pretrain("awac", tmp_path / "awac", "awac.mean=linear", *HERE))
    said = terminal.told(*continued("awac", "by-iql", "--algo", "iql"))
    setting, algo = re.findall(r"pre-train with (\S+), or continue it by '(\w+)'", said)[0]
    terminal.done(*continued("awac", "by-itself", "--algo", algo))
    terminal.done(*pretrain("awac", tmp_path / "anew", setting, *HERE))
    terminal.done(*continued("anew", "by-iql", "--algo", "iql"))
