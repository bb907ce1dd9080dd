"""``python -m scumble`` is the command ``scumble``."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """The command line. Its modules are loaded here: who interrupts meanwhile gets no traceback either."""
    try:
        from scumble import cli
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
