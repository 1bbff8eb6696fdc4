# make report   the whole study of config/$(CONFIG).yaml, ending with the page to open
# make publish  the same, trained anew where needed, and its runs put into results/$(CONFIG)
#               (PROFILE=config/slurm: on a cluster; so with publish and ablations)
# make ablations   the study's students with one thing changed (ONLY="soft shuffled": these), beside it
# make test     lint and tests
# make lab      the notebooks in JupyterLab
# make faces    the weights of `init: faces`, anew: renders the faces, pretrains every backbone (hours)
# make bench    an epoch of distillation by this project and by others, timed
# make release  the runs of $(CONFIG) with weights, tables, figures and card as one archive in dist/
# make verify   checks such an archive: BUNDLE=file (FACES=20: scores test faces of it anew, too)
# make synpain-data   SynPAIN into $(OUT), from the hub (REVISION=commit pins it), or from
#                     FROM="folders and zips" that you have; goes on where it was broken off
CONFIG ?= quick
PYTHON ?= python3.11
OUT := data/raw/SynPain
REVISION := main
FROM :=
ONLY :=
BACKBONES :=
BUNDLE :=
FACES :=
PROFILE :=
SNAKEMAKE = $(BIN)/snakemake --configfile config/$(CONFIG).yaml --quiet rules host \
	$(if $(PROFILE),--profile $(PROFILE),--cores all --keep-going --rerun-incomplete --nolock)
BIN := .venv/bin

.PHONY: report publish ablations test lab synpain-data faces notebooks bench release verify \
	.venv .venv-render
.DELETE_ON_ERROR:

report: .venv
	@$(SNAKEMAKE)
	@echo "The report: $(CURDIR)/runs/$(CONFIG)/report.html"

# Trains where results/$(CONFIG)/runs would spare it, and replaces what is there.
publish: .venv
	rm -rf results/$(CONFIG)/runs
	@$(SNAKEMAKE) publish

ablations: .venv
	@$(SNAKEMAKE) $(if $(ONLY),$(addprefix ablation_,$(ONLY)),ablations)

test: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

bench: .venv
	$(BIN)/python benchmarks/distillation_epoch.py --settings 224x32 112x16 64x16

release: .venv
	@$(BIN)/python -m helpers.release pack "$(CONFIG)"

verify: .venv
	@$(BIN)/python -m helpers.release verify "$(BUNDLE)" $(if $(FACES),--faces $(FACES))

lab: .venv
	$(BIN)/jupyter lab --notebook-dir notebooks

# A path with spaces goes in single quotes within: FROM="'/my folder/a.zip'".
synpain-data: .venv
	@$(BIN)/python -m helpers.dataset.fetch --out "$(OUT)" --revision "$(REVISION)" -- $(FROM)

# The renderer has an environment of its own; both steps go on where they were broken off.
faces: .venv .venv-render
	cd data/standin && ../../.venv-render/bin/python -m render --pretrain --identities 1000 \
		--expressions 6 --seed 0 --out ../raw/pretrain
	$(BIN)/python -m helpers.pretraining $(if $(BACKBONES),--backbones $(BACKBONES))

# Execute the committed notebooks where they lie; finished runs are shown, not repeated.
notebooks: .venv
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --coalesce-streams \
		--ExecutePreprocessor.record_timing=False notebooks/*.ipynb

.venv: .venv/.installed

# The stamp comes last: an installation that was broken off starts again.
.venv/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --requirement requirements.txt
	@touch $@

.venv-render: .venv-render/.installed

.venv-render/.installed: data/standin/render/requirements.txt
	$(PYTHON) -m venv .venv-render
	.venv-render/bin/python -m pip install --quiet --upgrade pip
	.venv-render/bin/python -m pip install --requirement $<
	@touch $@
