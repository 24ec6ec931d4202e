"""Builds eeg._native from csrc/. Everything else about the package stands in pyproject.toml.

On x86-64 it is built three times, and the best that the processor has is chosen at import: see
csrc/bind/levels.hpp. EEG_MARCH=native builds it once, for this machine's processor alone.
EEG_SANITIZE=1 builds with the address and undefined-behaviour sanitizers (`make sanitize`).
No -ffast-math here, ever: it makes NaN checks disappear.
"""

import os
import platform
import shlex
import subprocess
import tempfile
from glob import glob
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup

AVX2 = "-mavx2 -mfma -mf16c -mbmi -mbmi2 -mlzcnt -mmovbe -mpopcnt".split()
AVX512 = [*AVX2, *"-mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl".split()]


def compiles(*flags):
    """Whether the C++ compiler takes these flags and can link with them."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text("int main() { return 0; }\n")
        compiler = shlex.split(os.environ.get("CXX") or "g++")  # perhaps behind ccache
        command = [*compiler, *flags, source, "-o", Path(folder, "probe")]
        return subprocess.run(command, capture_output=True).returncode == 0


flags = ["-O3", "-fopenmp", "-Wall", "-Wextra", "-Wno-psabi"]
link = ["-fopenmp"]
if os.environ.get("EEG_SANITIZE") == "1":
    flags += ["-O1", "-g", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    flags += ["-fsanitize=address,undefined"]
    link += ["-fsanitize=address,undefined"]
headers = glob("csrc/**/*.hpp", recursive=True) + ["csrc/bind/bind.cpp"]


def extension(name, source, *more, **settings):
    settings |= dict(extra_compile_args=[*flags, *more], extra_link_args=link, depends=headers)
    return Pybind11Extension(f"eeg.{name}", [f"csrc/bind/{source}.cpp"], cxx_std=17, **settings)


march = os.environ.get("EEG_MARCH")
if march and compiles(f"-march={march}"):
    built = [extension("_native", "bind", f"-march={march}")]
elif platform.machine().lower() in ("x86_64", "amd64") and compiles(*AVX512):
    built = [
        extension("_native", "bind", define_macros=[("EEG_CHOOSES", None)]),
        extension("_native_avx2", "avx2", *AVX2),
        extension("_native_avx512", "avx512", *AVX512),
    ]
else:
    built = [extension("_native", "bind")]
at_once = {"build_ext": {"parallel": os.cpu_count()}}
setup(ext_modules=built, cmdclass={"build_ext": build_ext}, options=at_once)
