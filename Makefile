# SPDX-License-Identifier: LGPL-2.1-or-later
# `make` alone tells what there is. Everything runs in .venv, which the first target makes.

SHELL := /bin/sh
BIN := .venv/bin
ROOT := $(CURDIR)
FUZZ_SECONDS ?= 3600
KERNEL ?= bookworm
CMD ?= ./demo.sh
C_FILES = $(shell find lxc_cr_plugin/native tests demo \( -name '*.c' -o -name '*.h' \) ! -name _engine.c)
SH_FILES = demo.sh test.sh .ci/run $(shell find tools tests vagrant lxc_cr_plugin/hooks config -name '*.sh')

.DEFAULT_GOAL := help
.PHONY: help bootstrap lint format test unit bench curves leases long fuzz sanitize vm docs clean

help: ## This text
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

bootstrap: ## Install what is missing and build the engine into .venv
	@CR_ROOT=$(ROOT) sh -c '. tools/bootstrap.sh; cr_bootstrap test'

lint: bootstrap ## ruff, mypy, clang-format, shellcheck and the ceilings
	$(BIN)/pytest -q tests/test_linters.py tests/unit/test_ceilings.py

format: bootstrap ## Let ruff and clang-format rewrite the sources
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

test: ## Everything, as ./test.sh
	./test.sh

unit: bootstrap ## Only what needs no container
	$(BIN)/pytest -q tests/unit

bench: bootstrap ## Measure; report to tests/bench/report/ (beside CRIU >= 4 if that is in PATH)
	$(BIN)/python tests/bench/run.py

curves: ## Measure and draw the cost of one more process, thread, VMA, file, lock
	@CR_ROOT=$(ROOT) sh -c '. tools/bootstrap.sh; cr_bootstrap bench'
	$(BIN)/python tests/bench/curves.py

leases: bootstrap ## Measure and draw how exact the time is that a restart leaves to a broken lease
	$(BIN)/python tests/bench/leases.py

long: bootstrap ## More rounds of the tests that chance has a part in, each command by itself
	CR_EXECUTE=1 CR_RANDOM_RUNS=100 CR_DATABASE_ROUNDS=60 $(BIN)/pytest -q \
		tests/integration/test_robustness.py tests/integration/test_databases.py

fuzz: bootstrap ## Fuzz the decoder, the manifest, whole images and restarts, FUZZ_SECONDS (3600) each
	CR_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/pytest -q tests/unit/test_fuzz_record.py tests/unit/test_fuzz_manifest.py tests/integration/test_fuzz_image.py tests/integration/test_fuzz_restart.py

sanitize: bootstrap ## The tests on an engine built with ASan and UBSan
	tools/sanitize.sh

vm: ## Run CMD (./demo.sh) on the kernel of Debian's suite KERNEL (bookworm), in a virtual machine
	python3 -m tests.vm.run $(KERNEL) '$(CMD)'

docs: bootstrap ## Generate the tables in docs/, the manual pages and the completions
	$(BIN)/python tools/image_format.py
	$(BIN)/python tools/support_matrix.py
	$(BIN)/python tools/manpages.py

clean: ## Remove what was built; .venv stays
	rm -rf build dist *.egg-info lxc_cr_plugin/native/_engine.c lxc_cr_plugin/native/_engine*.so
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
