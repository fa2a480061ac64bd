# Every target sets up what it needs in .venv, from nothing but python3 >= 3.11 and the package index.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-dev
# One worker for each processor; a worker that has nothing left to do takes tests from another.
WORKERS := -n auto --dist worksteal

.PHONY: demo test check stress bench docs clean

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m shared_prompt_cache demo

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

test: check
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(WORKERS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

stress: $(STAMP)
	STRESS=1 $(BIN)/python -m pytest $(WORKERS) --timeout=3600

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python tests/performance/bench.py

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --group docs
	$(BIN)/mkdocs build --strict -f .mkdocs.yml

clean:
	rm -rf $(VENV) build dist site .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find src tests examples -name __pycache__ -type d -exec rm -rf {} +
