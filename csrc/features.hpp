// What a physiologist would measure in a window: potentials, rhythms, flicker, and how rough the
// signal is.
//
// Shapes: a window is C channels x T samples in microvolts at 100 Hz, read as it lies in a cache
// (float, or the bits of float16; `stride` samples from one channel's first to the next one's).
// Groups are lists of channel numbers; M channels are in any group. K bins k * 100 / T Hz reach 45
// Hz. eeg/models/features.py says in one line what each feature is.
//
// All arithmetic is double: a float DFT loses the weak gamma bins beside a strong delta. A channel
// that is flat or has a sample that is not finite is left out of its groups; what then cannot be
// computed is NaN.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <omp.h>

#include "half.hpp"

namespace eeg {

// The features of a window, in the order of eeg/models/features.py, which says what they are. A
// new one is named here and written below; a test compares the two lists.
// clang-format off
#define EEG_QUARTERS(F, name) F(name##_1) F(name##_2) F(name##_3) F(name##_4)
#define EEG_FEATURES(F)                                                   \
    F(p300_amplitude) F(p300_latency) F(n200_amplitude)                   \
    F(cpp_slope) EEG_QUARTERS(F, cpp)                                     \
    F(motor_slope) F(motor_amplitude)                                     \
    F(lrp_amplitude) F(lrp_onset) F(lrp_side)                             \
    EEG_QUARTERS(F, mu) EEG_QUARTERS(F, beta)                             \
    F(alpha_suppression) F(theta_beta_ratio)                              \
    F(ssvep20) F(ssvep25) EEG_QUARTERS(F, ssvep_difference)               \
    F(alpha_peak_frequency) F(alpha_peak_height)                          \
    F(aperiodic_slope) F(aperiodic_offset)
// clang-format on
// Of each group, and of each channel: power as log10 of it in a group's features.
#define EEG_BANDS(F) F(delta) F(theta) F(alpha) F(beta) F(gamma)
#define EEG_OWN(F) EEG_BANDS(F) F(log_power) F(mobility) F(complexity) F(line_length) F(kurtosis)
#define EEG_GROUPS(F) F(parietal) F(motor_left) F(motor_right) F(frontal) F(occipital)

#define EEG_ITEM(name) name,
#define EEG_NAME(name) #name,
enum Group { EEG_GROUPS(EEG_ITEM) n_groups };
namespace own {
enum Own { EEG_OWN(EEG_ITEM) n_channel_features };
constexpr const char* names[] = {EEG_OWN(EEG_NAME)};
}  // namespace own
namespace of {
enum Feature { EEG_FEATURES(EEG_ITEM) n_before_groups };
constexpr const char* names[] = {EEG_FEATURES(EEG_NAME)};
}  // namespace of
constexpr const char* group_names[] = {EEG_GROUPS(EEG_NAME)};

constexpr int n_bands = own::log_power, n_channel_features = own::n_channel_features,
              n_features = of::n_before_groups + n_groups * n_channel_features;

// The names of the columns that window_features writes, in their order.
inline std::vector<std::string> feature_names() {
    std::vector<std::string> all(of::names, of::names + of::n_before_groups);
    for (const char* group : group_names)
        for (const char* name : own::names) all.push_back(std::string(group) + "_" + name);
    return all;
}

namespace feature {

constexpr double rate = 100, nan = std::numeric_limits<double>::quiet_NaN();  // Hz
constexpr double bands[n_bands][2] = {
    {0.5, 4}, {4, 8}, {8, 13}, {13, 30}, {30, 45}};  // Hz, both ends included
constexpr double top = 45;
// samples; a mean over 100 ms is blind to 10, 20 and 30 Hz: alpha and the flicker
constexpr int64_t smoothing = 10;

// W channels go side by side through everything that is done to each: no sum over a vector's lanes
// is ever needed. `width` bins of their DFT are summed at once, in as many registers.
#if defined(__AVX512F__)
constexpr int64_t W = 8, width = 24;
#elif defined(__AVX__)
constexpr int64_t W = 4, width = 12;
#else
constexpr int64_t W = 4, width = 6;
#endif
constexpr int64_t batch = 32 / W;  // blocks of W channels transformed together
typedef double doubles __attribute__((vector_size(8 * W), may_alias));
typedef int64_t integers __attribute__((vector_size(8 * W), may_alias));
typedef float floats __attribute__((vector_size(4 * W), may_alias));
typedef int32_t order __attribute__((vector_size(4 * W)));
struct Lanes {
    alignas(8 * W) double value[W];
};
inline doubles& lanes(Lanes& l) { return *reinterpret_cast<doubles*>(l.value); }
inline const doubles& lanes(const Lanes& l) { return *reinterpret_cast<const doubles*>(l.value); }

struct Range {
    int64_t first, last;
};  // bins first ... last - 1

// Bins of an n-sample periodogram from `low` to `high` Hz, both included; a hair of tolerance, for
// 4 Hz is 4 Hz.
inline Range bins_between(double low, double high, int64_t n) {
    const double per_hertz = static_cast<double>(n) / rate;
    return {static_cast<int64_t>(std::ceil(low * per_hertz - 1e-9)),
            static_cast<int64_t>(std::floor(high * per_hertz + 1e-9)) + 1};
}

// The DFT of W channels at a time as four products with fixed tables. For even T the symmetries of
// sine and cosine about T/4 and T/2 fold T terms into T/4 + 1: even and odd bins, cosine and sine,
// each see their own folded signal.
struct Dft {
    int64_t T;  // samples
    int64_t L;  // terms after folding
    int64_t K;  // bins
    int64_t P;  // bins of one parity, padded to whole widths
    bool folded;
    // (4, P / width, L, width): even cosine, even sine, odd cosine, odd sine
    std::vector<double> table;

