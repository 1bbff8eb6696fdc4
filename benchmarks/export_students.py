"""Export every run of a study to ONNX and int8, and measure what that saves and what it changes.

    python benchmarks/export_students.py runs/standin --results results/standin \\
        --figures figures/standin

Writes `export.csv` into the results and `efficiency.png` into the figures. Measure on a machine
with nothing else to do. Exports and scores are kept in the work folder: a call that was broken off
goes on, and `--work` deleted starts anew.
"""

import argparse
import os
from pathlib import Path

from helpers.evaluation.compare import load_runs
from helpers.export.plots import TABLE, draw_frontier
from helpers.export.readings import export_rows, read_int8, read_parity
from helpers.export.table import export_table
from helpers.figures import save_fig, use_style
from helpers.files import project_path, write_csv

SAMPLES, SEED = 2000, 0  # of the bootstrap, as in the study's configs


def main() -> None:
    """Make the table, draw the frontier, and print both in words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", help="the runs of one config, with weights")
    parser.add_argument("--results", required=True, help="folder of the table")
    parser.add_argument("--figures", required=True, help="folder of the figure")
    parser.add_argument("--crops", help="the runs' crops, if they are elsewhere now")
    parser.add_argument("--work", help="folder of the exports (<runs>/exports)")
    parser.add_argument("--seconds", type=float, default=5.0, help="a timing may take")
    given = parser.parse_args()
    work = project_path(given.work or Path(given.runs) / "exports")
    runs = load_runs(given.runs)
    print(f"Load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    table = export_table(runs, work, SAMPLES, SEED, given.crops, given.seconds)
    write_csv(project_path(given.results) / TABLE, table)
    use_style()
    save_fig(draw_frontier(given.results), given.figures, "efficiency")
    for words in (export_rows, read_int8, read_parity):
        print(words(given.results), end="\n\n")


if __name__ == "__main__":
    main()
