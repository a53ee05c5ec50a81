# Each target sets up what it needs: an environment in .venv, made anew when the list of packages changes.
#
#   make run            every notebook on its sample data; ends with the path of results/index.html
#   make test           format, lint, unit and contract tests, and the outputs of every notebook
#   make lab            JupyterLab
#   make notebooks      execute the notebooks in place and so record their outputs anew
#   make test-browser   JupyterLab and the report in Chromium (Debian: chromium, chromium-driver)
#   make bench          speed, real images, kills: what takes longer than a test may
#
# Variables: PYTHON (3.11 or later), VENV, ARGS ("make run ARGS='drive_unet --jobs 2'"),
# NOTEBOOKS ("make notebooks NOTEBOOKS=notebooks/04_drive_unet.ipynb").

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
NOTEBOOKS ?= $(wildcard notebooks/*.ipynb notebooks/solutions/*.ipynb)

BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOO_OLD := "$(PYTHON)" is not Python 3.11 or later; name one that is: make PYTHON=python3.12

# Beside other work, threads that wait by spinning slow each other down tenfold.
export GOMP_SPINCOUNT ?= 10000

.PHONY: run test test-browser lab notebooks bench

run: $(READY)
	$(BIN)/vision-notebooks run $(ARGS)

# One thread a process: two tests run at a time.
test: export OMP_NUM_THREADS = 1
test: export VISION_NOTEBOOKS_QUIET = 1
test: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pytest -n 2 --dist loadfile tests --ignore tests/benchmarks --ignore tests/browser
	$(BIN)/pytest -n 2 --dist loadfile --nbval notebooks

# Pictures of every page go to build/browser, for people to look at.
test-browser: $(READY)
	$(BIN)/pytest tests/browser

lab: $(READY)
	$(BIN)/jupyter lab notebooks

# Times, versions and editors' settings are left out, so that only what changed differs.
notebooks: export VISION_NOTEBOOKS_QUIET = 1
notebooks: $(READY)
	$(BIN)/jupyter nbconvert --to notebook --inplace --execute \
		--ExecutePreprocessor.record_timing=False \
		--ClearMetadataPreprocessor.enabled=True --ClearMetadataPreprocessor.clear_cell_metadata=False \
		--ClearMetadataPreprocessor.preserve_nb_metadata_mask="{'kernelspec'}" $(NOTEBOOKS)

bench: $(READY)
	$(BIN)/pytest -s tests/benchmarks

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo '$(TOO_OLD)' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e '.[test]'
	touch $@
