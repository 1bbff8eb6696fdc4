"""Command line: render the stand-in dataset, or faces for pretraining.

    python -m render --pairs 1000 --seed 0 --out . --workers 2
    python -m render --pretrain --identities 1000 --expressions 6 --out pretrain --workers 2

The first writes OUT/pairs/*.jpg and OUT/attributes.csv, the second OUT/faces/*.jpg and
OUT/attributes.csv. Finished pictures are kept: a command that was cut off goes on where it was.
"""

import argparse
import os
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # one process a core, one thread a process

from . import dataset, pretrain  # noqa: E402
from .run import render_all  # noqa: E402


def main(arguments=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m render",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=int, default=1000, help="side-by-side pairs, up to 5355")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--pretrain", action="store_true", help="faces for pretraining instead")
    parser.add_argument("--identities", type=int, default=1000, help="people to pretrain on")
    parser.add_argument("--expressions", type=int, default=6, help="pictures of each of them")
    options = parser.parse_args(arguments)

    if options.pretrain:
        items = pretrain.plan(options.identities, options.expressions, options.seed)
        render_all(items, pretrain.write_face, options.out / "faces", options.workers)
        rows = [face.attributes() for face in items]
    else:
        items = dataset.plan(options.pairs, options.seed)
        render_all(items, dataset.write_pair, options.out / "pairs", options.workers)
        rows = [pair.attributes(side) for pair in items for side in ("left", "right")]
    dataset.write_table(options.out / "attributes.csv", rows)
    print(f"{len(rows)} rows in {options.out / 'attributes.csv'}")


if __name__ == "__main__":
    main()
