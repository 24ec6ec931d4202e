# Two commands do all the set-up: make demo, make test. Both use the active virtual environment, else make .venv.

PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX),$(CURDIR)/.venv)
PY     := $(VENV)/bin/python
BUILT  := build/$(subst /,_,$(VENV)).built
# this checkout's eeg, whatever else the environment has installed
export PYTHONPATH := $(CURDIR)

.PHONY: demo test build lint sanitize bench clean
.DELETE_ON_ERROR:

build: $(BUILT)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# A torch that can be imported is kept: users of ROCm bring their own.
$(BUILT): $(VENV)/bin/python setup.py pyproject.toml $(wildcard csrc/*.hpp csrc/*.cpp)
	@command -v $${CXX:-g++} >/dev/null || { echo "error: no C++ compiler; on Debian or Ubuntu: apt-get install g++ make python3-dev python3-venv"; exit 1; }
	@$(PY) -c "import torch" 2>/dev/null || $(PY) -m pip install --quiet "$(TORCH)"
	$(PY) -m pip install --quiet numpy h5py mne scipy pybind11 setuptools wheel pytest
	$(PY) -m pip install --quiet --no-build-isolation --no-deps -e .
	@mkdir -p build && touch $@

test: build
	$(PY) -m pytest
