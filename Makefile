# The targets people use; `make` alone explains them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SHELL  := /bin/sh

.DEFAULT_GOAL := help

help: ## Explain the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## Show the main job on a real Envoy (KEEP=1 keeps it running)
	@$(BIN)/extproc demo $(if $(KEEP),--keep)

test: $(VENV)/.test ## Run all tests (ARGS="-k gzip" to choose)
	@$(BIN)/pytest -n auto --dist loadfile $(ARGS)

compose-test: $(VENV)/.test ## Try the stack of deploy/docker-compose.yml (COMPOSE_REQUIRED=1: fail without Docker)
	@$(BIN)/pytest tests/compose $(ARGS)

coverage: $(VENV)/.test ## Tests of the core and the formats, with their line and branch coverage
	@$(BIN)/pytest -q -n auto tests/core tests/formats --cov=extproc.core --cov=extproc.formats \
		--cov-report=term-missing --cov-fail-under=100

lint: $(VENV)/.test ## Style and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(VENV)/.test ## Let the formatter rewrite the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

docs: $(VENV)/.test ## Bring what the documentation shows up to date
	@$(BIN)/python -m tests.show

bench: $(VENV)/.bench ## Measure what extproc costs Envoy (ARGS=--quick: in a minute or two; ARGS=--help)
	@$(BIN)/python -m bench $(ARGS)

wire: $(VENV)/.test ## Compile protos/ to extproc/wire/
	@$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=extproc/wire --pyi_out=extproc/wire protos/ext_proc.proto

clean: ## Remove what the other targets made
	@rm -rf $(VENV) build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed; try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing what the demo needs into $(VENV) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.bench: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing what the bench needs into $(VENV) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing what the tests need into $(VENV) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[demo,test,real]'
	@touch $@ $(VENV)/.demo

.PHONY: help demo test compose-test coverage lint format docs bench wire clean
