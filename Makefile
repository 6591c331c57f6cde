# One short word for each chore; what CI runs is what you run.
PYTHON ?= python3.11
VENV   := $(if $(NEWEST),.venv-newest,$(if $(OLDEST),.venv-oldest,.venv))
BIN    := $(VENV)/bin
SEED   := $(or $(HADROSAUR_SEED),$(shell od -An -N3 -tu4 /dev/urandom | tr -d ' '))

# Everything is installed in exactly the versions of constraints.txt, build tools too: no new release of a
# dependency turns these commands red. `make test NEWEST=1` tries today's newest, in a .venv-newest of its own,
# and `make test OLDEST=1` the oldest that pyproject.toml allows.
ifdef NEWEST
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager
else ifdef OLDEST
PIP_INSTALL = PIP_CONSTRAINT=$(VENV)/oldest.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check
else
PIP_INSTALL = PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

# Each program that the tests start would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: demo test mutants torture screenshots lint format bench wheel constraints clean newest

demo: $(VENV)/installed            ## compute the main job on real input, into demo/
	@$(BIN)/python examples/source_census.py

test: $(VENV)/dev                  ## run the tests; those that take seconds each: LONG=1; as on a disk that machines share: LOCK=file
	@$(if $(LONG),command -v chromium >/dev/null || echo 'no chromium here: browser tests are skipped',:)
	HADROSAUR_TEST_LOCK=$(LOCK) $(BIN)/python -m pytest $(PARALLEL) -m '$(if $(LONG),long,not long)'

mutants: $(VENV)/dev               ## break the package in one line at a time; a named test must notice: make mutants ONLY=index
	$(BIN)/python tests/mutants.py $(ONLY)

torture: $(VENV)/dev               ## what is promised, for an hour or two; some promises: make torture PROMISE="P1 P3"
	HADROSAUR_TORTURE=1 HADROSAUR_SEED=$(SEED) $(BIN)/python -m pytest -s -o timeout=0 --hypothesis-seed=$(SEED) \
		$(foreach promise,$(or $(PROMISE),P*),tests/torture/$(subst P,p,$(promise))_*.py) \
		$(if $(PROMISE),,tests/test_narrow_places.py)

screenshots: $(VENV)/dev           ## pictures of the page for docs/pictures; needs Debian's chromium
	PYTHONPATH=. $(BIN)/python tests/screenshots.py

lint: $(VENV)/dev                  ## style, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/dev                 ## compare with the floors; one part by name: make bench PART=cached
	$(BIN)/python -m benchmarks $(PART)

wheel: $(VENV)/dev                 ## build wheel and sdist; try the wheel in a clean environment, elsewhere
	rm -rf dist build
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m build --quiet
	$(PYTHON) -m venv build/clean
	PIP_CONSTRAINT=constraints.txt build/clean/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd build && env -u PYTHONPATH clean/bin/python $(CURDIR)/tests/installed.py $(CURDIR)

constraints:                       ## write constraints.txt anew: the newest releases, once all tests pass with them
	rm -rf .venv-newest
	$(MAKE) lint test NEWEST=1
	$(MAKE) test LONG=1 NEWEST=1
	{ sed -n '/^#/p' constraints.txt; .venv-newest/bin/python -m pip freeze --exclude hadrosaur; } > .venv-newest/constraints.txt
	mv .venv-newest/constraints.txt constraints.txt

clean:
	rm -rf .venv .venv-* demo dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# What is newest changes without a word.
$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt $(if $(NEWEST),newest)
	$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
		| sed 's/>=/==/' > $(VENV)/oldest.txt
	$(PIP_INSTALL) --editable .
	@touch $@

# The list of development tools stands once, in pyproject.toml's dependency group.
$(VENV)/dev: $(VENV)/installed
	$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['dependency-groups']['dev'], sep='\n')" > $(VENV)/dev.txt
	$(PIP_INSTALL) --requirement $(VENV)/dev.txt
	@touch $@
