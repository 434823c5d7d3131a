# make demo   analyse a sample image with the shipped weights; pictures and tables in demo-out/
# make test   run every test, in real napari windows on a virtual screen
# Both install what they need into .venv (and, for the tests, the system libraries Qt wants).

PYTHON ?= python3
BIN := .venv/bin
SYSTEM := xvfb xauth libegl1 libgl1 libgl1-mesa-dri libglib2.0-0 libdbus-1-3 libfontconfig1 \
	libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0

.PHONY: demo test check bench docs wheel screenshots system clean

demo: .venv/.ready
	$(BIN)/napari-defects demo -o demo-out

test: .venv/.tests-ready system
	$(BIN)/pytest

check: .venv/.tests-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.tests-ready
	for b in benchmarks/[a-z]*.py; do $(BIN)/python $$b || exit 1; done

docs: .venv/.docs-ready system
	$(BIN)/sphinx-build --fail-on-warning --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

wheel: .venv/.ready
	PYTHON=$(BIN)/python sh .ci/wheel

screenshots: .venv/.tests-ready system
	xvfb-run -a -s "-screen 0 1920x1200x24" $(BIN)/python docs/make_screenshots.py

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || sh .ci/apt python3-venv
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"

.venv/.ready: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --editable ".[all]"
	@touch $@

.venv/.tests-ready: .venv/.ready
	$(BIN)/pip install --quiet --group test
	@touch $@

.venv/.docs-ready: .venv/.ready
	$(BIN)/pip install --quiet --group docs
	@touch $@

system:
	@sh .ci/apt $(SYSTEM)

clean:
	rm -rf .venv demo-out dist build docs/_build
