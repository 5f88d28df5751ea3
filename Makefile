# Two commands are all a newcomer needs: `make demo` and `make test`. `make` alone lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup setup-stacks setup-tests demo test check format texts nightly bench eval-index chaos chaos-build chaos-ledger chaos-telegram chaos-index clean

BIN := .venv/bin
# Test files at a time: most of them wait more than they compute.
WORKERS ?= 2
export AIDER_VENV ?= $(CURDIR)/.venv-aider
export MODEL_CACHE_DIR ?= $(CURDIR)/.venv/models
# The first Python of a version that Aider can use, tried by running it: a name in PATH may be an empty shim.
PYTHON ?= $(shell for name in python3 python3.12 python3.11 python; do \
	"$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo "$$name" && break; done)

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

setup: ## install everything a build needs into .venv and .venv-aider
	@$(require-python)
	@$(PYTHON) cluster/setup.py

setup-stacks: ## also what JavaScript and TypeScript projects and screenshots of web pages need (Node.js, npm, Chromium)
	@$(require-python)
	@$(PYTHON) cluster/setup.py --for-stacks

setup-tests:
	@$(require-python)
	@$(PYTHON) cluster/setup.py --for-tests
	@$(BIN)/python -m tests.e2e.npm

demo: setup ## build a small real application with a simulated provider, and check it
	@$(BIN)/masterbuilder demo

test: check ## set up, then format, lint, types and every test

check: setup-tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m compileall -q runtime actors serve_apps cluster tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not alone"
	@$(BIN)/python -m pytest -m alone tests/cluster tests/chaos

format: setup-tests ## rewrite the code as the formatter wants it
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

texts: setup-tests ## bring the catalogues of other languages after the texts in the code, and list what is to translate
	@$(BIN)/python -m runtime.language.update

nightly: setup-tests ## the ledger at length: 20,000 random histories, 10,000,000 sums, 200 kills, 10,000,000 calls; 10,000 hostile updates (hours)
	@$(BIN)/python -m tests.chaos.ledger --seed $(or $(SEED),1)
	@$(BIN)/python -m tests.bench.ledger_start
	@NIGHTLY=1 $(BIN)/python -m pytest --timeout 0 tests/unit/ledger/test_ledger_machine.py \
		tests/unit/ledger/test_money_exact.py tests/unit/store/test_store_journal_machine.py \
		tests/e2e/test_telegram_hostile.py

bench: setup-tests ## make bench NAME=runtime|gateway|limits|ledger|ledger_start|index|reindex|engines|builder
	@$(BIN)/python -m tests.bench.$(or $(NAME),$(error NAME is missing: make bench NAME=ledger))

eval-index: setup-tests ## make eval-index REPO=path: how well code is found in a folder; without REPO in pinned public packages
	@$(BIN)/python -m tests.bench.index_eval $(if $(REPO),"$(REPO)")

chaos: setup-tests ## make chaos SECONDS=120 SEED=1: kill -9 at random under load and builds; FLAGS=--heavy for Ray itself too
	@$(BIN)/python -m tests.chaos --seconds $(or $(SECONDS),120) --seed $(or $(SEED),1) $(FLAGS)

chaos-build: setup-tests ## make chaos-build SEED=1: one build of 20 tasks, and a kill -9 every 10 s
	@$(BIN)/python -m tests.chaos.killed_build --seed $(or $(SEED),1) $(FLAGS)

chaos-ledger: setup-tests ## make chaos-ledger SEED=1: the ledger alone: 200 kill -9, 100 races on one wallet, 20 backups under load
	@$(BIN)/python -m tests.chaos.ledger --seed $(or $(SEED),1) $(FLAGS)

chaos-telegram: setup-tests ## make chaos-telegram SEED=1: 1,000 persons write to the bot at once, and what answers is killed thrice
	@$(BIN)/python -m tests.chaos.telegram --seed $(or $(SEED),1) $(FLAGS)

chaos-index: setup-tests ## make chaos-index SEED=1: 50 kill -9 of a process that updates an index, makes it anew and saves it
	@$(BIN)/python -m tests.chaos.index --seed $(or $(SEED),1) $(FLAGS)

clean: ## remove what set-up, demo and tools made; the data folder stays
	@rm -rf .venv .venv-aider .venv-setup.lock .venv-setup.log .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis build
	@rm -rf *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

define require-python
	if [ -z "$(PYTHON)" ]; then \
		echo "setup: Python 3.11 or 3.12 is needed and not in PATH: apt-get install python3.11 python3.11-venv" >&2; exit 1; fi
endef
