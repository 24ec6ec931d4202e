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
#include "windows.hpp"
#include "depthwise.hpp"
#include "features.hpp"
#include "lagged.hpp"

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

[[noreturn]] void wrong(const std::string& name, const std::string& expected,
                        const py::array& got) {
    throw py::value_error(name + " must be " + expected + ", got shape " + shape_of(got) + " of " +
                          py::cast<std::string>(py::str(got.dtype())));
}

class Bdf {
  public:
    explicit Bdf(const std::string& path) : file_(path) {
        std::vector<uint8_t> head(static_cast<size_t>(std::min<int64_t>(256, file_.size())));
        file_.read(0, static_cast<int64_t>(head.size()), head.data());
        if (head.size() == 256) {
            head.resize(
                static_cast<size_t>(std::min(eeg::bdf_header_bytes(head.data()), file_.size())));
            file_.read(0, static_cast<int64_t>(head.size()), head.data());
        }
        header_ = eeg::parse_bdf(head.data(), file_.size());
    }

    int64_t read(array<int64_t> starts, array<int32_t> channels, py::array out) const {
        const bool half = py::isinstance<py::array_t<uint16_t>>(out),
                   single = py::isinstance<py::array_t<float>>(out);
        if (!half && !single)
            throw py::type_error("out must be float32, or uint16 (the bits of float16), got " +
                                 py::cast<std::string>(py::str(out.dtype())));
        if (starts.ndim() != 1) wrong("starts", "one number a window", starts);
        if (channels.ndim() != 1 || channels.size() == 0)
            wrong("channels", "a list of signal numbers", channels);
        const int64_t n = starts.size(), C = channels.size();
        if (out.ndim() != 3 || out.shape(0) != n || out.shape(1) != C ||
            !(out.flags() & py::array::c_style))
            wrong("out", "C-contiguous (" + std::to_string(n) + ", " + std::to_string(C) + ", T)",
                  out);
        const int64_t T = out.shape(2), signals = static_cast<int64_t>(header_.signals.size());
        for (int64_t i = 0; i < C; ++i)
            if (channels.data()[i] < 0 || channels.data()[i] >= signals)
                throw py::index_error("signal " + std::to_string(channels.data()[i]) + " of " +
                                      std::to_string(signals));
        // a window must touch the recording; its margins may reach over the edge
        for (int64_t i = 0; i < n; ++i)
            if (starts.data()[i] <= -T || starts.data()[i] >= header_.n_times())
                throw py::index_error("a window at sample " + std::to_string(starts.data()[i]) +
                                      " of a recording of " + std::to_string(header_.n_times()));
        const int64_t* s = starts.data();
        const int32_t* c = channels.data();
        void* o = out.mutable_data();
        py::gil_scoped_release release;
        std::unique_ptr<uint8_t[]> buffer;
        int64_t room = 0;
        const auto records = [&](int64_t first, int64_t count) {
            const int64_t bytes = count * header_.record_bytes;
            if (bytes > room) buffer.reset(new uint8_t[static_cast<size_t>(bytes)]), room = bytes;
            file_.read(header_.header_bytes + first * header_.record_bytes, bytes, buffer.get());
            return static_cast<const uint8_t*>(buffer.get());
        };
        return half ? eeg::read_windows(header_, records, s, n, c, C, T, static_cast<uint16_t*>(o))
                    : eeg::read_windows(header_, records, s, n, c, C, T, static_cast<float*>(o));
    }
    std::vector<std::string> labels() const {
        std::vector<std::string> all;
        for (const auto& s : header_.signals) all.push_back(s.label);
        return all;
    }
    double sfreq() const { return header_.sfreq; }
    int64_t n_times() const { return header_.n_times(); }

  private:
    eeg::File file_;
    eeg::BdfHeader header_;
};

template <class T>
void check_list(const std::string& name, const array<T>& a, int64_t n) {
    if (a.ndim() != 1 || a.size() != n)
        wrong(name, "one number a window (" + std::to_string(n) + ")", a);
}