    explicit Dft(int64_t T_) : T(T_), folded(T_ % 2 == 0) {
        L = folded ? T / 4 + 1 : T;
        // one more than needed: the Hann window looks at neighbours
        K = std::min(bins_between(0, top, T).last + 1, T / 2 + 1);
        P = ((K + 1) / 2 + width - 1) / width * width;
        table.assign(static_cast<size_t>(4 * L * P), 0.0);
        for (int part = 0; part < 4; ++part)
            for (int64_t t = 0; t < L; ++t)
                for (int64_t k = part / 2, j = 0; k < K; k += 2, ++j) {
                    const double angle =
                        2 * M_PI * static_cast<double>(k * t % T) / static_cast<double>(T);
                    table[static_cast<size_t>(part * L * P + (j / width * L + t) * width +
                                              j % width)] =
                        part % 2 ? std::sin(angle) : std::cos(angle);
                }
    }
    // d (T) -> a (4, L)
    void fold(const Lanes* d, Lanes* a) const {
        Lanes *ec = a, *es = ec + L, *oc = es + L, *os = oc + L;
        if (!folded) {
            for (Lanes* part : {ec, es, oc, os}) std::copy(d, d + T, part);
            return;
        }
        const int64_t H = T / 2;
        for (int64_t t = 0; t < L; ++t) {
            const doubles sum = lanes(d[t]) + lanes(d[t + H]),
                          difference = lanes(d[t]) - lanes(d[t + H]);
            doubles mirror_sum = {}, mirror_difference = {};
            if (t > 0 && 2 * t != H) {  // else it is its own mirror image
                mirror_sum = lanes(d[H - t]) + lanes(d[T - t]);
                mirror_difference = lanes(d[H - t]) - lanes(d[T - t]);
            }
            lanes(ec[t]) = sum + mirror_sum;
            lanes(es[t]) = sum - mirror_sum;
            lanes(oc[t]) = difference - mirror_difference;
            lanes(os[t]) = difference + mirror_difference;
        }
    }
    // n blocks of W channels: a (n, 4, L) -> out (n, 4, P). A slice of the table stays in the first
    // cache while all pass it.
    void transform(const Lanes* a, int64_t n, Lanes* out) const {
        for (int64_t part = 0; part < 4; ++part)
            for (int64_t j = 0; j < P; j += width)
                for (int64_t block = 0; block < n; ++block) {
                    doubles s[width] = {};
                    const Lanes* row = a + (block * 4 + part) * L;
                    const double* w = table.data() + part * L * P + j * L;
                    for (int64_t t = 0; t < L; ++t, w += width) {
                        const doubles x = lanes(row[t]);
#pragma GCC unroll 24
                        for (int i = 0; i < width; ++i) s[i] += w[i] * x;
                    }
#pragma GCC unroll 24
                    for (int i = 0; i < width; ++i)
                        lanes(out[(block * 4 + part) * P + j + i]) = s[i];
                }
    }
};

// A Hann-windowed DFT of n samples at a few frequencies, for parts of a window.
struct ShortDft {
    int64_t n, count, P;
    std::vector<double> table;  // (n, 2, P)
    double sum = 0;             // of the Hann window

