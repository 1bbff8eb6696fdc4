"""A model card of the study's students (Mitchell et al. 2019), from the runs' own numbers."""

from helpers.evaluation.tables import Study
from helpers.figures import label_of
from helpers.metrics import CONTRASTS, PRIMARY, THRESHOLD
from helpers.prose import listing, number, plural, with_interval
from helpers.training.runs import Run
from helpers.writeup.frame import data_name, seeds_of
from helpers.writeup.one_run import describe_start
from helpers.writeup.readings import largest_gaps, name_of


def model_card(study: Study) -> str:
    """Return the card as a Markdown list; every number is of the runs of `study`."""
    students = [run for run in study.runs if run.stage == "student"]
    if not students:
        return "These runs hold no student, so there is no model to describe."
    lines = {
        "Models": f"{listing([name_of(arm) for arm in study.test.students])}, "
        f"{plural(len(seeds_of(study)), 'seed')} each: {_size(students)}. They start from "
        f"{listing(sorted({describe_start(run) for run in students}))}.",
        "What goes in, what comes out": f"one face, cropped and aligned by the eyes as in chapter "
        f"2, {_sizes(students)} pixels a side; out comes P(pain), and Pain where it is above "
        f"{THRESHOLD}. No arm was calibrated.",
        "Meant for": "research on distillation and on how models of facial expression fail; "
        "teaching; a start for fine-tuning on data with consent and an ethics review.",
        "Not meant for": "any person: no diagnosis, no triage, no decision on analgesics, no "
        "monitoring, no insurance or employment, no claim that somebody is or is not in pain. It "
        "is not a medical device.",
        "Trained and tested on": f"{data_name(study)}: {_people(study, 'train')} to train on, "
        f"{_people(study, 'test')} to test, nobody in both.",
        f"How well (AUROC, {CONTRASTS[PRIMARY]})": "; ".join(
            f"{label_of(arm)} {with_interval(study.test.estimates(arm, PRIMARY)['auroc'])}"
            for arm in study.test.students
        )
        + ". The other contrasts, calibration and errors are in the results above.",
        "For whom it fails": largest_gaps(study),
        "Known weaknesses": "it sees one still picture, and no time; it has never seen a face "
        "that is ill, injured, covered, intubated, very young or very old, nor one that hides "
        "pain or cannot show it; hidden parts of the face, blur and darkness cost what the "
        "section on weaknesses shows.",
    }
    return "\n".join(f"- **{name}:** {text}" for name, text in lines.items())


def _size(students: list[Run]) -> str:
    found = {(run.metrics["parameters"], run.metrics["macs"]) for run in students}
    return listing(
        [
            f"{number(parameters / 1e6, 1)} million parameters, {number(macs / 1e9, 2)} billion "
            "multiply-adds a face"
            for parameters, macs in sorted(found)
        ]
    )


def _sizes(students: list[Run]) -> str:
    return listing([str(size) for size in sorted({run.metrics["image_size"] for run in students})])


def _people(study: Study, split: str) -> str:
    faces = getattr(study, split).faces
    return f"{len(faces):,} faces of {plural(faces['identity'].nunique(), 'identity')}"
