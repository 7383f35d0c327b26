"""What a stranger may have written, bounded before it is built: JSON, YAML, names of folders."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from baq_cli.plain_files import read

MOST_DEPTH = 100
"""Containers inside each other; nothing that is read here has more than a dozen."""
MOST_BITS = 256
"""Of a whole number; states of random generators have 128."""
MOST_CONTAINERS = 1_000_000
"""Of a JSON text: an empty list takes its writer three letters, and its reader a hundred bytes."""
MOST_YAML_CHARACTERS = 100_000
MOST_YAML_VALUES = 100_000
"""Values of a document once its aliases are expanded: an alias costs its writer three letters."""

MOST_KEY = 80
"""Characters of a key that a message repeats."""
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_TOO_DEEP = f"it is nested more than {MOST_DEPTH} deep"
_ODD = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError)
"""What PyYAML raises for letters, numbers, dates and words that are none."""


MOST_NAME = 200
_DATASET = re.compile(r"[-\w]+(/[-\w]+)*")


def is_dataset_id(name: str) -> bool:
    """Return whether a name can be a dataset's: letters, digits, - and _, in parts divided by /.

    Such a name leads nowhere but below the folder that it is looked up in.
    """
    return len(name) <= MOST_NAME and _DATASET.fullmatch(name) is not None


def read_text(path: Path, most_bytes: int, follow: bool = False) -> str:
    """Read a plain UTF-8 file; with `follow`, one that a link leads to.

    Raises OSError when it can't be read or is too large, ValueError when it is not UTF-8.
    """
    return read(path, most_bytes, follow).decode("utf-8")


def read_yaml(path: Path) -> Any:
    """Read a YAML file, which may be a link to one; see `parse_yaml`.

    Raises OSError and ValueError.
    """
    return parse_yaml(read_text(path, 4 * MOST_YAML_CHARACTERS, follow=True))


def parse_json(text: str) -> Any:
    """Read a JSON text.

    Raises ValueError for anything else, for containers nested too deeply, for absurdly large
    numbers, and for words that are no Unicode. NaN and infinity are read: who wants them to be
    finite must check.
    """
    if text.count("[") + text.count("{") > MOST_CONTAINERS:
        raise ValueError(f"it has more than {MOST_CONTAINERS:,} lists and objects")
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    _check_plain(content)
    return content


class _AsWritten(yaml.SafeLoader):
    """YAML 1.1 without its octal numbers (010 is 8) and its base of sixty (1:30 is 90).

    What begins so is a word, as it is written; a recipe's number is read of it in tens.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML declares it so
        first: [(tag, form) for tag, form in forms if tag not in (_INT, _FLOAT)]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_AsWritten.add_implicit_resolver(
    _INT, re.compile(r"[-+]?(?:0b[01_]+|0x[\da-fA-F_]+|0|[1-9][\d_]*)$"), list("-+0123456789")
)
_AsWritten.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"(?:[-+]?\d[\d_]*\.[\d_]*(?:[eE][-+]\d+)?|\.\d[\d_]*(?:[eE][-+]\d+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        re.ASCII,
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str) -> Any:
    """Read a YAML document of mappings with words for keys, lists, words, numbers, true and null.

    Raises ValueError for anything else (dates, bytes, sets, tags), for a text or a document that is
    too large, its aliases expanded, for one that contains itself, and for a key that is there
    twice.
    """
    if len(text) > MOST_YAML_CHARACTERS:
        raise ValueError(
            f"it has {len(text):,} characters; expected {MOST_YAML_CHARACTERS:,} at most"
        )
    with _in_words():
        loader = _AsWritten(text)
        node = loader.get_single_node()
    if node is None:
        return None
    _check_expanded(node)
    with _in_words():
        content = loader.construct_document(node)
    _check_plain(content, keys_are_words=True)
    return content


@contextmanager
def _in_words() -> Iterator[None]:
    """Turn what PyYAML raises into a ValueError of one line."""
    try:
        yield
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    except _ODD as error:
        raise ValueError(f"a value in it can't be read: {error}") from error


def _check_expanded(document: yaml.Node) -> None:
    """Raise ValueError where a document would be too large without aliases, or endless."""
    sizes: dict[int, int | None] = {}

    def size(node: yaml.Node) -> int:
        known = sizes.get(id(node), 0)
        if known is None:
            raise ValueError("it contains itself")
        if known:
            return known
        sizes[id(node)] = None
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            parts = node.value
        elif isinstance(node, yaml.MappingNode):
            _check_keys_differ(node)
            parts = [part for pair in node.value for part in pair]
        total = 1
        for part in parts:
            total += size(part)
            if total > MOST_YAML_VALUES:
                raise ValueError(
                    f"its aliases expand to more than {MOST_YAML_VALUES:,} values: write them out"
                )
        sizes[id(node)] = total
        return total

    size(document)


