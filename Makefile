# Everything a newcomer needs: `make demo` and `make test`. PYTHON may name another interpreter.
PYTHON ?= python3
BIN := .venv/bin
# Two test processes with one thread each are faster on two cores than one with two. ONNX Runtime and
# OpenVINO get processes of their own: late in a long one that has seen everything else, it died.
# Tests start a hundred processes, which compile the package again where no bytecode may be kept.
PYTEST := env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: help demo test test-long lint format clean

help:
	@echo "make demo       install and segment the sample images with the model of the package"
	@echo "make test       install and run the test suite"
	@echo "make test-long  the slow tests as well"
	@echo "make lint       format, lint, types, import directions, the matrix of the README"

demo: .venv/installed
	$(BIN)/maskwright predict model=nuclei source=examples/nuclei_mini/images/val \
		conf=0.5 max_det=300 project=demo_output

test: .venv/installed-dev
	$(PYTEST) --ignore=tests/exporters
	$(PYTEST) tests/exporters

test-long: .venv/installed-dev
	$(PYTEST) -m "slow or not slow" --ignore=tests/exporters
	$(PYTEST) -m "slow or not slow" tests/exporters

lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py
	$(BIN)/python scripts/model_matrix.py --check

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist *.egg-info demo_output runs

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "maskwright needs Python 3.11 or newer; try: make PYTHON=python3.12 demo"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

# grad-cam, which tests of heat maps compare with, and trackers ask for other OpenCVs than `dev` has:
# all write the same module, and the one that comes last wins. What else they need is in `dev`.
.venv/installed-dev: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		grad-cam ttach "trackers>=2.6"
	@touch .venv/installed $@
