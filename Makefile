# make demo   the main job, end to end, on a real Julia; leaves build/demo.json
# make test   every test, with coverage
# make lint   format, style, types, dead code
# make bench  the measured bars, as ratios
# make fuzz   coverage-guided fuzzing of every parser, FUZZ_SECONDS each
#
# Everything is made below this checkout (.venv, .cache, build), nothing needs root, nothing is done twice.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
FUZZ_STAMP := $(VENV)/.installed-fuzz
FUZZ_SECONDS ?= 60
JULIA_STAMP := .cache/julia/program

.PHONY: demo test test-fast lint bench fuzz clean
.DELETE_ON_ERROR:

demo: $(STAMP) $(JULIA_STAMP)
	@mkdir -p build
	@HEADSTART_JULIA="$$(cat $(JULIA_STAMP))" $(BIN)/headstart demo --folder build/demo --json > build/demo.json.part
	@mv build/demo.json.part build/demo.json
	@echo "The figures as JSON: build/demo.json" >&2

test: $(STAMP) $(JULIA_STAMP)
	@rm -f .coverage .coverage.*
	HEADSTART_JULIA="$$(cat $(JULIA_STAMP))" $(BIN)/python tools/test.py $(PYTEST_ARGS)
	@$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report

test-fast: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/vulture

bench: $(STAMP) $(JULIA_STAMP)
	HEADSTART_JULIA="$$(cat $(JULIA_STAMP))" $(BIN)/python -m bench

fuzz: $(FUZZ_STAMP)
	$(BIN)/python tools/fuzz.py --seconds $(FUZZ_SECONDS)

clean:
	chmod -R u+w build .cache 2>/dev/null || true
	rm -rf build .cache $(VENV)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Headstart needs Python 3.11 or newer; $(PYTHON) is older: call make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "$(PYTHON) cannot make a virtual environment: install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@echo "Installing Headstart into $(VENV)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	@touch $@

$(FUZZ_STAMP): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[fuzz]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# Where a Julia is found (HEADSTART_JULIA, then PATH) that one is used; else one is fetched into .cache/julia.
$(JULIA_STAMP): $(STAMP) tools/get_julia.py
	@mkdir -p $(@D)
	@$(BIN)/python tools/get_julia.py --folder .cache/julia > $@.part
	@mv $@.part $@
