"""Settings of every test: one thread, property tests that repeat exactly, a cache of its own."""

import os
import tempfile

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("repeatable")

_cache = tempfile.TemporaryDirectory(prefix="baq-tests-")
os.environ["BAQ_CACHE"] = _cache.name
