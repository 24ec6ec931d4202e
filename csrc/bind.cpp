// eeg._native: the list of what Python may call. This file alone knows pybind11; each entry checks its arguments,
// takes pointers, lets go of the GIL and calls the kernel. Arrays are C-contiguous and never converted silently.

#include <string>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bdf.hpp"
#include "features.hpp"
#include "lagged.hpp"
#include "mapped.hpp"

namespace py = pybind11;
using namespace pybind11::literals;

template <class T>
using array = py::array_t<T, py::array::c_style>;

namespace {

std::string shape_of(const py::array& a) {
    std::string text = "(";
    for (py::ssize_t i = 0; i < a.ndim(); ++i) text += (i ? ", " : "") + std::to_string(a.shape(i));
    return text + ")";
}

[[noreturn]] void wrong(const std::string& name, const std::string& expected, const py::array& got) {
    throw py::value_error(name + " must be " + expected + ", got shape " + shape_of(got) + " of " + py::cast<std::string>(py::str(got.dtype())));
}

class Bdf {
  public:
    explicit Bdf(const std::string& path) : file_(path), header_(eeg::parse_bdf(file_.data(), file_.size())) {}

    int64_t read(array<int64_t> starts, array<int32_t> channels, py::array out) const {
        const bool half = py::isinstance<py::array_t<uint16_t>>(out), single = py::isinstance<py::array_t<float>>(out);
        if (!half && !single) throw py::type_error("out must be float32, or uint16 (the bits of float16), got " + py::cast<std::string>(py::str(out.dtype())));
        if (starts.ndim() != 1) wrong("starts", "one number a window", starts);
        if (channels.ndim() != 1 || channels.size() == 0) wrong("channels", "a list of signal numbers", channels);
        const int64_t n = starts.size(), C = channels.size();
        if (out.ndim() != 3 || out.shape(0) != n || out.shape(1) != C || !(out.flags() & py::array::c_style))
            wrong("out", "C-contiguous (" + std::to_string(n) + ", " + std::to_string(C) + ", T)", out);
        const int64_t T = out.shape(2), signals = static_cast<int64_t>(header_.signals.size());
        for (int64_t i = 0; i < C; ++i)
            if (channels.data()[i] < 0 || channels.data()[i] >= signals) throw py::index_error("signal " + std::to_string(channels.data()[i]) + " of " + std::to_string(signals));
        for (int64_t i = 0; i < n; ++i)  // a window must touch the recording; its margins may reach over the edge
            if (starts.data()[i] <= -T || starts.data()[i] >= header_.n_times())
                throw py::index_error("a window at sample " + std::to_string(starts.data()[i]) + " of a recording of " + std::to_string(header_.n_times()));
        const int64_t* s = starts.data();
        const int32_t* c = channels.data();
        void* o = out.mutable_data();
        py::gil_scoped_release release;
        return half ? eeg::read_windows(file_.data(), header_, s, n, c, C, T, static_cast<uint16_t*>(o))
                    : eeg::read_windows(file_.data(), header_, s, n, c, C, T, static_cast<float*>(o));
    }
    std::vector<std::string> labels() const {
        std::vector<std::string> all;
        for (const auto& s : header_.signals) all.push_back(s.label);
        return all;
    }
    double sfreq() const { return header_.sfreq; }
    int64_t n_times() const { return header_.n_times(); }

  private:
    eeg::Mapped file_;
    eeg::BdfHeader header_;
};

// The windows that features are computed from: (N, C, samples), of which T count, from `first` on.
struct Windows {
    const void* data;
    bool half;
    int64_t N, C, stride;

