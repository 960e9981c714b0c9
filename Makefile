# `make demo` shows it. Who works on it needs two more: `make test` (at most 15 minutes), and `make test-all`, which runs what the
# first leaves out: the long rows, the pods, the debug build and the sanitizers. Both need root, because the real thing is tested:
# namespaces, rules, a relay that runs as uid 1337.

PYTHON ?= /usr/bin/python3
# uid 1337 must be able to read the interpreter's environment and the build: a checkout below a closed home directory is copied.
STAGE := /var/tmp/relay-sidecar-stage
VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
BUILD ?= release
PYTEST := $(BIN)/pytest -q -p no:cacheprovider
SOURCES := $(shell find relaycore sidecar -name '*.p*' -not -name '*.pyc')
OPEN := setpriv --reuid=65534 --regid=65534 --clear-groups test -r $(CURDIR)/pyproject.toml

.PHONY: help demo test test-all test-here test-all-here lint build debug asan ubsan wheel benchmarks clean packages

help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 20

demo: build/demo/ready ## a relay at work, on three hosts that it makes for itself; root or not, a few seconds
	@build/demo/bin/relay-sidecar demo

# The package as a user would have it, with what it takes to build it.
build/demo/ready: pyproject.toml setup.py $(SOURCES)
	@tools/packages.sh "make demo" gcc libc6-dev mount nftables python3-dev python3-venv
	@echo "make demo: building, which takes about a minute; later runs begin at once" >&2
	@mkdir -p build
	@tools/environment.sh build/demo $(PYTHON) .
	@touch $@

test: ## everything but the long rows: lint, units, properties, the relay in namespaces
	@$(call staged,test-here)

test-all: ## what make test leaves out: the long rows, the debug build and the sanitizers
	@$(call staged,test-all-here)

# Run a target here, or in a copy that uid 1337 can read.
define staged
	set -e; \
	[ "$$(id -u)" = 0 ] || { echo "make $(@): expected root (the tests make network namespaces), found uid $$(id -u); run: sudo make $(@)" >&2; exit 1; }; \
	if $(OPEN); then exec $(MAKE) --no-print-directory $(1); fi; \
	rm -rf $(STAGE); mkdir -p -m 755 $(STAGE); \
	git -c safe.directory='*' ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C $(STAGE) --no-same-owner; \
	chmod -R a+rX $(STAGE); \
	$(MAKE) --no-print-directory -C $(STAGE) $(1); \
	rm -rf $(STAGE)
endef

test-here: build lint
	$(PYTEST) -n 4 -m "not long" tests

test-all-here: build
	@tools/packages.sh "make test-all" $$(grep -hv '^#' tests/support/debian-packages-long.txt)
	$(PYTEST) -n 2 --dist worksteal -m long tests
	$(MAKE) --no-print-directory debug asan ubsan

wheel: $(VENV)/ready ## dist/: the wheel and the source distribution
	rm -rf build/lib* build/bdist* dist/relay_sidecar-*
	RELAY_PROBE= RELAY_BUILD=release $(BIN)/python -c "from setuptools import build_meta; build_meta.build_sdist('dist'); build_meta.build_wheel('dist')" >/dev/null

benchmarks: build ## every workload over every peer: BENCH="--quick", or other options of `pytest benchmarks`
	@tools/packages.sh "make benchmarks" $$(grep -hv '^#' benchmarks/debian-packages.txt)
	$(BIN)/pytest -q -p no:cacheprovider benchmarks/test_workloads.py $(BENCH)

lint: build ## ruff, mypy, stubtest, cython-lint, codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/stubtest --ignore-missing-stub relaycore._engine relaycore._use relaycore._driver relaycore._process
	PATH=$(BIN):$$PATH $(BIN)/cython-lint relaycore tests/unit benchmarks examples
	$(BIN)/codespell

packages: # what a fresh machine lacks
	@tools/packages.sh "make test" $$(grep -hv '^#' tests/support/debian-packages.txt) gcc python3-venv python3-dev

$(VENV)/ready: pyproject.toml | packages
	tools/environment.sh $(VENV) $(PYTHON) $$($(PYTHON) tests/support/pinned.py)
	touch $@

build: build/variant-$(BUILD) ## compile the engine in place (BUILD=release, debug, asan or ubsan)

build/variant-$(BUILD): $(VENV)/ready setup.py $(wildcard relaycore/*.pyx relaycore/*.pxd relaycore/include/*.h tests/unit/*.pyx benchmarks/*.pyx benchmarks/*.pxd)
	mkdir -p build
	RELAY_BUILD=$(BUILD) RELAY_PROBE=1 $(BIN)/python setup.py -q build_ext --inplace --force --build-lib build/inplace 2>&1 | tee build/warnings.txt
	! grep -q 'warning:' build/warnings.txt
	rm -f build/variant-*
	touch $@

# Each variant replaces the release build for as long as its tests run.
debug: ## the tests again, on the debug build (readiness sweep)
	$(MAKE) --no-print-directory build BUILD=debug
	$(PYTEST) -n 2 -m "not long" tests/unit/engine tests/unit/elements tests/property tests/loopback tests/netns/test_relay.py tests/faults
	$(MAKE) --no-print-directory build

asan: export LD_PRELOAD_ASAN = $(shell gcc -print-file-name=libasan.so)
asan: ## units, properties, the relay on loopback and a look at the real thing, under the address sanitizer
	$(MAKE) --no-print-directory build BUILD=asan
	LD_PRELOAD=$(LD_PRELOAD_ASAN) ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 $(PYTEST) -m "not long" \
		tests/unit/engine tests/unit/elements tests/property tests/loopback tests/netns/test_relay.py
	$(MAKE) --no-print-directory build

ubsan: ## the same under the undefined-behaviour sanitizer
	$(MAKE) --no-print-directory build BUILD=ubsan
	UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 $(PYTEST) -n 2 -m "not long" \
		tests/unit/engine tests/unit/elements tests/property tests/loopback tests/netns/test_relay.py
	$(MAKE) --no-print-directory build

clean: ## what was built; the environment stays
	rm -rf build relaycore/*.so benchmarks/*.so
