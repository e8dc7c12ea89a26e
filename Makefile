# `make run` does everything from a fresh clone to a running service; `make test` runs all tests.
PORT ?= 8000
FLEET ?= tiny
Q ?= ¿Cuánto es 12*7?
CAPIBARA := .venv/bin/capibara

.DEFAULT_GOAL := help
.PHONY: help setup weights run ask test test-arm check lock vectors clean

help: ## this text
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## ?(.*)/  make \1|\2/' | column -t -s '|'
	@echo "  variables: PORT=$(PORT) FLEET=$(FLEET) (tiny or five) Q=\"…\""

.venv/.ready: requirements.lock pyproject.toml deploy/setup.sh
	@deploy/setup.sh

setup: .venv/.ready weights ## .venv, llama.cpp compiled for this CPU, weights

weights: .venv/.ready
	@$(CAPIBARA) models pull --fleet "$(FLEET)"

run: setup ## start the service (PORT, FLEET)
	@exec $(CAPIBARA) serve --fleet "$(FLEET)" --port "$(PORT)"

ask: setup ## ask one question (Q, FLEET): starts what it needs, answers, shows the decision, stops
	@$(CAPIBARA) ask --fleet "$(FLEET)" "$(Q)"

test: .venv/.ready ## all tests, those against real llama.cpp servers too
	-@.venv/bin/python -m compileall -q capibara_agents graphs runtime
	@$(CAPIBARA) models pull --fleet tiny
	@.venv/bin/pytest

# Not part of `make test`: two cross builds of about 15 minutes each, once, then about 5 minutes of emulation.
ARM_TOOLS := cmake aarch64-linux-gnu-gcc aarch64-linux-gnu-g++ qemu-aarch64-static
ARM_PACKAGES := cmake gcc-aarch64-linux-gnu g++-aarch64-linux-gnu qemu-user-static

test-arm: .venv/.ready ## llama-server for ARM under an emulator (INSTALL=1 gets the Debian packages)
ifeq ($(INSTALL),1)
	@apt-get install -y --no-install-recommends $(ARM_PACKAGES)
endif
	@missing=; for tool in $(ARM_TOOLS); do command -v $$tool >/dev/null 2>&1 || missing="$$missing $$tool"; done; \
	if [ -n "$$missing" ]; then \
		echo "Skipped: there is no$$missing. On Debian: apt-get install $(ARM_PACKAGES), or make test-arm INSTALL=1"; \
	else \
		$(CAPIBARA) models pull --fleet tiny && deploy/arm-build.sh all && CAPIBARA_TEST_ARM=1 .venv/bin/pytest tests/arm; \
	fi

check: .venv/.ready ## ruff, mypy --strict, import-linter
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo 2>/dev/null || .venv/bin/lint-imports

lock: .venv/.ready ## renew requirements.lock from pyproject.toml
	@.venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --extra dev --extra eval pyproject.toml -o requirements.lock

vectors: .venv/.ready ## renew the shipped exemplars' vectors (after a change of exemplars; saves 5 s at a first start)
	@.venv/bin/python -m capibara_agents.exemplar_vectors

clean: ## remove .venv and caches
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
