"""The base of every configuration: closed, frozen, typed."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

MOST_LAYERS, MOST_WIDTH, MOST_CRITICS, MOST_COUNT = 64, 65_536, 1_000, 10**12
"""Larger networks and counts are taken for mistakes, before memory is asked for them."""


OFF = "off"
Positive = Annotated[float, Field(gt=0)]
Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
Initialization = Literal["uniform", "orthogonal", "normal", "glorot", "small_last"]
LogStd = Annotated[float, Field(ge=-20, le=2)]
RewardScale = Positive | Literal["returns", "standard"]


class Closed(BaseModel):
    """A configuration that refuses keys it doesn't know."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        ser_json_inf_nan="constants",  # what an environment is made with may be infinite
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_yes_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false, and YAML's yes and no, where they would count as 1 and 0.

        Where `off` is one of the words that are expected, YAML's off is that word.
        """
        if not isinstance(value, bool):
            return value
        takes = _types_of(cls.model_fields[str(info.field_name)].annotation)
        if bool not in takes:
            if value is False and OFF in takes:
                return OFF
            if takes & {int, float}:
                raise ValueError("a number is expected, not true or false (yes and no are these)")
        return value


def _types_of(annotation: Any) -> set[Any]:
    """Return the types that an annotation is made of, those within unions among them."""
    inner = get_args(annotation)
    return {annotation}.union(*map(_types_of, inner)) if inner else {annotation}


class AgentConfig(Closed):
    """What every method's section of a recipe may set.

    Defaults are those of a method's authors on MuJoCo's locomotion tasks (docs/baselines.md).
    `unused` names the keys that a method inherits but that change nothing in it; setting one is an
    error, as it is for an unknown key.
    """

    unused: ClassVar[frozenset[str]] = frozenset()
    own: ClassVar[dict[str, str]] = {}
    """Keys without which the method would be another, and why: where methods are compared with all
    that they share alike (recipes/protocols.py), these stay as they are."""
    former: ClassVar[dict[str, Any]] = {
        "policy_hidden": None,
        "initialization": "uniform",
        "policy_initialization": None,
        "last_layer_gain": None,
    }
    """What runs of earlier versions did where today's default is another, by key, as JSON."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_idle(cls, values: Any) -> Any:
        idle = sorted(cls.unused & set(values)) if isinstance(values, dict) else []
        if idle:
            raise ValueError(f"'{idle[0]}' has no effect on this method: leave it out")
        return values

    @model_validator(mode="after")
    def _nothing_absurd(self) -> AgentConfig:
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, tuple) and not (  # all are widths of layers
                len(value) <= MOST_LAYERS and all(1 <= width <= MOST_WIDTH for width in value)
            ):
                raise ValueError(
                    f"'{name}' has {MOST_LAYERS} layers at most, of 1 to {MOST_WIDTH:,} units"
                )
            most = MOST_CRITICS if name == "critics" else MOST_COUNT
            if isinstance(value, int) and value > most:
                raise ValueError(f"'{name}' is {most:,} at most")
        return self

    @model_serializer(mode="wrap")
    def _without_idle(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = serialize(self)
        return {key: value for key, value in fields.items() if key not in self.unused}

    hidden: Widths = Field((256, 256), description="hidden layer widths")
    policy_hidden: Widths | None = Field(
        None, description="the policy's hidden layer widths; null: as hidden"
    )
    initialization: Initialization = Field(
        "uniform",
        description="first weights: in ±1/√n; orthogonal, gain √2; normal, std 1/(2√n); glorot, "
        "in ±√(6/(n + m)); small_last, in ±1/√n, hidden biases 0.1, last layers in ±0.003, "
        "a policy's in ±0.001",
    )
    policy_initialization: Initialization | None = Field(
        None, description="the policy's first weights; null: as initialization"
    )
    last_layer_gain: Positive | None = Field(
        None, description="first weights of last layers: orthogonal, of this gain; null: as others"
    )
    critics: int = Field(2, ge=1, description="critics N in the ensemble")
    layer_norm: bool = Field(False, description="LayerNorm before each critic activation")
    target_reduction: Literal[
        "min", "mean", "one", "min_of_two", "min_of_two_draws", "weighted_min_pair"
    ] = Field(
        "min",
        description="how target critics become one value; one, min_of_two: of so many drawn anew "
        "at every update; min_of_two_draws: which may be the same one twice",
    )
    discount: float = Field(0.99, gt=0, lt=1, description="γ, of a step")
    tau: float = Field(0.005, gt=0, le=1, description="Polyak rate of target networks")
    learning_rate: float = Field(3e-4, gt=0, description="of critics and values")
    policy_learning_rate: float = Field(3e-4, gt=0, description="of the policy")
    batch_size: int = Field(256, ge=1, description="transitions a seed and update")
    normalize_observations: bool = Field(
        False, description="standardise by dataset statistics, fixed at pre-training"
    )
    reward_scale: RewardScale = Field(
        1.0,
        description="multiplies rewards in updates; returns: 1000 / the range of the dataset's; "
        "standard: 1 / the dataset's std, and its mean comes off",
    )
    reward_shift: float = Field(0.0, description="added to rewards after scaling")
    utd: int = Field(1, ge=1, description="gradient steps an environment step, a seed")
    warmup_env_steps: int = Field(
        0, ge=0, description="online environment steps before the first update"
    )
    online_share: float | None = Field(
        None, ge=0, le=1, description="share of online rows a batch; null draws from the union"
    )
    capacity: int = Field(1_000_000, ge=1, description="online transitions kept a seed")
