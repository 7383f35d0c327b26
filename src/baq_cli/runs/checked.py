"""What a file of a run may hold: types with bounds, checked before anything is used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from baq_cli.errors import DataError, clipped

Count = Annotated[int, Field(ge=0, lt=2**63)]
Size = Annotated[int, Field(ge=1, le=10**8)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=300)]


class Checked(BaseModel):
    """A model of a document, with JSON's types; it may say more than is checked."""

    model_config = ConfigDict(strict=True)


class _Seal(Checked):
    bytes: Count
    sha256: Name


class _Logged(_Seal):
    earlier: list[_Seal] = []


class Logs(Checked):
    """The CSVs of a run as a checkpoint knew them."""

    metrics: _Logged
    diagnostics: _Logged


class GuardEvent(Checked):
    """An event of a guard: when it acted, and on which seed."""

    env_steps: Count
    seed: Count


def check_content(model: type[Checked], said: Any, file: Path) -> None:
    """Raise DataError, naming the first key that is wrong, unless what a file says fits a model."""
    try:
        model.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        place = clipped(".".join(map(str, first["loc"])))
        what = f"{place}: {first['msg']}" if place else str(first["msg"])
        raise DataError(f"{file} is damaged: {what.removeprefix('Value error, ')}") from error
