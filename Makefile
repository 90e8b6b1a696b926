# `make help` lists the targets. Needs Python 3.11+ and a package registry, nothing else.
PYTHON ?= python3
BIN := .venv/bin
WEIGHTS ?= hed
OUT ?= demo-out

.DEFAULT_GOAL := help
.PHONY: help setup lock demo test chaos lint format docs article bench up down docker-check clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: .venv/.complete ## Build .venv with everything pinned by version and hash

# Two steps: pip refuses a folder, which has no hash, where it checks hashes. The warning that is left out says
# what an editable installation is.
.venv/.complete: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

lock: ## Pin dependencies anew, with hashes (needs uv; UPGRADE=NAME or UPGRADE=all for newer ones)
	docker/lock.sh

demo: setup ## Six photographs through Redis, Celery and VGG-16 to a page (IMAGES=, WEIGHTS=, OUT=)
	$(BIN)/deconvoy run $(if $(IMAGES),$(IMAGES),$$($(BIN)/python tests/photographs.py)) --weights $(WEIGHTS) --out $(OUT)

test: setup ## Run all tests, three at a time: many of them wait most of the time
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=5

chaos: setup ## Run the tests that take long: workers, Redis and S3 killed, stopped and cut off
	CHAOS=full $(BIN)/pytest -m "chaos or at_length"

lint: setup ## Check what the hook and CI check: ruff, format, mypy --strict, import-linter, advisories
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/advisories.py

format: setup ## Let ruff format and fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup ## Write the generated pages anew: the help of all commands, the licences
	$(BIN)/python docs/make_commands.py
	$(BIN)/python docs/make_licences.py

bench: setup ## Measure the engine: prints a table, writes bench.json
	$(BIN)/python -m tests.bench

article: setup ## Make docs/article.md, its figures and the README's picture anew (minutes, on the CPU)
	$(BIN)/python -m docs.figures.article

up: ## Start everything in containers, the worker on the CPU (GPU=1: on all GPUs)
	docker/prepare.sh
	docker compose -f docker/compose.yaml $(if $(GPU),-f docker/compose.gpu.yaml) up --build --detach --wait

down: ## Stop the containers; what Redis, S3 and Prometheus hold stays
	docker compose -f docker/compose.yaml --profile tools down

docker-check: setup ## Check docker/ without a container engine
	BIN=$(CURDIR)/$(BIN) docker/check.sh
	$(BIN)/pytest tests/unit/test_docker.py tests/unit/test_docker_metrics.py tests/unit/test_healthcheck.py

clean: ## Remove .venv, the demo's output and bench.json
	rm -rf .venv $(OUT) bench.json
