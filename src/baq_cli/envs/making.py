"""Making an environment by its id, from the registry and nowhere else."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym

from baq_cli.envs.faults import EnvironmentFault
from baq_cli.envs.ref import EnvRef, named
from baq_cli.envs.registered import mend_joints, register_more
from baq_cli.errors import EnvironmentMismatch, clipped, nearest
from baq_cli.untrusted import trusted

LONGEST_ID = 200
_UNKNOWN = re.compile(r"unexpected keyword argument '(\w+)'")
_MISSING = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: '(\w+)'")


@contextlib.contextmanager
def quiet_simulator() -> Iterator[None]:
    """Hide the deprecation warnings that simulators print while compiling their models.

    MuJoCo's own go to stderr and to a MUJOCO_LOG.TXT in the working directory, past Python's.
    """
    import mujoco

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    with contextlib.ExitStack() as undo:
        undo.callback(mujoco.set_mju_user_warning, before)
        undo.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", module="mujoco")
        warnings.filterwarnings("ignore", module="glfw")
        warnings.filterwarnings("ignore", module="gymnasium.*")
        yield


def check_trusted(env_id: str, named_by: str = "") -> None:
    """Raise EnvironmentMismatch for an id that would import a module, unless that is trusted.

    `named_by` says where the id comes from, for the message.
    """
    if ":" in env_id and not trusted():
        source = f", which {named_by} names," if named_by else ""
        raise EnvironmentMismatch(
            f"the environment '{env_id}'{source} is refused: making it imports the module "
            f"'{env_id.partition(':')[0]}', and so runs whatever is in that. If you know it and "
            "want that, add --trust-env to the command."
        )


def make_env(env: EnvRef | str, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Make one environment. Nothing else in this program makes any.

    Raises EnvironmentMismatch when it is unknown, needs a package that isn't installed, isn't made
    with these arguments, or has an id that imports a module (MODULE:ID) without being trusted.
    """
    env = named(env)
    check_trusted(env.id)
    if len(env.id) > LONGEST_ID or not re.fullmatch(r"([\w.]*\w:)?[^:]+", env.id):
        raise EnvironmentMismatch(
            f"'{env.id[:LONGEST_ID]}' can't be an environment's id: expected one such as "
            "Pendulum-v1, or MODULE:ID for your own"
        )
    kwargs = env.kwargs | ({} if render_mode is None else {"render_mode": render_mode})
    limit = env.max_episode_steps
    try:
        with quiet_simulator():
            mend_joints(env.id)
            try:
                return gym.make(env.id, max_episode_steps=limit, **kwargs)
            except gym.error.NameNotFound:
                if not register_more(env.id):
                    raise
                mend_joints(env.id)
                return gym.make(env.id, max_episode_steps=limit, **kwargs)
    except (gym.error.Error, ImportError) as error:
        raise EnvironmentMismatch(
            f"cannot make the environment '{env}': {str(error).rstrip('.')}. {_advice(env, error)}"
        ) from error
    except Exception as error:
        if isinstance(error, TypeError):
            _refuse_arguments(env, str(error))
        what = f"{type(error).__name__}: {error}"
        raise EnvironmentFault(f"making the environment '{env}' raised {what}") from error


def requirements_of(env: gym.Env[Any, Any]) -> list[str]:
    """Name the packages that an environment's behaviour comes from, with their versions."""
    from importlib.metadata import PackageNotFoundError, version

    module = type(env.unwrapped).__module__
    package = module.partition(".")[0].replace("_", "-")
    simulators = ["mujoco"] if hasattr(env.unwrapped, "model") else []
    simulators += ["box2d"] if module.startswith("gymnasium.envs.box2d.") else []
    found = []
    for name in sorted({"gymnasium", package, *simulators}):
        with contextlib.suppress(PackageNotFoundError):  # an environment of the user's own
            found.append(f"{name}=={version(name)}")
    return found


