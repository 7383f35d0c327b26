"""What a trial can cost at most, in environment steps."""

from __future__ import annotations

from baq_cli.agents.registry import METHODS
from baq_cli.data.episodes import Episodes
from baq_cli.engine.evaluation.cost import evaluations_left, interval
from baq_cli.engine.phases.origin import Origin, environment_on
from baq_cli.envs.limits import DEFAULT_LIMIT
from baq_cli.launch.tuning.plan import Plan
from baq_cli.launch.tuning.trials import Cost
from baq_cli.runs.events import ignore


def most_cost(plan: Plan, limit: int) -> Cost:
    """Return the most that a trial costs whose episodes end after `limit` environment steps.

    What it trains is known; what its evaluations play, only how many episodes.
    """
    run, method = plan.recipe.run, METHODS[plan.algo]
    evaluation, seeds, count, training = run.evaluation, len(run.seeds), 0, 0
    if method.learns_offline:
        count += evaluations_left(0, run.gradient_steps, interval(plan.recipe, "offline"))
    if method.learns_online and not plan.offline_only:
        training = run.env_steps
        count += 1 + evaluations_left(0, training, interval(plan.recipe, "online"))
    if not plan.plays:
        return Cost()
    return Cost(training * seeds, count * evaluation.episodes * seeds * limit)


def episode_limit(plan: Plan, episodes: Episodes) -> int:
    """Return after how many environment steps an episode of a trial ends at the latest.

    Raises EnvironmentMismatch where its environment can't be made.
    """
    env = environment_on(plan.recipe, episodes, ignore)
    made = Origin.make(env, ignore, episodes.cut_after).environment or {}
    return int(made.get("max_episode_steps") or DEFAULT_LIMIT)
