"""What a benchmark found, as tables and as a file that names the hardware."""

from __future__ import annotations

import json
import platform
import re
import resource
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from baq_cli.bench.loop import ESSENTIAL, Split
from baq_cli.bench.pauses import Pauses
from baq_cli.bench.rival import Pairs
from baq_cli.bench.updates import Found, Sizes
from baq_cli.envs.ref import EnvRef
from baq_cli.plain_files import opened
from baq_cli.runs.files import disk_errors, replace_file
from baq_cli.runs.provenance import git_revision, now, versions
from baq_cli.units import UNITS, in_words

Row = dict[str, Any]


def speed_rows(found: Sequence[Found]) -> list[Row]:
    """Return a row a case: medians, with the range of the windows."""
    return [
        {
            "method": f.case.title,
            "phase": f.case.phase,
            "seeds": f.case.seeds,
            "path": f.case.path,
            "threads": f.threads,
            "seed-updates/s": _spread(f.rates, 0),
            "GFLOP/s": f"{statistics.median(f.rates) * f.gflop_a_seed_update:.0f}",
            "of the limit": _spread([100 * share for share in f.shares()], 0) + " %",
            "draw": f"{100 * statistics.median(f.draw_shares):.1f} %",
            **({} if f.peak_mib is None else {"peak MiB": f"{f.peak_mib:.0f}"}),
        }
        for f in found
    ]


def pair_rows(pairs: Sequence[Pairs]) -> list[Row]:
    """Return a row a case against d3rlpy: median ratios, with their range."""
    return [
        {
            "method": p.case.title,
            "seeds": p.case.seeds,
            "threads": p.threads,
            "ours/s": f"{statistics.median(p.ours):.0f}",
            "d3rlpy/s": f"{statistics.median(p.theirs['training']):.0f}",
            "ratio": _spread(p.ratios("training"), 2),
            "d3rlpy/s, update": f"{statistics.median(p.theirs['update']):.0f}",
            "ratio, update": _spread(p.ratios("update"), 2),
        }
        for p in pairs
    ]


def split_rows(splits: Sequence[Split]) -> list[Row]:
    """Return a row a fine-tuning: shares of stepping, and the pauses in seconds."""
    return [
        {
            "method": s.algo,
            "task": str(EnvRef.of(s.env_id, s.env_args, s.max_episode_steps)),
            "seeds": s.seeds,
            "env_steps/s": f"{s.seeds * s.env_steps / s.stepping:.0f}",
            **{
                name: f"{100 * s.seconds.get(name, 0.0) / s.stepping:.1f} %"
                for name in (*ESSENTIAL, "store")
            },
            "evaluate": f"{s.seconds.get('evaluate', 0.0):.2f} s",
            "write": f"{s.seconds.get('write', 0.0):.2f} s",
        }
        for s in splits
    ]


def pause_rows(pauses: Sequence[Pauses]) -> list[Row]:
    """Return a row a phase: how long it trains, and what its evaluations add to that at most."""
    return [
        {
            "method": p.algo,
            "phase": p.phase,
            "seeds": p.seeds,
            "of": f"{p.steps:,} {UNITS[p.phase]}",
            "training": in_words(p.training_seconds),
            "evaluations": f"{p.evaluations} × {p.episodes} full episodes a seed",
            "take": in_words(p.evaluation_seconds),
            "share": f"{100 * p.share:.0f} %",
        }
        for p in pauses
    ]


def footnote(whole: Row, found: Sequence[Found]) -> str:
    """Say what the limit was, and how much memory the process took."""
    limits = [limit for f in found for limit in f.ceilings]
    return (
        f"limit at the networks' size: {_spread(limits, 0)} GFLOP/s; one large product: "
        f"{whole['large_product_gflops']:.0f}; peak memory {whole['peak_rss_mib']} MiB. "
        "Numbers are the median of the windows, and their range."
    )


def _spread(values: Sequence[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} [{low:.{digits}f}–{high:.{digits}f}]"


def document(device: torch.device, sizes: Sizes, facts: Row) -> Row:
    """Return everything a reader needs to judge the numbers, and the numbers."""
    return {
        "when": now(),
        "hardware": hardware_facts(device),
        "versions": versions(),
        "git_revision": git_revision(),
        "sizes": asdict(sizes),
        "peak_rss_mib": round(peak_rss_mib()),
        **facts,
    }


def hardware_facts(device: torch.device) -> Row:
    """Describe what the numbers were measured on."""
    facts: Row = {
        "processor": processor(),
        "cores": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "card": properties.name,
            "card_memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        }
    return facts


def processor() -> str:
    """Return the processor's name as the system gives it."""
    try:
        with opened(Path("/proc/cpuinfo")) as file:
            text = file.read().decode(errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def peak_rss_mib() -> float:
    """Return the most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def begin(folder: Path) -> None:
    """Make the folder for results, before the time that measuring takes is spent.

    Raises DataError when it can't be made.
    """
    with disk_errors(f"save results in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)


def save(folder: Path, suffix: str | None, found: Row) -> Path:
    """Write the document to `<hardware>.json`, or `<hardware>-<suffix>.json`; return where.

    Raises DataError when it can't be written.
    """
    facts = found["hardware"]
    hardware = facts.get("card") or f"{facts['processor']} {facts['cores']} cores"
    name = " ".join(part for part in (hardware, suffix) if part)
    path = folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    begin(folder)
    with disk_errors(f"write {path}"):
        replace_file(path, (json.dumps(found, indent=1) + "\n").encode())
    return path
