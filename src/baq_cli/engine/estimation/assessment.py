"""A checkpoint's policies assessed by a dataset alone: value, calibration and closeness."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from baq_cli.data.episodes import Episodes
from baq_cli.engine.checkpoints.restore import load_agent, spaces_of
from baq_cli.engine.estimation.calibration import Calibration, calibration, own_critics
from baq_cli.engine.estimation.closeness import Closeness, closeness
from baq_cli.engine.estimation.estimate import STEPS, Estimate, discount_of, fitted_q, of_values
from baq_cli.engine.estimation.fitted_q import FittedQConfig
from baq_cli.engine.updates.device import on_threads


@dataclass(frozen=True)
class Assessment:
    """What a dataset says of a checkpoint's policies. All of it is estimated, none measured.

    `critics` are the method's own, in the units of its updates, None where it has none to ask;
    `fitted` the critics of fitted Q evaluation, in raw reward units, None where a policy decides on
    several actions at once. `seen` says whether the
    checkpoint was trained on this dataset: then its critics have seen the held-out episodes too.
    """

    document: dict[str, Any]
    dataset: str
    estimate: Estimate
    fitted: Calibration | None
    critics: Calibration | None
    closeness: Closeness
    seen: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the assessment as JSON has it."""
        document = self.document
        return {
            "is": "estimate",
            "by": "fitted Q evaluation",
            **{key: document[key] for key in ("algo", "phase", "seeds")},
            "checkpoint_gradient_steps": document["gradient_steps"],
            "checkpoint_env_steps": document["env_steps"],
            "dataset": self.dataset,
            "trained_on_it": self.seen,
            "estimate": self.estimate.as_dict(),
            "calibration": {
                "fitted": None if self.fitted is None else asdict(self.fitted),
                "critics": None if self.critics is None else asdict(self.critics),
            },
            "closeness": asdict(self.closeness),
        }


def assess(
    path: Path,
    episodes: Episodes,
    steps: int = STEPS,
    device: str = "cpu",
    config: FittedQConfig | None = None,
) -> Assessment:
    """Assess the policies of a checkpoint by a dataset.

    Raises DataError as `load_agent` does, EnvironmentMismatch for a dataset of other spaces,
    NonFiniteError where values are not finite.
    """
    agent, inputs, saved = load_agent(path, device)
    document = saved.document
    data = f"dataset '{episodes.dataset_id}'"
    spaces_of(document).check_same(episodes.spaces, "the checkpoint", data)
    discount = discount_of(agent)
    with on_threads(1):  # batches are too small for several to share
        fitted = fitted_q(agent, episodes, inputs, config)
        fitted.fit(agent.act, steps)
        found = of_values(fitted.values(), discount, steps, episodes)
        raw = episodes.reward.astype(np.float64)
        critics = own_critics(agent, inputs)
        own = None
        if critics is not None:
            own = calibration(critics, episodes, inputs.reward(episodes.reward), discount)
        of_fitted = None
        if agent.chunk == 1:
            of_fitted = calibration(fitted.at, episodes, raw, discount)
        trained = (document["dataset"] or {}).get("sha256")
        return Assessment(
            document,
            episodes.dataset_id,
            found,
            of_fitted,
            own,
            closeness(agent, episodes, inputs),
            trained == episodes.content_hash,
        )
