"""Command line: render the stand-in dataset, or single faces of other people.

    python -m render pairs --people 2400 --out .
    python -m render pretrain --people 1000 --expressions 6 --out ../raw/pretrain
    python -m render scratch --people 1400 --out ../raw/scratch
    python -m render control --people 1000 --out ../raw/control
    python -m render cues --people 40 --out ../raw/cues

The first writes OUT/pairs/, OUT/attributes.csv and OUT/folds.csv, the others OUT/faces/*.jpg and
OUT/attributes.csv. Finished pictures are kept: a command that was cut off goes on where it was.
"""

import argparse
import os
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # one process a core, one thread a process

from . import dataset, pretrain, singles  # noqa: E402
from .run import render_all  # noqa: E402

SEEDS = {"pairs": 2, "pretrain": 0} | singles.SEEDS


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m render",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("set", choices=SEEDS)
    parser.add_argument("--people", type=int, required=True, help="up to 5355 of pairs and singles")
    parser.add_argument("--seed", type=int, help=f"by default {SEEDS}")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--expressions", type=int, default=6, help="pictures of each, of pretrain")
    options = parser.parse_args(arguments)
    seed = SEEDS[options.set] if options.seed is None else options.seed

    if options.set == "pairs":
        items = dataset.plan(options.people, seed)
        render_all(items, dataset.write_pair, options.out / "pairs", options.workers)
        rows = [pair.attributes(side) for pair in items for side in ("left", "right")]
        folds = [{"identity": pair.identity_id, "fold": pair.fold} for pair in items]
        dataset.write_table(options.out / "folds.csv", folds)
    else:
        if options.set == "pretrain":
            items = pretrain.plan(options.people, options.expressions, seed)
        else:
            items = singles.plan_singles(options.set, options.people, seed)
        write = pretrain.write_face if options.set == "pretrain" else singles.write_single
        render_all(items, write, options.out / "faces", options.workers)
        rows = [face.attributes() for face in items]
    dataset.write_table(options.out / "attributes.csv", rows)
    print(f"{len(rows)} rows in {options.out / 'attributes.csv'}")


if __name__ == "__main__":
    main()