    ShortDft(int64_t n_, const std::vector<double>& hertz)
        : n(n_),
          count(static_cast<int64_t>(hertz.size())),
          P((count + 7) / 8 * 8),
          table(static_cast<size_t>(2 * n * P), 0.0) {
        for (int64_t t = 0; t < n; ++t) {
            const double hann =
                0.5 - 0.5 * std::cos(2 * M_PI * static_cast<double>(t) / static_cast<double>(n));
            sum += hann;
            for (int64_t k = 0; k < count; ++k) {
                const double angle =
                    2 * M_PI * hertz[static_cast<size_t>(k)] * static_cast<double>(t) / rate;
                table[static_cast<size_t>(2 * t * P + k)] = hann * std::cos(angle);
                table[static_cast<size_t>((2 * t + 1) * P + k)] = hann * std::sin(angle);
            }
        }
    }
    // x (n), every `stride`-th -> power (P), |DFT|^2 of x less its mean; z (2, P) is scratch
    void operator()(const double* x, int64_t stride, double* z, double* power) const {
        double mean = 0;
        for (int64_t t = 0; t < n; ++t) mean += x[t * stride];
        mean /= static_cast<double>(std::max<int64_t>(n, 1));
        std::fill(z, z + 2 * P, 0.0);
        for (int64_t t = 0; t < n; ++t)
            for (int64_t k = 0; k < 2 * P; ++k)
                z[k] += (x[t * stride] - mean) * table[static_cast<size_t>(2 * t * P + k)];
        for (int64_t k = 0; k < P; ++k) power[k] = z[k] * z[k] + z[P + k] * z[P + k];
    }
};

inline std::vector<double> frequencies(Range range, int64_t n) {
    std::vector<double> all;
    for (int64_t k = range.first; k < range.last; ++k)
        all.push_back(static_cast<double>(k) * rate / static_cast<double>(n));
    return all;
}

inline double total(const double* x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += x[i];
    return sum;
}

// Least squares. slope per step of x; NaN for fewer than `least` points.
struct Line {
    double slope, at_zero;
};
inline Line fit(const double* x, const double* y, int64_t n, int64_t least) {
    if (n < least) return {nan, nan};
    const double mx = total(x, n) / static_cast<double>(n),
                 my = total(y, n) / static_cast<double>(n);
    double xy = 0, xx = 0;
    for (int64_t i = 0; i < n; ++i)
        xy += (x[i] - mx) * (y[i] - my), xx += (x[i] - mx) * (x[i] - mx);
    return {xy / xx, my - xy / xx * mx};
}

struct Plan {
    int64_t T;
    Dft dft;
    Range band[n_bands];
    // bins of the 1/f line: 2-6 and 14-38 Hz, without the flicker at 20 and 25 Hz
    std::vector<int64_t> aperiodic;
    Range alpha_peak;  // 6-14 Hz
    Range mu, beta_quarter, alpha_half;
    ShortDft whole;    // 20 and 25 Hz
    ShortDft quarter;  // mu, beta, 20 and 25 Hz
    ShortDft half;     // alpha
    std::vector<double> seconds, log_hertz;

