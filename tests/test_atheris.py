"""The readers are fuzzed along their branches, where atheris is installed (`make torture`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 60
TARGETS = ("recipe", "overrides", "header", "state", "curves", "metrics", "mapping")
pytestmark = pytest.mark.torture


@pytest.mark.skipif(os.environ.get("BAQ_TORTURE") != "1", reason="takes minutes: make torture")
@pytest.mark.parametrize("target", TARGETS)
def test_no_reader_fails_other_than_in_words(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="has no build for this Python or system")
    limits = [f"-max_total_time={SECONDS}", "-timeout=20", "-rss_limit_mb=4096"]
    script = Path(__file__).with_name("atheris_targets.py")
    command = [sys.executable, str(script), target, *limits]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(target, done.stderr.strip().splitlines()[-1])
