# make report     the whole study of config/$(CONFIG).yaml, ending with the pages to open; runs that
#                 are committed are shown, not trained (TRAIN=1: trained all the same; FRESH=1: a
#                 finished run that was made otherwise is moved aside; PROFILE=config/slurm: on a
#                 cluster; so with publish and ablations)
# make publish    trains the study where needed, puts its runs, tables and figures into results/ and
#                 figures/, and executes the committed notebooks anew: the one that changes what is tracked
# make ablations  the study's students with one thing changed (ONLY="soft shuffled": these), beside it
# make notebooks  executes the committed notebooks where they lie; they train nothing
# make test       lint and tests
# make test-newest   a part of the tests by the newest Python that the study runs on
# make lab        the notebooks in JupyterLab
# make faces      the weights of `init: faces`, anew: renders faces, pretrains every backbone (hours)
# make scratch    how hard the bundled faces are, asked of people in no part of the study (hours)
# make cues       the faces on which one thing at a time moves, anew; make control: those on which
#                 wrinkles and shape tell of different things
# make bench      an epoch of distillation by this project and by others, timed
# make release    the trained runs of $(CONFIG), for others: weights, cards, checksums, in dist/
# make synpain-data   SynPAIN into $(OUT), from the hub (REVISION=commit pins it), or from
#                     FROM="folders and zips" that you have; goes on where it was broken off
CONFIG ?= quick
OUT := data/raw/SynPain
REVISION := main
FROM :=
ONLY :=
BACKBONES :=
PROFILE :=
BIN := .venv/bin
SNAKEMAKE = $(BIN)/snakemake --configfile config/$(CONFIG).yaml --quiet rules host \
	$(if $(PROFILE),--profile $(PROFILE),--cores all --keep-going --rerun-incomplete --nolock)
# The first Python from 3.11 to 3.13 by any of its names.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 python; do \
	"$$name" -c "$(FITS)" 2>/dev/null && echo "$$name" && break; done)
VENV = $(if $(PYTHON),"$(PYTHON)" -m venv,$(error No Python from 3.11 to 3.13 was found: install one, \
	or name it, as in `make $(MAKECMDGOALS) PYTHON=/path/to/python3`))
CONFIGS := $(basename $(notdir $(wildcard config/*.yaml)))
$(if $(filter $(CONFIG),$(CONFIGS)),,$(error There is no config/$(CONFIG).yaml: choose one of $(CONFIGS)))
# A home that cannot be written (cluster nodes): caches go into the checkout.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/.cache
endif
# Both may stand behind `make` as well as before it.
export FRESH TRAIN

.PHONY: report publish ablations notebooks test test-newest lab faces scratch control cues \
	bench release synpain-data \
	.venv .venv-newest .venv-render
.DELETE_ON_ERROR:

report: .venv
	@trap : INT; $(SNAKEMAKE) || { cat runs/$(CONFIG)/.said 2>/dev/null; exit 1; }
	@echo "The report: $(CURDIR)/runs/$(CONFIG)/report/index.html"

publish: .venv
	@TRAIN=1 $(SNAKEMAKE) publish
	@$(MAKE) notebooks

ablations: .venv
	@TRAIN=1 $(SNAKEMAKE) $(if $(ONLY),$(addprefix ablation_,$(ONLY)),ablations)

notebooks: .venv
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --coalesce-streams \
		--ExecutePreprocessor.record_timing=False notebooks/*.ipynb

test: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

NEWEST := $(shell for name in python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13*/bin/python3.13) \
	python3.12; do \
	"$$name" -c "$(FITS)" 2>/dev/null && echo "$$name" && break; done)
test-newest: .venv-newest
	$(if $(NEWEST),.venv-newest/bin/python -m pytest --quiet tests/test_parameters.py \
		tests/test_naming.py tests/test_study.py -k "not test_study or pages_hold",@echo \
		"Neither python3.13 nor python3.12 is here: nothing is tested with them.")

.venv-newest: $(if $(NEWEST),.venv-newest/.installed)

lab: .venv
	$(BIN)/jupyter lab --notebook-dir notebooks

# The renderer has an environment of its own; both steps go on where they were broken off.
faces: .venv .venv-render
	cd data/standin && ../../.venv-render/bin/python -m render pretrain --people 1000 \
		--out ../raw/pretrain
	$(BIN)/python data/standin/pretrain.py $(if $(BACKBONES),--backbones $(BACKBONES))

PEOPLE_scratch := 1400
PEOPLE_control := 1400
PEOPLE_cues := 40
scratch control cues: .venv .venv-render
	cd data/standin && ../../.venv-render/bin/python -m render $@ --people $(PEOPLE_$@) \
		--out ../raw/$@
	$(BIN)/python data/standin/scratch.py crop $@
	$(if $(filter scratch,$@),$(BIN)/python data/standin/scratch.py ask)

bench: .venv
	$(BIN)/python benchmarks/distillation_epoch.py --settings 224x32 112x16 64x16

release: .venv
	@$(BIN)/python -m helpers.publish "$(CONFIG)"

# A path with spaces goes in single quotes within: FROM="'/my folder/a.zip'".
synpain-data: .venv
	@$(BIN)/python -m helpers.fetch --out "$(OUT)" --revision "$(REVISION)" -- $(FROM)

# Another environment, such as conda's, is taken as it is: make report BIN="$$CONDA_PREFIX/bin".
.venv: $(if $(filter .venv/bin,$(BIN)),.venv/.installed)

# The stamp comes last: an installation that was broken off starts again.
.venv/.installed: requirements.txt pyproject.toml config/kernel.json
	$(VENV) .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --requirement requirements.txt
	cp config/kernel.json .venv/share/jupyter/kernels/python3/
	@touch $@

.venv-newest/.installed: requirements.txt pyproject.toml
	$(NEWEST) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --requirement requirements.txt
	@touch $@

.venv-render: .venv-render/.installed

.venv-render/.installed: data/standin/render/requirements.txt
	$(VENV) .venv-render
	.venv-render/bin/python -m pip install --quiet --upgrade pip
	.venv-render/bin/python -m pip install --requirement $<
	@touch $@
