# Every target sets up what it needs in .venv; only Python (3.10 or newer) must be there.
# READY: the package and what it needs. TOOLS: also every extra, and what tests need.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
TOOLS := .venv/.tools
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
OUT ?= runs/demo

.PHONY: setup demo test test-fast test-lowest test-times torture lint docs package bench clean

setup: $(TOOLS)

$(READY): pyproject.toml constraints.txt
	$(venv)
	$(PIP) -e .
	@touch $@

$(TOOLS): pyproject.toml constraints.txt
	$(venv)
	$(PIP) -e '.[dev]'
	@touch $(READY) $@

define venv
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	{ echo "baq needs Python 3.10 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
$(PYTHON) -m venv .venv
endef

demo: $(READY)
	$(BIN)/baq demo --out $(OUT)

# A file stays with one process, for its fixtures; the order is the tests' own, longest files first.
PYTEST := $(BIN)/pytest -n logical --dist loadfile --no-loadscope-reorder

test: $(TOOLS)
	$(PYTEST)

# As many tests as fit into 90 seconds of two cores, the shortest first.
test-fast: $(TOOLS)
	$(PYTEST) -m quick

# The same with the lowest releases that pyproject.toml admits, in an environment of their own.
# PyTorch's is that of constraints.txt unless said: make test-lowest TORCH=2.6.0
TORCH = $(shell sed -n 's/^torch==\([^ ;]*\).*/\1/p' constraints.txt)
LOWEST := build/lowest

test-lowest: $(TOOLS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 13))' || \
		{ echo "these releases have no wheels for Python 3.13: make test-lowest PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(LOWEST)
	$(BIN)/python .ci/lowest.py $(TORCH) > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check \
		-c $(LOWEST)/constraints.txt -e '.[dev]'
	PATH="$(CURDIR)/$(LOWEST)/bin:$$PATH" $(LOWEST)/bin/pytest -n logical --dist loadfile \
		--no-loadscope-reorder -m quick

# All tests on a quiet machine, and how long each took: the record that the two above go by.
test-times: $(TOOLS)
	$(PYTEST) --record-seconds

torture: $(TOOLS)
	$(PIP) atheris || \
		echo "no atheris for this Python or system: its part is left out" >&2
	BAQ_TORTURE=1 $(BIN)/pytest -rP -m torture
	$(BIN)/python benchmarks/soak.py

lint: $(TOOLS)
	$(BIN)/ruff check src tests benchmarks docs/site .ci
	$(BIN)/ruff format --check src tests benchmarks docs/site .ci
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, in build/site; a dead link, a dead anchor or anything from the network fails.
docs: $(TOOLS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

package: $(TOOLS)
	$(BIN)/python .ci/package.py

bench: $(TOOLS)
	$(BIN)/python benchmarks/help_time.py
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/waiting.py
	$(BIN)/python benchmarks/speed.py --out runs/speed --figure runs/speed/speed.png
	$(BIN)/python benchmarks/cql_gradient.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/learning.py --out runs/learning

clean:
	rm -rf .venv build dist runs/demo
