"""Render many pictures side by side, keeping those that are finished."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed

from tqdm import tqdm

_worker = {}


def _start(write, folder):
    from .scene import Renderer  # here: only a process that renders needs the body model

    _worker.update(renderer=Renderer(), write=write, folder=folder)


def _work(item):
    _worker["write"](item, _worker["renderer"], _worker["folder"])


def render_all(items, write, folder, workers):
    """Render the `items` whose picture is not in `folder` yet, `workers` at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.rglob(".*.part"):
        left_over.unlink()
    todo = [x for x in items if not (folder / x.file_name).exists()]
    print(f"{len(items) - len(todo)} of {len(items)} pictures are there already")
    if not todo:
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (write, folder)) as pool:
        futures = [pool.submit(_work, item) for item in todo]
        for future in tqdm(as_completed(futures), total=len(todo), unit="picture"):
            future.result()
