"""Print, as pip's constraints, the lowest release of everything that pyproject.toml asks for.

Those of the package and of its extras, less those that only this repository's tests and documents
need; PyTorch's is an argument, for its oldest releases have no builds for every Python.
"""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # there with pytest

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
OURS = ("dev", "docs")


def main() -> None:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    of_extras = [words for name, words in extras.items() if name not in OURS]
    for words in sorted(set(sum(of_extras, project["dependencies"]))):
        requirement = Requirement(words)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        bounds = [(bound.operator, bound.version) for bound in requirement.specifier]
        if len(bounds) != 1 or bounds[0][0] != ">=":
            raise SystemExit(f"{words!r} in pyproject.toml: expected NAME>=VERSION")
        version = sys.argv[1] if requirement.name == "torch" else bounds[0][1]
        print(f"{requirement.name}=={version}")


if __name__ == "__main__":
    main()
