"""Episodes that a person watches: drawn by their environment, on the screen or into a file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from baq_cli.deploy.policy import DeployedPolicy, OneSeed
from baq_cli.engine.evaluation.evaluator import env_seed
from baq_cli.envs.faults import EnvironmentFault, let_go
from baq_cli.envs.making import quiet_simulator
from baq_cli.envs.pool import make_playable
from baq_cli.envs.ref import EnvRef
from baq_cli.errors import EnvironmentMismatch, UsageError
from baq_cli.plain_files import replaced
from baq_cli.runs.files import disk_errors

Array = npt.NDArray[Any]
Show = Callable[[Array], None]
"""What is done with a frame, `[height, width, 3]` uint8."""
SUFFIXES = (".mp4", ".gif")
USUAL_FPS = 30
MOST_GIF_FPS = 50
"""Viewers show frames that follow each other faster as if they were slow."""
HEADLESS = (
    "Without a display, MuJoCo draws by EGL (MUJOCO_GL=egl before the command: a graphics card, or "
    "'apt install libegl1') or by OSMesa (MUJOCO_GL=osmesa, after 'apt install libosmesa6')."
)


def check_video(path: Path) -> None:
    """Raise UsageError unless a video can be written to a path, before anything is played."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--video {path}: expected a file ending in {' or '.join(SUFFIXES)}")
    if os.path.lexists(path):
        raise UsageError(f"{path} exists: choose another --video, or remove it")
    if path.suffix.lower() == ".mp4":
        try:
            import imageio_ffmpeg

            imageio_ffmpeg.get_ffmpeg_exe()
        except (ImportError, RuntimeError) as error:
            raise UsageError(
                f"--video {path}: an .mp4 needs a package: pip install 'baq-cli[video]'. A .gif "
                "needs nothing more."
            ) from error


def film(one: OneSeed, env: EnvRef, episodes: int, number: int, video: Path) -> tuple[Array, Array]:
    """Play episodes into a video, complete or not at all; return returns and lengths `[1, K]`.

    They are the first ones of `baq eval --number`. Raises EnvironmentMismatch where the environment
    can't be drawn, DataError where the disk refuses.
    """
    with _drawn(env, "rgb_array") as made:
        fps = float(made.metadata.get("render_fps") or USUAL_FPS)
        with disk_errors(f"write {video}"), _written(video, fps) as show:
            return _play(one, env, made, episodes, number, lambda: show(_frame(env, made)))


def watch(one: OneSeed, env: EnvRef, episodes: int, number: int) -> tuple[Array, Array]:
    """Play episodes on the screen; return returns and lengths `[1, K]`, see `film`."""
    with _drawn(env, "human") as made:
        return _play(one, env, made, episodes, number, lambda: None)


def _play(
    one: OneSeed,
    env: EnvRef,
    made: gym.Env[Any, Any],
    episodes: int,
    number: int,
    drawn: Callable[[], None],
) -> tuple[Array, Array]:
    policy = DeployedPolicy(one)
    returns, lengths = np.zeros((1, episodes)), np.zeros((1, episodes), dtype=np.int64)
    try:
        for k in range(episodes):
            start = env_seed(one.seed, "eval", f"command/{number}", k)
            policy.reset(k, f"command/{number}")
            obs, _ = _drawing(env, partial(made.reset, seed=start))
            drawn()
            over = False
            while not over:
                obs, reward, terminated, truncated, _ = made.step(policy(obs))
                drawn()
                returns[0, k] += float(reward)
                lengths[0, k] += 1
                over = terminated or truncated
    except EnvironmentFault as fault:
        raise EnvironmentFault(f"'{env}': {fault}") from fault
    return returns, lengths


# -- drawing


@contextmanager
def _drawn(env: EnvRef, mode: str) -> Iterator[gym.Env[Any, Any]]:
    """Give an environment that draws itself; one that says it can't is refused.

    Frames tell for themselves whether there are any, a screen doesn't.
    """
    made: gym.Env[Any, Any] = _drawing(env, lambda: make_playable(env, mode))
    try:
        modes = list(made.metadata.get("render_modes") or [])
        if mode not in modes and (modes or mode == "human"):
            raise EnvironmentMismatch(
                f"'{env}' can't be drawn: of Gymnasium's render modes it has {modes or 'none'}, "
                f"and this needs {mode}"
            )
        yield made
    finally:
        let_go(made)


def _frame(env: EnvRef, made: gym.Env[Any, Any]) -> Array:
    frame = _drawing(env, made.render)
    found = type(frame).__name__
    if isinstance(frame, np.ndarray):
        if frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3 and frame.size:
            return frame
        found = f"{frame.dtype} {list(frame.shape)}"
    raise EnvironmentFault(f"'{env}': render returned {found}, expected uint8 [height, width, 3]")


def _drawing(env: EnvRef, call: Callable[[], Any]) -> Any:
    """Return what a call returns that may begin to draw; say what drawing needs where it fails."""
    try:
        with quiet_simulator():
            warnings.simplefilter("ignore")  # what a missing display is warned of is said below
            return call()
    except gym.error.DependencyNotInstalled as error:
        raise EnvironmentMismatch(f"'{env}' can't be drawn: {error}.") from error
    except EnvironmentMismatch as error:
        raise type(error)(f"{error} {HEADLESS}" if _wants_display(error) else str(error)) from error
    except Exception as error:
        what = f"{type(error).__name__}: {error}".rstrip(".")
        raise EnvironmentMismatch(f"'{env}' can't be drawn: {what}. {HEADLESS}") from error


def _wants_display(error: Exception) -> bool:
    return any(word in str(error).lower() for word in ("opengl", "glfw", "egl", "display", "gl."))


# -- files


@contextmanager
def _written(path: Path, fps: float) -> Iterator[Show]:
    """Give what adds frames to a file; they have the size of the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = _gif if path.suffix.lower() == ".gif" else _mp4
    sizes = set()
    with replaced(path.absolute()) as file, kind(Path(file.name), fps) as add:

        def show(frame: Array) -> None:
            sizes.add(frame.shape)
            if len(sizes) > 1:
                raise EnvironmentFault(f"render returned frames of different sizes: {sizes}")
            add(frame)

        yield show


@contextmanager
def _mp4(path: Path, fps: float) -> Iterator[Show]:
    import imageio_ffmpeg

    writer: Any = None

    def show(frame: Array) -> None:
        nonlocal writer
        if writer is None:
            height, width, _ = frame.shape
            writer = imageio_ffmpeg.write_frames(
                *(str(path), (width, height)),
                fps=fps,
                macro_block_size=2,  # which the usual colours need
                output_params=["-f", "mp4"],
                ffmpeg_log_level="error",
            )
            writer.send(None)
        writer.send(np.ascontiguousarray(frame))

    try:
        yield show
    finally:
        if writer is not None:
            writer.close()


@contextmanager
def _gif(path: Path, fps: float) -> Iterator[Show]:
    import imageio.v2 as imageio

    writer: Any

    every = max(1, int(np.ceil(fps / MOST_GIF_FPS)))
    count = 0
    with imageio.get_writer(
        str(path), format="GIF", mode="I", duration=1000 * every / fps, loop=0
    ) as writer:

        def show(frame: Array) -> None:
            nonlocal count
            if count % every == 0:
                writer.append_data(frame)
            count += 1

        yield show