def _check_keys_differ(mapping: yaml.MappingNode) -> None:
    """Raise ValueError for a key that is there twice: the first one's value would be lost."""
    seen = set()
    for key in (key for key, _ in mapping.value if isinstance(key, yaml.ScalarNode)):
        if (key.tag, key.value) in seen:
            line = key.start_mark.line + 1
            raise ValueError(f"the key '{key.value[:MOST_KEY]}' is there again in line {line}")
        seen.add((key.tag, key.value))


def _check_plain(content: Any, keys_are_words: bool = False) -> None:
    """Raise ValueError unless a value is made of what JSON has, not too deep, in proper words."""
    level, depth = [content], 0
    while level:
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                if keys_are_words and not all(isinstance(key, str) for key in value):
                    odd = next(key for key in value if not isinstance(key, str))
                    raise ValueError(f"it is not a mapping of words: the key {odd!r} is none")
                below += [*value, *value.values()]
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str):
                value.encode()  # a UnicodeEncodeError is a ValueError
            elif isinstance(value, int):
                if value.bit_length() > MOST_BITS:
                    raise ValueError(f"it holds a whole number of {value.bit_length():,} bits")
            elif not (value is None or isinstance(value, float)):
                kind = type(value).__name__
                raise ValueError(f"it holds a {kind} ({str(value)[:40]}): put words in quotes")
        level, depth = below, depth + 1
        if depth > MOST_DEPTH + 1 and below:
            raise ValueError(_TOO_DEEP)


# -- environments


TRUST_VARIABLE = "BAQ_TRUST_ENV"
"""Set to 1 by --trust-env; an environment variable, so that worker processes inherit it."""
MOST_ARGUMENTS, MOST_ARGUMENT_LETTERS, MOST_WORD = 50, 20_000, 100
_NAMES_A_FILE = re.compile(r"[/\\:\0]|\.[A-Za-z]\w{0,5}$|^\.+$")
_POWER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
MADE_OTHERWISE = {
    "id": "--env ID names the environment",
    "max_episode_steps": "--max-episode-steps N limits its episodes",
    "render_mode": "'baq eval' has --render and --video FILE",
    "disable_env_checker": "this tool checks what an environment returns",
}
"""What `gymnasium.make` takes that is no argument of an environment, and what to do instead."""


def trusted() -> bool:
    """Return whether files may name what environments import and read (--trust-env)."""
    return os.environ.get(TRUST_VARIABLE) == "1"


def parse_argument(text: str) -> Any:
    """Read the value of an environment's argument: JSON, else YAML.

    JSON comes first because `1e-3` is a number there, and a word in YAML. Raises ValueError.
    """
    try:
        return parse_json(text)
    except ValueError:
        return parse_yaml(text)


def check_arguments(args: dict[str, Any]) -> None:
    """Raise ValueError for arguments that no environment is made with, or that are too large."""
    if len(args) > MOST_ARGUMENTS:
        raise ValueError(f"an environment has {MOST_ARGUMENTS} arguments at most")
    for name, value in args.items():
        if not name.isidentifier() or len(name) > MOST_WORD:
            raise ValueError(f"'{name[:MOST_WORD]}' can't be the name of an argument")
        if name in MADE_OTHERWISE:
            raise ValueError(f"'{name}' is no argument: {MADE_OTHERWISE[name]}")
        _check_plain(value, keys_are_words=True)
        for word in _words(value):
            if _POWER.fullmatch(word):
                raise ValueError(f"'{word}' is a word in YAML: write the number as {float(word)!r}")
    if len(json.dumps(args)) > MOST_ARGUMENT_LETTERS:
        raise ValueError(f"its arguments have {MOST_ARGUMENT_LETTERS:,} letters at most")


def check_plain_arguments(args: dict[str, Any]) -> None:
    """Raise ValueError for arguments out of a file that are more than plain values.

    Plain are numbers, truth values, null, lists and mappings of them, and short words that can't
    be the name of a file, of a module or of an address.
    """
    check_arguments(args)
    for word in _words(args):
        if len(word) > MOST_WORD or not word.isprintable() or _NAMES_A_FILE.search(word):
            raise ValueError(
                f"words in a file's arguments have {MOST_WORD} letters at most, and can't name a "
                "file or a module"
            )


def _words(value: Any) -> Iterator[str]:
    """Yield every word of a plain value, keys of mappings as well."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from _words(part)
    elif isinstance(value, list):
        for part in value:
            yield from _words(part)
