"""Pre-training: gradient steps on a dataset."""

from __future__ import annotations

from baq_cli.engine.checkpoints.folder import Checkpoint
from baq_cli.engine.evaluation.cost import interval
from baq_cli.engine.experience.replay import Replay
from baq_cli.engine.experience.store import Store
from baq_cli.engine.experience.stores import Stores, model_store, odds_of
from baq_cli.engine.experience.windows import Window
from baq_cli.engine.phases import checkpointing
from baq_cli.engine.phases.run import Run
from baq_cli.engine.phases.stages import Stages
from baq_cli.engine.updates.updater import Updater


def pretrain(run: Run, store: Store, saved: Checkpoint | None, resume_command: str) -> None:
    """Train on a dataset for the recipe's `gradient_steps`, from the start or a checkpoint.

    Evaluates, lets the method assess its side models, and saves at every interval and at the end.
    Raises Interrupted and NonFiniteError.
    """
    config, agent, learner = run.recipe.run, run.agent, run.learner
    total = config.gradient_steps
    every = interval(run.recipe, "offline")
    learner.cosine_steps = total
    plan = learner.plan
    stores = Stores(store, model=model_store(agent, plan, store.layout))
    stages, updater = Stages(run, plan, stores), _updater(run, stores)

    def save() -> None:
        checkpointing.save(run, done, {}, stages.state(), stores)

    done = 0
    if saved is not None:
        done = checkpointing.restore(run, saved)
        stages.restore(saved.state)
        stores.refill(saved.kept(), {"model": saved.state.get("model_written", 0)}, saved.training)
    if saved and done >= total and saved.state["pending"] and not run.evaluations.pending:
        save()  # with the evaluation that was made only now
    run.stop_if_asked(resume_command)
    stages.first(save, lambda: run.stop_if_asked(resume_command))
    while done < total:
        stages.routines(done, total)
        learner.share = done / total
        batch = updater.step()
        done += 1
        run.after_update(batch)
        run.laps.lap("update")
        run.tick(done, total)
        at_interval = done % every == 0 or done == total
        if at_interval:
            agent.assess(stages.reader)
            if done == total:
                agent.finish_offline(stages.reader)
            run.evaluate(done, wait=done == total)
            run.laps.lap("evaluate")
        if at_interval or run.interruption.requested:
            save()
            run.laps.lap("write")
            if done < total or run.evaluations.pending:
                run.stop_if_asked(resume_command)


def _updater(run: Run, stores: Stores) -> Updater:
    """Return what draws batches of the stores and learns from each."""
    learner, plan = run.learner, run.learner.plan
    of_batches = run.streams["batch"], run.recipe.method.batch_size, learner.discount
    odds, window = odds_of(run.agent, plan), Window.of(plan)
    replay = Replay(plan.draws, stores.by_name(), *of_batches, odds, window)
    return Updater(learner, replay, run.recipe.run.capture)
