"""Print, as pip's constraints, the lowest release of everything that pyproject.toml asks for.

Those of the package and of its extras, less those that only this repository's tests and documents
need; PyTorch's is an argument, for its oldest releases have no builds for every Python.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # there with pytest

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
OURS = ("dev", "docs")
BOUND = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)")


def main() -> None:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    of_extras = [words for name, words in extras.items() if name not in OURS]
    for requirement in sorted(set(sum(of_extras, project["dependencies"]))):
        bound = BOUND.fullmatch(requirement)
        if bound is None:
            raise SystemExit(f"{requirement!r} in pyproject.toml: expected NAME>=VERSION")
        name, version = bound.groups()
        print(f"{name}=={sys.argv[1] if name == 'torch' else version}")


if __name__ == "__main__":
    main()
