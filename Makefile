# make report   the whole study of config/$(CONFIG).yaml, ending with the page to open
# make test     lint and tests
# make lab      the notebooks in JupyterLab
CONFIG ?= quick
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: report test lab notebooks .venv
.DELETE_ON_ERROR:

report: .venv
	@$(BIN)/snakemake --configfile config/$(CONFIG).yaml --cores all --keep-going \
		--rerun-incomplete --nolock --quiet rules host
	@echo "The report: $(CURDIR)/runs/$(CONFIG)/report.html"

test: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

lab: .venv
	$(BIN)/jupyter lab --notebook-dir notebooks

# Execute the committed notebooks where they lie; finished runs are shown, not repeated.
notebooks: .venv
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.record_timing=False notebooks/*.ipynb

.venv: .venv/.installed

# The stamp comes last: an installation that was broken off starts again.
.venv/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --requirement requirements.txt
	@touch $@
