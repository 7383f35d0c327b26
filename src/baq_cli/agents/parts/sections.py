"""A configuration that holds those of the methods that its own may be built on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from baq_cli.recipes.closed import AgentConfig

SHARED = set(AgentConfig.model_fields)
"""What a method's own section decides for its base too: networks, batches, rates."""


class OnBase(AgentConfig):
    """A section with one section more for each method in `bases`, of which `base` names one."""

    bases: ClassVar[tuple[str, ...]] = ()
    with_base: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """The defaults that are others with a base, by its name and the key."""
    if TYPE_CHECKING:
        base: str

    @model_validator(mode="before")
    @classmethod
    def _as_with_the_base(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        base = values.get("base", cls.model_fields["base"].default)
        return {**cls.with_base.get(str(base), {}), **values}

    @model_validator(mode="after")
    def _one_place_a_key(self) -> OnBase:
        for name in self.bases:
            section: AgentConfig = getattr(self, name)
            twice = section.model_fields_set & SHARED
            if twice:
                key = min(twice)
                raise ValueError(f"'{name}.{key}' is shared with the base: set '{key}' itself")
        return self

    @model_serializer(mode="wrap")
    def _without_idle(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the other bases, and what a base's section may not set: it reads back."""
        fields: dict[str, Any] = serialize(self)
        for name in self.bases:
            section = fields.pop(name)
            if name == fields["base"]:
                fields[name] = {k: v for k, v in section.items() if k not in SHARED}
        return {key: value for key, value in fields.items() if key not in self.unused}

    def base_config(self) -> AgentConfig:
        """Return the base's configuration, with what the method's own section decides filled in."""
        section: AgentConfig = getattr(self, self.base)
        return section.model_copy(update={name: getattr(self, name) for name in SHARED})
