"""``python -m headstart`` and the ``headstart`` program."""

import sys

from headstart.cli import main

if __name__ == "__main__":
    sys.exit(main())
