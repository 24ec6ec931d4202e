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

.PHONY: demo foundation overnight test build lint sanitize races compilers aarch64 peers bench clean
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

# An encoder that learns from windows without labels, and all that follows: both challenges begin
# with it, a ridge reads its embeddings, all are scored, and a submission is made. Simulated data.
ENCODED := --data build/foundation/data --cache build/foundation/cache
ENCODES := $(ENCODED) --out build/foundation/experiments
SIZES   := --set patch=10 width=64 inner=128
foundation: build
	rm -rf build/foundation/experiments
	$(PY) run/synth.py --release R1 --subjects 16 --runs 1 --world potentials --tasks RestingState contrastChangeDetection $(ENCODED)
	$(PY) run/synth.py --release R2 --subjects 8 --runs 1 --world potentials $(ENCODED)
	$(PY) run/synth.py --release R5 --subjects 6 --runs 1 --world potentials $(ENCODED)
	$(PY) run/synth.py --release R6 --subjects 12 --runs 1 --world potentials $(ENCODED)
	$(PY) run/cache.py --release R1 --challenge 2 --tasks RestingState contrastChangeDetection $(ENCODED)
	$(PY) run/cache.py --release R2 R5 R6 $(ENCODED)
	$(PY) run/cache.py --release R2 R5 R6 --challenge 2 $(ENCODED)
	$(PY) run/pretrain.py --release R1 $(SIZES) --span 1 --epochs 8 $(ENCODES)
	$(PY) run/report.py signal_transformer $(ENCODES)
	$(PY) run/train.py --challenge 1 --init signal_transformer --train R2 --epochs 8 --layer-decay 0.7 $(ENCODES)
	$(PY) run/train.py --challenge 2 --init signal_transformer --train R2 --epochs 4 --freeze 1 $(ENCODES)
	$(PY) run/embed.py signal_transformer --release R2 R5 R6 $(ENCODES)
	$(PY) run/train.py --challenge 1 --model ridge --on embeddings --init signal_transformer --train R2 $(ENCODES)
	$(PY) run/monitor.py $(ENCODES)
	$(PY) run/evaluate.py c1_transformer c1_ridge c2_transformer $(ENCODES)
	@echo "The models above were trained on simulated data; --anyway submits them all the same."
	$(PY) run/submit.py c1_transformer c1_ridge c2_transformer $(ENCODES) --zip build/foundation/submission.zip --anyway

# A night's work in tmux, on releases in data/: make overnight RELEASES="R1 R2" ARGS="--challenge 1 --epochs 20"
overnight: build
	@test -n "$(RELEASES)" || { echo 'error: name the releases to train on: make overnight RELEASES="R1 R2"'; exit 2; }
	$(PY) run/overnight.py --release $(RELEASES) --tmux $(ARGS)

# Pinned: another version has other opinions.
LINTERS := ruff==0.17.5 clang-format==23.1.5 mypy==2.4.1
CPP     := $(wildcard csrc/*.hpp csrc/bind/* tests/csrc/drivers/* tests/data/*.cpp)
lint: build
	$(PY) -m pip install --quiet $(LINTERS)
	$(PY) -m ruff check eeg run tests setup.py
	$(PY) -m ruff format --check eeg run tests setup.py
	$(PY) -m mypy
	$(VENV)/bin/clang-format --dry-run --Werror $(CPP)
	$(COMPILER) -std=c++17 -fopenmp -fsyntax-only -Wall -Wextra -Wshadow -Wno-psabi -Werror $(filter %.cpp,$(filter tests/%,$(CPP)))

# A copy of what tests/csrc needs, without the extension: $(call copied,folder)
copied = rm -rf $(1) && mkdir -p $(1) && cp -r eeg tests pyproject.toml $(1)/ && rm -f $(1)/eeg/*.so

# The native code under the address and undefined-behaviour sanitizers, built for this processor and for any: its tests,
# CALLS calls of its bindings with what nobody should pass, and FUZZ spoilt BDF files.
FUZZ     ?= 1000000
CALLS    ?= 200000
SANITIZE ?= native x86-64
UNDER := ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$($(COMPILER) -print-file-name=libasan.so) $$($(COMPILER) -print-file-name=libubsan.so)"
sanitize: $(addprefix sanitize-,$(SANITIZE))
sanitize-%: build
	$(call copied,build/sanitize/$*)
	EEG_MARCH=$* EEG_SANITIZE=1 $(PY) setup.py --quiet build_ext --build-lib build/sanitize/$* --build-temp build/sanitize/$*/objects
	cd build/sanitize/$* && PYTHONPATH=. $(UNDER) $(PY) -m pytest tests/csrc
	cd build/sanitize/$* && PYTHONPATH=. $(UNDER) $(PY) -m tests.csrc.fuzz $(CALLS)
	$(COMPILER) -std=c++17 -O1 -g -march=$* -Wno-psabi -fsanitize=address,undefined -fno-sanitize-recover=all tests/csrc/drivers/fuzz_bdf.cpp -o build/sanitize/$*/fuzz_bdf
	build/sanitize/$*/fuzz_bdf $(FUZZ)

# Every kernel with several threads under GCC's thread sanitizer, with OpenMP made of threads that it can see into.
DRIVERS := batches features files layers
races: $(addprefix build/races/,$(DRIVERS))
	for driver in $^; do $$driver build/races || exit 1; done

RACES := -std=c++17 -O1 -g -Wall -Wextra -Wno-psabi -fsanitize=thread
build/races/%: tests/csrc/drivers/%.cpp tests/csrc/drivers/driver.hpp tests/csrc/drivers/openmp.cpp $(wildcard csrc/*.hpp)
	@mkdir -p build/races
	$(COMPILER) $(RACES) -fopenmp -c $< -o $@.o
	$(COMPILER) $(RACES) $@.o tests/csrc/drivers/openmp.cpp -o $@

# Compiled by each of these, the extension passes its tests. Debian and Ubuntu have: g++-11 clang libomp-dev
COMPILERS ?= g++-11 g++-12 clang++
compilers: build $(patsubst %,build/compilers/%/passed,$(COMPILERS))
build/compilers/%/passed: $(wildcard csrc/*.hpp csrc/bind/*)
	$(call copied,$(@D))
	CXX=$* $(PY) setup.py --quiet build_ext --build-lib $(@D) --build-temp $(@D)/objects
	cd $(@D) && PYTHONPATH=. $(PY) -m pytest tests/csrc
	touch $@

# For aarch64: the binding compiles, the drivers compile and, emulated, run. apt-get install g++-aarch64-linux-gnu qemu-user-static
AARCH64 := aarch64-linux-gnu-g++ -std=c++17 -Wall -Wextra -Wno-psabi -fopenmp
INCLUDED = $(shell $(PY) -c "import pybind11, sysconfig; print('-I' + pybind11.get_include(), '-I' + sysconfig.get_path('include'))")
aarch64: build
	@mkdir -p build/aarch64
	$(AARCH64) -fsyntax-only $(INCLUDED) csrc/bind/bind.cpp
	for driver in $(DRIVERS) fuzz_bdf; do \
		$(AARCH64) -O2 -static tests/csrc/drivers/$$driver.cpp -o build/aarch64/$$driver || exit 1; done
	for driver in $(DRIVERS); do qemu-aarch64-static build/aarch64/$$driver build/aarch64 || exit 1; done
	qemu-aarch64-static build/aarch64/fuzz_bdf 20000

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
