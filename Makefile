# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint fuzz covid19 bench clean

help:  ## list what there is
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dicom,dev]'
	@touch $@

demo: $(VENV)/installed  ## install, then the whole way on the embedded phantom cohort (3 minutes, no data needed)
	$(BIN)/medistill run --config configs/phantom.yaml

test: lint  ## install, then ruff, mypy and every test
	$(BIN)/python -m pytest

lint: $(VENV)/installed  ## install, then ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

FUZZ_CASES ?= 10000
FUZZ_SEED ?= 0
fuzz: $(VENV)/installed  ## broken films, tables, configs and releases, FUZZ_CASES a door from FUZZ_SEED (half an hour)
	MEDISTILL_FUZZ_CASES=$(FUZZ_CASES) MEDISTILL_FUZZ_SEED=$(FUZZ_SEED) $(BIN)/python -m pytest tests/fuzz

covid19: $(VENV)/installed  ## the results table on real films (MEDISTILL_DATA names their folder; about two hours)
	$(BIN)/python pipelines/covid19.py

bench: $(VENV)/installed  ## speed and memory beside the field's own loop, on this machine (about half an hour, quiet machine)
	for part in distill experts students rest; do $(BIN)/python pipelines/bench_engine.py --parts $$part || exit 1; done

clean:  ## delete the environment and caches, never a run
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
