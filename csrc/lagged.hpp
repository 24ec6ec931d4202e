// Summaries of the correlations of each channel of a window with each other one some samples later.
//
// Shapes: windows (N, C, T). The U usable channels (not flat, all finite) lie as (T, P), P is U
// padded to whole tiles with zeros. For a lag, r (U, U) is the product of the first T - lag samples
// with the last T - lag, each channel standardised over just those. r is summed tile by tile in
// registers and never stored: one window's work stays in the second cache, unlike that of a batched
// product of a BLAS, with its (N, C, C) result.
#pragma once

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "simd.hpp"
#include "threads.hpp"
#include "view.hpp"

namespace eeg {

// mean |r|, mean of the diagonal, mean off it, normalised entropy of the shares of r^2
constexpr int n_lag_summaries = 4;

namespace lag {

// A tile of r, `rows` x 2 vectors, fills the processor's registers.
constexpr int64_t size = lanes<float>, rows = vector_registers / 4;
typedef Vector<float> floats;
typedef Vector<int32_t> ints;
typedef eeg::Lanes<float> Lanes;
constexpr int64_t width = 2 * size;  // columns of a tile

struct Scratch {
    int64_t P;
    std::vector<Lanes> x, early, late;
    std::vector<int64_t> used;  // (P) whether a channel moves in both ends of the window
    std::vector<float> row;
    Scratch(int64_t C, int64_t T)
        : P((C + width - 1) / width * width), x(T * P / size), early(x), late(x), used(P), row(T) {}
};

// q -> ln q, for positive normal numbers, to 1e-7: the exponent, and the series of atanh for what
// is left in 0.7 ... 1.4.
inline void take_log(floats& q) {
    const ints bits = reinterpret_cast<ints>(q), exponent = (bits - 0x3f3504f3) >> 23;
    const floats m = reinterpret_cast<floats>(bits - (exponent << 23)), s = (m - 1) / (m + 1),
                 s2 = s * s;
    q = 2 * s * (1 + s2 * (1.0f / 3 + s2 * (1.0f / 5 + s2 * (1.0f / 7 + s2 * (1.0f / 9))))) +
        __builtin_convertvector(exponent, floats) * 0.69314718f;
}

// x (n, P) -> out (n, P): each channel less its mean, over its norm; zero where it is flat.
inline void standardise(const float* x, int64_t n, int64_t P, float* out, int64_t* used) {
    for (int64_t c = 0; c < P; c += size) {
        const auto at = [&](int64_t t) -> const floats& {
            return *reinterpret_cast<const floats*>(x + t * P + c);
        };
        floats sum = {}, square = {};
        ints moves = {};
        for (int64_t t = 0; t < n; ++t) {
            sum += at(t);
            moves |= at(t) != at(0);
        }
        const floats mean = sum / float(n);
        for (int64_t t = 0; t < n; ++t) {
            const floats v = at(t) - mean;
            square += v * v;
        }
        floats scale;
        for (int i = 0; i < size; ++i) {
            scale[i] = moves[i] ? 1 / std::sqrt(square[i]) : 0;
            if (!moves[i]) used[c + i] = 0;
        }
        for (int64_t t = 0; t < n; ++t)
            *reinterpret_cast<floats*>(out + t * P + c) = (at(t) - mean) * scale;
    }
}

typedef std::array<double, 4> Sums;  // of |r|, r, r^2 and r^2 ln r^2

// One tile of r = early^T late: its rows from i on, its columns from j on, summed up.
inline void tile(const float* early, const float* late, int64_t n, int64_t P, int64_t i, int64_t j,
                 Sums& sums) {
    floats r[rows][2] = {};
    const float *a = early + i, *b = late + j;
    for (int64_t t = 0; t < n; ++t, a += P, b += P) {
        const floats left = reinterpret_cast<const floats*>(b)[0],
                     right = reinterpret_cast<const floats*>(b)[1];
        for (int k = 0; k < rows; ++k) {
            r[k][0] += a[k] * left;
            r[k][1] += a[k] * right;
        }
    }
    floats part[4] = {};
    for (int k = 0; k < rows; ++k)
        for (const floats v : r[k]) {
            const floats q = v * v;
            floats log = q > 1e-37f ? q : floats{} + 1e-37f;
            take_log(log);
            part[0] += v < 0 ? -v : v;
            part[1] += v;
            part[2] += q;
            part[3] += q * log;
        }
    for (int which = 0; which < 4; ++which)
        for (int k = 0; k < size; ++k) sums[which] += part[which][k];
}

// The usable channels of a window, less their means -> s.x (T, P). Returns how many.
inline int64_t collect(const Windows& X, int64_t window, Scratch& s) {
    const int64_t T = X.T, P = s.P;
    float* x = s.x.front().value;
    std::fill(x, x + T * P, 0.0f);
    int64_t usable = 0;
    for (int64_t c = 0; c < X.C; ++c) {
        const float* line = X.row(window, c, s.row.data());
        double sum = 0;
        int64_t bad = 0, moves = 0;
#pragma omp simd reduction(+ : sum, bad, moves)
        for (int64_t t = 0; t < T; ++t) {
            sum += line[t];
            bad += !(std::fabs(line[t]) <= FLT_MAX);
            moves += line[t] != line[0];
        }
        if (bad || !moves) continue;
        const double mean = sum / T;
        for (int64_t t = 0; t < T; ++t) x[t * P + usable] = line[t] - mean;
        ++usable;
    }
    return usable;
}

inline void summarise(const Windows& X, int64_t window, const View<const int32_t>& lags, Scratch& s,
                      float* out) {
    const int64_t T = X.T, P = s.P, usable = collect(X, window, s);
    const float* x = s.x.front().value;
    int64_t* used = s.used.data();
    const int64_t columns = (usable + width - 1) / width * width;
    for (int64_t l = 0; l < lags.size(); ++l, out += n_lag_summaries) {
        std::fill(out, out + n_lag_summaries, std::numeric_limits<float>::quiet_NaN());
        const int64_t lag = lags[l], n = T - lag;
        if (n < 3) continue;
        std::fill(used, used + P, int64_t{1});
        float *early = s.early.front().value, *late = s.late.front().value;
        standardise(x, n, P, early, used);
        standardise(x + lag * P, n, P, late, used);
        double count = 0;
        for (int64_t c = 0; c < usable; ++c) {
            count += used[c];
            for (int64_t t = 0; t < n && !used[c]; ++t) early[t * P + c] = late[t * P + c] = 0;
        }
        if (count < 2) continue;
        double diagonal = 0;
        for (int64_t c = 0; c < columns; c += size) {
            floats sum = {};
            for (int64_t t = 0; t < n; ++t)
                sum += *reinterpret_cast<const floats*>(early + t * P + c) *
                       *reinterpret_cast<const floats*>(late + t * P + c);
            for (int k = 0; k < size; ++k) diagonal += sum[k];
        }
        Sums sums = {};
        // a tile's columns of `late` stay in the first cache while all rows pass
        for (int64_t j = 0; j < columns; j += width)
            for (int64_t i = 0; i < usable; i += rows) tile(early, late, n, P, i, j, sums);
        const auto [absolute, plain, square, square_log] = sums;
        const double entropy = std::log(square) - square_log / square;
        out[0] = absolute / (count * count);
        out[1] = diagonal / count;
        out[2] = (plain - diagonal) / (count * (count - 1));
        out[3] = entropy / (2 * std::log(count));
    }
}

}  // namespace lag

// lags in samples; out (X.N, lags, 4), NaN where there is nothing to say.
inline void lagged_correlations(const Windows& X, const View<const int32_t>& lags,
                                const View<float, 3>& out, Threads threads) {
    const int team = threads.over(X.N);
    std::vector<lag::Scratch> scratch(team, lag::Scratch(X.C, X.T));
#pragma omp parallel for schedule(dynamic, 4) num_threads(team)
    for (int64_t w = 0; w < X.N; ++w)
        lag::summarise(X, w, lags, scratch[omp_get_thread_num()], out.at(w));
}

}  // namespace eeg
