// eeg._native: the list of what Python may call. This file alone knows pybind11; each entry checks
// its arguments, takes pointers, lets go of the GIL and calls the kernel. Arrays are C-contiguous
// and never converted silently.

#include <memory>
#include <optional>
#include <string>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bdf.hpp"
#include "file.hpp"
#include "md5.hpp"
#include "windows.hpp"
#include "depthwise.hpp"
#include "features.hpp"
#include "lagged.hpp"
#include "text.hpp"

namespace py = pybind11;
using namespace pybind11::literals;
using eeg::text;

// An argument that must be an array of the type declared.
py::arg operator""_exact(const char* name, size_t) { return py::arg(name).noconvert(); }

template <class T>
using array = py::array_t<T, py::array::c_style>;

namespace {

// ------------------------------------------------------------------------------------- checks

std::string type_of(const py::array& a) { return py::cast<std::string>(py::str(a.dtype())); }

std::string shape_of(const py::array& a) { return py::cast<std::string>(py::str(a.attr("shape"))); }

[[noreturn]] void wrong(const std::string& name, const std::string& expected,
                        const py::array& got) {
    throw py::value_error(
        text(name, " must be ", expected, ", got shape ", shape_of(got), " of ", type_of(got)));
}

void check_shape(const std::string& name, const py::array& a, const std::vector<int64_t>& shape) {
    if (std::vector<int64_t>(a.shape(), a.shape() + a.ndim()) == shape) return;
    const py::tuple expected(py::cast(shape));
    wrong(name, "of shape " + py::cast<std::string>(py::str(expected)), a);
}

void check_like(const std::string& name, const py::array& a, const py::array& other) {
    check_shape(name, a, {other.shape(), other.shape() + other.ndim()});
}

// Every number in the list is the index of one of `count` things.
void check_indices(const std::string& thing, const array<int32_t>& list, int64_t count) {
    for (int64_t i = 0; i < list.size(); ++i)
        if (list.data()[i] < 0 || list.data()[i] >= count)
            throw py::index_error(text(thing, " ", list.data()[i], " of ", count));
}

// Whether the array holds the bits of float16, and not float32.
bool is_half(const std::string& name, const py::array& a) {
    const bool half = py::isinstance<py::array_t<uint16_t>>(a);
    if (!half && !py::isinstance<py::array_t<float>>(a))
        throw py::type_error(
            text(name, " must be float32, or uint16 (the bits of float16), got ", type_of(a)));
    return half;
}

bool contiguous(const py::array& a) { return a.flags() & py::array::c_style; }

// The number of threads to use; 0 is as OpenMP chooses.
int team(int threads) {
    if (threads < 0 || threads > 4096)
        throw py::value_error(text("threads must be 0 (as OpenMP chooses) to 4096, got ", threads));
    return threads ? threads : omp_get_max_threads();
}

// ------------------------------------------------------------------------------------- files

class Bdf {
  public:
    explicit Bdf(const std::string& path) : file_(path) {
        std::vector<uint8_t> head(std::min<int64_t>(256, file_.size()));
        file_.read(0, head.size(), head.data());
        if (head.size() == 256) {
            head.resize(std::min(eeg::bdf_header_bytes(head.data()), file_.size()));
            file_.read(0, head.size(), head.data());
        }
        header_ = eeg::parse_bdf(head.data(), file_.size());
    }

