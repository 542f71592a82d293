# Two commands: `make demo` and `make test`. Each first lets tools/setup install what is missing,
# into .venv and .tools of this checkout; it says what and why, and needs no root.
#
#   make demo PYTHON=python3.12               another Python (3.11 or newer)
#   make test PYTEST_ARGS='-k dr -x'          some tests only
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: set-up-tests $(shell sed -n 's/^\([a-z-]*\):.*## .*/\1/p' $(firstword $(MAKEFILE_LIST))) # all that have a word of help

export PYTHON
export NO_MKDOCS_2_WARNING := 1 # Material's word about its successor; pyproject.toml pins MkDocs 1
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.tools/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin

python := .venv/bin/python
demo   := $(python) -m lvsctl demo

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## NAT, TUN and DR on the kernel's real IPVS: up, requests answered, down
	@tools/setup lvsctl
	@$(demo)

test: export LVSCTL_REQUIRE_IPVS = 1
test: set-up-tests lint ## everything: style, types and all tests, real IPVS included
	$(python) -m pytest $(PYTEST_ARGS)

set-up-tests:
	@tools/setup checks witnesses vagrant

test-all: ## the same with every row of the long tables (half an hour)
	@$(MAKE) --no-print-directory test PYTEST_ARGS="-m 'not provision' $(PYTEST_ARGS)"

test-host: export LVSCTL_REQUIRE_IPVS = 1
test-host: set-up-tests ## the kernel tests on this host's own kernel; needs root and IPVS
	$(python) -m lvsctl doctor --where host
	$(python) -m pytest tests/kernel $(PYTEST_ARGS)

reports: export LVSCTL = $(CURDIR)/.venv/bin/lvsctl
reports: ## every shipped topology proved: HTML, JUnit, JSON and captures, in reports/
	@tools/setup lvsctl
	@tools/ci-verify

test-provision: ## tools/provision in clean Debian roots, then every topology there (10 minutes; root)
	@tools/setup checks roots
	$(python) -m pytest tests/provision -m provision $(PYTEST_ARGS)

KERNELS := 6.1 6.12
test-qemu: export LVSCTL_TEST_PATIENCE = 10
test-qemu: export LVSCTL_TEST_MACHINES = 1
test-qemu: set-up-tests ## the kernel tests on Debian's kernels in QEMU (hours without KVM; KERNELS=6.12)
	@tools/setup qemu
	@for kernel in $(KERNELS); do \
		echo "kernel $$kernel:"; \
		LVSCTL_MACHINE_KERNEL=$$kernel $(python) -m pytest tests/kernel \
			tests/e2e/test_machine_lifecycle.py tests/e2e/test_machine_confined.py \
			tests/e2e/test_report.py $(PYTEST_ARGS) || exit 1; \
	done

test-unit: ## the quick tests: no kernel, no root
	@tools/setup checks
	$(python) -m pytest tests/unit tests/plan $(PYTEST_ARGS)

# atheris is this target's alone: neither lvsctl nor its tests need it.
fuzz: ## each reader of foreign input for SECONDS (60) under a coverage-guided fuzzer
	@tools/setup checks
	$(python) -m pip install --quiet 'atheris>=3.0'
	$(python) -m tests.fuzz.fuzz $(SECONDS)

soak: ## up, verify, break, diagnose, down: CYCLES (300) times in one machine; what stays?
	@tools/setup lvsctl
	$(python) tools/soak.py --cycles $(or $(CYCLES),300)

test-lowest: ## the quick tests with the lowest versions of all that lvsctl depends on
	@tools/setup lowest
	.tools/lowest/bin/python -m pytest -p no:cacheprovider tests/unit tests/plan \
	    --ignore tests/unit/test_docs.py $(PYTEST_ARGS)

bench: ## lvsctl beside what else can do it; root, half an hour (benchmarks/README.md)
	@tools/setup checks witnesses competitors
	$(python) benchmarks/building.py
	$(python) benchmarks/starting.py
	$(python) benchmarks/serving.py --into benchmarks/results
	$(python) benchmarks/memory.py --into benchmarks/results
	$(python) benchmarks/cold_start.py --into benchmarks/results
	$(python) -m lvsctl machine run -- $(CURDIR)/$(python) $(CURDIR)/benchmarks/ipvs.py \
	    > benchmarks/results/ipvs.md

lint: ## style and types
	@tools/setup checks
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy

format: ## lays the code out as lint wants it
	@tools/setup checks
	$(python) -m ruff check --fix
	$(python) -m ruff format

docs: ## the documentation as a site, in build/site
	@tools/setup checks
	$(python) -m mkdocs build --strict
	@echo "open build/site/index.html, or type: make docs-serve"

docs-serve: ## the same at http://127.0.0.1:8000/, new with every change
	@tools/setup checks
	$(python) -m mkdocs serve --strict

docs-refresh: ## runs every command in docs/ again and writes down what it prints (minutes)
	@tools/setup checks witnesses
	$(python) -m tools.docs reference
	$(python) -m tools.docs run

man: ## writes the manual pages from the commands' help
	@tools/setup checks
	$(python) tools/manpages.py


clean: ## removes what setup, tests and builds made in this checkout
	rm -rf .venv .tools .fuzz reports build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
