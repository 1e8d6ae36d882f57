# make demo   run the real cluster on loopback and check what it shows
# make test   run the whole test suite
# make lint   style, types and the architecture's contracts
# make bench  EGTP beside what else a Python programmer could pick (docs/benchmarks.md)
# make guard  whether a query costs more instructions than it did
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint bench guard clean

demo: $(READY)
	$(BIN)/python simulations/run_cluster.py $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# All peers, in an environment of their own: make bench ARGS="--suite all --json figures.json"
bench: $(VENV)-bench/.ready
	$(VENV)-bench/bin/python -m benchmarks $(ARGS)

# How many instructions a query costs, against the record; ARGS=--record writes a new one.
guard: $(READY)
	$(BIN)/python -m benchmarks.instructions $(ARGS)

$(VENV)-bench/.ready: pyproject.toml constraints.txt benchmarks/constraints.txt benchmarks/package.json
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	$(VENV)-bench/bin/python -m benchmarks.install
	touch $@

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "EGTP needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-bench benchmarks/node_modules
