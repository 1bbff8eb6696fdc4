"""The explorer's controls (ipywidgets): they make a `Choice`, and show what follows from it."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from threading import RLock

import ipywidgets as widgets
import numpy as np
from IPython import get_ipython
from IPython.display import Markdown, display

from helpers.errors import StudyError
from helpers.evaluation.subgroups import GROUPS
from helpers.evaluation.tables import heads_of
from helpers.explorer import cards
from helpers.explorer.choice import (
    ANY,
    DISPUTES,
    ORDERS,
    OUTCOMES,
    Choice,
    FaceSet,
    default_choice,
    select,
    values,
    why_empty,
)
from helpers.explorer.maps import Maps
from helpers.figures import label_of

NOT_LIVE = (
    "*Here JupyterLab shows the controls: open this notebook there (`make lab`) and run it. What "
    "they show first is drawn above.*"
)
NO_PICTURES = "The pictures are not on this machine; the numbers are."
_WIDTH = 310  # pixels, of a list


def _in_turn(answer: Callable) -> Callable:
    """Let a control be answered only after the one before has been.

    JupyterLab hands the changes of controls to more than one thread of the kernel, and the last to
    finish would show a choice that is no longer made.
    """

    @wraps(answer)
    def waiting(self: "Explorer", *given: object) -> None:
        with self.lock:
            answer(self, *given)

    return waiting


class Explorer:
    """The controls, and what they show.

    `box`: what a notebook displays. `choice`: what the controls say now. `rows`: the faces that
    this finds, of which the one at `place` is shown.
    """

    def __init__(self, faces: FaceSet, pictures: dict[str, Path], maps: Maps) -> None:
        """Build the controls; `pictures`: by image_id, see `samples.pictures`."""
        self.faces, self.pictures, self.maps = faces, pictures, maps
        self.lock = RLock()
        self.rows, self.place, self._held = np.empty(0, int), 0, False
        self.controls = _controls(faces)
        self.overlay = _tagged(widgets.ToggleButton(description="saliency"), "overlay")
        self.back, self.forward = (
            _tagged(widgets.Button(description=text, layout={"width": "76px"}), name)
            for text, name in (("previous", "back"), ("next", "forward"))
        )
        self.position, self.matrix, self.picture, self.scores = (
            _tagged(widgets.HTML(), name) for name in ("position", "matrix", "picture", "scores")
        )
        self.position.layout.width, self.overlay.layout.width = "82px", "82px"
        self.box = self._arranged()
        for name, control in self.controls.items():
            control.observe(self._arm_changed if name == "arm" else self._changed, names="value")
        self.overlay.observe(lambda _: self._show_face(), names="value")
        self.back.on_click(lambda _: self._turn(-1))
        self.forward.on_click(lambda _: self._turn(1))
        self._arm_changed()

    @property
    def choice(self) -> Choice:
        """What the controls say now."""
        said = {name: control.value for name, control in self.controls.items()}
        return Choice(**said | {"threshold": round(said["threshold"], 2)})

    def _arranged(self) -> widgets.VBox:
        def line(*names: str) -> widgets.HBox:
            row = [self.controls[name] for name in names]
            return widgets.HBox(row, layout={"flex_flow": "row wrap"})

        pages = widgets.HBox([self.back, self.forward, self.position, self.overlay])
        shown = widgets.HBox(
            [
                widgets.VBox([pages, self.picture], layout={"width": "340px"}),
                widgets.VBox([self.scores, self.matrix]),
            ],
            layout={"flex_flow": "row wrap"},
        )
        lines = [
            line("arm", "seed", "head"),
            line("gender", "age", "ethnicity"),
            line("kind", "outcome", "dispute"),
            line("threshold", "order"),
        ]
        return _tagged(widgets.VBox([widgets.HTML(cards.STYLE), *lines, shown]), "box")

    @_in_turn
    def _arm_changed(self, _=None) -> None:
        """Offer the seeds and heads that the arm has."""
        arm = self.controls["arm"].value
        heads = heads_of(self.faces.panel, arm)
        self._held = True
        _offer(self.controls["seed"], [int(seed) for seed in self.faces.panel.seeds[arm]])
        _offer(self.controls["head"], [(cards.HEAD_NAMES[head], head) for head in heads])
        self._held = False
        self._changed()

    @_in_turn
    def _changed(self, _=None) -> None:
        if self._held:
            return
        before = self.shown
        self.rows = select(self.faces, self.choice)
        # A face that is still among them stays in view.
        same = np.flatnonzero(self.rows == before) if before is not None else ()
        self.place = int(same[0]) if len(same) else 0
        self.matrix.value = cards.matrix(self.faces, self.choice)
        self._show_face()

    @property
    def shown(self) -> int | None:
        """The row of the face in view, or None."""
        return int(self.rows[self.place]) if len(self.rows) else None

    @_in_turn
    def _turn(self, step: int) -> None:
        self.place = min(max(self.place + step, 0), max(len(self.rows) - 1, 0))
        self._show_face()

    @_in_turn
    def _show_face(self) -> None:
        row, count = self.shown, len(self.rows)
        self.back.disabled = self.place == 0
        self.forward.disabled = self.place + 1 >= count
        self.overlay.disabled = row is None or not self.pictures
        if row is None:
            self.position.value = "0 of 0"
            self.picture.value = cards.message(why_empty(self.faces, self.choice))
            self.scores.value = ""
            return
        self.position.value = f"{self.place + 1:,} of {count:,}"
        self.picture.value = self._drawn(row)
        self.scores.value = cards.scores(self.faces, self.choice, row)

    def _drawn(self, row: int) -> str:
        path = self.pictures.get(self.faces.table["image_id"][row])
        if path is None:
            return cards.message(NO_PICTURES)
        alt = cards.caption(self.faces, row)
        plain = cards.picture(path, alt)
        if not self.overlay.value:
            return plain
        choice = self.choice
        name = label_of(choice.arm)
        try:
            mapped = self.maps.picture(choice.arm, choice.seed, path)
        except StudyError as error:
            return plain + cards.message(str(error))
        said = f"Grad-CAM: the brighter, the more it speaks for pain to {name}."
        return cards.picture(mapped, f"{alt}, {said}") + cards.message(said)


def show(faces: FaceSet, pictures: dict[str, Path], maps: Maps) -> Explorer | None:
    """Display the controls where somebody can use them, and return them; else say where to.

    A notebook that is executed in batch would keep a widget without its kernel, which a page cannot
    show.
    """
    if not is_live():
        display(Markdown(NOT_LIVE))
        return None
    explorer = Explorer(faces, pictures, maps)
    display(explorer.box)
    return explorer


def is_live() -> bool:
    """Return whether a person sees this notebook run.

    Known by whether the front end takes input: JupyterLab and its like do, papermill and nbconvert
    do not.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False))


