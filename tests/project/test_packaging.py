"""Versions that are pinned, versions that are asked for, and what is installed agree."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.places import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # there with pytest


def pins(file: str) -> dict[str, str]:
    """Return the version that a file of constraints pins each package to, on a new Python."""
    lines = (REPOSITORY / file).read_text(encoding="utf-8").splitlines()
    asked = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for one in asked:
        assert re.fullmatch(r"==[^,*]+", str(one.specifier)), f"{file}: {one} is no one version"
    return {canonicalize_name(one.name): str(one.specifier)[2:] for one in asked}


def declared(*extras: str) -> dict[str, Requirement]:
    """Return what pyproject.toml asks for, of the package alone or of some extras."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in extras for line in optional[extra])]
    asked = {canonicalize_name(one.name): one for one in map(Requirement, lines)}
    inner = asked.pop("baq-cli", None)
    return asked | (declared(*inner.extras) if inner else {})


def applies(one: Requirement, extra: str) -> bool:
    return one.marker is None or one.marker.evaluate({**default_environment(), "extra": extra})


def resolution(*extras: str) -> Iterator[str]:
    """Yield each package that the installed package needs with these extras, itself left out."""
    waiting, seen = [("baq-cli", extra) for extra in ("", *extras)], set[tuple[str, str]]()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:  # an extra of the tools, say, that isn't installed here
            continue
        if name != "baq-cli":
            yield name
        for line in requires:
            one = Requirement(line)
            if applies(one, extra):
                waiting += [(canonicalize_name(one.name), part) for part in ("", *one.extras)]


@pytest.mark.parametrize("extras", [(), ("dev",)])
def test_nothing_is_left_to_search(extras: tuple[str, ...]) -> None:
    """A package that no line pins is one whose versions pip tries in turn."""
    needed = set(resolution(*extras))
    assert len(needed) > 40
    assert not needed - set(pins("constraints.txt"))


def test_pins_are_within_what_is_asked_for() -> None:
    pinned = pins("constraints.txt")
    for name, one in declared("dev").items():
        assert one.specifier.contains(pinned[name], prereleases=True), one


def test_the_lowest_releases_are_the_bounds_of_what_this_python_installs() -> None:
    script = [sys.executable, str(REPOSITORY / ".ci/lowest.py"), "2.6.0"]
    told = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    lowest = {canonicalize_name(one.name): one for one in map(Requirement, told.splitlines())}
    assert str(lowest["torch"].specifier) == "==2.6.0"
    asked = {name: one for name, one in declared("dev").items() if name in lowest}
    assert len(asked) == len(lowest) > 20
    for name in lowest.keys() - {"torch"}:
        assert str(lowest[name].specifier) == str(asked[name].specifier).replace(">=", "==")
    runtime = {name for name, one in declared().items() if applies(one, "")}
    assert runtime <= lowest.keys()
