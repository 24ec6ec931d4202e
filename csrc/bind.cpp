// eeg._native: the list of what Python may call. This file alone knows pybind11; each entry checks
// its arguments, takes pointers, lets go of the GIL and calls the kernel. Arrays are C-contiguous
// and never converted silently.

#include <pthread.h>

#include <atomic>
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

// A view into bytes may begin at any of them, where a kernel cannot read a number.
void check_aligned(const std::string& name, const py::array& a) {
    if (!(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
        throw py::value_error(name + " must be aligned in memory, as numpy.array(...) is");
}

void check_shape(const std::string& name, const py::array& a, const std::vector<int64_t>& shape) {
    check_aligned(name, a);
    if (std::vector<int64_t>(a.shape(), a.shape() + a.ndim()) == shape) return;
    const py::tuple expected(py::cast(shape));
    wrong(name, "of shape " + py::cast<std::string>(py::str(expected)), a);
}

void check_like(const std::string& name, const py::array& a, const py::array& other) {
    check_shape(name, a, {other.shape(), other.shape() + other.ndim()});
}

// Every number in the list is the index of one of `count` things.
void check_indices(const std::string& thing, const std::vector<int32_t>& list, int64_t count) {
    for (const int32_t index : list)
        if (index < 0 || index >= count)
            throw py::index_error(text(thing, " ", index, " of ", count));
}

// Whether the array holds the bits of float16, and not float32.
bool is_half(const std::string& name, const py::array& a) {
    check_aligned(name, a);
    const bool half = py::isinstance<py::array_t<uint16_t>>(a);
    if (!half && !py::isinstance<py::array_t<float>>(a))
        throw py::type_error(
            text(name, " must be float32, or uint16 (the bits of float16), got ", type_of(a)));
    return half;
}

bool contiguous(const py::array& a) { return a.flags() & py::array::c_style; }

// More threads than cores do no harm but for their memory.
int most_threads() { return std::max(omp_get_num_procs(), 16); }

// A child of fork has none of its parent's threads, and OpenMP would wait for them for ever.
std::atomic<bool> forked{false};

// The number of threads to use for so many pieces of work: at most one each, and one each core.
// 0 asks for as many as OpenMP chooses.
int team(int threads, int64_t pieces) {
    if (threads < 0)
        throw py::value_error(text("threads must be 0 (as OpenMP chooses) or more, got ", threads));
    if (forked) return 1;
    const int64_t asked = threads ? threads : omp_get_max_threads();
    const int64_t most = std::max<int64_t>(1, std::min<int64_t>(pieces, most_threads()));
    return static_cast<int>(std::min(asked, most));
}

// Holds what a kernel reads after it was checked: another thread, or an output that is the same
// array, may change the caller's own.
template <class T>
std::vector<T> copied(const array<T>& list) {
    return {list.data(), list.data() + list.size()};
}

// ------------------------------------------------------------------------------------- files

class Bdf {
  public:
    explicit Bdf(const std::string& path) : file_(path) {
        const auto read = [&](int64_t offset, int64_t bytes, uint8_t* out) {
            file_.read(offset, bytes, out);
        };
        header_ = eeg::read_bdf_header(read, file_.size());
    }

    int64_t read(array<int64_t> starts, array<int32_t> channels, py::array out) const {
        const bool half = is_half("out", out);
        if (starts.ndim() != 1) wrong("starts", "one number a window", starts);
        if (channels.ndim() != 1 || channels.size() == 0)
            wrong("channels", "a list of signal numbers", channels);
        check_aligned("starts", starts), check_aligned("channels", channels);
        const int64_t n = starts.size(), C = channels.size();
        if (out.ndim() != 3 || out.shape(0) != n || out.shape(1) != C || !contiguous(out))
            wrong("out", text("C-contiguous (", n, ", ", C, ", T)"), out);
        const int64_t T = out.shape(2);
        const auto first = copied(starts);
        const auto chosen = copied(channels);
        check_indices("signal", chosen, header_.signals.size());
        // a window must touch the recording; its margins may reach over the edge
        for (const int64_t start : first)
            if (start <= -T || start >= header_.n_times())
                throw py::index_error(
                    text("a window at sample ", start, " of a recording of ", header_.n_times()));
        void* o = out.mutable_data();
        py::gil_scoped_release release;
        std::vector<uint8_t> buffer;
        const auto records = [&](int64_t record, int64_t count) -> const uint8_t* {
            const size_t bytes = count * header_.record_bytes;
            if (bytes > buffer.size()) buffer.resize(bytes);
            file_.read(header_.header_bytes + record * header_.record_bytes, bytes, buffer.data());
            return buffer.data();
        };
        const auto read_as = [&](auto* to) {
            return eeg::read_windows(header_, records, first.data(), n, chosen.data(), C, T, to);
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

// (device, inode) of each file: whether it is the one that was opened before, by the same name.
std::vector<std::pair<uint64_t, uint64_t>> identities(const eeg::DirectFiles& files) {
    std::vector<std::pair<uint64_t, uint64_t>> found;
    for (const auto& file : files.files()) found.emplace_back(file.device(), file.inode());
    return found;
}

void read_direct(eeg::DirectFiles& files, array<int32_t> which, array<int64_t> offset,
                 array<int64_t> bytes, array<uint8_t> out, array<int64_t> got) {
    if (out.ndim() != 2) wrong("out", "(B, bytes)", out);
    const int64_t n = out.shape(0), room = out.shape(1);
    if (n > files.most())
        throw py::index_error(text(n, " pieces, at most ", files.most(), " at a time"));
    check_shape("which", which, {n}), check_shape("offset", offset, {n});
    check_shape("bytes", bytes, {n}), check_shape("got", got, {n});
    const auto file = copied(which);
    const auto from = copied(offset), size = copied(bytes);
    check_indices("file", file, files.count());
    for (const int64_t many : size)
        if (many < 0 || many > room)
            throw py::index_error(text(many, " bytes do not fit in ", room));
    uint8_t* to = out.mutable_data();
    int64_t* done = got.mutable_data();
    py::gil_scoped_release release;
    files.read(file.data(), from.data(), size.data(), n, room, to, done);
}
#endif

void md5(const std::vector<std::string>& paths, array<int32_t> which, array<int64_t> offset,
         array<int64_t> bytes, array<uint8_t> out) {
    const int64_t n = which.size();
    check_shape("which", which, {n}), check_shape("offset", offset, {n});
    check_shape("bytes", bytes, {n}), check_shape("out", out, {n, 16});
    check_indices("file", copied(which), paths.size());
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
    for (const auto& [name, member, most, least] : eeg::strengths) {
        if (!strengths.contains(name)) continue;
        const float value = py::cast<float>(strengths[name]);
        if (value != 0 && !(value >= least && value <= most))
            throw py::value_error(
                text(name, " must be 0 or lie from ", least, " to ", most, ", got ", value));
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
    check_aligned("out", out);
    const int64_t B = out.shape(0), C = out.shape(1), T = out.shape(2);
    check_shape("part", part, {B}), check_shape("row", row, {B}), check_shape("mix", mix, {B});
    check_shape("offset", offset, {B}), check_shape("window", window, {B});
    check_shape("shift", shift, {B}), check_shape("mirror", mirror, {C});
    const auto of = copied(part), other = copied(mirror), first = copied(offset);
    const auto line = copied(row), number = copied(window);
    check_indices("mirror: channel", other, C);
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
    check_indices("part", of, parts.size());
    const int64_t most = augment.shift_samples();
    for (int64_t b = 0; b < B; ++b) {
        const int64_t stored = parts[of[b]].shape(0), from = first[b];
        if (line[b] < 0 || line[b] >= stored)
            throw py::index_error(text("window ", b, " is row ", line[b], " of ", stored));
        if (from - most < 0 || from + most + T > S)
            throw py::index_error(text("window ", b, " from sample ", from, " +- ", most, ", ", T,
                                       " long, leaves the ", S, " stored"));
    }
    float* const to = out.mutable_data();
    int32_t* const shifts = shift.mutable_data();
    float* const mixes = mix.mutable_data();
    const int used = team(threads, B);
    py::gil_scoped_release release;
    eeg::gather(data.data(), of.data(), line.data(), first.data(), number.data(), B, C, S, T,
                zscore, augment, other.data(), to, shifts, mixes, used);
}

// ------------------------------------------------------------------------------------- layers

eeg::Depthwise checked(const array<float>& x, const array<float>& weight, int64_t dilation) {
    if (x.ndim() != 3 || x.shape(1) == 0 || x.shape(2) == 0)
        wrong("x", "(windows, samples, channels) with at least one sample and one channel", x);
    if (weight.ndim() != 2 || weight.shape(0) != x.shape(2) || weight.shape(1) % 2 == 0)
        wrong("weight", text("(", x.shape(2), " channels, an odd number of taps)"), weight);
    if (dilation < 1)
        throw py::value_error(text("dilation must be at least 1 sample, got ", dilation));
    check_aligned("x", x), check_aligned("weight", weight);
    return {x.shape(0), x.shape(1), x.shape(2), weight.shape(1), dilation};
}

void depthwise_forward(array<float> x, array<float> weight, std::optional<array<float>> bias,
                       int64_t dilation, array<float> y, int threads) {
    const eeg::Depthwise shape = checked(x, weight, dilation);
    check_like("y", y, x);
    if (bias) check_shape("bias", *bias, {shape.C});
    const float* b = bias ? bias->data() : nullptr;
    float* const to = y.mutable_data();
    const int used = team(threads, x.size());
    py::gil_scoped_release release;
    eeg::depthwise_forward(shape, x.data(), weight.data(), b, used, to);
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
    float *const to_x = written(gx), *const to_w = written(gw), *const to_b = written(gb);
    const int used = team(threads, x.size());
    py::gil_scoped_release release;
    eeg::depthwise_backward(shape, x.data(), weight.data(), gy.data(), used, to_x, to_w, to_b);
}

// ------------------------------------------------------------------------------------- features

eeg::Windows windows_of(const py::array& X, int64_t first, int64_t T) {
    const bool half = is_half("X", X);
    if (X.ndim() != 3 || X.shape(1) == 0 || !contiguous(X))
        wrong("X", "C-contiguous (windows, channels, samples)", X);
    const int64_t stored = X.shape(2);
    // the tables of a transform grow with the square of T: 0.5 GB at most
    if (T < 1 || T > 8192 || first < 0 || first > stored - T)
        throw py::value_error(text(T, " samples from sample ", first, " on must lie in windows of ",
                                   stored, " samples, and be 1 to 8192"));
    return {{X.data(), half}, X.shape(0), X.shape(1), stored, first, T};
}

void window_features(py::array X, int64_t first, int64_t T, array<int32_t> chosen,
                     array<int32_t> members, array<int32_t> sizes, array<float> out, int threads) {
    const eeg::Windows windows = windows_of(X, first, T);
    if (chosen.ndim() != 1 || chosen.size() == 0)
        wrong("chosen", "a list of channel numbers", chosen);
    check_shape("sizes", sizes, {eeg::n_groups});
    check_shape("out", out, {windows.N, eeg::n_features});
    check_aligned("chosen", chosen);
    const auto channels = copied(chosen), member = copied(members), s = copied(sizes);
    const int64_t M = chosen.size();
    int64_t expected = 0;
    for (int i = 0; i < eeg::n_groups; ++i) {
        if (s[i] < 1)
            throw py::value_error(text("group ", i, " has ", s[i], " channels, it needs one"));
        expected += s[i];
    }
    check_shape("members", members, {expected});
    check_indices("channel", channels, windows.C);
    check_indices("member", member, M);
    float* const to = out.mutable_data();
    const int used = team(threads, windows.N);
    py::gil_scoped_release release;
    eeg::window_features(windows, channels.data(), M, member.data(), s.data(), used, to);
}

void channel_features(py::array X, int64_t first, int64_t T, array<float> out, int threads) {
    const eeg::Windows windows = windows_of(X, first, T);
    check_shape("out", out, {windows.N, windows.C, eeg::n_channel_features});
    float* const to = out.mutable_data();
    const int used = team(threads, windows.N);
    py::gil_scoped_release release;
    eeg::channel_features(windows, used, to);
}

void lagged_correlations(py::array X, int64_t first, int64_t T, array<int32_t> lags,
                         array<float> out, int threads) {
    const eeg::Windows windows = windows_of(X, first, T);
    if (lags.ndim() != 1) wrong("lags", "a list of samples", lags);
    check_aligned("lags", lags);
    const auto list = copied(lags);
    const int64_t n = lags.size();
    for (const int32_t lag : list)
        if (lag < 0) throw py::value_error(text("a lag must be 0 or more samples, got ", lag));
    check_shape("out", out, {windows.N, n, eeg::n_lag_summaries});
    float* const to = out.mutable_data();
    const int used = team(threads, windows.N);
    py::gil_scoped_release release;
    eeg::lagged_correlations(windows, list.data(), n, used, to);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
    m.doc() = "The hot path of eeg in C++: see csrc/.";
    pthread_atfork(nullptr, nullptr, [] { forked = true; });
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
        .def_property_readonly("identities", &identities)
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