    Windows(const py::array& X, int64_t first, int64_t T, int threads) : half(py::isinstance<py::array_t<uint16_t>>(X)) {
        if (!half && !py::isinstance<py::array_t<float>>(X)) throw py::type_error("X must be float32, or uint16 (the bits of float16), got " + py::cast<std::string>(py::str(X.dtype())));
        if (X.ndim() != 3 || X.shape(1) == 0 || !(X.flags() & py::array::c_style)) wrong("X", "C-contiguous (windows, channels, samples)", X);
        data = X.data(), N = X.shape(0), C = X.shape(1), stride = X.shape(2);
        if (T < 1 || T > 100000 || first < 0 || first > stride - T)
            throw py::value_error("samples " + std::to_string(first) + " to " + std::to_string(first + T) + " must lie in windows of " + std::to_string(stride) + " samples, and be 1 to 100000");
        if (threads < 1 || threads > 1024) throw py::value_error("threads must be 1 to 1024, got " + std::to_string(threads));
    }
};

void window_features(py::array X, int64_t first, int64_t T, array<int32_t> chosen, array<int32_t> members, array<int32_t> sizes, array<float> out, int threads) {
    const Windows w(X, first, T, threads);
    if (chosen.ndim() != 1 || chosen.size() == 0) wrong("chosen", "a list of channel numbers", chosen);
    if (sizes.ndim() != 1 || sizes.size() != eeg::n_groups) wrong("sizes", "(" + std::to_string(eeg::n_groups) + ",), the channels of each group", sizes);
    if (members.ndim() != 1) wrong("members", "a list of positions in chosen", members);
    if (out.ndim() != 2 || out.shape(0) != w.N || out.shape(1) != eeg::n_features) wrong("out", "(" + std::to_string(w.N) + ", " + std::to_string(eeg::n_features) + ")", out);
    const int64_t M = chosen.size();
    const int32_t *c = chosen.data(), *m = members.data(), *s = sizes.data();
    int64_t expected = 0;
    for (int i = 0; i < eeg::n_groups; ++i) {
        if (s[i] < 1) throw py::value_error("group " + std::to_string(i) + " has " + std::to_string(s[i]) + " channels, it needs one");
        expected += s[i];
    }
    if (members.size() != expected) wrong("members", "(" + std::to_string(expected) + ",), the sum of sizes", members);
    for (int64_t i = 0; i < M; ++i)
        if (c[i] < 0 || c[i] >= w.C) throw py::index_error("channel " + std::to_string(c[i]) + " of " + std::to_string(w.C));
    for (int64_t i = 0; i < expected; ++i)
        if (m[i] < 0 || m[i] >= M) throw py::index_error("member " + std::to_string(m[i]) + " of " + std::to_string(M) + " chosen channels");
    float* o = out.mutable_data();
    py::gil_scoped_release release;
    if (w.half) eeg::window_features(static_cast<const uint16_t*>(w.data), w.N, w.C, w.stride, first, T, c, M, m, s, threads, o);
    else eeg::window_features(static_cast<const float*>(w.data), w.N, w.C, w.stride, first, T, c, M, m, s, threads, o);
}

void channel_features(py::array X, int64_t first, int64_t T, array<float> out, int threads) {
    const Windows w(X, first, T, threads);
    if (out.ndim() != 3 || out.shape(0) != w.N || out.shape(1) != w.C || out.shape(2) != eeg::n_channel_features)
        wrong("out", "(" + std::to_string(w.N) + ", " + std::to_string(w.C) + ", " + std::to_string(eeg::n_channel_features) + ")", out);
    float* o = out.mutable_data();
    py::gil_scoped_release release;
    if (w.half) eeg::channel_features(static_cast<const uint16_t*>(w.data), w.N, w.C, w.stride, first, T, threads, o);
    else eeg::channel_features(static_cast<const float*>(w.data), w.N, w.C, w.stride, first, T, threads, o);
}

void lagged_correlations(py::array X, int64_t first, int64_t T, array<int32_t> lags, array<float> out, int threads) {
    const Windows w(X, first, T, threads);
    if (lags.ndim() != 1) wrong("lags", "a list of samples", lags);
    for (int64_t i = 0; i < lags.size(); ++i)
        if (lags.data()[i] < 0) throw py::value_error("a lag must be 0 or more samples, got " + std::to_string(lags.data()[i]));
    if (out.ndim() != 3 || out.shape(0) != w.N || out.shape(1) != lags.size() || out.shape(2) != eeg::n_lag_summaries)
        wrong("out", "(" + std::to_string(w.N) + ", " + std::to_string(lags.size()) + ", " + std::to_string(eeg::n_lag_summaries) + ")", out);
    const int32_t* l = lags.data();
    const int64_t n = lags.size();
    float* o = out.mutable_data();
    py::gil_scoped_release release;
    if (w.half) eeg::lagged_correlations(static_cast<const uint16_t*>(w.data), w.N, w.C, w.stride, first, T, l, n, threads, o);
    else eeg::lagged_correlations(static_cast<const float*>(w.data), w.N, w.C, w.stride, first, T, l, n, threads, o);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
    m.doc() = "The hot path of eeg in C++: see csrc/.";
    py::register_exception_translator([](std::exception_ptr p) {
        try {
            if (p) std::rethrow_exception(p);
        } catch (const std::system_error& e) {
            py::set_error(PyExc_OSError, py::make_tuple(e.code().value(), e.code().message(), std::string(e.what()).substr(0, std::string(e.what()).rfind(": "))));
        }
    });

    py::class_<Bdf>(m, "Bdf", "A BDF file, mapped. ValueError says what is wrong with its header.")
        .def(py::init<const std::string&>(), "path"_a)
        .def_property_readonly("labels", &Bdf::labels)
        .def_property_readonly("sfreq", &Bdf::sfreq)
        .def_property_readonly("n_times", &Bdf::n_times)
        .def("read", &Bdf::read, "starts"_a.noconvert(), "channels"_a.noconvert(), "out"_a.noconvert(),
             "Decode windows into out (n, C, T), microvolts; float32, or uint16 for the bits of float16. Samples past an edge repeat the nearest.\n"
             "Returns how many samples float16 could not hold.");

    m.def("window_features", &window_features, "X"_a.noconvert(), "first"_a, "T"_a, "chosen"_a.noconvert(), "members"_a.noconvert(), "sizes"_a.noconvert(), "out"_a.noconvert(), "threads"_a,
          "The features of windows X (N, C, samples), microvolts at 100 Hz, float32 or uint16 (the bits of float16), from their samples first ... first + T.\n"
          "chosen: the channels of any group; members: positions in chosen, sizes of them for each group. out (N, F) float32, see eeg/data/features.py.");
    m.def("channel_features", &channel_features, "X"_a.noconvert(), "first"_a, "T"_a, "out"_a.noconvert(), "threads"_a,
          "out (N, C, 10) float32: each channel's power in five bands, power, Hjorth mobility and complexity, line length, kurtosis; NaN for a flat channel.");
    m.def("lagged_correlations", &lagged_correlations, "X"_a.noconvert(), "first"_a, "T"_a, "lags"_a.noconvert(), "out"_a.noconvert(), "threads"_a,
          "out (N, lags, 4) float32: mean |r|, mean of the diagonal, mean off it, entropy, of r between all channels and all channels `lag` samples later.");
}
