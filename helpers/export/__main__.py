"""The command `python -m helpers.export`."""

import sys

from helpers.export.onnx_file import main

if __name__ == "__main__":
    sys.exit(main())
