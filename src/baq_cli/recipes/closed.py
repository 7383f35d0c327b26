"""The base of every configuration: closed, frozen, typed."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)


class Closed(BaseModel):
    """A configuration that refuses keys it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class AgentConfig(Closed):
    """What every method's section of a recipe may set.

    `unused` names the keys that a method inherits but that change nothing in it; setting one is an
    error, as it is for an unknown key.
    """

    unused: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _nothing_idle(cls, values: Any) -> Any:
        idle = sorted(cls.unused & set(values)) if isinstance(values, dict) else []
        if idle:
            raise ValueError(f"'{idle[0]}' has no effect on this method: leave it out")
        return values

    @model_serializer(mode="wrap")
    def _without_idle(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = serialize(self)
        return {key: value for key, value in fields.items() if key not in self.unused}

    hidden: tuple[PositiveInt, ...] = Field(
        (256, 256), min_length=1, description="hidden layer widths"
    )
    critics: int = Field(2, ge=1, description="critics N in the ensemble")
    layer_norm: bool = Field(False, description="LayerNorm before each critic activation")
    target_reduction: Literal["min", "mean", "min_of_two", "weighted_min_pair"] = Field(
        "min", description="how target critics become one value"
    )
    discount: float = Field(0.99, gt=0, lt=1)
    tau: float = Field(0.005, gt=0, le=1, description="Polyak rate of target networks")
    learning_rate: float = Field(3e-4, gt=0, description="of critics and values")
    policy_learning_rate: float = Field(3e-4, gt=0)
    batch_size: int = Field(256, ge=1, description="transitions a seed and update")
    normalize_observations: bool = Field(
        False, description="standardise by dataset statistics, fixed at pre-training"
    )
    reward_scale: float = Field(1.0, gt=0, description="multiplies rewards inside updates")
    reward_shift: float = Field(0.0, description="added after scaling")
    utd: int = Field(1, ge=1, description="gradient steps an environment step, a seed")
    warmup_env_steps: int = Field(
        0, ge=0, description="online environment steps before the first update"
    )
    online_share: float | None = Field(
        None, ge=0, le=1, description="share of online rows a batch; null draws from the union"
    )
    capacity: int = Field(1_000_000, ge=1, description="online transitions kept a seed")