    int64_t read(array<int64_t> starts, array<int32_t> channels, py::array out) const {
        const bool half = is_half("out", out);
        if (starts.ndim() != 1) wrong("starts", "one number a window", starts);
        if (channels.ndim() != 1 || channels.size() == 0)
            wrong("channels", "a list of signal numbers", channels);
        const int64_t n = starts.size(), C = channels.size();
        if (out.ndim() != 3 || out.shape(0) != n || out.shape(1) != C || !contiguous(out))
            wrong("out", text("C-contiguous (", n, ", ", C, ", T)"), out);
        const int64_t T = out.shape(2);
        check_indices("signal", channels, header_.signals.size());
        // a window must touch the recording; its margins may reach over the edge
        for (int64_t i = 0; i < n; ++i)
            if (starts.data()[i] <= -T || starts.data()[i] >= header_.n_times())
                throw py::index_error(text("a window at sample ", starts.data()[i],
                                           " of a recording of ", header_.n_times()));
        void* o = out.mutable_data();
        py::gil_scoped_release release;
        std::vector<uint8_t> buffer;
        const auto records = [&](int64_t first, int64_t count) -> const uint8_t* {
            const size_t bytes = count * header_.record_bytes;
            if (bytes > buffer.size()) buffer.resize(bytes);
            file_.read(header_.header_bytes + first * header_.record_bytes, bytes, buffer.data());
            return buffer.data();
        };
        const auto read_as = [&](auto* to) {
            return eeg::read_windows(header_, records, starts.data(), n, channels.data(), C, T, to);
        };
        return half ? read_as(static_cast<uint16_t*>(o)) : read_as(static_cast<float*>(o));
    }
    std::vector<std::string> labels() const {
        std::vector<std::string> all;
        for (const auto& s : header_.signals) all.push_back(s.label);
        return all;
    }
    const eeg::BdfHeader& header() const { return header_; }

