"""The study as a graph of papermill runs.

snakemake --configfile config/quick.yaml --cores all --keep-going

What is done and unchanged is skipped. A run that fails leaves its notebook with the error (it is
the rule's log, which Snakemake keeps), the others go on, and the next call takes up there.

Snakemake deletes what a rule declares before it starts the rule, so a run declares an empty file,
`.done`, and nothing of itself. Helpers are no inputs of a training: an edited notebook is executed
again and shows the run that is there. What decides a run is compared before anything is planned:
a finished run that was made otherwise stops the study, and FRESH=1 moves it aside.

A config whose runs are committed, in results/<config>/runs, is not trained again: its chapters show
what is there. With TRAIN=1 it is; the target `publish` then puts the runs there.

Each file of config/ablations is a target too (`ablation_soft`), and `ablations` is all of them: the
study's students again with one thing changed, below its runs, for chapter 5 to show.

On a cluster: --profile config/slurm, which says what each rule asks for.
"""

import json
import os
import re
import shlex
import shutil
import sys
import time
from contextlib import suppress
from itertools import product
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from helpers.files import ROOT, StudyError, existing_folder
from helpers.parameters import NOTEBOOKS, check_config, read_ablations
from helpers.runs import refuse_other
from helpers.splits import check_split

if not workflow.configfiles:
    raise WorkflowError("Name a config, for example: --configfile config/quick.yaml")
NAME = Path(workflow.configfiles[-1]).stem
# Relative where it can be: what stands in braces in a rule's path is a wildcard.
HERE = Path(os.path.relpath(ROOT))
# What stops a study in one sentence, for the Makefile to say last.
SAID, BEGIN = Path("runs", NAME, ".said"), time.time()
if workflow.is_main_process:
    SAID.unlink(missing_ok=True)


def stop(sentence):
    """End with `sentence`, before anything is run."""
    SAID.parent.mkdir(parents=True, exist_ok=True)
    SAID.write_text(f"\n{sentence}\n", encoding="utf-8")
    raise WorkflowError(sentence) from None


try:
    STUDY = check_config(config, f"config/{NAME}.yaml")
    ABLATIONS = {found.name: found for found in read_ablations("config/ablations", STUDY)}
    check_split(STUDY["split_ratios"])
except StudyError as error:
    stop(str(error))

PREPARED = f"data/prepared/{NAME}"
CROPS = f"data/crops/{NAME}"
RUNS = f"runs/{NAME}"
RESULTS = f"results/{NAME}"
# `part` is empty in the study itself, and `ablations/<name>/` in an ablation.
TEACHER = "{part}teacher/{teacher}/seed{seed}"
STUDENT = "{part}student/{student}-{teacher}/seed{seed}"


def study_of(part):
    """Return the parameters of the study, or of an ablation of it."""
    return STUDY | (ABLATIONS[Path(part).name].departures if part else {})


def runs_of(part=""):
    """Return the runs of the study, or those that an ablation makes anew, with their parameters."""
    study, ablation = study_of(part), ABLATIONS[Path(part).name] if part else None
    teachers, found = study["teachers"], {}
    if not part or ablation.teaches_anew:
        for seed, teacher in product(study["seeds"], teachers):
            own = {"teacher": teacher, "seed": seed}
            found[TEACHER.format(part=part, **own)] = study | own
    taught = [*teachers, "none"] if not part or ablation.trains_untaught else teachers
    for seed, student, teacher in product(study["seeds"], study["students"], taught):
        own = {"student": student, "teacher": teacher, "seed": seed}
        found[STUDENT.format(part=part, **own)] = study | own
    return found


MADE = list(runs_of())
TEACHERS = [run for run in MADE if run.startswith("teacher/")]
STUDENTS = [run for run in MADE if run.startswith("student/")]
PUBLISHED = os.environ.get("TRAIN", "0") in ("", "0") and all(
    Path(RESULTS, "runs", run, "metrics.json").is_file() for run in MADE
)
COMPARED = f"{RESULTS}/runs" if PUBLISHED else RUNS
# Chapters 3 and 4 of published runs are executed apart from runs that may be trained here.
SHOWN = f"{RUNS}/published" if PUBLISHED else RUNS
ABLATED = sorted(
    path.parent.relative_to(COMPARED).as_posix()
    for path in Path(COMPARED).glob("ablations/*/*/*/seed*/metrics.json")
    if path.parent.suffix == ""  # none that was moved aside
)

