"""``python -m teepi`` is ``teepi``."""

from __future__ import annotations

import sys

from teepi.cli import main

if __name__ == "__main__":
    sys.exit(main())