  private:
    eeg::File file_;
    eeg::BdfHeader header_;
};

#ifdef __linux__
std::unique_ptr<eeg::DirectFiles> open_direct(const std::vector<std::string>& paths, int64_t most) {
    if (most < 1) throw py::value_error(text("most must be 1 or more, got ", most));
    return std::make_unique<eeg::DirectFiles>(paths, most);
}

void read_direct(eeg::DirectFiles& files, array<int32_t> which, array<int64_t> offset,
                 array<int64_t> bytes, array<uint8_t> out, array<int64_t> got) {
    if (out.ndim() != 2) wrong("out", "(B, bytes)", out);
    const int64_t n = out.shape(0), room = out.shape(1);
    if (n > files.most())
        throw py::index_error(text(n, " pieces, at most ", files.most(), " at a time"));
    check_shape("which", which, {n}), check_shape("offset", offset, {n});
    check_shape("bytes", bytes, {n}), check_shape("got", got, {n});
    check_indices("file", which, files.count());
    for (int64_t i = 0; i < n; ++i)
        if (bytes.data()[i] < 0 || bytes.data()[i] > room)
            throw py::index_error(text(bytes.data()[i], " bytes do not fit in ", room));
    py::gil_scoped_release release;
    files.read(which.data(), offset.data(), bytes.data(), n, room, out.mutable_data(),
               got.mutable_data());
}
#endif

void md5(const std::vector<std::string>& paths, array<int32_t> which, array<int64_t> offset,
         array<int64_t> bytes, array<uint8_t> out) {
    const int64_t n = which.size();
    check_shape("which", which, {n}), check_shape("offset", offset, {n});
    check_shape("bytes", bytes, {n}), check_shape("out", out, {n, 16});
    check_indices("file", which, paths.size());
    std::deque<eeg::File> files;
    for (const auto& path : paths) files.emplace_back(path);
    std::vector<eeg::Md5Piece> pieces;
    for (int64_t i = 0; i < n; ++i) {
        if (offset.data()[i] < 0 || bytes.data()[i] < 0)
            throw py::index_error(text(bytes.data()[i], " bytes from ", offset.data()[i]));
        pieces.push_back({&files[which.data()[i]], offset.data()[i], bytes.data()[i],
                          out.mutable_data() + 16 * i});
    }
    py::gil_scoped_release release;
    eeg::md5(pieces);
}

// ------------------------------------------------------------------------------------- batches

eeg::Augment make_augment(uint32_t seed, uint32_t epoch, const py::kwargs& strengths) {
    eeg::Augment made;
    made.seed = seed, made.epoch = epoch;
    size_t known = 0;
    for (const auto& [name, member, most] : eeg::strengths) {
        if (!strengths.contains(name)) continue;
        const float value = py::cast<float>(strengths[name]);
        if (!(value >= 0 && value <= most))
            throw py::value_error(text(name, " must lie from 0 to ", most, ", got ", value));
        made.*member = value;
        ++known;
    }
    if (known != strengths.size())
        throw py::type_error("an augmentation that does not exist, among: " +
                             py::cast<std::string>(py::str(py::list(strengths))));
    return made;
}

void gather(const std::vector<py::array>& parts, array<int32_t> part, array<int64_t> row,
            array<int32_t> offset, array<int64_t> window, array<int32_t> mirror, array<float> out,
            array<int32_t> shift, array<float> mix, bool zscore, const eeg::Augment& augment,
            int threads) {
    if (out.ndim() != 3) wrong("out", "(B, C, T)", out);
    const int64_t B = out.shape(0), C = out.shape(1), T = out.shape(2);
    check_shape("part", part, {B}), check_shape("row", row, {B}), check_shape("mix", mix, {B});
    check_shape("offset", offset, {B}), check_shape("window", window, {B});
    check_shape("shift", shift, {B}), check_shape("mirror", mirror, {C});
    check_indices("mirror: channel", mirror, C);
    if (T < 1 && B > 0) throw py::value_error("windows of no samples: out is " + shape_of(out));
    if (parts.empty()) throw py::value_error("no cache part was given");
    std::vector<eeg::Samples> data;
    const int64_t S = parts[0].ndim() == 3 ? parts[0].shape(2) : -1;
    for (const auto& a : parts) {
        const bool half = is_half("a cache part", a);
        if (a.ndim() != 3 || a.shape(1) != C || a.shape(2) != S || !contiguous(a))
            wrong("a cache part", text("C-contiguous (N, ", C, ", ", S, ")"), a);
        data.push_back({a.data(), half});
    }
    check_indices("part", part, parts.size());
    const int64_t most = augment.shift_samples();
    for (int64_t b = 0; b < B; ++b) {
        const int64_t stored = parts[part.data()[b]].shape(0), from = offset.data()[b];
        if (row.data()[b] < 0 || row.data()[b] >= stored)
            throw py::index_error(text("window ", b, " is row ", row.data()[b], " of ", stored));
        if (from - most < 0 || from + most + T > S)
            throw py::index_error(text("window ", b, " from sample ", from, " +- ", most, ", ", T,
                                       " long, leaves the ", S, " stored"));
    }
    py::gil_scoped_release release;
    eeg::gather(data.data(), part.data(), row.data(), offset.data(), window.data(), B, C, S, T,
                zscore, augment, mirror.data(), out.mutable_data(), shift.mutable_data(),
                mix.mutable_data(), team(threads));
}

// ------------------------------------------------------------------------------------- layers

eeg::Depthwise checked(const array<float>& x, const array<float>& weight, int64_t dilation) {
    if (x.ndim() != 3 || x.shape(1) == 0 || x.shape(2) == 0)
        wrong("x", "(windows, samples, channels) with at least one sample and one channel", x);
    if (weight.ndim() != 2 || weight.shape(0) != x.shape(2) || weight.shape(1) % 2 == 0)
        wrong("weight", text("(", x.shape(2), " channels, an odd number of taps)"), weight);
    if (dilation < 1)
        throw py::value_error(text("dilation must be at least 1 sample, got ", dilation));
    return {x.shape(0), x.shape(1), x.shape(2), weight.shape(1), dilation};
}

void depthwise_forward(array<float> x, array<float> weight, std::optional<array<float>> bias,
                       int64_t dilation, array<float> y, int threads) {
    const eeg::Depthwise shape = checked(x, weight, dilation);
    check_like("y", y, x);
    if (bias) check_shape("bias", *bias, {shape.C});
    const float* b = bias ? bias->data() : nullptr;
    py::gil_scoped_release release;
    eeg::depthwise_forward(shape, x.data(), weight.data(), b, team(threads), y.mutable_data());
}

void depthwise_backward(array<float> x, array<float> weight, array<float> gy, int64_t dilation,
                        std::optional<array<float>> gx, std::optional<array<float>> gw,
                        std::optional<array<float>> gb, int threads) {
    const eeg::Depthwise shape = checked(x, weight, dilation);
    check_like("gy", gy, x);
    if (gx) check_like("gx", *gx, x);
    if (gw) check_like("gw", *gw, weight);
    if (gb) check_shape("gb", *gb, {shape.C});
    const auto written = [](auto& a) { return a ? a->mutable_data() : nullptr; };
    py::gil_scoped_release release;
    eeg::depthwise_backward(shape, x.data(), weight.data(), gy.data(), team(threads), written(gx),
                            written(gw), written(gb));
}

// ------------------------------------------------------------------------------------- features

eeg::Windows windows_of(const py::array& X, int64_t first, int64_t T) {
    const bool half = is_half("X", X);
    if (X.ndim() != 3 || X.shape(1) == 0 || !contiguous(X))
        wrong("X", "C-contiguous (windows, channels, samples)", X);
    const int64_t stored = X.shape(2);
    if (T < 1 || T > 100000 || first < 0 || first > stored - T)
        throw py::value_error(text("samples ", first, " to ", first + T, " must lie in windows of ",
                                   stored, " samples, and be 1 to 100000"));
    return {{X.data(), half}, X.shape(0), X.shape(1), stored, first, T};
}

void window_features(py::array X, int64_t first, int64_t T, array<int32_t> chosen,
                     array<int32_t> members, array<int32_t> sizes, array<float> out, int threads) {
    const eeg::Windows windows = windows_of(X, first, T);
    if (chosen.ndim() != 1 || chosen.size() == 0)
        wrong("chosen", "a list of channel numbers", chosen);
    check_shape("sizes", sizes, {eeg::n_groups});
    check_shape("out", out, {windows.N, eeg::n_features});
    const int64_t M = chosen.size();
    const int32_t* s = sizes.data();
    int64_t expected = 0;
    for (int i = 0; i < eeg::n_groups; ++i) {
        if (s[i] < 1)
            throw py::value_error(text("group ", i, " has ", s[i], " channels, it needs one"));
        expected += s[i];
    }
    check_shape("members", members, {expected});
    check_indices("channel", chosen, windows.C);
    check_indices("member", members, M);
    py::gil_scoped_release release;
    eeg::window_features(windows, chosen.data(), M, members.data(), s, team(threads),
                         out.mutable_data());
}

void channel_features(py::array X, int64_t first, int64_t T, array<float> out, int threads) {
    const eeg::Windows windows = windows_of(X, first, T);
    check_shape("out", out, {windows.N, windows.C, eeg::n_channel_features});
    py::gil_scoped_release release;
    eeg::channel_features(windows, team(threads), out.mutable_data());
}

void lagged_correlations(py::array X, int64_t first, int64_t T, array<int32_t> lags,
                         array<float> out, int threads) {
    const eeg::Windows windows = windows_of(X, first, T);
    if (lags.ndim() != 1) wrong("lags", "a list of samples", lags);
    const int32_t* l = lags.data();
    const int64_t n = lags.size();
    for (int64_t i = 0; i < n; ++i)
        if (l[i] < 0) throw py::value_error(text("a lag must be 0 or more samples, got ", l[i]));
    check_shape("out", out, {windows.N, n, eeg::n_lag_summaries});
    py::gil_scoped_release release;
    eeg::lagged_correlations(windows, l, n, team(threads), out.mutable_data());
}

}  // namespace

