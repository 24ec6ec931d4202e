// eeg._native: the list of what Python may call. Only this folder knows pybind11; each entry checks
// its arguments, makes views of them, lets go of the GIL and calls the kernel. Arrays are
// C-contiguous and never converted silently.

#include <system_error>

#include "batches.hpp"
#include "features.hpp"
#include "files.hpp"
#include "layers.hpp"
#include "levels.hpp"

#ifndef EEG_MODULE
#define EEG_MODULE _native
#endif

namespace {

using namespace eeg::bind;

void system_errors(std::exception_ptr p) {
    try {
        if (p) std::rethrow_exception(p);
    } catch (const std::system_error& e) {
        const std::string what = e.what(), path = what.substr(0, what.rfind(": "));
        py::set_error(PyExc_OSError, py::make_tuple(e.code().value(), e.code().message(), path));
    }
}

void add_files(py::module_& m) {
    using eeg::BdfFile;
    py::class_<BdfFile>(m, "Bdf", "A BDF file. ValueError says what is wrong with its header.")
        .def(py::init<const std::string&>(), "path"_a)
        .def_property_readonly("labels", &labels)
        .def_property_readonly("sfreq", [](const BdfFile& b) { return b.header().sfreq; })
        .def_property_readonly("closed", [](const BdfFile& b) { return b.header().closed; })
        .def_property_readonly("n_times", [](const BdfFile& b) { return b.header().n_times(); })
        .def(
            "read", &read_bdf, "starts"_exact, "channels"_exact, "out"_exact,
            "Decode windows into out (n, C, T), microvolts; returns how many float16 cannot hold.");
#ifdef __linux__
    py::class_<eeg::DirectFiles>(m, "DirectFiles", "Files read past the system's cache.")
        .def(py::init(&open_direct), "paths"_a, "most"_a)
        .def_property_readonly("identities", &identities)
        .def("read", &read_direct, "which"_exact, "offset"_exact, "bytes"_exact, "out"_exact,
             "got"_exact, "Row i of out <- bytes[i] at offset[i] of file which[i], or -errno.");
#endif
    m.def("md5", &md5_of, "paths"_a, "which"_exact, "offset"_exact, "bytes"_exact, "out"_exact,
          "Row i of out (n, 16) <- the MD5 of bytes[i] from offset[i] of file which[i].");
}

void add_batches(py::module_& m) {
    py::class_<eeg::Augment>(m, "Augment", "What to draw for each window; everything 0 is off.")
        .def(py::init(&make_augment), "seed"_a = 0, "epoch"_a = 0);
    py::list augmentations;
    for (const auto& strength : eeg::strengths) augmentations.append(strength.name);
    m.attr("AUGMENTATIONS") = augmentations;
    m.def("gather", &gather_batch, "parts"_a, "part"_exact, "row"_exact, "offset"_exact,
          "window"_exact, "mirror"_exact, "out"_exact, "shift"_exact, "mix"_exact, "zscore"_a,
          "augment"_a, "threads"_a = 0,
          "Fill out (B, C, T) with augmented windows of cache parts (N, C, S).");
}

void add_layers(py::module_& m) {
    m.def(
        "depthwise_forward", &forward, "x"_exact, "weight"_exact, "bias"_exact, "dilation"_a,
        "y"_exact, "threads"_a = 0,
        "y (B, T, C) = x convolved over time, each channel with its row of weight (C, K), + bias.");
    m.def("depthwise_backward", &backward, "x"_exact, "weight"_exact, "gy"_exact, "dilation"_a,
          "gx"_exact, "gw"_exact, "gb"_exact, "threads"_a = 0,
          "The gradients of x, weight and bias into gx, gw and gb, where these are not None.");
    m.def("norm_forward", &normed_forward, "z"_exact, "residual"_exact, "mask"_exact, "gain"_exact,
          "bias"_exact, "eps"_a, "y"_exact, "mean"_exact, "variance"_exact, "threads"_a = 0,
          "y = residual + mask * relu(batch norm of z), all (B, T, C); moments of z (C).");
    m.def("norm_backward", &normed_backward, "z"_exact, "mask"_exact, "gain"_exact, "bias"_exact,
          "eps"_a, "mean"_exact, "variance"_exact, "gy"_exact, "gz"_exact, "ggain"_exact,
          "gbias"_exact, "threads"_a = 0, "The gradients of z, gain and bias.");
}

void add_features(py::module_& m) {
    m.attr("FEATURES") = eeg::feature_names();
    m.def("window_features", &features_of, "X"_exact, "first"_a, "T"_a, "chosen"_exact,
          "members"_exact, "sizes"_exact, "out"_exact, "threads"_a = 0,
          "FEATURES of windows X (N, C, samples) from samples first ... first + T -> out (N, F).");
    m.def("channel_features", &features_of_channels, "X"_exact, "first"_a, "T"_a, "out"_exact,
          "threads"_a = 0, "What each channel says by itself -> out (N, C, 10).");
    m.def("lagged_correlations", &correlations_of, "X"_exact, "first"_a, "T"_a, "lags"_exact,
          "out"_exact, "threads"_a = 0, "Summaries of lagged correlations -> out (N, lags, 4).");
}

}  // namespace

PYBIND11_MODULE(EEG_MODULE, m) {
    m.doc() = "The hot path of eeg in C++: see csrc/.";
    if (hand_over(m)) return;
    m.attr("LEVEL") = built_level;
    eeg::Threads::watch_forks();
    py::register_exception_translator(&system_errors);
    add_files(m);
    add_batches(m);
    add_layers(m);
    add_features(m);
}
