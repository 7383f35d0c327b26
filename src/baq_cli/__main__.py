"""`python -m baq_cli` is `baq`: it imports nothing from the current folder either."""

from __future__ import annotations

import os
import sys

if not getattr(sys.flags, "safe_path", False) and sys.path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]  # where PYTHONPATH names the folder as well, it is there again

from baq_cli.entry import main

if __name__ == "__main__":
    main()
