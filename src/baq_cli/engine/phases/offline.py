"""Pre-training: gradient steps on a dataset."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from baq_cli.agents.interface import Batch, Draw
from baq_cli.engine.checkpoints.folder import Checkpoint
from baq_cli.engine.experience.replay import Replay
from baq_cli.engine.experience.store import Store
from baq_cli.engine.phases.run import Run
from baq_cli.engine.updates.updater import Updater

CHUNK_ROWS = 4096


class StoreReader:
    """Read an offline store in order (the method's view of it between updates)."""

    def __init__(self, store: Store, seeds: int):
        self._store = store
        self._seeds = seeds

    def chunks(self, held_out: bool | None = None, most_rows: int | None = None) -> Iterator[Batch]:
        """Yield the store's rows `[S, ≤ 4096]`; see `agents.interface.OfflineData`.

        When no episode is held out (a dataset of one), `held_out=True` yields every row.
        """
        store = self._store
        rows = torch.arange(store.size, device=store.rows.device)
        if held_out is not None:
            mark = store.rows[0, : store.size, store.layout.slices["held_out"].start]
            chosen = rows[(mark > 0) == held_out]
            rows = chosen if len(chosen) else rows
        if most_rows is not None and len(rows) > most_rows:
            rows = rows[torch.linspace(0, len(rows) - 1, most_rows).long()]
        for part in rows.split(CHUNK_ROWS):
            packed = store.rows[0, part].unsqueeze(0).expand(self._seeds, -1, -1)
            yield store.layout.batch(packed, torch.zeros(packed.shape[:2], device=packed.device))


def pretrain(run: Run, store: Store, saved: Checkpoint | None, resume_command: str) -> None:
    """Train on a dataset for the recipe's `gradient_steps`, from the start or a checkpoint.

    Evaluates, lets the method assess its side models, and saves at every interval and at the end.
    Raises Interrupted and NonFiniteError.
    """
    config, agent, learner = run.recipe.run, run.agent, run.learner
    total = config.gradient_steps
    every = config.evaluation.every_gradient_steps or max(1, total // 10)
    learner.cosine_steps = total
    replay = Replay(
        (Draw("offline"),), store, None, run.streams["batch"], run.recipe.method.batch_size
    )
    updater = Updater(learner, replay, config.capture)
    reader = StoreReader(store, len(run.spec.seeds))
    done = run.restore(saved) if saved else 0
    if saved and done >= total and saved.state["pending"] and not run.evaluations.pending:
        run.save(done, {}, {})  # with the evaluation that was made only now
    run.stop_if_asked(resume_command)
    while done < total:
        batch = updater.step()
        done += 1
        run.after_update(batch)
        run.laps.lap("update")
        run.tick(done, total)
        at_interval = done % every == 0 or done == total
        if at_interval:
            agent.assess(reader)
            if done == total:
                agent.finish_offline(reader)
            run.evaluate(done, wait=done == total)
            run.laps.lap("evaluate")
        if at_interval or run.interruption.requested:
            run.save(done, {}, {})
            run.laps.lap("write")
            if done < total or run.evaluations.pending:
                run.stop_if_asked(resume_command)
