"""The study as a graph of papermill runs.

snakemake --configfile config/quick.yaml --cores all --keep-going

What is done and unchanged is skipped. A run that fails leaves its notebook with the error (it is
the rule's log, which Snakemake keeps), the others go on, and the next call takes up there.

A config whose runs are committed, in results/<config>/runs, is not trained again: chapters 5 and 6 are
made from what is there. The target `publish` trains, compares and puts them there.

Each file of config/ablations is a target too (`ablation_soft`), and `ablations` is all of them: the
study's students again with one thing changed, below its runs, for chapter 5 to show.

On a cluster: --profile config/slurm, which says what each rule asks for.
"""

import shlex
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

from helpers.evaluation.ablations import FOLDER, read_ablations
from helpers.errors import StudyError
from helpers.files import ROOT
from helpers.gpus import training_cores
from helpers.parameters import NOTEBOOKS, check_config
from helpers.evaluation.published import is_published, publish

if not workflow.configfiles:
    raise WorkflowError("Name a config, for example: --configfile config/quick.yaml")
CONFIG_FILE = Path(workflow.configfiles[-1])
try:
    STUDY = check_config(config, str(CONFIG_FILE))
    ABLATIONS = {found.name: found for found in read_ablations(ROOT / "config/ablations", STUDY)}
except StudyError as error:
    raise WorkflowError(str(error)) from None

NAME = CONFIG_FILE.stem
RUNS = f"runs/{NAME}"
PREPARED = f"data/prepared/{NAME}"
CROPS = f"data/crops/{NAME}"
RESULTS = f"results/{NAME}"
FIGURES = f"figures/{NAME}"
# `part` is empty in the study itself, and `/ablations/<name>` in an ablation.
TEACHER_RUN = RUNS + "{part}/teacher/{teacher}/seed{seed}"
STUDENT_RUN = RUNS + "{part}/student/{student}-{teacher}/seed{seed}"


TEACHER_RUNS = expand(TEACHER_RUN, part="", teacher=STUDY["teachers"], seed=STUDY["seeds"])
STUDENT_RUNS = expand(
    STUDENT_RUN,
    part="",
    student=STUDY["students"],
    teacher=[*STUDY["teachers"], "none"],
    seed=STUDY["seeds"],
)
MADE = [run.removeprefix(f"{RUNS}/") for run in TEACHER_RUNS + STUDENT_RUNS]
PUBLISHED = is_published(MADE, Path.cwd() / RESULTS)
COMPARED = f"{RESULTS}/runs" if PUBLISHED else RUNS
ABLATED = sorted(
    str(path.parent.relative_to(COMPARED))
    for path in Path(COMPARED).glob(f"{FOLDER}/*/*/*/seed*/metrics.json")
)
HELPERS = sorted(str(path) for path in (ROOT / "helpers").rglob("*.py"))
PAPERMILL = f"{shlex.quote(sys.executable)} -m papermill --log-output --log-level WARNING --no-progress-bar"
RUN_NOTEBOOK = PAPERMILL + " {input.notebook} {log.notebook} -y {params.own}"


def arguments(notebook, part="", **own):
    """Return a notebook's parameters, from the config and `own`, quoted for the shell.

    Folders count from the project's root, so they are spelled out where Snakemake works elsewhere.
    """
    study = STUDY | (ABLATIONS[Path(part).name].departures if part else {})
    values = {name: study[name] for name in NOTEBOOKS[notebook] if name in study} | own
    if Path.cwd() != ROOT:
        values |= {key: str(Path(own[key]).absolute()) for key in own if key.endswith("_dir")}
    return shlex.quote(yaml.safe_dump(values, default_flow_style=True, width=10**6).strip())


localrules:
    all,
    publish,
    ablations,
    report,


wildcard_constraints:
    teacher="resnet50|swin|swin_base|none",
    student="deit_tiny|deit_small|deit_base",
    seed=r"\d+",
    part=rf"(/{FOLDER}/\w+)?",


rule all:
    input:
        f"{RUNS}/report.html",


rule prepare:
    input:
        HELPERS,
        notebook=ROOT / "notebooks/01_prepare_dataset.ipynb",
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
        HELPERS,
        rules.prepare.output,
        notebook=ROOT / "notebooks/02_crop_faces.ipynb",
    output:
        f"{CROPS}/manifest.csv",
    log:
        notebook=f"{CROPS}/02_crop_faces.ipynb",
    params:
        own=arguments("02_crop_faces", prepared_dir=PREPARED, out_dir=CROPS),
    threads: workflow.cores
    shell:
        RUN_NOTEBOOK


