"""What a run did online as a dataset: its transitions, episode by episode, from its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from baq_cli.data.card import FROM_RUN
from baq_cli.data.door import save
from baq_cli.data.episodes import INTERVENTION, Episodes
from baq_cli.data.logs.filecard import Card, card_of_env, parse_card
from baq_cli.data.logs.several import NOTES
from baq_cli.data.logs.success import SUCCESS
from baq_cli.data.minari.commit import check_place
from baq_cli.data.minari.folder import check_new_id
from baq_cli.data.recording import Recording
from baq_cli.engine.checkpoints import folder as ckpt
from baq_cli.envs.pool import Made
from baq_cli.envs.ref import EnvRef
from baq_cli.envs.spaces import Spaces, observation_parts, split_parts
from baq_cli.errors import DataError, UsageError, listed
from baq_cli.plain_files import read as read_bytes
from baq_cli.runs.checkpoints import complete
from baq_cli.runs.files import hash_of, read_errors, read_json
from baq_cli.runs.folder import MANIFEST, RECIPE
from baq_cli.runs.transitions import LIMIT, NAME, SOMEBODY, Transitions, read
from baq_cli.units import amount

Array = npt.NDArray[Any]
RECORDED_IN = "recorded_in"
"""The entry of a run's manifest that describes the environment of its transitions: a `Card`."""
RUN_SEED, PROPOSED, LIMITED = "run_seed", "proposed_action", "limited"
"""Infos of each step: which of the run's seeds it is of, and what its policy asked for."""
KEPT = ("policy_version", "time_ns", "late_ns")
"""Fields of records that are infos where a run has them."""


@dataclass(frozen=True)
class FromRun:
    """A dataset that was made of a run, and what is to be said of it."""

    episodes: Episodes
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Played:
    """Episodes of a run, one behind the other, those of a seed together.

    `steps` are their records, `[M]`, and `lengths` how many each has, `[K]`. `running` and `cut`
    count those that ended without a flag, by whether they were a seed's last; `headless` those that
    were left out, because the file begins within them.
    """

    steps: Array
    lengths: Array
    running: int
    cut: int
    headless: int


def dataset_from_run(run: Path, dataset_id: str, seeds: Sequence[int] | None = None) -> FromRun:
    """Save what a run did online as a Minari dataset, checked first, whole or not at all.

    Episodes are those of `seeds`, by default of all, seed by seed and in their order. One that was
    cut short, or is still under way, ends truncated: where it stood is known. No environment is
    made for it, as that may be a robot.
    Raises UsageError for what is no fine-tuning, for seeds that it hasn't, and for an id that is
    taken or malformed; DataError for a run that kept no transitions, or is damaged.
    """
    check_new_id(dataset_id)
    check_place(dataset_id)
    manifest = _manifest(run)
    if not (run / NAME).exists():
        raise _kept_none(run)
    transitions = read(run / NAME)
    card = _card(run, manifest)
    played = _played(transitions, _places(run, transitions, seeds), run / NAME)
    notes = _notes(played)
    about = {**card.about.model_dump(exclude_unset=True), **_about(run, manifest, played)}
    recording = _recording(played, card, transitions.layout.seeds, about | {NOTES: list(notes)})
    return FromRun(save(dataset_id, recording, choice=None), notes)


def _manifest(run: Path) -> dict[str, Any]:
    if not (run / RECIPE).exists():
        online = run / "online"
        meant = f" ({online} does)" if (online / RECIPE).exists() else ""
        raise UsageError(f"{run} holds no run{meant}: give the --out of a 'baq finetune'")
    return read_json(run / MANIFEST)


def _kept_none(run: Path) -> UsageError | DataError:
    if complete(run, "offline"):
        return UsageError(
            f"{run} is a pre-training, which plays no episodes that are kept: fine-tune it first "
            f"('baq finetune --checkpoint {run} --out OUT')"
        )
    return DataError(
        f"{run} kept no transitions: its recipe has keep_transitions=false, as those of 'baq "
        "compare' have, or an earlier version made it. Give keep_transitions=true to the command "
        "that fine-tunes; with --resume they are kept from there on."
    )


def _card(run: Path, manifest: dict[str, Any]) -> Card:
    """Return what the environment of a run is like: as the run says, or else as one is made."""
    if RECORDED_IN in manifest:
        return parse_card(json.dumps(manifest[RECORDED_IN]))
    env = EnvRef.of_document(ckpt.load(run).document)
    assert env is not None  # it has acted
    return parse_card(json.dumps(card_of_env(Made.of(env))))


def _places(run: Path, transitions: Transitions, seeds: Sequence[int] | None) -> list[int]:
    """Return the places of seeds among those of a run."""
    known = transitions.layout.seeds
    missing = [seed for seed in seeds or () if seed not in known]
    if missing:
        raise UsageError(f"{run} has no seed {missing[0]}: it has {listed(list(map(str, known)))}")
    return [i for i, seed in enumerate(known) if not seeds or seed in seeds]