def _controls(faces: FaceSet) -> dict[str, widgets.ValueWidget]:
    start = default_choice(faces)
    arms = [(label_of(arm), arm) for arm in faces.panel.arms]
    disputes = [(ANY, ANY), *((text, name) for name, text in DISPUTES.items())]
    options = {
        "arm": arms,
        "seed": [start.seed],
        "head": [(cards.HEAD_NAMES[start.head], start.head)],
    }
    options |= {name: values(faces, name) for name in (*GROUPS, "kind")}
    options |= {"outcome": [ANY, *OUTCOMES], "dispute": disputes}
    options |= {"order": [(text, name) for name, text in ORDERS.items()]}
    titles = {"kind": "expression", "dispute": "disagreement"}
    found = {
        name: _tagged(
            widgets.Dropdown(
                options=choices,
                value=getattr(start, name),
                description=titles.get(name, name),
                style={"description_width": "96px"},
                layout={"width": f"{_WIDTH}px"},
            ),
            name,
        )
        for name, choices in options.items()
    }
    found["threshold"] = _tagged(
        widgets.FloatSlider(
            value=start.threshold,
            min=0,
            max=1,
            step=0.01,
            description="threshold",
            readout_format=".2f",
            style={"description_width": "96px"},
            layout={"width": f"{2 * _WIDTH + 4}px"},
        ),
        "threshold",
    )  # fmt: skip
    return found


def _offer(control: widgets.Dropdown, options: list) -> None:
    """Set a control's options; its value stays where it is one of them, and is the first else."""
    offered = [option[1] if isinstance(option, tuple) else option for option in options]
    kept = control.value if control.value in offered else offered[0]
    control.options = options
    control.value = kept


def _tagged(widget: widgets.DOMWidget, name: str) -> widgets.DOMWidget:
    """Give a widget a class of its own, by which a script in the browser finds it."""
    widget.add_class(f"explorer-{name}")
    return widget
