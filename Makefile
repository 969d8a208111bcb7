# make demo | test | lint | sanitize | fuzz | bench | build | wheel | clean
# Each target does its own set-up: Debian packages (as root; others are told what is missing), .venv, the build.

PYTHON ?= /usr/bin/python3
VENV := .venv
RUN := $(VENV)/bin/python
C_FILES = $(wildcard csrc/*.[ch] csrc/init/*.[ch] csrc/attendant/*.[ch] tests/*/*.c benchmarks/*/*.c)

.PHONY: demo test lint sanitize fuzz bench build wheel clean packages-build packages-test packages-lint

demo: build
	$(RUN) -m demo

test: packages-test build $(VENV)/pictures
	scripts/test

lint: packages-lint $(VENV)/ready
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	clang-format --dry-run -Werror $(C_FILES)
	scripts/compile-strictly

sanitize: packages-test packages-lint $(VENV)/ready
	scripts/sanitize

fuzz: packages-lint
	tests/fuzz/run $(SECONDS_EACH)

# BENCH: options, such as --quick or --install-peers
bench: build $(VENV)/pictures
	$(RUN) -m benchmarks all $(BENCH)

build: packages-build $(VENV)/ready
	$(RUN) setup.py -q build_ext --inplace
	printf '#!%s\nimport sys\n\nsys.path.insert(0, "%s")\nfrom pyrtc.cli.main import program\n\nprogram()\n' \
	    "$(CURDIR)/$(RUN)" "$(CURDIR)" >$(VENV)/bin/pyrtc
	chmod +x $(VENV)/bin/pyrtc

wheel: packages-build $(VENV)/ready
	$(RUN) -m pip wheel -q --no-deps --no-build-isolation -w dist .

# What pyproject.toml names, but not pyrtc itself: what runs from here is this tree.
$(VENV)/ready: pyproject.toml scripts/requirements | packages-build
	$(PYTHON) -m venv $(VENV)
	$(RUN) scripts/requirements pyproject.toml dev >$(VENV)/requirements.txt
	$(RUN) -m pip install -q --disable-pip-version-check -r $(VENV)/requirements.txt
	touch $@

# What draws the pictures of a comparison, and its tests.
$(VENV)/pictures: $(VENV)/ready
	$(RUN) scripts/requirements pyproject.toml bench >$(VENV)/requirements-bench.txt
	$(RUN) -m pip install -q --disable-pip-version-check -r $(VENV)/requirements-bench.txt
	touch $@

packages-build packages-test packages-lint: packages-%:
	@scripts/packages $*

clean:
	rm -rf build dist *.egg-info pyrtc/_core*.so pyrtc/pyrtc-init pyrtc/pyrtc-attendant benchmarks/results
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
