"""Opening a dataset by name, building a reference one that isn't there yet."""

from __future__ import annotations

from baq_cli.data.episodes import Episodes
from baq_cli.data.minari_source import load_episodes
from baq_cli.engine.events import Observer


def open_dataset(dataset_id: str, observer: Observer) -> Episodes:
    """Load a dataset from the user's Minari folder."""
    return load_episodes(dataset_id)
