// What each channel of a window says by itself: band powers, power, Hjorth mobility and complexity,
// line length, kurtosis, and its spectrum.
//
// Shapes: a window is C channels x T samples in microvolts at 100 Hz. M channels are chosen. K bins
// k * 100 / T Hz reach 45 Hz.
//
// All arithmetic is double: a float DFT loses the weak gamma bins beside a strong delta. A channel
// that is flat or has a sample that is not finite cannot be used.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "simd.hpp"
#include "threads.hpp"
#include "view.hpp"

namespace eeg {

#define EEG_ITEM(name) name,
#define EEG_NAME(name) #name,
#define EEG_BANDS(F) F(delta) F(theta) F(alpha) F(beta) F(gamma)
// In the features of a group each power is a log10.
#define EEG_OWN(F) EEG_BANDS(F) F(log_power) F(mobility) F(complexity) F(line_length) F(kurtosis)
namespace own {
enum Own { EEG_OWN(EEG_ITEM) n_channel_features };
constexpr const char* names[] = {EEG_OWN(EEG_NAME)};
}  // namespace own
constexpr int n_bands = own::log_power, n_channel_features = own::n_channel_features;

namespace feature {

constexpr double rate = 100, nan = std::numeric_limits<double>::quiet_NaN();  // Hz
constexpr double bands[n_bands][2] = {
    {0.5, 4}, {4, 8}, {8, 13}, {13, 30}, {30, 45}};  // Hz, both ends included
constexpr double top = 45;

// W channels go through everything side by side, so that no sum over a vector's lanes is ever
// needed. `width` bins of their DFT are summed at once, in as many registers.
constexpr int64_t W = std::max<int64_t>(lanes<double>, 4);
constexpr int64_t width = vector_registers * 3 / 4 / (W / lanes<double>);
constexpr int64_t batch = 32 / W;  // blocks of W channels transformed together
typedef Vector<double, W> doubles;
typedef Vector<int64_t, W> integers;
typedef eeg::Lanes<double, W> Lanes;
inline doubles& lanes(Lanes& l) { return l.vector(); }
inline const doubles& lanes(const Lanes& l) { return l.vector(); }

struct Range {  // bins first ... last - 1
    int64_t first, last;
    int64_t size() const { return std::max<int64_t>(last - first, 0); }
};

// Bins of an n-sample periodogram from `low` to `high` Hz, both included despite rounding.
inline Range bins_between(double low, double high, int64_t n) {
    const double per_hertz = n / rate;
    return {static_cast<int64_t>(std::ceil(low * per_hertz - 1e-9)),
            static_cast<int64_t>(std::floor(high * per_hertz + 1e-9)) + 1};
}

// The DFT of W channels at a time as four products with fixed tables: cosine and sine, of even and
// of odd bins. For even T the symmetries of sine and cosine about T/4 and T/2 fold T terms into
// T/4 + 1, differently for each product.
struct Dft {
    int64_t T;  // samples
    int64_t L;  // terms after folding
    int64_t K;  // bins
    int64_t P;  // bins of one parity, padded to whole widths
    bool folded;
    Range band[n_bands];        // bins
    std::vector<double> table;  // (4, P / width, L, width): even cosine and sine, odd ones

