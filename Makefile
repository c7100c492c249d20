# make train    train (arguments: ARGS="--arch stn_slx --dataset mnist_r --seeds 0-7"), a process per GPU or core, no more than seeds
# make test     the first tier of tests, a worker per core (ARGS=tests/unit/test_rng.py one file, ARGS=-n0 without workers)
# make test-all all tests
# make gpu      what to find out where there is a GPU, part by part (ARGS="--parts tests,step"; without .venv: python3)
# make claims   whether README and manual follow from the rows of their claims; how old these are, and whether their code has changed
# make docs     the manual, into build/docs (needs no network)
# make lock     pin the dependencies anew
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test test-all gpu claims lint docs lock
train: .venv/ready
	@$(BIN)/python -m launch train $(or $(ARGS),--arch stn_slx)

test: .venv/ready
	@$(BIN)/python -m pytest -n auto -m "not slow" $(ARGS)

test-all: .venv/ready
	@$(BIN)/python -m pytest -n auto --durations 25 $(ARGS)

gpu:
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu.py $(ARGS)

claims: .venv/ready
	@$(BIN)/python benchmarks/claims.py check
	@$(BIN)/python benchmarks/claims.py list

lint: .venv/ready
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/pyright

docs: .venv/ready
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --config-file docs/mkdocs.yml

lock: .venv/ready
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --custom-compile-command "make lock" --extra dev --output-file requirements.lock pyproject.toml

# The virtual environment is built once, and again when the lock file changes.
.venv/ready: requirements.lock
	@$(PYTHON) -c "import sys; sys.exit('Python 3.11 or later is needed, this is ' + sys.version.split()[0] if sys.version_info < (3, 11) else 0)"
	@echo "Setting up .venv: downloads about 3 GB the first time, then takes a minute or two."
	@$(PYTHON) -m venv .venv || { echo "cannot make a virtual environment; on Debian: apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@
