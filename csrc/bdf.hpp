// BDF (24-bit BioSemi) files: a header that is believed only after it has been checked, and a
// decoder that touches only the samples asked for.
//
// Shapes: a file is R records; a record holds, for each of S signals, its N samples of 3 bytes, one
// signal after the other. A window is C chosen signals x T samples, written as (C, T), in
// microvolts. value = (digital * gain + offset) * unit, in double, rounded once: the same numbers
// as MNE's.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "half.hpp"
#include "simd.hpp"
#include "text.hpp"
#include "view.hpp"

namespace eeg {

// What is wrong with a file, in words for its owner. A ValueError in Python.
struct BadBdf : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

struct BdfSignal {
    std::string label;
    double gain = 1, offset = 0;  // digital -> physical
    double unit = 1;              // physical -> microvolts
};

struct BdfHeader {
    std::vector<BdfSignal> signals;       // without annotation channels and Status
    std::vector<int64_t> byte_in_record;  // where each signal's samples start in a record
    int64_t header_bytes = 0, record_bytes = 0, records = 0;
    int64_t samples_per_record = 0;  // the same for all signals kept
    double sfreq = 0;
    bool closed = true;  // or its records are as many as the file holds
    int64_t n_times() const { return records * samples_per_record; }
};

namespace detail {

inline std::string field(const uint8_t* p, size_t width) {
    size_t a = 0, b = width;
    while (b > a && (p[b - 1] == ' ' || p[b - 1] == 0)) --b;
    while (a < b && p[a] == ' ') ++a;
    std::string text(reinterpret_cast<const char*>(p) + a, b - a);
    for (char& c : text)
        if (c < 32 || c > 126) c = '?';  // it may be printed in a message
    return text;
}

inline double number(const std::string& found, const std::string& what) {
    char* end = nullptr;
    const double value = std::strtod(found.c_str(), &end);
    if (found.empty() || *end != 0 || !std::isfinite(value))
        throw BadBdf(text("its header has '", found, "' for ", what, ", not a number"));
    return value;
}

// Digits alone, behind a minus perhaps: not 4e3, which other readers take for 4. The one parser of
// counts, because buffers have their sizes.
inline int64_t whole(const std::string& found, const std::string& what) {
    const size_t sign = !found.empty() && found[0] == '-';
    const bool digits = found.find_first_not_of("0123456789", sign) == std::string::npos;
    if (found.size() == sign || !digits || found.size() > 15)
        throw BadBdf(text("its header has '", found, "' for ", what, ", not a whole number"));
    return std::stoll(found);
}

inline int64_t signals(const uint8_t* data) {
    const int64_t count = whole(field(data + 252, 4), "the number of signals");
    if (count < 1 || count > 4096)
        throw BadBdf(text("its header says ", count, " signals (1 to 4096 make sense)"));
    return count;
}

// 8 samples a step: two 16-byte loads hold 4 samples (12 bytes) each, a shuffle puts every sample
// into the top of its own 32-bit lane, a shift carries the sign down.
typedef Vector<uint8_t, 16> bytes16;
typedef Vector<int32_t, 4> ints4;
typedef Vector<double, 4> doubles4;
typedef Vector<float, 4> floats4;

inline int32_t sample24(const uint8_t* p) {
    const uint32_t bits = uint32_t(p[0]) << 8 | uint32_t(p[1]) << 16 | uint32_t(p[2]) << 24;
    return static_cast<int32_t>(bits) >> 8;
}

// in: n samples; reads may go on to `end`. Out is float or uint16_t (half). Returns how many
// samples a half could not hold. No fused multiply-add: it would round once where MNE rounds twice,
// and a value near 0, where an offset cancels the product, would be another.
template <class Out>
EEG_UNFUSED int64_t decode(const uint8_t* in, int64_t n, const uint8_t* end, const BdfSignal& s,
                           Out* out) {
    EEG_ROUNDS_EACH
    const double gain = s.gain, offset = s.offset, unit = s.unit;
    ints4 clipped = {};
    const auto eight = [&](int64_t i, int64_t fresh) {
        __builtin_prefetch(in + 3 * i + 1536);  // half the time of the loop without it
        for (int64_t four : {i, i + 4}) {
            bytes16 b;
            std::memcpy(&b, in + 3 * four, 16);
            b = shuffle<0, 0, 1, 2, 0, 3, 4, 5, 0, 6, 7, 8, 0, 9, 10, 11>(b, b);
            const doubles4 v = __builtin_convertvector(reinterpret_cast<ints4>(b) >> 8, doubles4);
            const floats4 f = __builtin_convertvector((v * gain + offset) * unit, floats4);
            if constexpr (std::is_same_v<Out, float>) {
                std::memcpy(out + four, &f, 16);
            } else {
                const ints4 place = ints4{0, 1, 2, 3} + static_cast<int32_t>(four - i);
                const ints4 outside = (f > half_max) | (f < -half_max);
                clipped -= outside & (place >= static_cast<int32_t>(fresh));
                half_of_four(reinterpret_cast<const float*>(&f), out + four);
            }
        }
    };
    int64_t i = 0, counted = 0;
    // the second load of a step ends 28 bytes after its start, 4 past its samples
    if (n >= 8 && end - in >= 3 * n + 4) {
        for (; i + 8 <= n; i += 8) eight(i, 0);
        if (i < n) eight(n - 8, i - (n - 8));
        i = n;
    }
    for (; i < n; ++i) {
        const float f = static_cast<float>((sample24(in + 3 * i) * gain + offset) * unit);
        if constexpr (std::is_same_v<Out, float>) {
            out[i] = f;
        } else {
            counted += f > half_max || f < -half_max;
            out[i] = half_of(std::min(std::max(f, -half_max), half_max));
        }
    }
    return counted + clipped[0] + clipped[1] + clipped[2] + clipped[3];
}

}  // namespace detail

// Checks that a file begins as BDF files do. data: its first `held` bytes, at most 256.
inline void check_bdf(const uint8_t* data, int64_t held) {
    if (held == 0) throw BadBdf("the file is empty");
    if (held < 256 || data[0] != 0xFF || std::memcmp(data + 1, "BIOSEMI", 7) != 0)
        throw BadBdf("it is not a BDF file (a BDF file starts with the byte 255 and 'BIOSEMI')");
}

// How long a header is, by its first 256 bytes. Throws BadBdf.
inline int64_t bdf_header_bytes(const uint8_t* first256) {
    check_bdf(first256, 256);
    return 256 * (detail::signals(first256) + 1);
}

// A signal from the fields of its header, which texts(before, width) gives.
template <class Texts>
BdfSignal parse_signal(const std::string& label, const Texts& texts) {
    const auto limit = [&](int64_t before, const char* what) {
        return detail::number(texts(before, 8), text("the ", what, " of channel ", label));
    };
    const double physical_min = limit(104, "physical minimum"),
                 physical_max = limit(112, "physical maximum"),
                 digital_min = limit(120, "digital minimum"),
                 digital_max = limit(128, "digital maximum");
    double range = physical_max - physical_min;
    // the reference is constant: some writers mark it so, and MNE reads it so
    if (range == 0 && label == "Cz") range = 1;
    if (range == 0 || digital_max == digital_min)
        throw BadBdf("channel " + label + " has no gain (its minimum and maximum are equal)");
    BdfSignal s{label};
    s.gain = range / (digital_max - digital_min);
    const volatile double product = digital_min * s.gain;  // rounded on its own, see decode
    s.offset = physical_min - product;
    const std::string unit = texts(96, 8);
    if (unit == "mV") s.unit = 1e3;
    if (unit == "V" || unit.empty()) s.unit = 1e6;
    return s;  // else uV, or the two-byte micro sign
}

// Checks the header of a BDF file of `size` bytes, of which `data` holds the first `held`, no more
// of which is looked at. Throws BadBdf.
inline BdfHeader parse_bdf(const uint8_t* data, int64_t held, int64_t size) {
    using namespace detail;
    check_bdf(data, held);

    BdfHeader h;
    h.header_bytes = whole(field(data + 184, 8), "the size of the header");
    h.records = whole(field(data + 236, 8), "the number of records");
    const double record_seconds = number(field(data + 244, 8), "the length of a record");
    const int64_t count = signals(data);
    const std::string says = "its header says ";
    if (h.header_bytes != 256 * (count + 1))
        throw BadBdf(text(says, "it is ", h.header_bytes, " bytes long, but ", count,
                          " signals make ", 256 * (count + 1)));
    if (h.header_bytes > std::min(held, size)) throw BadBdf("the file ends inside its header");
    h.closed = h.records != -1;
    if (h.records < -1) throw BadBdf(text(says, h.records, " records"));
    if (!(record_seconds > 0) || record_seconds > 86400)
        throw BadBdf(text(says, "that a record lasts ", field(data + 244, 8), " s"));

    for (int64_t i = 0; i < count; ++i) {
        // each field for all signals, then the next field
        const auto texts = [&](int64_t before, int64_t width) {
            return field(data + 256 + count * before + width * i, width);
        };
        const std::string label = texts(0, 16);
        const int64_t samples = whole(texts(216, 8), "the samples a record of channel " + label);
        if (samples < 1 || samples > 1000000)
            throw BadBdf(text(says, samples, " samples a record for channel ", label));
        const int64_t at = h.record_bytes;
        h.record_bytes += 3 * samples;
        if (label == "BDF Annotations" || label == "EDF Annotations" || label == "Status") continue;
        if (h.signals.empty()) h.samples_per_record = samples;
        if (samples != h.samples_per_record)
            throw BadBdf(text("its channels have different rates (", h.samples_per_record,
                              " and, for ", label, ", ", samples, " samples a record)"));
        h.signals.push_back(parse_signal(label, texts));
        h.byte_in_record.push_back(at);
    }
    if (h.signals.empty()) throw BadBdf("it has no signal but annotations");
    h.sfreq = h.samples_per_record / record_seconds;

    // a recording that was never closed: as many whole records as there are, as MNE reads it
    if (!h.closed) h.records = (size - h.header_bytes) / h.record_bytes;
    if (h.records > (INT64_MAX - h.header_bytes) / h.record_bytes)
        throw BadBdf(text(says, h.records, " records"));
    const int64_t expected = h.header_bytes + h.records * h.record_bytes, more = size - expected;
    if (more < 0) {
        char missing[32];
        std::snprintf(missing, sizeof missing, "%.1f", -more * record_seconds / h.record_bytes);
        throw BadBdf(text("the file ends ", missing, " s before its header says"));
    }
    if (more > 0 && h.closed)
        throw BadBdf(text("the file is ", more, " bytes longer than its header says"));
    if (h.records == 0) throw BadBdf("it holds no samples");
    return h;
}

// The header of a BDF file of `size` bytes; read(offset, bytes, out) gives its bytes. Two reads, of
// which the second may find another file: each is believed only about itself. Throws BadBdf.
template <class Read>
BdfHeader read_bdf_header(const Read& read, int64_t size) {
    std::vector<uint8_t> first(std::min<int64_t>(256, size));
    read(0, first.size(), first.data());
    check_bdf(first.data(), first.size());
    const int64_t held = std::min(bdf_header_bytes(first.data()), size);
    std::vector<uint8_t> all(held);
    read(0, held, all.data());
    return parse_bdf(all.data(), held, size);
}

// Decodes n windows. starts (n); channels (C), numbers into h.signals; out (n, C, T), Out is float
// or uint16_t (half). records(first, count) gives the bytes of so many records, good until the next
// call. Samples before the first and after the last repeat the nearest one: margins may reach over
// the edge. Returns how many samples float16 could not hold (they become the largest it can).
template <class Out, class Records>
int64_t read_windows(const BdfHeader& h, Records records, const View<const int64_t>& starts,
                     const View<const int32_t>& channels, const View<Out, 3>& out) {
    const int64_t N = h.samples_per_record, last = h.n_times() - 1, T = out.shape[2];
    const int64_t block = 4 * N;  // samples a pass: few enough records that they stay in the cache
    int64_t clipped = 0;
    const auto inside = [&](int64_t sample) {
        return std::min(std::max<int64_t>(sample, 0), last);
    };
    for (int64_t w = 0; w < starts.size(); ++w)
        for (int64_t from = 0; from < T; from += block) {
            const int64_t start = starts[w] + from, stop = start + std::min(block, T - from);
            const int64_t first = inside(start) / N, count = inside(stop - 1) / N - first + 1;
            const uint8_t* data = records(first, count);
            const uint8_t* end = data + count * h.record_bytes;
            for (int64_t c = 0; c < channels.size(); ++c) {
                const BdfSignal& s = h.signals[channels[c]];
                const uint8_t* at = data + h.byte_in_record[channels[c]];
                Out* target = out.at(w, c) + from;
                for (int64_t t = start; t < stop;) {
                    const int64_t sample = inside(t), in_record = sample % N;
                    const int64_t run =
                        t != sample ? 1 : std::min(std::min(N - in_record, stop - t), last + 1 - t);
                    clipped +=
                        detail::decode(at + (sample / N - first) * h.record_bytes + 3 * in_record,
                                       run, end, s, target + (t - start));
                    t += run;
                }
            }
        }
    return clipped;
}

}  // namespace eeg