void gather(const std::vector<py::array>& parts, array<int32_t> part, array<int64_t> row,
            array<int32_t> offset, array<int64_t> window, array<int32_t> mirror, array<float> out,
            array<int32_t> shift, array<float> mix, bool zscore, const eeg::Augment& augment,
            int threads) {
    if (out.ndim() != 3) wrong("out", "(B, C, T)", out);
    const int64_t B = out.shape(0), C = out.shape(1), T = out.shape(2);
    check_list("part", part, B), check_list("row", row, B), check_list("offset", offset, B),
        check_list("window", window, B), check_list("shift", shift, B), check_list("mix", mix, B);
    if (mirror.ndim() != 1 || mirror.size() != C)
        wrong("mirror", "one channel number a channel (" + std::to_string(C) + ")", mirror);
    for (int64_t c = 0; c < C; ++c)
        if (mirror.data()[c] < 0 || mirror.data()[c] >= C)
            throw py::index_error("mirror names channel " + std::to_string(mirror.data()[c]) +
                                  " of " + std::to_string(C));
    if (T < 1 && B > 0) throw py::value_error("windows of no samples: out is " + shape_of(out));
    if (parts.empty()) throw py::value_error("no cache part was given");
    std::vector<eeg::Part> data;
    const int64_t S = parts[0].ndim() == 3 ? parts[0].shape(2) : -1;
    for (const auto& a : parts) {
        const bool half = py::isinstance<py::array_t<uint16_t>>(a);
        if (!half && !py::isinstance<py::array_t<float>>(a))
            throw py::type_error(
                "a cache part must be float32, or uint16 (the bits of float16), got " +
                py::cast<std::string>(py::str(a.dtype())));
        if (a.ndim() != 3 || a.shape(1) != C || a.shape(2) != S ||
            !(a.flags() & py::array::c_style))
            wrong("a cache part",
                  "C-contiguous (N, " + std::to_string(C) + ", " + std::to_string(S) + ")", a);
        data.push_back({a.data(), half});
    }
    for (int64_t b = 0; b < B; ++b) {
        const int32_t p = part.data()[b];
        if (p < 0 || p >= static_cast<int64_t>(parts.size()))
            throw py::index_error("window " + std::to_string(b) + " is of part " +
                                  std::to_string(p) + " of " + std::to_string(parts.size()));
        if (row.data()[b] < 0 || row.data()[b] >= parts[static_cast<size_t>(p)].shape(0))
            throw py::index_error("window " + std::to_string(b) + " is row " +
                                  std::to_string(row.data()[b]) + " of " +
                                  std::to_string(parts[static_cast<size_t>(p)].shape(0)));
        if (int64_t(offset.data()[b]) - augment.shift_samples() < 0 ||
            int64_t(offset.data()[b]) + augment.shift_samples() + T > S)
            throw py::index_error(
                "window " + std::to_string(b) + " from sample " + std::to_string(offset.data()[b]) +
                " +- " + std::to_string(augment.shift_samples()) + ", " + std::to_string(T) +
                " long, leaves the " + std::to_string(S) + " stored");
    }
    if (threads < 0)
        throw py::value_error("threads must be 0 (all) or more, got " + std::to_string(threads));
    float* o = out.mutable_data();
    int32_t* s = shift.mutable_data();
    float* m = mix.mutable_data();
    py::gil_scoped_release release;
    eeg::gather(data.data(), part.data(), row.data(), offset.data(), window.data(), B, C, S, T,
                zscore, augment, mirror.data(), o, s, m, threads ? threads : omp_get_max_threads());
}

