# Two commands do all the set-up: make demo, make test. Both use the active virtual environment, else make .venv.

PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX),$(CURDIR)/.venv)
PY     := $(VENV)/bin/python
BUILT  := build/$(subst /,_,$(VENV))$(addprefix -,$(EEG_MARCH)).built
# perhaps behind another command: CXX="ccache g++"
COMPILER := $(if $(filter default,$(origin CXX)),g++,$(CXX))
# this checkout's eeg, whatever else the environment has installed
export PYTHONPATH := $(CURDIR)

.PHONY: demo overnight test build lint sanitize peers bench clean
.DELETE_ON_ERROR:

build: $(BUILT)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# A torch that can be imported is kept: users of ROCm bring their own.
$(BUILT): $(VENV)/bin/python Makefile setup.py pyproject.toml $(wildcard csrc/*.hpp csrc/bind/*)
	@command -v $(lastword $(COMPILER)) >/dev/null || { echo "error: no C++ compiler; on Debian or Ubuntu: apt-get install g++ make python3-dev python3-venv"; exit 1; }
	@$(PY) -c "import torch" 2>/dev/null || $(PY) -m pip install --quiet "$(TORCH)"
	$(PY) -m pip install --quiet numpy h5py mne scipy pybind11 setuptools wheel pytest pytest-xdist
	$(PY) -m pip install --quiet --no-build-isolation --no-deps -e .
	@mkdir -p build && rm -f build/$(subst /,_,$(VENV))*.built && touch $@

# A process for each core, which computes with one thread; one that has run out of tests takes some of another's.
TESTERS ?= $(shell env -u OMP_NUM_THREADS nproc)
test: build
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(TESTERS) --dist worksteal

# Simulated releases through every step there is, in a folder of their own: nobody's data is touched.
# World easy: its strong signals are learned in a minute, and its scores say nothing about real EEG.
DEMO := --data build/demo/data --cache build/demo/cache
RUNS := $(DEMO) --out build/demo/experiments
demo: build
	rm -rf build/demo/experiments
	$(PY) run/synth.py --release R1 --subjects 8 --world easy $(DEMO)
	$(PY) run/synth.py --release R5 --subjects 4 --world easy $(DEMO)
	$(PY) run/synth.py --release R6 --subjects 4 --world easy $(DEMO)
	$(PY) run/cache.py --release R1 R5 R6 $(DEMO) --plot build/demo/cache.png
	$(PY) run/cache.py --release R1 R5 R6 --challenge 2 $(DEMO)
	$(PY) run/features.py --release R1 R5 R6 $(DEMO) --plot build/demo/features.png
	$(PY) run/check.py $(DEMO)
	$(PY) run/train.py --list-models
	$(PY) run/train.py --challenge 1 --epochs 4 --seed 0 1 $(RUNS)
	$(PY) run/train.py --challenge 2 --epochs 1 $(RUNS)
	$(PY) run/monitor.py $(RUNS)
	$(PY) run/evaluate.py $(RUNS)
	$(PY) run/compare.py $(RUNS)
	$(PY) run/report.py c1_tcn --quick $(RUNS)
	@echo "The models above were trained on simulated data of the easiest world; --anyway submits them all the same."
	$(PY) run/submit.py $(RUNS) --zip build/demo/submission.zip --anyway
	@echo "figures: build/demo/cache.png build/demo/features.png, and report.html in the run's folder; build/demo/submission.zip (simulated data)"

# A night's work in tmux, on releases in data/: make overnight RELEASES="R1 R2" ARGS="--challenge 1 --epochs 20"
overnight: build
	@test -n "$(RELEASES)" || { echo 'error: name the releases to train on: make overnight RELEASES="R1 R2"'; exit 2; }
	$(PY) run/overnight.py --release $(RELEASES) --tmux $(ARGS)

# Pinned: another version has other opinions.
LINTERS := ruff==0.17.5 clang-format==23.1.5 mypy==2.4.1
CPP     := $(wildcard csrc/*.hpp csrc/bind/* tests/csrc/*.cpp tests/data/*.cpp)
lint: build
	$(PY) -m pip install --quiet $(LINTERS)
	$(PY) -m ruff check eeg run tests setup.py
	$(PY) -m ruff format --check eeg run tests setup.py
	$(PY) -m mypy
	$(VENV)/bin/clang-format --dry-run --Werror $(CPP)
	$(COMPILER) -std=c++17 -fopenmp -fsyntax-only -Wall -Wextra -Wshadow -Werror tests/csrc/fuzz_bdf.cpp tests/data/stop_at.cpp

# The native code under the address and undefined-behaviour sanitizers: its tests, and a fuzzer over FUZZ spoilt BDF files.
FUZZ ?= 1000000
SANITIZED := build/sanitize
sanitize: build
	rm -rf $(SANITIZED) && mkdir -p $(SANITIZED) && cp -r eeg tests pyproject.toml $(SANITIZED)/ && rm -f $(SANITIZED)/eeg/*.so
	EEG_SANITIZE=1 $(PY) setup.py --quiet build_ext --build-lib $(SANITIZED) --build-temp $(SANITIZED)/objects
	cd $(SANITIZED) && PYTHONPATH=. ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" $(PY) -m pytest tests/csrc
	$(COMPILER) -std=c++17 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all tests/csrc/fuzz_bdf.cpp -o $(SANITIZED)/fuzz_bdf
	$(SANITIZED)/fuzz_bdf $(FUZZ)

# What a user would otherwise use, in an environment of its own. Where it is, the tests compare with it too.
PEERS := torch==2.13.0 braindecode==1.8.1 eegdash==0.9.1 mne-features==0.3.2
# In another one, an S3 server that tests download from.
MOTO  := moto[server]==5.2.5
build/peers.built: Makefile
	$(PYTHON) -m venv build/peers
	build/peers/bin/pip install --quiet $(PEERS)
	$(PYTHON) -m venv build/moto
	build/moto/bin/pip install --quiet "$(MOTO)"
	@touch $@

peers: build/peers.built

bench: build peers
	$(PY) run/bench.py

clean:
	rm -rf build eeg/*.so *.egg-info
