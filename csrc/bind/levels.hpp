// The extension is built once for any processor of its family and, on x86-64, twice more, for those
// with AVX2 and with AVX-512. The first, _native, is what Python imports: it hands over to the best
// that this processor can run. So a built tree can be copied to another machine.
#pragma once

#include <cstdlib>
#include <cstring>
#include <string>

#include <pybind11/pybind11.h>

#include "../text.hpp"

namespace eeg::bind {

namespace py = pybind11;

#ifdef __AVX512F__
constexpr const char* built_level = "avx512";
#elif defined(__AVX2__)
constexpr const char* built_level = "avx2";
#else
constexpr const char* built_level = "baseline";
#endif

#ifdef EEG_CHOOSES
// The levels from the best on, and whether this processor can run them. What else the flags of
// setup.py allow, all processors of a level have.
inline std::string best_level() {
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi2");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const char* const asked = std::getenv("EEG_LEVEL");
    const std::string wanted = asked ? asked : "";
    if (!wanted.empty() && wanted != "baseline" && !(wanted == "avx2" && avx2) &&
        !(wanted == "avx512" && avx2 && avx512))
        throw py::import_error(
            text("EEG_LEVEL must be baseline, avx2 or avx512, as far as this "
                 "processor has them, got ",
                 wanted));
    if (!wanted.empty()) return wanted;
    return !avx2 ? "baseline" : avx512 ? "avx512" : "avx2";
}

// Fills m with what a better level has. -> whether there is one
inline bool hand_over(py::module_& m) {
    const std::string level = best_level();
    if (level == built_level) return false;
    const auto better = py::module_::import(("eeg._native_" + level).c_str());
    for (const auto& [name, value] : py::dict(better.attr("__dict__")))
        if (py::cast<std::string>(name).rfind("__", 0) != 0) m.attr(name) = value;
    return true;
}
#else
inline bool hand_over(py::module_&) { return false; }
#endif

}  // namespace eeg::bind
