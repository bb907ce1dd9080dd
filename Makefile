# make demo   installs into .venv and paints demo/contact-sheet.jpg
# make test   everything that has to hold: style of code, types, floors, tests
# The interpreter: make test PYTHON=python3.12 (after make clean, if .venv was made with another)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SHEET := demo/contact-sheet.jpg

.PHONY: demo test lint bench clean

demo: $(VENV)/.demo
	@$(BIN)/python scripts/demo.py $(SHEET)

test: lint
	$(BIN)/python -m pytest -q

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) demo dist build .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# one stamp for each set of extras: nothing is installed again until the requirements change
$(VENV)/.demo $(VENV)/.dev: $(VENV)/.%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing scumble[$*] into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