# What can be known before the start: a start's file for each network, and that there are pairs.
if workflow.is_main_process and not PUBLISHED:
    start = HERE / ("data/weights/faces" if STUDY["init"] == "faces" else STUDY["init"])
    for name in STUDY["teachers"] + STUDY["students"] if start.is_dir() else ():
        if not any(start.glob(f"{'swin_tiny' if name == 'swin' else name}*.safetensors")):
            stop(f"The start in {start} has no weights of {name}: choose others, or another init.")
    try:
        if not Path(PREPARED, "manifest.csv").is_file():
            existing_folder(STUDY["raw_dir"], "side-by-side pairs")
    except StudyError as error:
        way_out = " `make synpain-data` brings SynPAIN." if "SynPain" in str(error) else ""
        stop(f"{error}{way_out}")

if workflow.is_main_process and not workflow.dryrun:
    # Snakemake's own lock outlives a kill, and has to be unlocked by hand; this one does not.
    Path(RUNS).mkdir(parents=True, exist_ok=True)
    with suppress(ImportError):  # on Windows
        import fcntl

        LOCK = open(Path(RUNS, ".lock"), "w")
        try:
            fcntl.flock(LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stop(f"Another call works on {RUNS}: wait for its end, or stop it.")
    for part in ["", *(f"ablations/{name}/" for name in ABLATIONS)]:
        for run, given in runs_of(part).items():
            try:
                refuse_other(Path(COMPARED, run).absolute(), given)
            except StudyError as error:
                way_out = f" TRAIN=1 trains the study into {RUNS} instead." if PUBLISHED else ""
                stop(f"{error}{way_out}")
            if not Path(COMPARED, run, "metrics.json").is_file():
                Path(SHOWN, run, ".done").unlink(missing_ok=True)

# What failed says why in its notebook; here each sentence once more.
onerror:
    words = []
    for folder in {Path(PREPARED), Path(CROPS), Path(RUNS)}:
        for path in folder.rglob("0*_*.ipynb") if folder.is_dir() else ():
            found = re.findall(r'"(?:StudyError|Stopped): (.*?)"', path.read_text(encoding="utf-8"))
            if found and path.stat().st_mtime > BEGIN:
                words.append(f"{path}: {json.loads(chr(34) + found[-1] + chr(34))}")
    SAID.write_text("\n".join(["", *words, ""]) if words else "", encoding="utf-8")


HELPERS = sorted(str(path) for path in (HERE / "helpers").glob("*.py"))
PYTHON = shlex.quote(sys.executable).replace("{", "{{").replace("}", "}}")
KERNELS = shlex.quote(f"{sys.prefix}/share/jupyter").replace("{", "{{").replace("}", "}}")
# The kernel is that of this Python, whatever others JUPYTER_PATH may name.
RUN_NOTEBOOK = (
    f"JUPYTER_PATH={KERNELS} {PYTHON} -m papermill --log-output "
    "--log-level WARNING --no-progress-bar {input.notebook:q} {log.notebook:q} -y {params.own}"
)

# Not by `run:`, which Snakemake starts through a shell without quoting.
CALL = (
    f"{PYTHON} -c 'import json, sys; from helpers.WHAT as call; call(**json.loads(sys.argv[1]))' "
    "{params.given:q}"
)


def absolute(folders=None, chapters=None, **paths):
    """Return arguments for a function of helpers as JSON, paths spelled out from here."""
    found = {key: str(Path(path).absolute()) for key, path in paths.items()}
    if chapters:
        found["chapters"] = [[str(Path(p).absolute()) for p in row] for row in chapters]
    return json.dumps(found | ({"folders": folders} if folders else {}))


def arguments(notebook, part="", **own):
    """Return a notebook's parameters, from the config and `own`, quoted for the shell.

    Folders count from the project's root, so they are spelled out where Snakemake works elsewhere.
    """
    study = study_of(part)
    values = {name: study[name] for name in NOTEBOOKS[notebook] if name in study} | own
    if Path.cwd() != ROOT:
        values |= {key: str(Path(own[key]).absolute()) for key in own if key.endswith("_dir")}
    return shlex.quote(yaml.safe_dump(values, default_flow_style=True, width=10**6).strip())


def helpers(*names):
    """Return the files of helpers that a chapter's result hangs on."""
    return [HERE / f"helpers/{name}.py" for name in names]


localrules:
    all,
    publish,
    ablations,
    report,


wildcard_constraints:
    teacher="resnet50|swin|swin_base|none",
    student="deit_tiny|deit_small|deit_base",
    seed=r"\d+",
    part=r"(ablations/\w+/)?",


rule all:
    input:
        f"{RUNS}/report/index.html",


rule prepare:
    input:
        helpers("naming", "pairs", "splits", "prepare"),
        notebook=HERE / "notebooks/01_prepare_dataset.ipynb",
    output:
        f"{PREPARED}/manifest.csv",
    log:
        notebook=f"{PREPARED}/01_prepare_dataset.ipynb",
    params:
        own=arguments("01_prepare_dataset", out_dir=PREPARED),
    threads: workflow.cores
    shell:
        RUN_NOTEBOOK


rule crop:
    input:
        helpers("crops", "probes"),
        rules.prepare.output,
        notebook=HERE / "notebooks/02_crop_faces.ipynb",
    output:
        f"{CROPS}/manifest.csv",
    log:
        notebook=f"{CROPS}/02_crop_faces.ipynb",
    params:
        own=arguments("02_crop_faces", prepared_dir=PREPARED, out_dir=CROPS),
    threads: workflow.cores
    shell:
        RUN_NOTEBOOK


# Two trainings side by side use a processor better than one on all of its cores; a GPU serves one.
ABREAST = 1 if shutil.which("nvidia-smi") else 2
TRAINING = 1 if PUBLISHED else max(1, workflow.cores // ABREAST)


rule train_teacher:
    input:
        rules.crop.output,
        notebook=HERE / "notebooks/03_train_teacher.ipynb",
    output:
        touch(f"{SHOWN}/{TEACHER}/.done"),
    log:
        notebook=f"{SHOWN}/{TEACHER}/03_train_teacher.ipynb",
    params:
        own=lambda wildcards: arguments(
            "03_train_teacher",
            wildcards.part,
            crops_dir=CROPS,
            out_dir=f"{COMPARED}/{TEACHER}".format(**wildcards),
            teacher=wildcards.teacher,
            seed=int(wildcards.seed),
        ),
    threads: TRAINING
    shell:
        RUN_NOTEBOOK


def teacher_run(wildcards):
    anew = wildcards.part and ABLATIONS[Path(wildcards.part).name].teaches_anew
    return TEACHER.format(**{**wildcards, "part": wildcards.part if anew else ""})


def teacher_of(wildcards):
    return [] if wildcards.teacher == "none" else f"{SHOWN}/{teacher_run(wildcards)}/.done"


rule distil_student:
    input:
        rules.crop.output,
        teacher_of,
        notebook=HERE / "notebooks/04_distill_student.ipynb",
    output:
        touch(f"{SHOWN}/{STUDENT}/.done"),
    log:
        notebook=f"{SHOWN}/{STUDENT}/04_distill_student.ipynb",
    params:
        own=lambda wildcards: arguments(
            "04_distill_student",
            wildcards.part,
            crops_dir=CROPS,
            out_dir=f"{COMPARED}/{STUDENT}".format(**wildcards),
            teacher_dir=f"{COMPARED}/{teacher_run(wildcards)}",
            teacher=wildcards.teacher,
            student=wildcards.student,
            seed=int(wildcards.seed),
        ),
    threads: TRAINING
    shell:
        RUN_NOTEBOOK


def chapter(notebook, **own):
    """Return the parameters of a chapter that reads all runs and writes into the runs' folder."""
    folders = {
        "runs_dir": COMPARED,
        "crops_dir": CROPS,
        "figures_dir": f"{RUNS}/figures",
        "results_dir": f"{RUNS}/results",
    }
    named = {name: folder for name, folder in folders.items() if name in NOTEBOOKS[notebook]}
    return arguments(notebook, **named, **own)


rule inherit:
    input:
        HELPERS,
        rules.crop.output,
        expand("{folder}/{run}/.done", folder=SHOWN, run=MADE),
        notebook=HERE / "notebooks/06_what_is_inherited.ipynb",
    output:
        touch(f"{RUNS}/.06_done"),
    log:
        notebook=f"{RUNS}/06_what_is_inherited.ipynb",
    params:
        own=chapter("06_what_is_inherited"),
    threads: 1 if PUBLISHED else workflow.cores  # without networks one core is enough
    shell:
        RUN_NOTEBOOK


# Chapter 5 quotes a table that chapter 6 keeps.
rule compare:
    input:
        HELPERS,
        rules.inherit.output,
        expand("{folder}/{run}/.done", folder=SHOWN, run=MADE),
        expand("{folder}/{run}/metrics.json", folder=COMPARED, run=ABLATED),
        notebook=HERE / "notebooks/05_compare_teachers.ipynb",
    output:
        touch(f"{RUNS}/.05_done"),
    log:
        notebook=f"{RUNS}/05_compare_teachers.ipynb",
    params:
        own=chapter("05_compare_teachers"),
    threads: 1 if PUBLISHED else workflow.cores  # it times the networks, each alone
    shell:
        RUN_NOTEBOOK


rule explore:
    input:
        HELPERS,
        rules.crop.output,
        expand("{folder}/{run}/.done", folder=SHOWN, run=MADE),
        notebook=HERE / "notebooks/A1_explore_faces.ipynb",
    output:
        touch(f"{RUNS}/.A1_done"),
    log:
        notebook=f"{RUNS}/A1_explore_faces.ipynb",
    params:
        own=chapter("A1_explore_faces"),
    threads: 1
    shell:
        RUN_NOTEBOOK


rule predict:
    input:
        HELPERS,
        expand("{folder}/{run}/.done", folder=SHOWN, run=STUDENTS[:1]),
        notebook=HERE / "notebooks/A2_predict_faces.ipynb",
    output:
        touch(f"{RUNS}/.A2_done"),
    log:
        notebook=f"{RUNS}/A2_predict_faces.ipynb",
    params:
        own=arguments(
            "A2_predict_faces",
            model_dir=f"{COMPARED}/{STUDENTS[0]}",
            pictures_dir=STUDY["raw_dir"],
            out_dir=f"{RUNS}/predicted",
        ),
    threads: 1
    shell:
        RUN_NOTEBOOK


rule publish:
    input:
        rules.compare.output,
        rules.inherit.output,
        rules.explore.output,
    params:
        given=lambda _: absolute(
            folders=MADE + ABLATED, runs_dir=RUNS, results_dir=RESULTS, figures_dir=f"figures/{NAME}"
        ),
    shell:
        f"cp {PREPARED}/figures/*.png {CROPS}/figures/*.png {RUNS}/figures/ && "
        + CALL.replace("WHAT", "publish import publish")


for name in ABLATIONS:

    rule:
        name:
            f"ablation_{name}"
        input:
            expand("{folder}/{run}/.done", folder=SHOWN, run=runs_of(f"ablations/{name}/")),


rule ablations:
    input:
        [getattr(rules, f"ablation_{name}").input for name in ABLATIONS],


# The notebooks are logs of the rules before, which Snakemake does not take as inputs.
rule report:
    input:
        HERE / "notebooks/cover.md",
        HERE / "notebooks/references.bib",
        rules.prepare.output,
        rules.crop.output,
        rules.compare.output,
        rules.inherit.output,
        rules.explore.output,
        rules.predict.output,
    output:
        f"{RUNS}/report/index.html",
    params:
        given=lambda _: absolute(
            chapters=[
                [f"{PREPARED}/01_prepare_dataset.ipynb"],
                [f"{CROPS}/02_crop_faces.ipynb"],
                [f"{SHOWN}/{run}/03_train_teacher.ipynb" for run in TEACHERS],
                [f"{SHOWN}/{run}/04_distill_student.ipynb" for run in STUDENTS],
                [f"{RUNS}/05_compare_teachers.ipynb"],
                [f"{RUNS}/06_what_is_inherited.ipynb"],
                [f"{RUNS}/A1_explore_faces.ipynb"],
                [f"{RUNS}/A2_predict_faces.ipynb"],
            ],
            out_dir=f"{RUNS}/report",
            answer=f"{RUNS}/results/answer.md",
            figure=f"{RUNS}/figures/auroc.png",
        ),
    shell:
        CALL.replace("WHAT", "page import build_pages")
