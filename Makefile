# Everything works from a fresh clone: each target sets .venv up first, where it is missing or
# older than what it is made from.
#
#   make demo     watch notifications arrive
#   make test     the whole suite, against a real Postgres that it brings along
#   make check    what CI runs: lint, types, import rules, tests
#   make chaos    faults for an hour, by a new seed (CHAOS_S=60 SEED=7: so long, by that one)
#   make bench    this machine's figures, in bench/results too (BENCH=drain: that one alone)
#   make rehearse-rollout   an upgrade under load behind haproxy, hosts as namespaces (as root)
#   make rehearse-failover  the primary is cut off under load, a replica promoted (as root)
#   make bench-compare   us beside other queues, which it installs outside of the repository
#   make image-test   build the image's contents and send a job through (no Docker; as root)
#
#   make test POSTGRES=all      Postgres 18 and 15 (see tests/postgres.py)
#   make test PYTEST_ARGS=-x    anything that pytest takes

BIN := .venv/bin
STAMP := .venv/.set-up
POSTGRES ?= 18
WORKERS ?= 2
PYTEST_ARGS ?=
CHAOS_S ?= 3600
SEED ?=
COMPARE_ARGS ?=
BENCH ?= drain enqueue fairness http latency mail webhook ordering upkeep

# What steers another Python must not steer this one.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: help setup demo test check lint chaos bench bench-compare image-test rehearse-rollout rehearse-failover schema chart docs constraints clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt .ci/setup
	@.ci/setup
	@touch $@

demo: $(STAMP)
	@$(BIN)/outbox demo

test: $(STAMP)
	@$(BIN)/pytest -n $(WORKERS) --postgres=$(POSTGRES) $(PYTEST_ARGS)

check: lint test

lint: $(STAMP)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

chaos: $(STAMP)
	@$(BIN)/python -m tests.faults.chaos --for $(CHAOS_S) $(if $(SEED),--seed $(SEED))

bench: $(STAMP)
	@set -e; mkdir -p bench/results; for what in $(BENCH); do \
	    $(BIN)/outbox bench $$what --json > bench/results/$$what.json; \
	    cat bench/results/$$what.json; \
	done

bench-compare: $(STAMP)
	@$(BIN)/python bench/compare --json bench/results/compare.json $(COMPARE_ARGS)

image-test: $(STAMP)
	@$(BIN)/python -m tests.deploy.image

rehearse-rollout: $(STAMP)
	@$(BIN)/python -m tests.deploy.rollout

rehearse-failover: $(STAMP)
	@$(BIN)/python -m tests.deploy.failover

schema: $(STAMP)
	@$(BIN)/python -m tests.schema_dump

# What of the Helm chart follows from the code: settings, their defaults and bounds, alerts.
chart: $(STAMP)
	@$(BIN)/python -m tests.deploy.chart_files

# The documents that follow from the code.
docs: $(STAMP)
	@$(BIN)/python -m outbox.settings > docs/settings.md
	@$(BIN)/python -m tests.docs.api_page

# The versions that `make setup` installs. No registry is named in it.
constraints: $(STAMP)
	@uv export --quiet --upgrade --no-hashes --no-emit-project --all-extras --all-groups \
	    --no-annotate --no-header --output-file constraints.txt > /dev/null

clean:
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