#ifdef __linux__
void read_direct(eeg::DirectFiles& files, array<int32_t> which, array<int64_t> offset,
                 array<int64_t> bytes, array<uint8_t> out, array<int64_t> got) {
    if (out.ndim() != 2) wrong("out", "(B, bytes)", out);
    const int64_t n = out.shape(0), room = out.shape(1);
    if (n > files.most())
        throw py::index_error(std::to_string(n) + " pieces, at most " +
                              std::to_string(files.most()) + " at a time");
    check_list("which", which, n), check_list("offset", offset, n), check_list("bytes", bytes, n),
        check_list("got", got, n);
    for (int64_t i = 0; i < n; ++i) {
        if (which.data()[i] < 0 || which.data()[i] >= files.count())
            throw py::index_error("file " + std::to_string(which.data()[i]) + " of " +
                                  std::to_string(files.count()));
        if (bytes.data()[i] < 0 || bytes.data()[i] > room)
            throw py::index_error(std::to_string(bytes.data()[i]) + " bytes do not fit in " +
                                  std::to_string(room));
    }
    uint8_t* o = out.mutable_data();
    int64_t* g = got.mutable_data();
    py::gil_scoped_release release;
    files.read(which.data(), offset.data(), bytes.data(), n, room, o, g);
}
#endif

eeg::Augment make_augment(uint32_t seed, uint32_t epoch, const py::kwargs& strengths) {
    eeg::Augment made;
    made.seed = seed, made.epoch = epoch;
    size_t known = 0;
    for (const auto& [name, member, most] : eeg::Augment::strengths()) {
        if (!strengths.contains(name)) continue;
        const float value = py::cast<float>(strengths[name]);
        if (!(value >= 0 && value <= most))
            throw py::value_error(std::string(name) + " must lie from 0 to " +
                                  std::to_string(most) + ", got " + std::to_string(value));
        made.*member = value;
        ++known;
    }
    if (known != strengths.size())
        throw py::type_error("an augmentation that does not exist, among: " +
                             py::cast<std::string>(py::str(py::list(strengths))));
    return made;
}

std::vector<std::string> augmentation_names() {
    std::vector<std::string> names;
    for (const auto& strength : eeg::Augment::strengths()) names.push_back(strength.name);
    return names;
}

void same_shape(const std::string& name, const py::array& a, const std::string& like,
                const py::array& b) {
    if (a.ndim() != b.ndim() || !std::equal(a.shape(), a.shape() + a.ndim(), b.shape()))
        wrong(name, shape_of(b) + " as " + like, a);
}

void check_depthwise(const array<float>& x, const array<float>& weight, int64_t dilation,
                     int threads) {
    if (x.ndim() != 3 || x.shape(1) == 0 || x.shape(2) == 0)
        wrong("x", "(windows, samples, channels) with at least one sample and one channel", x);
    if (weight.ndim() != 2 || weight.shape(0) != x.shape(2) || weight.shape(1) % 2 == 0)
        wrong("weight", "(" + std::to_string(x.shape(2)) + " channels, an odd number of taps)",
              weight);
    if (dilation < 1)
        throw py::value_error("dilation must be at least 1 sample, got " +
                              std::to_string(dilation));
    if (threads < 0 || threads > 4096)
        throw py::value_error("threads must be 0 (as OpenMP chooses) to 4096, got " +
                              std::to_string(threads));
}

void depthwise_forward(array<float> x, array<float> weight, std::optional<array<float>> bias,
                       int64_t dilation, array<float> y, int threads) {
    check_depthwise(x, weight, dilation, threads);
    if (bias && (bias->ndim() != 1 || bias->shape(0) != x.shape(2)))
        wrong("bias", "one number a channel (" + std::to_string(x.shape(2)) + ")", *bias);
    same_shape("y", y, "x", x);
    const int64_t B = x.shape(0), T = x.shape(1), C = x.shape(2), K = weight.shape(1);
    const float *in = x.data(), *w = weight.data(), *b = bias ? bias->data() : nullptr;
    float* out = y.mutable_data();
    py::gil_scoped_release release;
    eeg::depthwise_forward(in, w, b, B, T, C, K, dilation, threads, out);
}

