"""The study as a graph of papermill runs.

snakemake --configfile config/quick.yaml --cores all --keep-going

What is done and unchanged is skipped. A run that fails leaves its notebook with the error (it is
the rule's log, which Snakemake keeps), the others go on, and the next call takes up there.
"""

import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir)))
from helpers.errors import StudyError
from helpers.parameters import check_config

if not workflow.configfiles:
    raise WorkflowError("Name a config, for example: --configfile config/quick.yaml")
CONFIG_FILE = Path(workflow.configfiles[-1])
STUDY = CONFIG_FILE.stem
try:
    check_config(config, str(CONFIG_FILE))
except StudyError as error:
    raise WorkflowError(str(error)) from None

RUNS = f"runs/{STUDY}"
PREPARED = f"data/prepared/{STUDY}"
CROPS = f"data/crops/{STUDY}"
TEACHER_RUNS = expand(
    RUNS + "/teacher/{teacher}/seed{seed}", teacher=config["teachers"], seed=config["seeds"]
)
STUDENT_RUNS = expand(
    RUNS + "/student/{student}-{teacher}/seed{seed}",
    student=config["students"],
    teacher=[*config["teachers"], "none"],
    seed=config["seeds"],
)
HELPERS = sorted(str(path) for path in Path("helpers").glob("*.py"))
PAPERMILL = f"{shlex.quote(sys.executable)} -m papermill --log-output --no-progress-bar"
CONFIGURED = f"-f {shlex.quote(str(CONFIG_FILE))}"


wildcard_constraints:
    teacher="resnet50|swin|swin_base|none",
    student="deit_tiny|deit_small|deit_base",
    seed=r"\d+",


rule all:
    input:
        f"{RUNS}/report.html",


rule prepare:
    input:
        "notebooks/01_prepare_dataset.ipynb",
        HELPERS,
    output:
        f"{PREPARED}/manifest.csv",
    log:
        notebook=f"{PREPARED}/01_prepare_dataset.ipynb",
    params:
        config={key: config[key] for key in ("raw_dir", "folds_file", "split_ratios", "split_seed")},
        own=f"-p out_dir {PREPARED}",
    threads: workflow.cores
    shell:
        "{PAPERMILL} {input[0]} {log.notebook} {CONFIGURED} {params.own}"


rule crop:
    input:
        "notebooks/02_crop_faces.ipynb",
        rules.prepare.output,
        HELPERS,
    output:
        f"{CROPS}/manifest.csv",
    log:
        notebook=f"{CROPS}/02_crop_faces.ipynb",
    params:
        config={key: config[key] for key in ("crop_size", "margin", "min_face_size")},
        own=f"-p prepared_dir {PREPARED} -p out_dir {CROPS}",
    threads: workflow.cores
    shell:
        "{PAPERMILL} {input[0]} {log.notebook} {CONFIGURED} {params.own}"


RECIPE = {
    key: config[key]
    for key in (
        *("batch_size", "optimizer", "learning_rate", "weight_decay", "schedule", "lr_step"),
        *("lr_gamma", "clip_norm", "image_size", "init", "amp", "deterministic"),
    )
}


rule train_teacher:
    input:
        "notebooks/03_train_teacher.ipynb",
        rules.crop.output,
        HELPERS,
    output:
        RUNS + "/teacher/{teacher}/seed{seed}/metrics.json",
    log:
        notebook=RUNS + "/teacher/{teacher}/seed{seed}/03_train_teacher.ipynb",
    params:
        config=RECIPE | {"teacher_epochs": config["teacher_epochs"]},
        own=f"-p crops_dir {CROPS} -p out_dir {RUNS}/teacher/{{teacher}}/seed{{seed}}",
    threads: workflow.cores
    shell:
        "{PAPERMILL} {input[0]} {log.notebook} {CONFIGURED} {params.own}"
        " -p teacher {wildcards.teacher} -p seed {wildcards.seed}"


def teacher_of(wildcards):
    if wildcards.teacher == "none":
        return []
    return f"{RUNS}/teacher/{wildcards.teacher}/seed{wildcards.seed}/metrics.json"


rule distil_student:
    input:
        "notebooks/04_distil_student.ipynb",
        rules.crop.output,
        teacher_of,
        HELPERS,
    output:
        RUNS + "/student/{student}-{teacher}/seed{seed}/metrics.json",
    log:
        notebook=RUNS + "/student/{student}-{teacher}/seed{seed}/04_distil_student.ipynb",
    params:
        config=RECIPE
        | {key: config[key] for key in ("student_epochs", "distillation", "teacher_labels")},
        own=f"-p crops_dir {CROPS} -p teacher_dir {RUNS}/teacher/{{teacher}}/seed{{seed}}"
        f" -p out_dir {RUNS}/student/{{student}}-{{teacher}}/seed{{seed}}",
    threads: workflow.cores
    shell:
        "{PAPERMILL} {input[0]} {log.notebook} {CONFIGURED} {params.own}"
        " -p teacher {wildcards.teacher} -p student {wildcards.student} -p seed {wildcards.seed}"


rule compare:
    input:
        "notebooks/05_compare_teachers.ipynb",
        expand("{run}/metrics.json", run=TEACHER_RUNS + STUDENT_RUNS),
        HELPERS,
    output:
        f"results/{STUDY}/headline.csv",
    log:
        notebook=f"{RUNS}/05_compare_teachers.ipynb",
    params:
        config={
            key: config[key] for key in ("external_dir", "bootstrap_samples", "bootstrap_seed")
        },
        own=f"-p runs_dir {RUNS} -p figures_dir figures/{STUDY} -p results_dir results/{STUDY}",
    threads: workflow.cores
    shell:
        "{PAPERMILL} {input[0]} {log.notebook} {CONFIGURED} {params.own}"


rule report:
    input:
        rules.prepare.output,
        rules.crop.output,
        rules.compare.output,
    output:
        f"{RUNS}/report.html",
    params:
        chapters=[
            [rules.prepare.log.notebook],
            [rules.crop.log.notebook],
            [f"{run}/03_train_teacher.ipynb" for run in TEACHER_RUNS],
            [f"{run}/04_distil_student.ipynb" for run in STUDENT_RUNS],
            [rules.compare.log.notebook],
        ],
    run:
        from helpers.report import write_page

        write_page(params.chapters, output[0])
