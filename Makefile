# SPDX-License-Identifier: MIT
# A thin front of meson.build, which is the real build. `make demo` and `make test` need nothing but a Debian 12.

BUILD ?= build
BUILD_SAN ?= build-asan
VENV ?= .venv-interop
RECIPE ?= recipes/quickstart.yaml
PREFIX ?= /usr/local
PYTHON ?= python3

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
PACKAGES_BUILD := gcc g++ meson ninja-build pkg-config libsentencepiece-dev libopenblas-dev libyaml-dev libzstd-dev \
	zlib1g-dev libjansson-dev libprotobuf-c-dev protobuf-c-compiler libssl-dev libcmocka-dev
PACKAGES_TEST := python3 python3-venv zstd clang-format-14

# Sanitizer reports end the program, so that the test fails.
SAN_ENV := ASAN_OPTIONS=halt_on_error=1:abort_on_error=1:detect_stack_use_after_return=1 \
	UBSAN_OPTIONS=halt_on_error=1:abort_on_error=1:print_stacktrace=1

.PHONY: all setup setup-test build demo test test-fast test-plain test-san test-interop install clean

all: build

# Debian packages by name; nothing is asked of the network when all are there.
define apt_install
	@missing=$$(for p in $(1); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
		echo "installing Debian packages:" $$missing; \
		export DEBIAN_FRONTEND=noninteractive; \
		{ $(SUDO) apt-get update -q && $(SUDO) apt-get install -q -y --no-install-recommends $$missing; } >apt.log 2>&1 || \
		{ tail -n 20 apt.log; echo "cannot install:" $$missing; exit 1; }; \
		rm -f apt.log; \
	fi
endef

setup:
	$(call apt_install,$(PACKAGES_BUILD))

setup-test: setup
	$(call apt_install,$(PACKAGES_TEST))

$(BUILD)/build.ninja:
	meson setup $(BUILD) --prefix=$(PREFIX)

build: $(BUILD)/build.ninja
	ninja -C $(BUILD)

demo: setup
	@$(MAKE) --no-print-directory build
	$(BUILD)/cli/hanmix run $(RECIPE)
	@dir=$$(sed -n 's/^run_dir: *\([^ #]*\).*/\1/p' $(RECIPE)); \
	echo; echo "The report: $$dir/report.md, and as a page with pictures: $$PWD/$$dir/index.html"

# All tests; the last line sums them up. A part that fails does not keep the others from running.
test: setup-test
	@rm -f $(BUILD)/meson-logs/testlog.json $(BUILD_SAN)/meson-logs/testlog.json $(BUILD)/interop.log
	@$(MAKE) --no-print-directory -k test-plain test-san test-interop || true
	@tests/summarise plain=$(BUILD)/meson-logs/testlog.json sanitized=$(BUILD_SAN)/meson-logs/testlog.json \
		interop=$(BUILD)/interop.log

test-fast: build
	meson test -C $(BUILD) --no-suite slow --print-errorlogs
	@tests/summarise fast=$(BUILD)/meson-logs/testlog.json

test-plain: build
	meson test -C $(BUILD) --print-errorlogs

test-san:
	@[ -f $(BUILD_SAN)/build.ninja ] || meson setup $(BUILD_SAN) -Db_sanitize=address,undefined -Dwerror=false -Dbench=false
	ninja -C $(BUILD_SAN)
	$(SAN_ENV) meson test -C $(BUILD_SAN) --no-suite lint --timeout-multiplier 4 --print-errorlogs

# Our files under the tools they were made for, in a virtual environment of their own.
test-interop: build
	PYTHON=$(PYTHON) tests/interop/setup_venv.sh $(VENV)
	@{ HANMIX=$(BUILD)/cli/hanmix $(VENV)/bin/python tests/interop/run.py 2>&1; echo $$? >$(BUILD)/interop.exit; } | \
		tee $(BUILD)/interop.log; exit $$(cat $(BUILD)/interop.exit)

install: build
	meson install -C $(BUILD) --no-rebuild

clean:
	rm -rf $(BUILD) $(BUILD_SAN)
