"""How a student was taught, in words, from its run: read by notebooks 04 and 05."""

from collections.abc import Mapping

from helpers.training.gate import reading_words
from helpers.training.runs import Run

_LABELS = {
    "out_of_fold": " (of a teacher that never saw the person)",
    "shuffled": " (shuffled among the faces of each batch, so that it tells nothing of them)",
}


def teaching_words(parameters: Mapping) -> str:
    """Return the kind of distillation; `parameters`: those in the run's params.json."""
    kind = parameters.get("distillation", "none")
    if kind == "none":
        return "no teacher"
    labels = _LABELS.get(parameters.get("teacher_labels"), "")
    if kind == "soft":
        temperature = f"{parameters['temperature']:g}"
        return f"soft, by the teacher's probability{labels} at temperature {temperature}"
    return f"hard, by the teacher's decision{labels}"


def describe_teaching(run: Run) -> str:
    """Return how a student was taught, and whether its teacher was weak, for notebook 04."""
    said = f"**Distillation:** {teaching_words(run.params['parameters'])}."
    for found in weak_readings(run):
        said += (
            " **A weak teacher was allowed:** validation does not show it to beat chance "
            f"({reading_words(found)})."
        )
    return said


def weak_readings(run: Run) -> list[dict]:
    """Return the gate's reading of each of a student's teachers that does not beat chance."""
    readings = run.metrics.get("validation", {}).get("teachers", [])
    return [found for found in readings if not found["beats_chance"]]
