"""Packages whose environments are found by their id alone, where they are installed."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from typing import Any

import gymnasium as gym
import numpy as np

ROBOTICS = "gymnasium_robotics"
PACKAGES = (ROBOTICS, "ogbench")
"""Asked in this order for an id that nobody has registered yet."""


def register_more(env_id: str) -> bool:
    """Register the environments of installed packages until an id is known.

    Returns whether it is. An id with a module in it (MODULE:ID) is its own module's to register.
    """
    for package in PACKAGES:
        if _known(env_id):
            return True
        _register(package)
    return _known(env_id)


def _known(env_id: str) -> bool:
    return env_id in gym.registry


def _register(package: str) -> None:
    """Import a package, which registers its environments; one that isn't installed has none."""
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of displays that nobody draws on
            module = importlib.import_module(package)
    except ImportError:
        return
    if package == ROBOTICS:
        gym.register_envs(module)


def mend_joints(env_id: str) -> None:
    """Give Gymnasium-Robotics its joints back with MuJoCo 4, whose enums equal no number of numpy.

    It asks `joint_type in (HINGE, SLIDE)`, which compares from the enum's side: false in MuJoCo 4
    for a type out of a model. Kitchen can't be made then. Other environments are left alone.
    """
    spec = gym.registry.get(env_id)
    if spec is None or not str(spec.entry_point).startswith(ROBOTICS):
        return
    import mujoco
    from gymnasium_robotics.utils import mujoco_utils

    if np.int32(mujoco.mjtJoint.mjJNT_HINGE) in (mujoco.mjtJoint.mjJNT_HINGE,):
        return

    def numbers(data: Any, name: str, of: str) -> Any:
        return getattr(data.joint(name), of)

    def put(data: Any, name: str, of: str, value: Any) -> None:
        numbers(data, name, of)[:] = value

    mujoco_utils.get_joint_qpos = lambda model, data, name: numbers(data, name, "qpos").copy()
    mujoco_utils.get_joint_qvel = lambda model, data, name: numbers(data, name, "qvel").copy()
    mujoco_utils.set_joint_qpos = lambda model, data, name, value: put(data, name, "qpos", value)
    mujoco_utils.set_joint_qvel = lambda model, data, name, value: put(data, name, "qvel", value)