    explicit Dft(int64_t T_) : T(T_), folded(T_ % 2 == 0) {
        L = folded ? T / 4 + 1 : T;
        // one more than needed: the Hann window looks at neighbours
        K = std::min(bins_between(0, top, T).last + 1, T / 2 + 1);
        P = ((K + 1) / 2 + width - 1) / width * width;
        table.assign(4 * L * P, 0.0);
        for (int part = 0; part < 4; ++part)
            for (int64_t t = 0; t < L; ++t)
                for (int64_t k = part / 2, j = 0; k < K; k += 2, ++j) {
                    const double angle = 2 * M_PI * (k * t % T) / T;
                    table[part * L * P + (j / width * L + t) * width + j % width] =
                        part % 2 ? std::sin(angle) : std::cos(angle);
                }
        for (int b = 0; b < n_bands; ++b) band[b] = bins_between(bands[b][0], bands[b][1], T);
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
    // cache while all blocks pass.
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

struct Channel {
    bool usable;
    double value[n_channel_features];  // by own::Own
};

// W rows of T floats -> x (T), as doubles.
inline void side_by_side(const float* const* rows, int64_t T, Lanes* x) {
    for (int64_t t = 0; t < T; ++t)
        for (int c = 0; c < W; ++c) x[t].value[c] = rows[c][t];
}

// Sums over a signal less its mean: of its 2nd and 4th powers, of its differences (steps) and of
// their differences (bends).
struct Sums {
    doubles s2 = {}, s4 = {}, steps = {}, steps2 = {}, bends2 = {};
};

// x (T). Two samples a turn: a sum waits for itself.
inline Sums sums_over(const Lanes* x, int64_t T) {
    Sums s;
    const auto at = [&](int64_t t) -> const doubles& { return lanes(x[t]); };
    int64_t t = 0;
    for (; t + 2 <= T; t += 2) {
        const doubles a = at(t) * at(t), b = at(t + 1) * at(t + 1);
        s.s2 += a + b;
        s.s4 += a * a + b * b;
    }
    if (t < T) {
        s.s2 += at(t) * at(t);
        s.s4 += at(t) * at(t) * at(t) * at(t);
    }
    for (t = 1; t + 2 <= T; t += 2) {
        const doubles a = at(t) - at(t - 1), b = at(t + 1) - at(t), bend = b - a;
        s.steps += (a < 0 ? -a : a) + (b < 0 ? -b : b);
        s.steps2 += a * a + b * b;
        s.bends2 += bend * bend;
        if (t + 2 < T) {
            const doubles next = at(t + 2) - at(t + 1) - b;
            s.bends2 += next * next;
        }
    }
    if (t < T) {
        const doubles a = at(t) - at(t - 1);
        s.steps += a < 0 ? -a : a;
        s.steps2 += a * a;
    }
    return s;
}

// x (T) of W channels -> x less its mean, zero where unusable; and each Channel but its bands.
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
    const double n = T;
    const doubles mean = sum / n;
    const integers usable = (junk == 0) & (low < high);
    for (int64_t t = 0; t < T; ++t) lanes(x[t]) = usable ? lanes(x[t]) - mean : zero;
    const auto [s2, s4, steps, steps2, bends2] = sums_over(x, T);
    // Hjorth as in mne-features: a zero stands before the signal, and another before its
    // differences, so the first sample counts as a step. Sums of T or T + 1 values, variances with
    // one degree of freedom less.
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

// The chosen channels of a window, and the memory to describe them: one for each thread.
struct Channels {
    const Dft& dft;
    int64_t M, blocks;             // blocks of W channels
    std::vector<Channel> channel;  // M, to whole blocks
    std::vector<Lanes> d;          // (blocks, T) signals less their means
    std::vector<Lanes> hann;       // (blocks, K) Hann spectra, |DFT|^2; empty without `spectra`
    std::vector<Lanes> folded, parts;
    std::vector<float> rows;

    Channels(const Dft& dft_, int64_t M_, bool spectra)
        : dft(dft_), M(M_), blocks((M + W - 1) / W), channel(blocks * W), d(blocks * dft.T),
          hann(spectra ? blocks * dft.K : 0), folded(4 * batch * dft.L), parts(4 * batch * dft.P),
          rows(W * dft.T) {}

    // The signal of a channel: every W-th value.
    const double* signal(int64_t m) const { return d[m / W * dft.T].value + m % W; }
    double hann_power(int64_t m, int64_t k) const { return hann[m / W * dft.K + k].value[m % W]; }

    // chosen (M): the channels; all of them where it is null.
    void describe_window(const Windows& X, int64_t window, const int32_t* chosen) {
        for (int64_t from = 0; from < blocks; from += batch) {
            const int64_t n = std::min(batch, blocks - from);
            for (int64_t block = 0; block < n; ++block) {
                const float* row[W];
                for (int64_t c = 0; c < W; ++c) {
                    // the last one again where there are no more
                    const int64_t m = std::min((from + block) * W + c, M - 1);
                    row[c] = X.row(window, chosen ? chosen[m] : m, rows.data() + c * dft.T);
                }
                Lanes* x = d.data() + (from + block) * dft.T;
                side_by_side(row, dft.T, x);
                describe(x, dft.T, channel.data() + (from + block) * W);
                dft.fold(x, folded.data() + block * 4 * dft.L);
            }
            dft.transform(folded.data(), n, parts.data());
            for (int64_t block = 0; block < n; ++block)
                describe_spectrum(parts.data() + block * 4 * dft.P, from + block);
        }
    }

  private:
    // part (4, P): cosine and sine of even bins, then of odd ones
    void describe_spectrum(const Lanes* part, int64_t block) {
        const int64_t P = dft.P;
        const auto re = [&](int64_t k) -> const doubles& {
            return lanes(part[(k & 1) * 2 * P + (k >> 1)]);
        };
        const auto im = [&](int64_t k) -> const doubles& {
            return lanes(part[(k & 1) * 2 * P + P + (k >> 1)]);
        };
        for (int b = 0; b < n_bands; ++b) {
            const Range band = dft.band[b];
            doubles sum = {};
            for (int64_t k = band.first; k < band.last; ++k) sum += re(k) * re(k) + im(k) * im(k);
            const double scale = band.first < band.last ? 2.0 / (dft.T * dft.T) : nan;
            for (int c = 0; c < W; ++c) channel[block * W + c].value[b] = sum[c] * scale;
        }
        if (hann.empty()) return;
        for (int64_t k = 1; k + 1 < dft.K; ++k) {  // a Hann window is three bins wide
            const doubles a = 0.5 * re(k) - 0.25 * (re(k - 1) + re(k + 1)),
                          b = 0.5 * im(k) - 0.25 * (im(k - 1) + im(k + 1));
            lanes(hann[block * dft.K + k]) = a * a + b * b;
        }
    }
};

// Runs work(window number, scratch) over N windows, each thread with a copy of `scratch`. A window
// belongs to one thread, so their number changes nothing.
template <class Scratch, class Work>
void over_windows(int64_t N, Threads threads, const Scratch& scratch, const Work& work) {
    const int team = threads.over(N);
    std::vector<Scratch> own(team, scratch);  // here, where running out of memory may throw
#pragma omp parallel for schedule(dynamic, 16) num_threads(team)
    for (int64_t w = 0; w < N; ++w) work(w, own[omp_get_thread_num()]);
}

}  // namespace feature

// out (X.N, X.C, 10): what each channel says by itself, NaN where it cannot be used.
inline void channel_features(const Windows& X, const View<float, 3>& out, Threads threads) {
    const feature::Dft dft(X.T);
    const feature::Channels all(dft, X.C, false);
    feature::over_windows(X.N, threads, all, [&](int64_t w, feature::Channels& s) {
        s.describe_window(X, w, nullptr);
        for (int64_t c = 0; c < X.C; ++c) {
            const feature::Channel& one = s.channel[c];
            float* at = out.at(w, c);
            for (int f = 0; f < n_channel_features; ++f)
                at[f] = one.usable ? one.value[f] : feature::nan;
        }
    });
}

}  // namespace eeg
