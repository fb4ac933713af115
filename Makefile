# Two commands matter: `make demo` and `make test`. Both make the virtual environment first.
# The first Python that works and has `venv`; 3.11 is that of most tests. `make demo PYTHON=...` for another.
SUITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 python; do \
	$$name -c "$(SUITS)" >/dev/null 2>&1 && echo $$name && break; done)
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test lint format clean

$(INSTALLED): pyproject.toml requirements.txt
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { \
		echo "no Python 3.11, 3.12 or 3.13 with its venv module was found: install one (Debian and Ubuntu:" \
			"apt install python3.11-venv, macOS: brew install python@3.13), or name it with PYTHON=/path/to/python"; \
		exit 1; } >&2
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $(INSTALLED)

# Trains on CartPole-v1 until it is solved, plays ten fresh episodes with the best checkpoint, and films a dream. So small
# a model gains little from more than one thread, and one does not suffer from other programs on the machine.
demo: $(INSTALLED)
	$(BIN)/reverie train dreamer-v3 --env CartPole-v1 --evaluate-every 1000 --stop-at 475 --threads 1 --run runs/demo
	$(BIN)/reverie evaluate runs/demo --episodes 10 --seed 7
	$(BIN)/reverie dream runs/demo

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
