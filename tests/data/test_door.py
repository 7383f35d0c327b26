"""Every way by which a dataset comes in checks it as `baq data check` does, or saves nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
from minari.serialization import serialize_space

from baq_cli.data.door import every_finding
from baq_cli.data.exchange import export_file, import_file, save_arrays
from baq_cli.data.logs.logfile import Setting
from baq_cli.data.minari.download import download
from baq_cli.data.minari.folder import dataset_path, local_datasets, open_minari
from baq_cli.data.minari.read import read_episodes
from baq_cli.data.minari.write import write_minari
from baq_cli.data.recording import Recording
from baq_cli.data.suite import ReferenceDataset, Uniform
from baq_cli.engine.collection import datasets
from baq_cli.envs.ref import EnvChoice
from baq_cli.errors import BaqError, DataError
from support.recordings import plain_recording, unseal

ID = "me/new-v0"
Box = gym.spaces.Box


class Spoilt(gym.Env[Any, Any]):
    """Gives, in its third step, what its keyword says."""

    observation_space = Box(-np.inf, np.inf, (2,))
    action_space = Box(-1, 1, (1,))

    def __init__(self, reward: float = 0.0, height: float = 0.0):
        self.given = reward, height

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.normal(size=2).astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        obs = self.np_random.normal(size=2).astype(np.float32)
        reward, height = self.given if self.t == 3 else (0.0, 0.0)
        obs[0] += height
        return obs, reward + float(obs[1]), False, self.t == 5, {}


KINDS = {
    "sound": {},
    "reward": {"reward": float("nan")},
    "infinite": {"reward": float("inf")},
    "height": {"height": float("nan")},
}


@pytest.fixture(autouse=True)
def environments(folder: Path) -> Iterator[None]:
    for kind, kwargs in KINDS.items():
        gym.register(f"Spoilt-{kind}-v0", f"{__name__}:Spoilt", kwargs=kwargs)
    yield
    for kind in KINDS:
        del gym.registry[f"Spoilt-{kind}-v0"]


def silent(event: Any) -> None:
    pass


def of_kind(kind: str) -> Recording:
    """Return a recording of the kind, in that environment's spaces."""
    made = plain_recording(observation_space=Spoilt.observation_space)
    made = replace(made, action_space=Spoilt.action_space, actions=made.actions[:, :1] / 2)
    rewards, observations = made.rewards.copy(), made.observations[""].copy()
    rewards[2] += KINDS[kind].get("reward", 0.0)
    observations[2, 0] += np.float32(KINDS[kind].get("height", 0.0))
    return replace(made, rewards=rewards, observations={"": observations})


def by_import(kind: str, folder: Path) -> None:
    write_minari("me/given-v0", of_kind(kind))
    export_file("me/given-v0", "npz", folder / "log.npz")
    import_file(folder / "log.npz", ID, Setting(), None)


def by_arrays(kind: str, folder: Path) -> None:
    made = of_kind(kind)
    save_arrays(
        ID,
        observations=made.observations[""][made.rows()],
        next_observations=made.observations[""][made.next_rows()],
        actions=made.actions,
        rewards=made.rewards,
        terminated=made.terminated,
        truncated=made.truncated,
        action_low=-1.0,
        action_high=1.0,
    )


def by_collecting(kind: str, folder: Path) -> None:
    spoilt = EnvChoice(f"Spoilt-{kind}-v0")
    datasets.collect_dataset(ID, [Uniform()], spoilt, 20, 0, False, silent)


def by_building(kind: str, folder: Path) -> None:
    small = ReferenceDataset("baq/small-v0", f"Spoilt-{kind}-v0", (Uniform(),), 20, "small")
    datasets.build(small, silent, dataset_id=ID)


def by_download(kind: str, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minari, "download_dataset", lambda name: write_minari(name, of_kind(kind)))
        download(ID)


WAYS: dict[str, Callable[[str, Path], None]] = {
    "import": by_import,
    "arrays": by_arrays,
    "collect": by_collecting,
    "build": by_building,
    "download": by_download,
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sound"])
@pytest.mark.parametrize("way", WAYS)
def test_what_check_refuses_is_saved_by_no_way_in(way: str, kind: str, folder: Path) -> None:
    before = set(local_datasets())
    with pytest.raises(DataError, match=r"NaN, infinite or beyond float32 .* in episode"):
        WAYS[way](kind, folder)
    assert set(local_datasets()) - before <= {"me/given-v0"}
    assert not dataset_path(ID).exists()


@pytest.mark.parametrize("way", WAYS)
def test_what_a_way_in_saves_check_accepts(way: str, folder: Path) -> None:
    WAYS[way]("sound", folder)
    found = every_finding(read_episodes(open_minari(ID)))
    assert [finding for finding in found if finding.level == "error"] == []


def test_a_log_that_its_own_environment_contradicts_is_not_imported(folder: Path) -> None:
    """The file says Pendulum, whose observations have three numbers, and holds two."""
    spec = gym.spec("Pendulum-v1")
    write_minari("me/given-v0", plain_recording(env_spec=spec))
    export_file("me/given-v0", "npz", folder / "log.npz")
    with pytest.raises(DataError, match=r"has obs_dim 3, but .* has 2.*Nothing was saved"):
        import_file(folder / "log.npz", ID, Setting(), None)
    import_file(folder / "log.npz", ID, Setting(None, [-2.0], [2.0]), None)  # for none


def test_an_environment_that_a_log_names_and_nobody_has_is_a_warning(folder: Path) -> None:
    spec = gym.envs.registration.EnvSpec("Nowhere-v3", entry_point="nowhere:All")
    write_minari("me/given-v0", plain_recording(env_spec=spec))
    export_file("me/given-v0", "npz", folder / "log.npz")
    done = import_file(folder / "log.npz", ID, Setting(), None)
    [found] = [f for f in done.episodes.findings if f.check == "environment"]
    assert (found.level, "'Nowhere-v3'" in found.text) == ("warning", True)


def test_a_download_of_what_nothing_here_trains_on_is_not_kept_and_says_how_it_can_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(name: str) -> None:
        write_minari(name, plain_recording())
        unseal(name)
        path = dataset_path(name) / "data" / "metadata.json"
        said = json.loads(path.read_text())
        said["action_space"] = serialize_space(gym.spaces.Discrete(3))
        path.write_text(json.dumps(said))

    monkeypatch.setattr(minari, "download_dataset", publish)
    with pytest.raises(BaqError, match=rf"not kept, .*Discrete.*'minari download {ID}' keeps it"):
        download(ID)
    assert not dataset_path(ID).exists()


def test_collect_tells_what_the_checks_warn_of(baq_here: Callable[..., Any]) -> None:
    words = ("data", "collect", ID, "--env", "Spoilt-sound-v0", "--behavior", "random")
    status, out, told = baq_here(*words, "--env-steps", "1")
    assert (status, out.strip()) == (0, ID)
    assert "warning: 1 of 1 (100.0%) of the episodes have one step." in told
