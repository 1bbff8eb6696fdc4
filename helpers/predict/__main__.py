"""The command `python -m helpers.predict`."""

import sys

from helpers.predict.command import main

if __name__ == "__main__":
    sys.exit(main())