# A training fills a GPU, or all cores where there is none: on one machine as many trainings go side
# by side as it has GPUs.
rule train_teacher:
    input:
        HELPERS,
        rules.crop.output,
        notebook=ROOT / "notebooks/03_train_teacher.ipynb",
    output:
        TEACHER_RUN + "/metrics.json",
    log:
        notebook=TEACHER_RUN + "/03_train_teacher.ipynb",
    params:
        own=lambda wildcards: arguments(
            "03_train_teacher",
            wildcards.part,
            crops_dir=CROPS,
            out_dir=TEACHER_RUN.format(**wildcards),
            teacher=wildcards.teacher,
            seed=int(wildcards.seed),
        ),
    threads: training_cores(workflow.cores)
    shell:
        RUN_NOTEBOOK


def teacher_run(wildcards):
    anew = wildcards.part and ABLATIONS[Path(wildcards.part).name].teaches_anew
    return TEACHER_RUN.format(**{**wildcards, "part": wildcards.part if anew else ""})


def teacher_of(wildcards):
    return [] if wildcards.teacher == "none" else teacher_run(wildcards) + "/metrics.json"


rule distil_student:
    input:
        HELPERS,
        rules.crop.output,
        teacher_of,
        notebook=ROOT / "notebooks/04_distill_student.ipynb",
    output:
        STUDENT_RUN + "/metrics.json",
    log:
        notebook=STUDENT_RUN + "/04_distill_student.ipynb",
    params:
        own=lambda wildcards: arguments(
            "04_distill_student",
            wildcards.part,
            crops_dir=CROPS,
            out_dir=STUDENT_RUN.format(**wildcards),
            teacher_dir=teacher_run(wildcards),
            teacher=wildcards.teacher,
            student=wildcards.student,
            seed=int(wildcards.seed),
        ),
    threads: training_cores(workflow.cores)
    shell:
        RUN_NOTEBOOK


rule compare:
    input:
        HELPERS,
        rules.crop.output,
        expand("{folder}/{run}/metrics.json", folder=COMPARED, run=MADE + ABLATED),
        notebook=ROOT / "notebooks/05_compare_teachers.ipynb",
    output:
        f"{RESULTS}/metrics.csv",
    log:
        notebook=f"{RUNS}/05_compare_teachers.ipynb",
    params:
        own=arguments(
            "05_compare_teachers", runs_dir=COMPARED, figures_dir=FIGURES, results_dir=RESULTS
        ),
    threads: 1 if PUBLISHED else workflow.cores  # without networks one core is enough
    shell:
        RUN_NOTEBOOK


rule explore:
    input:
        HELPERS,
        rules.crop.output,
        expand("{folder}/{run}/metrics.json", folder=COMPARED, run=MADE),
        notebook=ROOT / "notebooks/06_explore_faces.ipynb",
    output:
        f"{RESULTS}/thresholds.csv",
    log:
        notebook=f"{RUNS}/06_explore_faces.ipynb",
    params:
        own=arguments("06_explore_faces", runs_dir=COMPARED, results_dir=RESULTS),
    threads: 1 if PUBLISHED else workflow.cores  # without networks one core is enough
    shell:
        RUN_NOTEBOOK


rule publish:
    input:
        rules.compare.output,
    run:
        publish(MADE + ABLATED, Path.cwd() / RUNS, Path.cwd() / RESULTS)


for ablation in ABLATIONS.values():
    changed = STUDY | ablation.departures

    rule:
        name:
            f"ablation_{ablation.name}"
        input:
            expand(
                STUDENT_RUN + "/metrics.json",
                part=f"/{FOLDER}/{ablation.name}",
                student=changed["students"],
                teacher=changed["teachers"] + ["none"] * ablation.trains_untaught,
                seed=changed["seeds"],
            ),


rule ablations:
    input:
        [getattr(rules, f"ablation_{name}").input for name in ABLATIONS],


# The notebooks are logs of the rules before, which Snakemake does not take as inputs.
rule report:
    input:
        ROOT / "helpers/writeup/report.css",
        rules.prepare.output,
        rules.crop.output,
        rules.compare.output,
        rules.explore.output,
    output:
        f"{RUNS}/report.html",
    params:
        chapters=[
            [f"{PREPARED}/01_prepare_dataset.ipynb"],
            [f"{CROPS}/02_crop_faces.ipynb"],
            [] if PUBLISHED else [f"{run}/03_train_teacher.ipynb" for run in TEACHER_RUNS],
            [] if PUBLISHED else [f"{run}/04_distill_student.ipynb" for run in STUDENT_RUNS],
            [f"{RUNS}/05_compare_teachers.ipynb"],
            [f"{RUNS}/06_explore_faces.ipynb"],
        ],
        figures=[f"{folder}/figures" for folder in (PREPARED, CROPS, *TEACHER_RUNS, *STUDENT_RUNS)],
    run:
        from helpers.writeup.report import collect_figures, write_page

        here = Path.cwd()
        collect_figures([here / folder for folder in params.figures], here / FIGURES)
        chapters = [[here / path for path in paths] for paths in params.chapters if paths]
        write_page(chapters, here / output[0])
