# `make demo` and `make test` do all the set-up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check docs bench dist clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(INSTALLED)

demo: $(INSTALLED)  ## rank six small teachers for a real base model
	$(BIN)/preceptor demo

test: $(INSTALLED)  ## the whole suite, offline, a process for each core up to four
	HF_HUB_OFFLINE=1 $(BIN)/pytest -q -n logical --maxprocesses 4 --dist worksteal

check: $(INSTALLED)  ## style, types, import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED)  ## write the pages that are made of the code, and build the site in site/
	$(BIN)/python docs/render_help.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(INSTALLED)  ## the measurements that need no data of your own
	$(BIN)/python bench/ranking_scale.py
	$(BIN)/python bench/store_scale.py
	$(BIN)/python bench/ranking_from_store.py
	$(BIN)/python bench/ranking_at_scale.py

dist: $(INSTALLED)  ## the wheel and the source distribution, in dist/
	rm -rf dist
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