void depthwise_backward(array<float> x, array<float> weight, array<float> gy, int64_t dilation,
                        std::optional<array<float>> gx, std::optional<array<float>> gw,
                        std::optional<array<float>> gb, int threads) {
    check_depthwise(x, weight, dilation, threads);
    same_shape("gy", gy, "x", x);
    if (gx) same_shape("gx", *gx, "x", x);
    if (gw) same_shape("gw", *gw, "weight", weight);
    if (gb && (gb->ndim() != 1 || gb->shape(0) != x.shape(2)))
        wrong("gb", "one number a channel (" + std::to_string(x.shape(2)) + ")", *gb);
    const int64_t B = x.shape(0), T = x.shape(1), C = x.shape(2), K = weight.shape(1);
    const float *in = x.data(), *w = weight.data(), *g = gy.data();
    float *to_x = gx ? gx->mutable_data() : nullptr, *to_w = gw ? gw->mutable_data() : nullptr,
          *to_b = gb ? gb->mutable_data() : nullptr;
    py::gil_scoped_release release;
    eeg::depthwise_backward(in, w, g, B, T, C, K, dilation, threads, to_x, to_w, to_b);
}

// The windows that features are computed from: (N, C, samples), of which T count, from `first` on.
struct Windows {
    const void* data;
    bool half;
    int64_t N, C, stride;

    Windows(const py::array& X, int64_t first, int64_t T, int& threads)
        : half(py::isinstance<py::array_t<uint16_t>>(X)) {
        if (!half && !py::isinstance<py::array_t<float>>(X))
            throw py::type_error("X must be float32, or uint16 (the bits of float16), got " +
                                 py::cast<std::string>(py::str(X.dtype())));
        if (X.ndim() != 3 || X.shape(1) == 0 || !(X.flags() & py::array::c_style))
            wrong("X", "C-contiguous (windows, channels, samples)", X);
        data = X.data(), N = X.shape(0), C = X.shape(1), stride = X.shape(2);
        if (T < 1 || T > 100000 || first < 0 || first > stride - T)
            throw py::value_error("samples " + std::to_string(first) + " to " +
                                  std::to_string(first + T) + " must lie in windows of " +
                                  std::to_string(stride) + " samples, and be 1 to 100000");
        if (threads < 0 || threads > 4096)
            throw py::value_error("threads must be 0 (as OpenMP chooses) to 4096, got " +
                                  std::to_string(threads));
        if (threads == 0) threads = omp_get_max_threads();
    }
};

void window_features(py::array X, int64_t first, int64_t T, array<int32_t> chosen,
                     array<int32_t> members, array<int32_t> sizes, array<float> out, int threads) {
    const Windows w(X, first, T, threads);
    if (chosen.ndim() != 1 || chosen.size() == 0)
        wrong("chosen", "a list of channel numbers", chosen);
    if (sizes.ndim() != 1 || sizes.size() != eeg::n_groups)
        wrong("sizes", "(" + std::to_string(eeg::n_groups) + ",), the channels of each group",
              sizes);
    if (members.ndim() != 1) wrong("members", "a list of positions in chosen", members);
    if (out.ndim() != 2 || out.shape(0) != w.N || out.shape(1) != eeg::n_features)
        wrong("out", "(" + std::to_string(w.N) + ", " + std::to_string(eeg::n_features) + ")", out);
    const int64_t M = chosen.size();
    const int32_t *c = chosen.data(), *m = members.data(), *s = sizes.data();
    int64_t expected = 0;
    for (int i = 0; i < eeg::n_groups; ++i) {
        if (s[i] < 1)
            throw py::value_error("group " + std::to_string(i) + " has " + std::to_string(s[i]) +
                                  " channels, it needs one");
        expected += s[i];
    }
    if (members.size() != expected)
        wrong("members", "(" + std::to_string(expected) + ",), the sum of sizes", members);
    for (int64_t i = 0; i < M; ++i)
        if (c[i] < 0 || c[i] >= w.C)
            throw py::index_error("channel " + std::to_string(c[i]) + " of " + std::to_string(w.C));
    for (int64_t i = 0; i < expected; ++i)
        if (m[i] < 0 || m[i] >= M)
            throw py::index_error("member " + std::to_string(m[i]) + " of " + std::to_string(M) +
                                  " chosen channels");
    float* o = out.mutable_data();
    py::gil_scoped_release release;
    if (w.half)
        eeg::window_features(static_cast<const uint16_t*>(w.data), w.N, w.C, w.stride, first, T, c,
                             M, m, s, threads, o);
    else
        eeg::window_features(static_cast<const float*>(w.data), w.N, w.C, w.stride, first, T, c, M,
                             m, s, threads, o);
}

