"""What is said in lines, on stdout or stderr. Imports nothing heavy."""

from __future__ import annotations

import sys

from baq_cli.report.names import printable_lines
from baq_cli.surroundings import in_utf8


def say(text: object, err: bool = False, nl: bool = True) -> None:
    """Print text; control characters, which could command the terminal, are printed as �."""
    stream = sys.stderr if err else sys.stdout
    print(printable_lines(in_utf8(str(text))), file=stream, end="\n" if nl else "", flush=True)
