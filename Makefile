# make demo   train a small policy, export it, run it in real time, report
# make test   every test          make lint   every check
# make bench  every benchmark     make docs   the documentation as a site
# make results-symphony   train what the learning table lacks, write it anew (hours)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Absolute, so that tools started from other folders find the environment.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test lint bench results-symphony docs install clean

demo: install
	cadenza demo

# The simulation without Python is held to the one from Python.
test: install
	CADENZA_MUJOCO_LIB=$$(python -c 'import mujoco, pathlib; print(*pathlib.Path(mujoco.__file__).parent.glob("libmujoco.so*"))') \
	cargo test --workspace --exclude cadenza-bindings --exclude cadenza-benches
	pytest

lint: install
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	ruff check .
	ruff format --check .
	pyright

# What is measured says which source it was built of.
bench: export CADENZA_COMMIT := $(shell git describe --always --dirty --abbrev=10 2>/dev/null)
bench: install
	python benches/run.py

results-symphony: install
	python benches/symphony.py curves

docs: install
	$(BIN)/python $(CURDIR)/.ci/requirements.py docs | $(BIN)/python -m pip install --quiet -r /dev/stdin
	mkdocs build --strict

# The environment is made once; the extension is rebuilt whenever a source changed (cargo knows).
install: $(VENV)/.made
	maturin develop --release --quiet

$(VENV)/.made: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python $(CURDIR)/.ci/requirements.py train dev | $(BIN)/python -m pip install --quiet -r /dev/stdin
	touch $@

clean:
	rm -rf target $(VENV) dist
