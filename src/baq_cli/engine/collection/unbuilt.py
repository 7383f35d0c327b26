"""Reference datasets that aren't there yet: how long they take to build, and what stands in."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np

from baq_cli.data.collect import WIDTH
from baq_cli.data.episodes import DataOrigin, Episodes
from baq_cli.data.minari.folder import dataset_path
from baq_cli.data.suite import SUITE, Behavior, ReferenceDataset
from baq_cli.engine.collection.rollouts import actor_of
from baq_cli.engine.evaluation.environment import limited
from baq_cli.engine.updates.device import on_threads
from baq_cli.envs.limits import DEFAULT_LIMIT
from baq_cli.envs.pool import EnvPool, Made
from baq_cli.envs.ref import EnvRef, named
from baq_cli.runs.events import ignore

MEASURED_SECONDS = 0.3
"""How long each behaviour steps to be timed."""
STARTING_SECONDS = 1.0
"""What a dataset takes beside its steps: environments and behaviours made, rows checked, written.
"""


def unbuilt(dataset_ids: Iterable[str]) -> list[ReferenceDataset]:
    """Return the reference datasets among these that a run would build first."""
    return [
        SUITE[name] for name in dataset_ids if name in SUITE and not dataset_path(name).exists()
    ]


def seconds_to_build(reference: ReferenceDataset) -> float:
    """Return about how many seconds it takes to build a reference dataset on this machine.

    Each of its behaviours steps for a moment, and nothing is kept of that.
    """
    env = limited(named(reference.env_id), ignore)
    with on_threads(reference.threads):
        rates = [_seconds_a_step(behavior, env, reference) for behavior in reference.behaviors]
    return STARTING_SECONDS + reference.transitions * float(np.mean(rates))


def standing_in(reference: ReferenceDataset) -> Episodes:
    """Return made-up data in place of a reference dataset: one episode of its spaces, all zeros.

    It is as long as the environment lets one be, so what is timed on it is the most that it takes;
    nothing may be learned of it.
    """
    made = Made.of(named(reference.env_id))
    spaces, spec = made.spaces, made.spec
    length = (None if spec is None else spec.max_episode_steps) or DEFAULT_LIMIT
    over = np.zeros(length, dtype=np.bool_)
    cut = over.copy()
    cut[-1] = True
    return Episodes(
        dataset_id=reference.dataset_id,
        spaces=spaces,
        observations=np.zeros((length + 1, spaces.obs_dim), dtype=np.float32),
        action=np.zeros((length, spaces.action_dim), dtype=np.float32),
        reward=np.zeros(length, dtype=np.float32),
        terminated=over,
        truncated=cut,
        lengths=np.asarray([length]),
        origin=DataOrigin(env_id=reference.env_id),
    )


def _seconds_a_step(behavior: Behavior, env: EnvRef, reference: ReferenceDataset) -> float:
    act, _ = actor_of(behavior, env, behavior.name, reference.seed, reference.deterministic)
    pool = EnvPool(env, WIDTH)
    episode, begun = np.arange(WIDTH), WIDTH
    obs = pool.reset(range(WIDTH))
    act(obs, episode)  # the first call is not like the others
    started, steps, spent = time.perf_counter(), 0, 0.0
    while spent < MEASURED_SECONDS:
        obs, _, terminated, truncated = pool.step(act(obs, episode))
        over = terminated | truncated
        if over.any():
            episode = np.where(over, np.arange(begun, begun + WIDTH), episode)
            begun += WIDTH
            obs = pool.reset(episode.tolist(), over)
        steps += WIDTH
        spent = time.perf_counter() - started
    pool.close()
    return spent / steps