    explicit Plan(int64_t T_)
        : T(T_),
          dft(T_),
          alpha_peak(bins_between(6, 14, T_)),
          mu(bins_between(8, 13, T_ / 4)),
          beta_quarter(bins_between(13, 30, T_ / 4)),
          alpha_half(bins_between(8, 13, T_ / 2)),
          whole(T_, {20, 25}),
          quarter(T_ / 4, quarter_frequencies()),
          half(T_ / 2, frequencies(alpha_half, T_ / 2)) {
        for (int b = 0; b < n_bands; ++b) band[b] = bins_between(bands[b][0], bands[b][1], T);
        for (Range r : {bins_between(2, 6, T), bins_between(14, 38, T)})
            for (int64_t k = r.first; k < r.last; ++k) {
                const double f = static_cast<double>(k) * rate / static_cast<double>(T);
                if (std::fabs(f - 20) > 1 + 1e-9 && std::fabs(f - 25) > 1 + 1e-9 && k + 1 < dft.K)
                    aperiodic.push_back(k);
            }
        for (int64_t t = 0; t < T; ++t) seconds.push_back(static_cast<double>(t) / rate);
        for (int64_t k = 0; k < dft.K; ++k)
            log_hertz.push_back(std::log10(static_cast<double>(k) * rate / static_cast<double>(T)));
    }
    std::vector<double> quarter_frequencies() const {
        std::vector<double> all = frequencies(mu, T / 4), more = frequencies(beta_quarter, T / 4);
        all.insert(all.end(), more.begin(), more.end());
        all.insert(all.end(), {20, 25});
        return all;
    }
    int64_t n_mu() const { return std::max<int64_t>(mu.last - mu.first, 0); }
    int64_t n_beta() const { return std::max<int64_t>(beta_quarter.last - beta_quarter.first, 0); }
};

// What one channel says by itself.
struct Channel {
    bool usable;
    double value[n_channel_features];  // by own::Own
};

// W rows of T floats -> x (T), as doubles.
inline void side_by_side(const float* const* rows, int64_t T, Lanes* x) {
    order low, high;  // perfect shuffles of two vectors: log2(W) rounds transpose W x W
    for (int c = 0; c < W; ++c) {
        low[c] = c / 2 + c % 2 * static_cast<int>(W);
        high[c] = low[c] + static_cast<int>(W) / 2;
    }
    int64_t t = 0;
    for (; t + W <= T; t += W) {
        floats v[W], u[W];
        for (int c = 0; c < W; ++c) std::memcpy(&v[c], rows[c] + t, sizeof v[c]);
        for (int64_t round = 1; round < W; round *= 2) {
            for (int c = 0; c < W / 2; ++c)
                u[2 * c] = __builtin_shuffle(v[c], v[c + W / 2], low),
                      u[2 * c + 1] = __builtin_shuffle(v[c], v[c + W / 2], high);
            for (int c = 0; c < W; ++c) v[c] = u[c];
        }
        for (int c = 0; c < W; ++c) lanes(x[t + c]) = __builtin_convertvector(v[c], doubles);
    }
    for (; t < T; ++t)
        for (int c = 0; c < W; ++c) x[t].value[c] = static_cast<double>(rows[c][t]);
}

// x (T) of W channels -> x less its mean, zero where it cannot be used; all of each Channel but its
// bands.
inline void describe(Lanes* x, int64_t T, Channel* channels) {
    const doubles first = lanes(x[0]), second = lanes(x[std::min<int64_t>(1, T - 1)]) - 2 * first,
                  last = lanes(x[T - 1]), end = last - lanes(x[std::max<int64_t>(T - 2, 0)]),
                  zero = {};
    doubles sum = {}, junk = {}, low = first, high = first;
    for (int64_t t = 0; t < T; ++t) {
        const doubles v = lanes(x[t]);
        sum += v;
        junk += v - v;  // 0 unless infinite or NaN
        low = v < low ? v : low;
        high = v > high ? v : high;
    }
    const double n = static_cast<double>(T);
    const doubles mean = sum / n;
    const integers usable = (junk == 0) & (low < high);
    for (int64_t t = 0; t < T; ++t) lanes(x[t]) = usable ? lanes(x[t]) - mean : zero;
    // two samples a turn: a sum waits for itself
    doubles s2 = {}, s4 = {}, steps = {}, steps2 = {}, bends2 = {};
    const auto at = [&](int64_t t) -> const doubles& { return lanes(x[t]); };
    int64_t t = 0;
    for (; t + 2 <= T; t += 2) {
        const doubles a = at(t) * at(t), b = at(t + 1) * at(t + 1);
        s2 += a + b;
        s4 += a * a + b * b;
    }
    if (t < T) s2 += at(t) * at(t), s4 += at(t) * at(t) * at(t) * at(t);
    for (t = 1; t + 2 <= T; t += 2) {
        const doubles a = at(t) - at(t - 1), b = at(t + 1) - at(t), bend = b - a;
        steps += (a < 0 ? -a : a) + (b < 0 ? -b : b);
        steps2 += a * a + b * b;
        bends2 += bend * bend;
        if (t + 2 < T) {
            const doubles next = at(t + 2) - at(t + 1) - b;
            bends2 += next * next;
        }
    }
    if (t < T) {
        const doubles a = at(t) - at(t - 1);
        steps += a < 0 ? -a : a;
        steps2 += a * a;
    }
    // Hjorth as in mne-features: a zero stands before the signal, and another before its
    // differences, so the first sample counts as a step. The sums are over T or T + 1 values, the
    // variances divide by one less.
    const doubles dx2 = first * first + steps2, ddx2 = first * first + second * second + bends2;
    const doubles var = (s2 + mean * mean * n / (n + 1)) / n;
    const doubles var_dx = (dx2 - last * last / n) / (n - 1),
                  var_0dx = (dx2 - last * last / (n + 1)) / n,
                  var_ddx = (ddx2 - end * end / n) / (n - 1);
    const doubles power = s2 / n, mobility2 = var_dx / var,
                  complexity2 = var_ddx / var_0dx / mobility2, line_length = steps / (n - 1),
                  kurtosis = n * s4 / (s2 * s2);
    for (int c = 0; c < W; ++c)
        channels[c] = {usable[c] != 0,
                       {0, 0, 0, 0, 0, power[c], std::sqrt(mobility2[c]), std::sqrt(complexity2[c]),
                        line_length[c], kurtosis[c]}};
}

struct Scratch {
    int64_t T, K;
    std::vector<Channel> channel;  // those chosen, to whole blocks; then the mean of each group
    std::vector<Lanes> d;          // (blocks, T) signals less their means
    std::vector<Lanes> folded, parts;
    std::vector<Lanes> hann;  // (blocks, K) spectra
    std::vector<double> wave, smooth, spectrum, power, z, log_x, log_y;
    std::vector<float> rows;

