# Two commands: `make demo` and `make test`. Both first run tools/setup, which installs what is
# missing into .venv and .tools of this checkout, prints what and why, and needs no root.
#
#   make demo PYTHON=python3.12               use another Python (3.11 or newer)
#   make test PYTEST_ARGS='-k dr -x'          run some tests only
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: set-up-tests $(shell sed -n 's/^\([a-z-]*\):.*## .*/\1/p' $(firstword $(MAKEFILE_LIST))) # every target with help

# The demo's last lines depend on whether lvsctl is a command of the user's shell.
user_path := $(PATH)

export PYTHON
export NO_MKDOCS_2_WARNING := 1 # hides Material's notice about MkDocs 2; pyproject.toml pins MkDocs 1
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.tools/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin

python := .venv/bin/python
demo   := $(python) -m lvsctl demo

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## bring up, verify and remove a lab of each mode, on the kernel's real IPVS
	@tools/setup lvsctl
	@PATH='$(user_path)' $(demo)

test: export LVSCTL_REQUIRE_IPVS = 1
test: set-up-tests lint ## run everything: style, types and all tests, also those on real IPVS
	$(python) -m pytest $(PYTEST_ARGS)

set-up-tests:
	@tools/setup checks witnesses vagrant

test-all: ## the same, with every row of the long tables (half an hour)
	@$(MAKE) --no-print-directory test PYTEST_ARGS="-m 'not provision and not vm' $(PYTEST_ARGS)"

test-host: export LVSCTL_REQUIRE_IPVS = 1
test-host: ## run the kernel tests on this host's own kernel (root and IPVS)
	@tools/setup checks witnesses
	$(python) -m lvsctl doctor --where host
	$(python) -m pytest tests/kernel $(PYTEST_ARGS)

reports: export LVSCTL = $(CURDIR)/.venv/bin/lvsctl
reports: ## verify every shipped topology; write HTML, JUnit, JSON and captures to reports/
	@tools/setup lvsctl
	@tools/ci-verify

test-provision: ## run tools/provision in clean Debian systems, and every topology there (root; 10 minutes)
	@tools/setup checks roots
	$(python) -m pytest tests/provision -m provision $(PYTEST_ARGS)

test-browser: ## look at the HTML pages in Chromium: phone, tablet, desk, dark and printed (5 minutes)
	@tools/setup checks witnesses browser
	$(python) -m pytest tests/browser $(PYTEST_ARGS)

test-vm: ## provision Debian in virtual machines and run everything on their kernels (root; hours without KVM)
	@tools/setup checks witnesses qemu roots
	$(python) -m pytest tests/vm -m vm -v --durations=0 $(PYTEST_ARGS)

KERNELS := 6.1 6.12
test-qemu: export LVSCTL_TEST_PATIENCE = 10
test-qemu: export LVSCTL_TEST_MACHINES = 1
test-qemu: set-up-tests ## run the kernel tests on Debian's kernels in QEMU (hours without KVM; KERNELS=6.12)
	@tools/setup qemu
	@for kernel in $(KERNELS); do \
		echo "kernel $$kernel:"; \
		LVSCTL_MACHINE_KERNEL=$$kernel $(python) -m pytest tests/kernel \
			tests/e2e/test_machine_lifecycle.py tests/e2e/test_machine_confined.py \
			tests/e2e/test_report.py $(PYTEST_ARGS) || exit 1; \
	done

test-unit: ## run the quick tests: no kernel, no root
	@tools/setup checks
	$(python) -m pytest tests/unit tests/plan $(PYTEST_ARGS)

# Only this target needs atheris.
fuzz: ## fuzz each reader of foreign input for SECONDS (60), guided by coverage
	@tools/setup checks
	$(python) -m pip install --quiet 'atheris>=3.0'
	$(python) -m tests.fuzz.fuzz $(SECONDS)

soak: ## run up, verify, fault, diagnose and down CYCLES (300) times and look for leaks
	@tools/setup lvsctl
	$(python) tools/soak.py --cycles $(or $(CYCLES),300)

test-lowest: ## run the quick tests with the lowest supported versions of all dependencies
	@tools/setup lowest
	.tools/lowest/bin/python -m pytest -p no:cacheprovider tests/unit tests/plan \
	    --ignore tests/unit/test_docs.py $(PYTEST_ARGS)

bench: ## compare lvsctl with other programs (root; half an hour; benchmarks/README.md)
	@tools/setup checks witnesses competitors
	$(python) benchmarks/building.py
	$(python) benchmarks/starting.py
	$(python) benchmarks/serving.py --into benchmarks/results
	$(python) benchmarks/memory.py --into benchmarks/results
	$(python) benchmarks/cold_start.py --into benchmarks/results
	$(python) benchmarks/looking.py --into benchmarks/results
	$(python) -m lvsctl machine run -- $(CURDIR)/$(python) $(CURDIR)/benchmarks/ipvs.py \
	    > benchmarks/results/ipvs.md

lint: ## check style and types
	@tools/setup checks
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy

format: ## format the code
	@tools/setup checks
	$(python) -m ruff check --fix
	$(python) -m ruff format

docs: ## build the documentation as a site, in build/site
	@tools/setup checks
	$(python) -m mkdocs build --strict
	@echo "open build/site/index.html, or type: make docs-serve"

docs-serve: ## serve it at http://127.0.0.1:8000/, rebuilt with every change
	@tools/setup checks
	$(python) -m mkdocs serve --strict

docs-refresh: ## run every command in docs/ again and update its output (minutes)
	@tools/setup checks witnesses
	$(python) -m tools.docs reference
	$(python) -m tools.docs run

man: ## generate the manual pages from the commands' help
	@tools/setup checks
	$(python) tools/manpages.py

clean: ## delete everything that setup, tests and builds created in this checkout
	rm -rf .venv .tools .fuzz reports build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
