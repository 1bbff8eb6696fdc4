"""The test faces one by one: what each arm says of them, and what another threshold changes.

A face is called Pain where P(pain) is above the threshold. `gather` reads the faces; `judge` and
`thresholds` work without controls; `show` gives the controls in JupyterLab.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from threading import RLock

import ipywidgets as widgets
import numpy as np
import pandas as pd
from IPython import display, get_ipython

from helpers.compare import ATTRIBUTES, GROUPS, read_pspi
from helpers.files import project_path, read_csv
from helpers.naming import parse_id
from helpers.runs import HEADS, Run
from helpers.stats import THRESHOLD
from helpers.text import name_of, teacher_of

ANY, FILTERS = "any", (*GROUPS, "side", "kind")
OUTCOMES = ("hit", "miss", "false alarm", "correct rejection")
DISPUTES = (ANY, "arms differ", "teacher and student differ", "arm and label differ")
ORDERS = ("arms furthest apart first", "P(pain), highest first", "P(pain), lowest first")
NO_PICTURE = "The pictures are not on this machine; the numbers are."
NOT_LIVE = "*JupyterLab has controls here (`make lab`). What they show first is drawn above.*"


@dataclass(frozen=True)
class Faces:
    """The test faces, and P(pain) of each.

    `table`: by image_id; `identity`, `side`, `label`, `gender`, `age`, `ethnicity`, `kind` (of
    expression), `picture` (path of the crop; none where there is none). `scores`: by image_id,
    columns (arm, seed, head), without the heads that an arm lacks.
    """

    table: pd.DataFrame
    scores: pd.DataFrame


def gather(runs: Sequence[Run], crops_dir: str | Path, attributes: str = ATTRIBUTES) -> Faces:
    """Return the test faces of `runs`, with pictures where `crops_dir` has them.

    `attributes`: the stand-in's table of what was rendered. Of other faces only the side is known:
    their kind is `neutral` or `expressive`.
    """
    tests = {(run.name, run.seed): run.predictions.query("split == 'test'") for run in runs}
    tests = {run: table.set_index("image_id").sort_index() for run, table in tests.items()}
    scores = pd.concat({run: table[list(HEADS)] for run, table in tests.items()}, axis=1)
    scores.columns.names = ["arm", "seed", "head"]
    faces = next(iter(tests.values()))[["identity", "side", "label"]].copy()
    for group in GROUPS:
        faces[group] = [getattr(parse_id(identity), group) for identity in faces["identity"]]
    faces["kind"] = faces["side"].map({"left": "neutral", "right": "expressive"})
    if read_pspi(faces.reset_index(), attributes) is not None:
        faces["kind"] = read_csv(attributes).set_index("image_id")["kind"]
    faces["picture"], manifest = None, project_path(crops_dir) / "manifest.csv"
    if manifest.is_file():
        paths = read_csv(manifest).set_index("image_id")["path"]
        faces["picture"] = paths.map(manifest.parent.joinpath)
    return Faces(faces, scores.dropna(axis=1, how="all"))


def thresholds(faces: Faces) -> pd.DataFrame:
    """Return the confusion matrix of every run on all test faces at 0, 0.01, ... 1.

    Columns: arm, seed, threshold, the four counts, sensitivity, specificity.
    """
    pain, rows = (faces.table["label"] == "Pain").to_numpy(int), []
    runs = faces.scores.xs("probability", axis=1, level="head")
    for (run, said), threshold in product(runs.items(), np.arange(101) / 100):
        cells = np.bincount(3 - 2 * pain - (said.to_numpy() > threshold), minlength=4)
        rates = cells[[0, 3]] / (cells[:2].sum(), cells[2:].sum())
        rows.append([*run, threshold, *cells, *rates])
    names = [name.replace(" ", "_") for name in OUTCOMES]
    columns = ["arm", "seed", "threshold", *names, "sensitivity", "specificity"]
    return pd.DataFrame(rows, columns=columns)


def judge(faces: Faces, run: tuple[str, int, str], threshold: float = THRESHOLD) -> pd.DataFrame:
    """Return the table of `faces` as `run` (arm, seed, head) judges them, with more columns.

    `outcome`: one of `OUTCOMES`. Each of `DISPUTES` is True where two that it names decide
    differently: a student and its teacher, or a teacher and one of its students. Each of `ORDERS`
    is a number to sort by, the highest first: the range of P(pain) over all arms with this seed,
    P(pain) of `run`, and its negative.
    """
    (arm, seed, _), scores = run, faces.scores
    every = scores.xs((seed, "probability"), axis=1, level=("seed", "head"))
    called = (every > threshold).assign(**{arm: scores[run] > threshold})
    pain, own = faces.table["label"] == "Pain", called[arm]
    kin = [a for a in called if a != arm and (a == teacher_of(arm) or teacher_of(a) == arm)]
    differ = (called.nunique(axis=1) > 1, called[kin].ne(own, axis=0).any(axis=1), own != pain)
    keys = (every.max(axis=1) - every.min(axis=1), scores[run], -scores[run])
    outcomes = np.where(pain, np.where(own, *OUTCOMES[:2]), np.where(own, *OUTCOMES[2:]))
    columns = dict(zip((*DISPUTES, *ORDERS), (True, *differ, *keys), strict=True))
    return faces.table.assign(outcome=outcomes, **columns)


def among(judged: pd.DataFrame, wanted: Mapping[str, object]) -> pd.DataFrame:
    """Return the rows that have each wanted value in its column; `ANY` takes all."""
    fits = [(judged[column] == value) | (value == ANY) for column, value in wanted.items()]
    return judged[np.all(fits, axis=0)]


class Explorer:
    """The controls, and what they show.

    `box`: what a notebook displays. `controls`: by name. `found`: the faces that they find, of
    which `page` shows one, `shown`.
    """

    def __init__(self, faces: Faces) -> None:
        """Build the controls; see `gather`."""
        self.faces, self.shown = faces, None
        # JupyterLab may hand changes to several threads; what is shown last must be chosen last.
        self.lock = RLock()
        arms, seeds, _ = (list(dict.fromkeys(level)) for level in zip(*faces.scores, strict=True))
        options = {"arm": [(name_of(arm), arm) for arm in arms], "seed": seeds}
        options["head"] = [(title, head) for head, title in HEADS.items()]
        options |= {name: [ANY, *sorted(faces.table[name].unique())] for name in FILTERS}
        options |= {"outcome": [ANY, *OUTCOMES], "dispute": DISPUTES, "order": ORDERS}
        self.controls = {name: widgets.Dropdown(options=found) for name, found in options.items()}
        self.controls["threshold"] = widgets.FloatSlider(THRESHOLD, min=0, max=1, step=0.01)
        self.page = widgets.IntSlider(1, 1, 1)
        self.face, self.matrix = widgets.HTML(), widgets.HTML()
        self._choose()
        for name, control in self.controls.items():
            control.description = name
            control.observe(self._choose, "value")
        self.page.observe(self._turn, "value")
        self.first = {name: control.value for name, control in self.controls.items()}
        self.reset = widgets.Button(description="reset")
        self.reset.on_click(self._reset)
        rows = ([*self.controls.values(), self.page, self.reset], [self.face, self.matrix])
        wrap = {"flex_flow": "row wrap"}
        self.box = widgets.VBox([widgets.HBox(row, layout=wrap) for row in rows])

    def _reset(self, _: object = None) -> None:
        for name, control in self.controls.items():
            control.value = self.first[name]

    def _choose(self, _: object = None) -> None:
        with self.lock:
            said, before = {name: part.value for name, part in self.controls.items()}, self.shown
            run, self.found = (said["arm"], said["seed"], said["head"]), pd.DataFrame()
            self.matrix.value = f"{name_of(run[0])} has no run of this seed with this head."
            if run in self.faces.scores:
                judged = judge(self.faces, run, said["threshold"])
                group = among(judged, {name: said[name] for name in FILTERS})
                self.matrix.value = _matrix(group)
                found = among(group, {"outcome": said["outcome"], said["dispute"]: True})
                self.found = found.sort_values(said["order"], ascending=False, kind="stable")
            ids = self.found.index
            self.page.max, self.page.description = max(1, len(ids)), f"of {len(ids):,}"
            # a face that is still among them stays in view
            self.page.value = ids.get_loc(before) + 1 if before in ids else 1
            self._turn()

    def _turn(self, _: object = None) -> None:
        with self.lock:
            self.shown, self.face.value = None, "No test face is all of this."
            if len(self.found):
                self.shown = self.found.index[self.page.value - 1]
                said = self.faces.scores.xs(self.controls["seed"].value, axis=1, level="seed")
                self.face.value = _face(self.faces.table.loc[self.shown], said.loc[self.shown])


def show(faces: Faces) -> widgets.VBox | display.Markdown:
    """Return the controls where somebody can use them, and elsewhere a sentence on where to.

    A notebook executed in batch would keep widgets that no page can show. A front end that takes
    input (JupyterLab) is one where somebody sits.
    """
    live = getattr(getattr(get_ipython(), "kernel", None), "_allow_stdin", False)
    return Explorer(faces).box if live else display.Markdown(NOT_LIVE)


def _matrix(judged: pd.DataFrame) -> str:
    """Return the confusion matrix as HTML; the share that is right is sensitivity, specificity."""
    cells = judged["outcome"].value_counts().reindex(OUTCOMES, fill_value=0).to_numpy()
    table = pd.DataFrame(cells.reshape(2, 2), ["Pain", "NoPain"], ["called Pain", "called NoPain"])
    table["right"] = cells[[0, 3]] / table.sum(axis=1)
    return table.to_html(float_format="{:.3f}".format, na_rep="–")


def _face(face: pd.Series, said: pd.Series) -> str:
    """Return one face as HTML: its picture, who it shows, P(pain) of every arm by every head."""
    words, picture = f"{face['label']}, {face['kind']}: {', '.join(face[[*GROUPS]])}", NO_PICTURE
    if isinstance(face["picture"], Path):
        code = base64.b64encode(face["picture"].read_bytes()).decode()
        picture = f'<img alt="{words}" width="240" src="data:image/jpeg;base64,{code}">'
    table = said.unstack("head", sort=False).rename(index=name_of, columns=HEADS).style
    table = table.format("{:.3f}", na_rep="").bar("decision", color="#9CC3E6", vmin=0, vmax=1)
    return f"<p>{picture}</p><p><b>{words}</b><br>{face.name}</p>{table.to_html()}"
