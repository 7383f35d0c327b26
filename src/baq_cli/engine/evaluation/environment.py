"""The environment that a command plays episodes in, where no run decides it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from baq_cli.envs.faults import let_go
from baq_cli.envs.limits import with_limit
from baq_cli.envs.making import as_registered, check_trusted, make_env
from baq_cli.envs.ref import EnvChoice, EnvRef, check_inherited
from baq_cli.errors import EnvironmentMismatch
from baq_cli.runs.events import Note, Observer


def limited(env: EnvRef, observer: Observer, known: EnvRef | None = None) -> EnvRef:
    """Return an environment that says when its episodes end; it is made for that.

    Where it says no limit itself, it has that of a `known` one with the same id; the observer hears
    of any other. Raises EnvironmentMismatch as making it does.
    """
    made = make_env(env)
    try:
        same = known is not None and known.id == env.id
        found, said = with_limit(
            as_registered(env), made, known.max_episode_steps if known and same else None
        )
    finally:
        let_go(made)
    if said is not None:
        observer(Note(said))
    return found


def environment_of(document: Mapping[str, Any], choice: EnvChoice, where: str) -> EnvRef:
    """Return the environment to act in: what a command says, over what a checkpoint says.

    `where` names the checkpoint. Raises EnvironmentMismatch when neither names one, when the
    checkpoint's id would import a module, or one of its arguments could name a file.
    """
    known = EnvRef.of_document(document)
    env = choice.over(known)
    if env is None:
        raise EnvironmentMismatch(
            f"{where} was trained on a dataset alone, without an environment to act in: name one "
            "with --env ID. What it is worth is estimated without one by 'baq ope'."
        )
    if choice.id is None:
        check_trusted(env.id, where)
        check_inherited(env, where, choice.args)
    return env