void channel_features(py::array X, int64_t first, int64_t T, array<float> out, int threads) {
    const Windows w(X, first, T, threads);
    if (out.ndim() != 3 || out.shape(0) != w.N || out.shape(1) != w.C ||
        out.shape(2) != eeg::n_channel_features)
        wrong("out",
              "(" + std::to_string(w.N) + ", " + std::to_string(w.C) + ", " +
                  std::to_string(eeg::n_channel_features) + ")",
              out);
    float* o = out.mutable_data();
    py::gil_scoped_release release;
    if (w.half)
        eeg::channel_features(static_cast<const uint16_t*>(w.data), w.N, w.C, w.stride, first, T,
                              threads, o);
    else
        eeg::channel_features(static_cast<const float*>(w.data), w.N, w.C, w.stride, first, T,
                              threads, o);
}

void lagged_correlations(py::array X, int64_t first, int64_t T, array<int32_t> lags,
                         array<float> out, int threads) {
    const Windows w(X, first, T, threads);
    if (lags.ndim() != 1) wrong("lags", "a list of samples", lags);
    for (int64_t i = 0; i < lags.size(); ++i)
        if (lags.data()[i] < 0)
            throw py::value_error("a lag must be 0 or more samples, got " +
                                  std::to_string(lags.data()[i]));
    if (out.ndim() != 3 || out.shape(0) != w.N || out.shape(1) != lags.size() ||
        out.shape(2) != eeg::n_lag_summaries)
        wrong("out",
              "(" + std::to_string(w.N) + ", " + std::to_string(lags.size()) + ", " +
                  std::to_string(eeg::n_lag_summaries) + ")",
              out);
    const int32_t* l = lags.data();
    const int64_t n = lags.size();
    float* o = out.mutable_data();
    py::gil_scoped_release release;
    if (w.half)
        eeg::lagged_correlations(static_cast<const uint16_t*>(w.data), w.N, w.C, w.stride, first, T,
                                 l, n, threads, o);
    else
        eeg::lagged_correlations(static_cast<const float*>(w.data), w.N, w.C, w.stride, first, T, l,
                                 n, threads, o);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
    m.doc() = "The hot path of eeg in C++: see csrc/.";
    py::register_exception_translator([](std::exception_ptr p) {
        try {
            if (p) std::rethrow_exception(p);
        } catch (const std::system_error& e) {
            py::set_error(PyExc_OSError, py::make_tuple(e.code().value(), e.code().message(),
                                                        std::string(e.what()).substr(
                                                            0, std::string(e.what()).rfind(": "))));
        }
    });

    py::class_<Bdf>(m, "Bdf", "A BDF file. ValueError says what is wrong with its header.")
        .def(py::init<const std::string&>(), "path"_a)
        .def_property_readonly("labels", &Bdf::labels)
        .def_property_readonly("sfreq", &Bdf::sfreq)
        .def_property_readonly("n_times", &Bdf::n_times)
        .def("read", &Bdf::read, "starts"_a.noconvert(), "channels"_a.noconvert(),
             "out"_a.noconvert(),
             "Decode windows into out (n, C, T), microvolts; float32, or uint16 for the bits of "
             "float16. Samples past an edge repeat the nearest.\n"
             "Returns how many samples float16 could not hold.");

#ifdef __linux__
    py::class_<eeg::DirectFiles>(
        m, "DirectFiles",
        "Files read past the system's cache, at most `most` pieces at a time. OSError where the "
        "file system or the system does not know such reading.")
        .def(py::init([](const std::vector<std::string>& paths, int64_t most) {
                 if (most < 1)
                     throw py::value_error("most must be 1 or more, got " + std::to_string(most));
                 return std::make_unique<eeg::DirectFiles>(paths, most);
             }),
             "paths"_a, "most"_a)
        .def("read", &read_direct, "which"_a.noconvert(), "offset"_a.noconvert(),
             "bytes"_a.noconvert(), "out"_a.noconvert(), "got"_a.noconvert(),
             "Row i of out (B, room) uint8 <- bytes[i] at offset[i] of file which[i]; got[i]: how "
             "many there were, or -errno. All in multiples of the disk's blocks.");
#endif

    py::class_<eeg::Augment>(
        m, "Augment", "What to draw for each window, see csrc/augment.hpp; everything 0 is off.")
        .def(py::init(&make_augment), "seed"_a = 0, "epoch"_a = 0);
    m.attr("AUGMENTATIONS") = augmentation_names();
    m.attr("FEATURES") = eeg::feature_names();
    m.def("gather", &gather, "parts"_a, "part"_a.noconvert(), "row"_a.noconvert(),
          "offset"_a.noconvert(), "window"_a.noconvert(), "mirror"_a.noconvert(),
          "out"_a.noconvert(), "shift"_a.noconvert(), "mix"_a.noconvert(), "zscore"_a, "augment"_a,
          "threads"_a = 0,
          "Fill out (B, C, T) with windows of cache parts (N, C, S); writes what was drawn into "
          "shift and mix (B).");
    m.def("depthwise_forward", &depthwise_forward, "x"_a.noconvert(), "weight"_a.noconvert(),
          "bias"_a.noconvert(), "dilation"_a, "y"_a.noconvert(), "threads"_a = 0,
          "y (B, T, C) = x (B, T, C) convolved over time, each channel with its own row of weight "
          "(C, K), + bias (C) or None. K is odd, zeros stand outside x.");
    m.def("depthwise_backward", &depthwise_backward, "x"_a.noconvert(), "weight"_a.noconvert(),
          "gy"_a.noconvert(), "dilation"_a, "gx"_a.noconvert(), "gw"_a.noconvert(),
          "gb"_a.noconvert(), "threads"_a = 0,
          "From gy, the gradient of y: those of x, weight and bias into gx, gw and gb, where these "
          "are not None.");
    m.def("window_features", &window_features, "X"_a.noconvert(), "first"_a, "T"_a,
          "chosen"_a.noconvert(), "members"_a.noconvert(), "sizes"_a.noconvert(),
          "out"_a.noconvert(), "threads"_a = 0,
          "The features of windows X (N, C, samples), microvolts at 100 Hz, float32 or uint16 (the "
          "bits of float16), from their samples first ... first + T.\n"
          "chosen: the channels of any group; members: positions in chosen, sizes of them for each "
          "group. out (N, F) float32, see eeg/data/features.py.");
    m.def("channel_features", &channel_features, "X"_a.noconvert(), "first"_a, "T"_a,
          "out"_a.noconvert(), "threads"_a = 0,
          "out (N, C, 10) float32: each channel's power in five bands, power, Hjorth mobility and "
          "complexity, line length, kurtosis; NaN for a flat channel.");
    m.def("lagged_correlations", &lagged_correlations, "X"_a.noconvert(), "first"_a, "T"_a,
          "lags"_a.noconvert(), "out"_a.noconvert(), "threads"_a = 0,
          "out (N, lags, 4) float32: mean |r|, mean of the diagonal, mean off it, entropy, of r "
          "between all channels and all channels `lag` samples later.");
}
