# make demo   run the real cluster on loopback and check what it shows
# make test   run the whole test suite
# make lint   style, types and the architecture's contracts
# make bench  EGTP beside what else a Python programmer could pick (docs/benchmarks.md)
# make guard  whether a query costs more instructions than it did
# make test-compiled  build the busiest modules with a C compiler, and run their tests on that
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COMPILED := .compiled

.PHONY: demo test test-compiled lint bench guard clean

demo: $(READY)
	$(BIN)/python simulations/run_cluster.py $(ARGS)

# Without ARGS, all tests, on all cores.
test: $(READY)
	$(BIN)/python -m pytest $(or $(ARGS),-n auto --dist worksteal)

# Without ARGS, the tests of the modules that pyproject.toml names for compiling.
test-compiled: $(COMPILED)/.ready
	PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(COMPILED):$(CURDIR) $(BIN)/python -m pytest -m "not reaches_in" \
		$(or $(ARGS),-n 2 $(addprefix tests/,channel giving_again handling limits lookup_dht node own paths queries reaching relay rules tcp values virtual))

# Types are checked for the oldest Python and for the newest: compiling sees what its own version says.
lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.15
	$(BIN)/lint-imports

# All peers, in an environment of their own: make bench ARGS="--suite all --json figures.json"
bench: $(VENV)-bench/.ready
	-$(MAKE) $(COMPILED)/.ready
	$(VENV)-bench/bin/python -m benchmarks $(ARGS)

# How many instructions a query costs, against the record; ARGS=--record writes a new one.
guard: $(READY)
	$(BIN)/python -m benchmarks.instructions $(ARGS)

$(VENV)-bench/.ready: pyproject.toml constraints.txt benchmarks/constraints.txt benchmarks/package.json
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	$(VENV)-bench/bin/python -m benchmarks.install
	touch $@

# The package with its busiest modules compiled (hatch_build.py), beside the environment.
$(COMPILED)/.ready: $(READY) hatch_build.py pyproject.toml $(wildcard egtp/*.py egtp/*/*.py lookup_dht/*.py lookup_dht/*/*.py simulations/virtual/*.py)
	rm -rf $(COMPILED)
	EGTP_COMPILE=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target $(COMPILED) .
	touch $@

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "EGTP needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-bench $(COMPILED) benchmarks/node_modules
