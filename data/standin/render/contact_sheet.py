"""A picture of one pair from each of the 40 cells.

    python -m render.contact_sheet --pairs pairs --out contact_sheet.jpg

Columns: Black, South Asian, Middle Eastern, Caucasian, Asian. Rows: first NoPain, then Pain; in
each, young men, old men, young women, old women.
"""

import argparse
from pathlib import Path

from PIL import Image

from .dataset import CELLS

TILE = (262, 147)
COLUMNS = 5


def contact_sheet(folder):
    """The sheet as an image; of each cell the pair with the lowest serial number is shown."""
    files = sorted(Path(folder).rglob("*.jpg"), key=lambda p: p.name[5:10])
    sheet = Image.new("RGB", (COLUMNS * TILE[0], len(CELLS) // COLUMNS * TILE[1]), "white")
    for index, cell in enumerate(CELLS):
        prefix = "1" + "".join(str(c) for c in cell)
        path = next((p for p in files if p.name.startswith(prefix)), None)
        if path is None:
            continue
        with Image.open(path) as pair:
            tile = pair.resize((TILE[0] - 4, TILE[1] - 4), Image.LANCZOS)
        row, column = divmod(index, COLUMNS)
        sheet.paste(tile, (column * TILE[0] + 2, row * TILE[1] + 2))
    return sheet


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Draw one pair from each cell.")
    parser.add_argument("--pairs", type=Path, default=Path("pairs"))
    parser.add_argument("--out", type=Path, default=Path("contact_sheet.jpg"))
    options = parser.parse_args()
    contact_sheet(options.pairs).save(options.out, quality=86, optimize=True)


if __name__ == "__main__":
    main()
