# make setup   install everything into .venv (once; again when the dependencies change)
# make demo    the whole loop on the embedded sample; without a display it runs unattended
# make test    the tests
# make coverage   the tests, a third slower, and which lines they reach
# make test-faults   everything that can fail in a federation, and other slow tests (an hour)
# make lint    the style, type and layer checks

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: setup demo test coverage test-faults lint

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.cfg scripts/setup.sh
	scripts/setup.sh $(VENV)
	touch $@

ifneq ($(or $(DISPLAY),$(WAYLAND_DISPLAY),$(filter Darwin,$(shell uname -s))),)
demo: $(INSTALLED)
	$(BIN)/napari-fedsam demo
else
demo: $(INSTALLED)
	$(BIN)/napari-fedsam demo --headless --out demo-out
endif

# PYTEST_ARGS narrows a run down: make test PYTEST_ARGS="tests/imaging -x"
test: $(INSTALLED)
	scripts/run_tests.sh $(BIN)/python $(PYTEST_ARGS)

coverage: $(INSTALLED)
	COVER=1 scripts/run_tests.sh $(BIN)/python

test-faults: $(INSTALLED)
	$(BIN)/python -m pytest -m "faults or slow" tests

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p napari_fedsam
	$(BIN)/lint-imports
