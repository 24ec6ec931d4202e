"""Builds eeg._native from csrc/. Everything else about the package stands in pyproject.toml.

EEG_MARCH=native (default) builds for this machine's processor, EEG_MARCH= for any of its family.
EEG_SANITIZE=1 builds with the address and undefined-behaviour sanitizers (`make sanitize`).
No -ffast-math here, ever: it makes NaN checks disappear.
"""

import os
import subprocess
import tempfile
from glob import glob
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup


def compiles(flag):
    """Whether the C++ compiler takes this flag and can link with it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text("int main() { return 0; }\n")
        command = [os.environ.get("CXX", "g++"), flag, source, "-o", Path(folder, "probe")]
        return subprocess.run(command, capture_output=True).returncode == 0


flags = ["-O3", "-fopenmp", "-Wall", "-Wextra"]
march = os.environ.get("EEG_MARCH", "native")
if march and compiles(f"-march={march}"):
    flags.append(f"-march={march}")
link = ["-fopenmp"]
if os.environ.get("EEG_SANITIZE") == "1":
    flags += ["-O1", "-g", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    flags += ["-fsanitize=address,undefined"]
    link += ["-fsanitize=address,undefined"]

settings = dict(cxx_std=17, extra_compile_args=flags, extra_link_args=link)
headers = glob("csrc/**/*.hpp", recursive=True)
native = Pybind11Extension("eeg._native", ["csrc/bind/bind.cpp"], depends=headers, **settings)
setup(ext_modules=[native], cmdclass={"build_ext": build_ext})
