# One line each. PYTHON makes the environment, VENV_FLAGS=--system-site-packages lets it see a torch that is already there.
PYTHON ?= python3
VENV_FLAGS ?=
WORKERS ?= auto
DATA ?= ../shared/data
PY := .venv/bin/python
READY := .venv/.installed

.PHONY: demo test check bench docs size
demo: $(READY) ; $(PY) -m bitladder demo -o bitladder-demo
test: $(READY) ; OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --maxprocesses 8
check: $(READY) ; $(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy && $(PY) -m pytest tests/test_layers.py
bench: $(READY) ; for name in criteria nested kernels networks; do $(PY) -m bench $$name --quick --data-dir $(DATA) || exit 1; done && $(PY) -m bench.table
docs: $(READY) ; $(PY) -m sphinx -W -q -b html docs docs/_build && echo docs/_build/index.html
size: ; @find src -name '*.py' | xargs wc -l | sort -n | tail -25

# Versions are those of constraints.txt, but a torch that the environment can already import stays as it is.
$(READY): pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV_FLAGS) .venv
	if $(PY) -c 'import torch' 2>/dev/null; then grep -v '^torch==' constraints.txt; else cat constraints.txt; fi > .venv/constraints.txt
	$(PY) -m pip install -q --disable-pip-version-check -c .venv/constraints.txt -e '.[dev]'
	touch $(READY)