def as_registered(env: EnvRef) -> EnvRef:
    """Return an environment without the arguments and the limit that its registration has.

    Where it isn't registered here, it is returned as it is; no module is imported for its id.
    """
    name = env.id.rpartition(":")[2]
    if ":" not in env.id:
        register_more(name)
    spec = gym.registry.get(name)
    if spec is None:
        return env
    own = {name: _text(value) for name, value in spec.kwargs.items()}
    args = tuple((name, text) for name, text in env.args if own.get(name) != text)
    limit = None if env.max_episode_steps == spec.max_episode_steps else env.max_episode_steps
    return replace(env, args=args, max_episode_steps=limit)


def limit_of(env: EnvRef) -> int | None:
    """Return the env_steps at which an environment truncates its episodes, as far as it is known.

    It is known of one that says it, or is registered here with one.
    """
    spec = gym.registry.get(env.id.rpartition(":")[2])
    registered = None if spec is None else spec.max_episode_steps
    return registered if env.max_episode_steps is None else env.max_episode_steps


def _text(value: Any) -> str | None:
    try:
        return json.dumps(value, sort_keys=True)
    except (TypeError, ValueError):
        return None


def _advice(env: EnvRef, error: Exception) -> str:
    """Say what to do about an environment that isn't known or lacks a package."""
    module = env.id.partition(":")[0] if ":" in env.id else ""
    top = module.partition(".")[0]
    if module and isinstance(error, ImportError) and _not_on_path(module):
        here = Path.cwd()
        if (here / f"{top}.py").is_file() or (here / top).is_dir():
            return (
                f"'{top}' lies in the current folder, which is kept off Python's path: put the "
                f"folder there (PYTHONPATH=. before the command), or install the package in it "
                "(pip install -e .)."
            )
        return (
            f"The module '{module}' isn't on Python's path: put the folder that it lies in there "
            "(PYTHONPATH=FOLDER before the command), or install its package (pip install -e "
            "FOLDER). The current folder isn't looked in otherwise."
        )
    if module and isinstance(error, ImportError):
        return f"The module '{module}' was found; install what it imports."
    if isinstance(error, gym.error.DependencyNotInstalled):
        return (
            "Install that package (pip install 'baq-cli[box2d]' for LunarLander and "
            "BipedalWalker), or name another environment with --env ID."
        )
    return (
        "Check the id (it is case-sensitive), or install the package that registers it "
        "(pip install 'baq-cli[robotics]' for PointMaze, Fetch and Adroit, 'baq-cli[ogbench]' "
        "for OGBench's, with Python 3.12 at most); your own is found as MODULE:ID with "
        "--trust-env; '--env ID' names another."
    )


def _not_on_path(module: str) -> bool:
    if module in sys.modules:
        return False
    try:
        return importlib.util.find_spec(module) is None
    except (ImportError, ValueError, AttributeError):  # its parent is missing, or is no package
        return True


def _refuse_arguments(env: EnvRef, raised: str) -> None:
    """Raise EnvironmentMismatch where an environment takes other arguments than it was given."""
    if missing := _MISSING.search(raised):
        raise EnvironmentMismatch(
            f"the environment '{env}' can't be made without its argument '{missing[1]}': give it "
            f"with --env-arg {missing[1]}=VALUE"
        )
    unknown = _UNKNOWN.search(raised)
    if unknown and unknown[1] in env.kwargs:
        known = _parameters(env.id)
        hint = f" ({nearest(unknown[1], known)})" if known else ""
        raise EnvironmentMismatch(
            f"the environment '{env.id}' has no argument '{clipped(unknown[1])}'{hint}: leave it "
            "out, or name another environment with --env ID and its own --env-arg KEY=VALUE."
        )


def _parameters(env_id: str) -> list[str]:
    """Return the names of the arguments that an environment is made with, as far as it says."""
    try:
        entry: Any = gym.registry[env_id.rpartition(":")[2]].entry_point
        if isinstance(entry, str):
            entry = gym.envs.registration.load_env_creator(entry)
        parameters = inspect.signature(entry).parameters.values() if entry else ()
    except (LookupError, ValueError, TypeError, ImportError, AttributeError):
        return []
    named_ones = (p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    return [name for name in named_ones if name != "render_mode"]