PYBIND11_MODULE(_native, m) {
    m.doc() = "The hot path of eeg in C++: see csrc/.";
    py::register_exception_translator([](std::exception_ptr p) {
        try {
            if (p) std::rethrow_exception(p);
        } catch (const std::system_error& e) {
            const std::string what = e.what(), path = what.substr(0, what.rfind(": "));
            py::set_error(PyExc_OSError,
                          py::make_tuple(e.code().value(), e.code().message(), path));
        }
    });

    py::class_<Bdf>(m, "Bdf", "A BDF file. ValueError says what is wrong with its header.")
        .def(py::init<const std::string&>(), "path"_a)
        .def_property_readonly("labels", &Bdf::labels)
        .def_property_readonly("sfreq", [](const Bdf& b) { return b.header().sfreq; })
        .def_property_readonly("closed", [](const Bdf& b) { return b.header().closed; })
        .def_property_readonly("n_times", [](const Bdf& b) { return b.header().n_times(); })
        .def(
            "read", &Bdf::read, "starts"_exact, "channels"_exact, "out"_exact,
            "Decode windows into out (n, C, T), microvolts; returns how many float16 cannot hold.");

#ifdef __linux__
    py::class_<eeg::DirectFiles>(m, "DirectFiles", "Files read past the system's cache.")
        .def(py::init(&open_direct), "paths"_a, "most"_a)
        .def("read", &read_direct, "which"_exact, "offset"_exact, "bytes"_exact, "out"_exact,
             "got"_exact, "Row i of out <- bytes[i] at offset[i] of file which[i], or -errno.");
#endif

    m.def("md5", &md5, "paths"_a, "which"_exact, "offset"_exact, "bytes"_exact, "out"_exact,
          "Row i of out (n, 16) <- the MD5 of bytes[i] from offset[i] of file which[i].");

    py::class_<eeg::Augment>(m, "Augment", "What to draw for each window; everything 0 is off.")
        .def(py::init(&make_augment), "seed"_a = 0, "epoch"_a = 0);
    py::list augmentations;
    for (const auto& strength : eeg::strengths) augmentations.append(strength.name);
    m.attr("AUGMENTATIONS") = augmentations;
    m.attr("FEATURES") = eeg::feature_names();
    m.def("gather", &gather, "parts"_a, "part"_exact, "row"_exact, "offset"_exact, "window"_exact,
          "mirror"_exact, "out"_exact, "shift"_exact, "mix"_exact, "zscore"_a, "augment"_a,
          "threads"_a = 0, "Fill out (B, C, T) with augmented windows of cache parts (N, C, S).");
    m.def(
        "depthwise_forward", &depthwise_forward, "x"_exact, "weight"_exact, "bias"_exact,
        "dilation"_a, "y"_exact, "threads"_a = 0,
        "y (B, T, C) = x convolved over time, each channel with its row of weight (C, K), + bias.");
    m.def("depthwise_backward", &depthwise_backward, "x"_exact, "weight"_exact, "gy"_exact,
          "dilation"_a, "gx"_exact, "gw"_exact, "gb"_exact, "threads"_a = 0,
          "The gradients of x, weight and bias into gx, gw and gb, where these are not None.");
    m.def("window_features", &window_features, "X"_exact, "first"_a, "T"_a, "chosen"_exact,
          "members"_exact, "sizes"_exact, "out"_exact, "threads"_a = 0,
          "FEATURES of windows X (N, C, samples) from samples first ... first + T -> out (N, F).");
    m.def("channel_features", &channel_features, "X"_exact, "first"_a, "T"_a, "out"_exact,
          "threads"_a = 0, "What each channel says by itself -> out (N, C, 10).");
    m.def("lagged_correlations", &lagged_correlations, "X"_exact, "first"_a, "T"_a, "lags"_exact,
          "out"_exact, "threads"_a = 0, "Summaries of lagged correlations -> out (N, lags, 4).");
}
