"""The command `python -m helpers.release`."""

import sys

from helpers.release.command import main

if __name__ == "__main__":
    sys.exit(main())
