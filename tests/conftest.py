"""Settings of every test: one thread, property tests that repeat exactly, a cache of its own."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("repeatable")

_cache = tempfile.TemporaryDirectory(prefix="baq-tests-")
os.environ["BAQ_CACHE"] = _cache.name


@pytest.fixture
def folder() -> Iterator[Path]:
    """A Minari folder and a cache of the test's own, in the folder that is returned."""
    from recordings import own_folders  # it takes its settings from the profile above

    with own_folders() as place:
        yield place