def _played(transitions: Transitions, places: Sequence[int], path: Path) -> _Played:
    """Tell the episodes of seeds apart.

    Raises DataError where there is none.
    """
    kept: list[Array] = []
    running = cut = headless = 0
    for place in places:
        steps = transitions.of_seed(place).records
        other = np.diff(steps["episode"]) != 0
        gap = np.diff(steps["step_in_episode"]) != 1  # no transitions were kept for a while
        parts = np.split(steps, np.flatnonzero(other | gap) + 1)
        whole = [part for part in parts if len(part) and not part["step_in_episode"][0]]
        open_ended = [not (part["terminated"][-1] or part["truncated"][-1]) for part in whole]
        under_way = bool(whole) and open_ended[-1] and whole[-1] is parts[-1]
        running += under_way
        cut += sum(open_ended) - under_way
        headless += sum(len(part) > 0 for part in parts) - len(whole)
        kept += whole
    if not kept:
        beginnings = " whose beginning it has" if headless else ""
        raise DataError(f"{path} holds no episode{beginnings}: let the run go on")
    lengths = np.array([len(episode) for episode in kept])
    return _Played(np.concatenate(kept), lengths, running, cut, headless)


def _notes(played: _Played) -> tuple[str, ...]:
    """Say what isn't plain of episodes, and who acted in them."""
    steps, of = played.steps, len(played.lengths)
    marks = steps[SUCCESS]
    taken, held = (int((steps[INTERVENTION] == by).sum()) for by in (SOMEBODY, LIMIT))
    said = {
        f"under way, so kept and truncated where they stood: {played.running} of "
        f"{amount(of, 'episode')}": played.running,
        f"shortened by a fault or a stop, so truncated there: {played.cut} of "
        f"{amount(of, 'episode')}": played.cut,
        f"left out, as the beginning was not kept: {amount(played.headless, 'episode')}": (
            played.headless
        ),
        f"somebody acted in the policy's place in {taken:,} of {amount(len(steps), 'step')}": taken,
        f"a limit changed what was done in {held:,} of {amount(len(steps), 'step')}": held,
        f"marked as a success: {int((marks > 0).sum()):,} steps, as a failure: "
        f"{int((marks < 0).sum()):,}": (marks != 0).any(),
    }
    return tuple(text for text, holds in said.items() if holds)


def _about(run: Path, manifest: dict[str, Any], played: _Played) -> dict[str, Any]:
    """Return the entries of a dataset's metadata that say which run it comes from."""
    with read_errors(run / MANIFEST):
        digest = hash_of(read_bytes(run / MANIFEST))
    environment = manifest.get("environment") or {}
    name = str(environment.get("name", environment.get("id")))
    told = {key: manifest.get(key) for key in ("algo", "seeds", "started", "ended", "versions")}
    reached = int(played.steps["env_step"].max()) + 1
    return {
        "algorithm_name": str(manifest.get("algo")),
        "author": ["baq"],
        "description": (
            f"What {manifest.get('algo')} did online in {name} (run {run.resolve().name}), up to "
            f"{reached:,} env_steps a seed."
        ),
        FROM_RUN: {**told, "manifest_sha256": digest, "environment": name},
    }


def _recording(
    played: _Played, card: Card, seeds: tuple[int, ...], about: dict[str, Any]
) -> Recording:
    """Return episodes in the environment's own spaces, types and units."""
    observation_space, action_space = card.spaces()
    spaces, steps, lengths = (
        Spaces.of(observation_space, action_space),
        played.steps,
        played.lengths,
    )
    widths = steps["obs"].shape[1], steps["action"].shape[1]
    if widths != (spaces.obs_dim, spaces.action_dim):
        raise DataError(
            f"the run's transitions have {widths[0]} and {widths[1]} numbers an observation and an "
            f"action, its environment {spaces.obs_dim} and {spaces.action_dim}: it is damaged"
        )
    last = np.cumsum(lengths) - 1
    terminated, truncated = (steps[name].astype(np.bool_) for name in ("terminated", "truncated"))
    truncated[last] |= ~terminated[last]
    action = spaces.to_env(steps["action"])
    told = ~np.isnan(steps["executed"]).any(axis=1)
    action[told] = steps["executed"][told].astype(action.dtype)
    return Recording(
        observation_space=observation_space,
        action_space=action_space,
        observations=_observations(played, observation_space),
        actions=action,
        rewards=steps["reward"],
        terminated=terminated,
        truncated=truncated,
        lengths=lengths,
        seeds=tuple(steps["start_seed"][last].tolist()),
        infos=_infos(steps, spaces, np.asarray(seeds)),
        env_spec=card.spec(),
        about=about,
    )


def _observations(played: _Played, space: gym.Space[Any]) -> dict[str, Array]:
    """Return each episode's first observation and those that its steps led to, by part."""
    steps, lengths = played.steps, played.lengths
    first = np.cumsum(lengths) - lengths
    flat = np.insert(steps["next_obs"], first, steps["obs"][first], axis=0)
    boxes = observation_parts(space)
    return {name: part.astype(boxes[name].dtype) for name, part in split_parts(flat, space).items()}


def _infos(steps: Array, spaces: Spaces, seeds: Array) -> dict[str, Array]:
    by = steps[INTERVENTION]
    infos = {INTERVENTION: (by == SOMEBODY).astype(by.dtype), RUN_SEED: seeds[steps["seed_index"]]}
    if (by == LIMIT).any():
        infos[LIMITED] = (by == LIMIT).astype(by.dtype)
    infos |= {name: steps[name] for name in (SUCCESS, *KEPT) if steps[name].any()}
    if not np.array_equal(steps["proposed"], steps["action"]):
        infos[PROPOSED] = spaces.to_env(steps["proposed"])
    return infos
