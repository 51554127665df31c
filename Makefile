# dialcast: `make demo` shows it working, `make test` proves it. Both set up everything they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ENGINE := media_relay/engine/_native.abi3.so
CSRC   := $(wildcard media_relay/engine/csrc/*.[ch])

.PHONY: help install tools test lint fuzz soak demo clean
help:
	@echo "make demo     set up and show a live broadcast by phone call (report in demo-out/)"
	@echo "make test     set up and run the tests"
	@echo "make lint     ruff, mypy --strict, and the C compiler's warnings"
	@echo "make fuzz     fuzz every parser, FUZZ_SECONDS=3 each (those in C FUZZ_NATIVE_SECONDS): two or three minutes in all"
	@echo "make soak     SOAK_MINUTES=0.25 of mixed load, and what it leaves behind: 2 to 4 minutes in all"
	@echo "make install  Python dependencies into $(VENV) and the engine in C, nothing else"

# Installing builds the engine as well. Where that failed for want of a compiler it is tried again each time.
install: $(VENV)/.installed
	@$(MAKE) --no-print-directory --silent $(ENGINE)

$(ENGINE): setup.py $(CSRC)
	@$(BIN)/python setup.py --quiet build_ext --inplace $(if $(CI),,2>/dev/null)
	@$(BIN)/python -m media_relay.engine.choice

$(VENV)/.installed: setup.cfg setup.py pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "there is no $(PYTHON): install Python 3.11, or make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "dialcast needs Python 3.11 or newer; this is $$($(PYTHON) -V)" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || { echo "cannot make $(VENV): install python3-venv" >&2; exit 1; }
	@echo "installing Python dependencies into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip 'setuptools>=77'
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[phone,postgresql,fuzz,test]'
	@touch $@

# Debian's test tools: installed through apt where we are root, named in one line where we are not.
tools:
	@sh tests/system/debian_tools.sh
# First, or the engine would be built only the next time.
test: tools

# What computes keeps both cores busy, three at once because the phones of SIPp mostly wait; what measures pictures runs
# two at once, a core for each; what measures how soon things happen runs alone. Ports are no worry: sipp_scenarios/ports.py.
ALONE := tests/system/test_faults.py tests/system/test_workers.py tests/terminal_client/test_media_session.py
IN_PAIRS := $(addprefix tests/system/test_,buddies.py cluster.py operations.py private_broadcast.py \
	secure_transports.py sipp_broadcast.py spoken_calls.py stock_phones.py texts.py) \
	$(wildcard tests/terminal_client/test_media_[bpr]*.py tests/terminal_client/test_phone*.py) \
	tests/terminal_client/test_rehearsal.py
test: install tools
ifdef PYTEST_ARGS
	$(BIN)/python -m pytest $(PYTEST_ARGS)
else
	$(BIN)/python -m pytest -n 3 --dist loadfile $(ALONE:%=--ignore %) $(IN_PAIRS:%=--ignore %)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(IN_PAIRS)
	$(BIN)/python -m pytest $(ALONE)
endif

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	@$(BIN)/python -m fuzz.native lint

fuzz: install
	@sh tests/system/debian_tools.sh fuzz || test -z "$$CI"
	$(BIN)/python -m fuzz --seconds $(or $(FUZZ_SECONDS),3) $(FUZZ_NATIVE_SECONDS:%=--native-seconds %) $(FUZZ_SEED:%=--seed %)

soak: install tools
	$(BIN)/python -m bench.soak --warm-up 5 --minutes $(or $(SOAK_MINUTES),0.25)

demo: install
	$(BIN)/dialcast demo

clean:
	rm -rf $(VENV) demo-out .cache build *.egg-info $(ENGINE)
