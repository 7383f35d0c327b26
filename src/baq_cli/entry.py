"""Where `baq` begins: a Ctrl-C while its modules load is answered as one later is.

Nothing else is imported before that is so.
"""

from __future__ import annotations

import os
import signal

SAID = b"stopped at once; nothing had begun\n"
STDERR, INTERRUPTED = 2, 130


def main() -> None:
    """Load the command line, and run it."""
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is ignored
    if heard:
        signal.signal(signal.SIGINT, _stop)
    from baq_cli.cli.main import main as run

    if heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


def _stop(*_: object) -> None:
    """End the process: an exception would pass through half-loaded modules, or be lost in one."""
    try:
        os.write(STDERR, SAID)
    finally:
        os._exit(INTERRUPTED)