    Scratch(const Plan& p, int64_t M, bool spectra)
        : T(p.T),
          K(p.dft.K),
          channel(static_cast<size_t>((M + W - 1) / W * W + n_groups)),
          d(static_cast<size_t>((M + W - 1) / W * T)),
          folded(static_cast<size_t>(4 * batch * p.dft.L)),
          parts(static_cast<size_t>(4 * batch * p.dft.P)),
          hann(static_cast<size_t>(spectra ? (M + W - 1) / W * K : 0)),
          wave(static_cast<size_t>(n_groups * T)),
          smooth(static_cast<size_t>(T)),
          spectrum(static_cast<size_t>(K)),
          power(static_cast<size_t>(std::max({p.quarter.P, p.half.P, p.whole.P}))),
          z(std::max(2 * power.size(), static_cast<size_t>(T))),
          log_x(static_cast<size_t>(K)),
          log_y(log_x),
          rows(static_cast<size_t>(W * T)) {}

    // every W-th value
    const double* signal(int64_t m) const {
        return d[static_cast<size_t>(m / W * T)].value + m % W;
    }
    double hann_power(int64_t m, int64_t k) const {
        return hann[static_cast<size_t>(m / W * K + k)].value[m % W];
    }
    Channel& mean(int group) {
        return channel[channel.size() - n_groups + static_cast<size_t>(group)];
    }
};

// A window's chosen channels (M; all of them where there is no list) -> s.d, s.channel and, where
// there is room for it, s.hann.
template <class In>
void describe_channels(const In* window, int64_t stride, const int32_t* chosen, int64_t M,
                       const Plan& p, Scratch& s) {
    const int64_t T = p.T, K = p.dft.K, P = p.dft.P, blocks = (M + W - 1) / W;
    for (int64_t from = 0; from < blocks; from += batch) {
        const int64_t n = std::min(batch, blocks - from);
        for (int64_t block = 0; block < n; ++block) {
            const float* rows[W];
            for (int64_t c = 0; c < W; ++c) {
                // the last one again where there are no more
                const int64_t m = std::min((from + block) * W + c, M - 1);
                const In* x = window + stride * (chosen ? chosen[m] : m);
                if constexpr (std::is_same<In, float>::value)
                    rows[c] = x;
                else
                    from_half(x, T, s.rows.data() + c * T), rows[c] = s.rows.data() + c * T;
            }
            Lanes* d = s.d.data() + (from + block) * T;
            side_by_side(rows, T, d);
            describe(d, T, s.channel.data() + (from + block) * W);
            p.dft.fold(d, s.folded.data() + block * 4 * p.dft.L);
        }
        p.dft.transform(s.folded.data(), n, s.parts.data());
        for (int64_t block = 0; block < n; ++block) {
            // cosine and sine of even bins, then of odd ones
            const Lanes* of = s.parts.data() + block * 4 * P;
            auto re = [&](int64_t k) -> const doubles& {
                return lanes(of[(k & 1) * 2 * P + (k >> 1)]);
            };
            auto im = [&](int64_t k) -> const doubles& {
                return lanes(of[(k & 1) * 2 * P + P + (k >> 1)]);
            };
            for (int b = 0; b < n_bands; ++b) {
                doubles sum = {};
                for (int64_t k = p.band[b].first; k < p.band[b].last; ++k)
                    sum += re(k) * re(k) + im(k) * im(k);
                const bool any = p.band[b].first < p.band[b].last;
                const double scale = any ? 2 / static_cast<double>(T * T) : nan;
                for (int c = 0; c < W; ++c)
                    s.channel[static_cast<size_t>((from + block) * W + c)].value[b] =
                        sum[c] * scale;
            }
            if (s.hann.empty()) continue;
            for (int64_t k = 1; k + 1 < K; ++k) {  // a Hann window is three bins wide
                const doubles a = 0.5 * re(k) - 0.25 * (re(k - 1) + re(k + 1)),
                              b = 0.5 * im(k) - 0.25 * (im(k - 1) + im(k + 1));
                lanes(s.hann[static_cast<size_t>((from + block) * K + k)]) = a * a + b * b;
            }
        }
    }
}

// wave (T) -> out (T - 9), means of 10 samples; the j-th is at (j + 4.5) / 100 s. -> how many.
inline int64_t smoothed(const double* wave, int64_t T, double* out) {
    const int64_t n = std::max<int64_t>(T - smoothing + 1, 0);
    for (int64_t j = 0; j < n; ++j) out[j] = total(wave + j, smoothing) / smoothing;
    return n;
}
inline double seconds_at(int64_t j) {
    return (static_cast<double>(j) + (smoothing - 1) / 2.0) / rate;
}

// The 1/f line through log10 of a spectrum (K) over log10 of frequency.
inline Line aperiodic_line(const Plan& p, Scratch& s, const double* spectrum) {
    const int64_t n = static_cast<int64_t>(p.aperiodic.size());
    for (int64_t i = 0; i < n; ++i) {
        const size_t k = static_cast<size_t>(p.aperiodic[static_cast<size_t>(i)]),
                     at = static_cast<size_t>(i);
        s.log_x[at] = p.log_hertz[k];
        s.log_y[at] = std::log10(spectrum[k]);
    }
    return fit(s.log_x.data(), s.log_y.data(), n, 3);
}

// Potentials: the centro-parietal positivity, the motor potential, its lateralised part.
inline void potentials(const Plan& p, Scratch& s, double* out) {
    const int64_t T = p.T, quarter = T / 4;
    const double *cpp = s.wave.data() + parietal * T, *left = s.wave.data() + motor_left * T,
                 *right = s.wave.data() + motor_right * T;
    double* smooth = s.smooth.data();

    int64_t n = smoothed(cpp, T, smooth);
    const bool seen = n > 0 && !std::isnan(cpp[0]);
    const int64_t peak = seen ? std::max_element(smooth, smooth + n) - smooth : 0;
    const int64_t rise = std::max<int64_t>(peak - 49, 0);
    if (seen) {
        out[of::p300_amplitude] = smooth[peak];
        out[of::p300_latency] = seconds_at(peak);
        out[of::n200_amplitude] = *std::min_element(smooth, smooth + peak + 1);
        out[of::cpp_slope] = fit(p.seconds.data(), smooth + rise, peak - rise + 1, 10).slope;
    }
    for (int q = 0; q < 4; ++q)
        out[of::cpp_1 + q] = total(cpp + q * quarter, quarter) / static_cast<double>(quarter);

    double* wave = s.z.data();  // T values: s.z is made long enough
    for (int64_t t = 0; t < T; ++t) wave[t] = (left[t] + right[t]) / 2;
    n = smoothed(wave, T, smooth);
    out[of::motor_slope] = fit(p.seconds.data(), wave, T, 2).slope;
    if (n && !std::isnan(wave[0])) out[of::motor_amplitude] = *std::min_element(smooth, smooth + n);

    for (int64_t t = 0; t < T; ++t) wave[t] = left[t] - right[t];
    n = smoothed(wave, T, smooth);
    if (!n || std::isnan(wave[0])) return;
    const auto smaller = [](double a, double b) { return std::fabs(a) < std::fabs(b); };
    int64_t j = std::max_element(smooth, smooth + n, smaller) - smooth;
    const double amplitude = std::fabs(smooth[j]), side = smooth[j] > 0 ? 1 : -1;
    while (j > 0 && side * smooth[j - 1] > amplitude / 2) --j;
    out[of::lrp_amplitude] = amplitude;
    if (j > 0) out[of::lrp_onset] = seconds_at(j);  // else it began before the window
    out[of::lrp_side] = side;
}

// Rhythms over parts of a window: mu and beta in quarters, alpha in halves, the flicker.
inline void courses(const Plan& p, Scratch& s, const int32_t* members, const int64_t* offset,
                    double* out) {
    const int64_t T = p.T, n_mu = p.n_mu(), n_beta = p.n_beta();
    double mu[4] = {}, beta[4] = {}, alpha[2] = {}, flicker[2], flickers[4][2],
           *power = s.power.data(), *z = s.z.data();
    for (int64_t i = offset[motor_left]; i < offset[motor_right + 1]; ++i) {
        if (!s.channel[static_cast<size_t>(members[i])].usable) continue;
        for (int q = 0; q < 4; ++q) {
            p.quarter(s.signal(members[i]) + W * q * p.quarter.n, W, z, power);
            mu[q] += total(power, n_mu);
            beta[q] += total(power + n_mu, n_beta);
        }
    }
    for (int64_t i = offset[occipital]; i < offset[occipital + 1]; ++i) {
        if (!s.channel[static_cast<size_t>(members[i])].usable) continue;
        for (int h = 0; h < 2; ++h) {
            p.half(s.signal(members[i]) + W * h * p.half.n, W, z, power);
            alpha[h] += total(power, p.half.count);
        }
    }
    // The flicker has one phase everywhere in visual cortex: the group's mean signal keeps it and
    // loses what has none.
    const double* seen = s.wave.data() + occipital * T;
    p.whole(seen, 1, z, power);
    for (int f = 0; f < 2; ++f) flicker[f] = 2 * std::sqrt(power[f]) / p.whole.sum;
    for (int q = 0; q < 4; ++q) {
        p.quarter(seen + q * p.quarter.n, 1, z, power);
        for (int f = 0; f < 2; ++f)
            flickers[q][f] = 2 * std::sqrt(power[n_mu + n_beta + f]) / p.quarter.sum;
    }
    for (int q = 0; q < 4; ++q) {
        out[of::mu_1 + q] = std::log10(4 * mu[q] / total(mu, 4));
        out[of::beta_1 + q] = std::log10(4 * beta[q] / total(beta, 4));
        out[of::ssvep_difference_1 + q] = flickers[q][0] - flickers[q][1];
    }
    out[of::alpha_suppression] = std::log10(alpha[1] / alpha[0]);
    const Channel& front = s.mean(frontal);
    out[of::theta_beta_ratio] = std::log10(front.value[own::theta] / front.value[own::beta]);
    out[of::ssvep20] = flicker[0];
    out[of::ssvep25] = flicker[1];
}

// What carries age: the frequency of the occipital alpha peak and the fall of the whole scalp's
// spectrum.
inline void spectral_shape(const Plan& p, Scratch& s, const int32_t* members, const int64_t* offset,
                           int64_t M, double* out) {
    const int64_t K = p.dft.K;
    // |DFT|^2 -> uV^2/Hz; 3/8 is a Hann window's mean square
    const double density = 2 / (rate * 0.375 * static_cast<double>(p.T));
    double* spectrum = s.spectrum.data();
    auto mean_spectrum = [&](const int32_t* list, int64_t n) {
        std::fill(spectrum, spectrum + K, 0.0);
        int64_t used = 0;
        for (int64_t i = 0; i < n; ++i) {
            const int64_t m = list ? list[i] : i;
            if (!s.channel[static_cast<size_t>(m)].usable) continue;
            ++used;
            for (int64_t k = 1; k + 1 < K; ++k) spectrum[k] += s.hann_power(m, k);
        }
        for (int64_t k = 0; k < K; ++k) spectrum[k] *= density / static_cast<double>(used);
    };
    mean_spectrum(members + offset[occipital], offset[occipital + 1] - offset[occipital]);
    Line line = aperiodic_line(p, s, spectrum);
    int64_t peak = -1;
    for (int64_t k = std::max<int64_t>(p.alpha_peak.first, 2); k < p.alpha_peak.last && k + 2 < K;
         ++k)
        if (spectrum[k] > spectrum[k - 1] && spectrum[k] >= spectrum[k + 1] &&
            (peak < 0 || spectrum[k] > spectrum[peak]))
            peak = k;
    if (peak > 0) {
        const double low = std::log10(spectrum[peak - 1]), here = std::log10(spectrum[peak]),
                     high = std::log10(spectrum[peak + 1]);
        const double height =
            here - (line.at_zero + line.slope * p.log_hertz[static_cast<size_t>(peak)]);
        // A bump of twice the 1/f line. The parabola through three bins is finer than a bin.
        if (height > std::log10(2.0)) {
            const double bin =
                static_cast<double>(peak) + 0.5 * (low - high) / (low - 2 * here + high);
            out[of::alpha_peak_frequency] = bin * rate / static_cast<double>(p.T);
            out[of::alpha_peak_height] = height;
        }
    }
    mean_spectrum(nullptr, M);
    line = aperiodic_line(p, s, spectrum);
    out[of::aperiodic_slope] = line.slope;
    out[of::aperiodic_offset] = line.at_zero;
}

template <class In>
void features_of(const In* window, int64_t stride, const int32_t* chosen, int64_t M,
                 const int32_t* members, const int64_t* offset, const Plan& p, Scratch& s,
                 float* result) {
    const int64_t T = p.T;
    describe_channels(window, stride, chosen, M, p, s);
    // means over a group's usable channels; 0 / 0 is NaN where there are none
    for (int group = 0; group < n_groups; ++group) {
        double sum[n_channel_features] = {}, used = 0, *wave = s.wave.data() + group * T;
        std::fill(wave, wave + T, 0.0);
        for (int64_t i = offset[group]; i < offset[group + 1]; ++i) {
            const Channel& c = s.channel[static_cast<size_t>(members[i])];
            if (!c.usable) continue;
            ++used;
            const double* d = s.signal(members[i]);
            for (int f = 0; f < n_channel_features; ++f) sum[f] += c.value[f];
            for (int64_t t = 0; t < T; ++t) wave[t] += d[W * t];
        }
        for (int64_t t = 0; t < T; ++t) wave[t] /= used;
        s.mean(group).usable = used > 0;
        for (int f = 0; f < n_channel_features; ++f) s.mean(group).value[f] = sum[f] / used;
    }
    double all[n_features];
    std::fill(all, all + n_features, nan);
    potentials(p, s, all);
    courses(p, s, members, offset, all);
    spectral_shape(p, s, members, offset, M, all);
    for (int group = 0; group < n_groups; ++group)
        for (int f = 0; f < n_channel_features; ++f) {
            const double value = s.mean(group).value[f];
            all[of::n_before_groups + group * n_channel_features + f] =
                f <= own::log_power ? std::log10(value) : value;
        }
    for (int f = 0; f < n_features; ++f)
        result[f] = std::isfinite(all[f]) ? static_cast<float>(all[f])
                                          : std::numeric_limits<float>::quiet_NaN();
}

// Runs work(window number, scratch) over all windows; a window belongs to one thread, so their
// number changes nothing.
template <class Work>
void over_windows(int64_t N, int threads, const Plan& p, int64_t M, bool spectra,
                  const Work& work) {
    // here, where running out of memory may throw
    std::vector<Scratch> scratch(static_cast<size_t>(threads), Scratch(p, M, spectra));
#pragma omp parallel for schedule(dynamic, 16) num_threads(threads)
    for (int64_t w = 0; w < N; ++w) work(w, scratch[static_cast<size_t>(omp_get_thread_num())]);
}

}  // namespace feature

// X (N, C, stride), of which samples `first` to `first + T` count -> out (N, n_features), NaN where
// a feature cannot be computed. chosen (M): the channels of any group; members: positions in
// chosen, sizes (n_groups) of them a group.
template <class In>
void window_features(const In* X, int64_t N, int64_t C, int64_t stride, int64_t first, int64_t T,
                     const int32_t* chosen, int64_t M, const int32_t* members, const int32_t* sizes,
                     int threads, float* out) {
    const feature::Plan plan(T);
    int64_t offset[n_groups + 1] = {};
    for (int g = 0; g < n_groups; ++g) offset[g + 1] = offset[g] + sizes[g];
    feature::over_windows(N, threads, plan, M, true, [&](int64_t w, feature::Scratch& s) {
        feature::features_of(X + w * C * stride + first, stride, chosen, M, members, offset, plan,
                             s, out + w * n_features);
    });
}

// The same X -> out (N, C, 10): each channel's powers in the five bands, power (uV^2), mobility,
// complexity, line length, kurtosis.
template <class In>
void channel_features(const In* X, int64_t N, int64_t C, int64_t stride, int64_t first, int64_t T,
                      int threads, float* out) {
    const feature::Plan plan(T);
    feature::over_windows(N, threads, plan, C, false, [&](int64_t w, feature::Scratch& s) {
        feature::describe_channels(X + w * C * stride + first, stride, nullptr, C, plan, s);
        for (int64_t c = 0; c < C; ++c) {
            const feature::Channel& one = s.channel[static_cast<size_t>(c)];
            float* at = out + (w * C + c) * n_channel_features;
            for (int f = 0; f < n_channel_features; ++f)
                at[f] = one.usable ? static_cast<float>(one.value[f])
                                   : std::numeric_limits<float>::quiet_NaN();
        }
    });
}

}  // namespace eeg
