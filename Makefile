# One verb a task; README and CONTRIBUTING explain them, CI runs them.
PYTHON ?= python3
PRESET ?= smoke
BIN := .venv/bin

.PHONY: setup report test book pdf lint clean
.DEFAULT_GOAL := report

# The stamps say which requirements the environment was made from; a changed file makes it anew.
.venv/.setup: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/.test: .venv/.setup tests/requirements.txt tests/package-lock.json
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@npm ci --prefix tests --no-audit --no-fund --silent \
	|| echo "axe-core cannot be installed by npm: the tests of accessibility will be skipped"
	@touch $@

setup: .venv/.setup

report: .venv/.setup
	@$(BIN)/python -m psannlm report --preset $(PRESET)

book: .venv/.setup
	@$(BIN)/jb build book/ -W -n --keep-going

pdf: .venv/.setup
	@$(BIN)/python -m psannlm pdf

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 -m "not slow and not browser"
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow or browser"

clean:
	rm -rf .venv _build book/results
