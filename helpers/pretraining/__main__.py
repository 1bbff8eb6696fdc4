"""The command `python -m helpers.pretraining`."""

from helpers.pretraining.regression import main

if __name__ == "__main__":
    main()
