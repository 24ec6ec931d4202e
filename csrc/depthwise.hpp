// Depthwise convolution over time: every channel has a short filter of its own. Zeros before and
// after keep the length.
//
//   x, y, gy, gx (B, T, C)   B windows, T samples, C channels, channels fastest;
//                            gy = dL/dy, gx = dL/dx
//   w, gw (C, K)             K taps, odd; tap k reads k - K/2 steps of `dilation` samples ahead
//   bias, gb (C)             each of bias, gx, gw, gb may be null
//
//   y[b,t,c]  = bias[c] + sum_k w[c,k] x[b, t + (k - K/2) dilation, c]
//   gx[b,t,c] = sum_k w[c,k] gy[b, t - (k - K/2) dilation, c]
//   gw[c,k]   = sum_bt gy[b,t,c] x[b, t + (k - K/2) dilation, c]      gb[c] = sum_bt gy[b,t,c]
//
// One window's `lanes` neighbouring channels are copied into a panel between rows of zeros: it
// stays in L1, aligned, and no tap needs to ask where the signal ends. Whatever the number of
// threads, each sum is made in the same order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include <omp.h>

namespace eeg {
namespace detail {

#ifdef __AVX512F__
constexpr int64_t lanes = 16;
#else
constexpr int64_t lanes = 8;
#endif
// sums in registers: enough to hide the latency of a multiply-add, few enough for 16 registers
constexpr int64_t tile = 8;

struct Row {  // one sample, or one tap, of `lanes` channels
    typedef float floats __attribute__((vector_size(lanes * sizeof(float))));
    floats v;
};

inline int64_t whole_tiles(int64_t n) { return (n + tile - 1) / tile * tile; }

struct Depthwise {
    int64_t B, T, C, K, dilation;
    // Taps further out than `half` meet only zeros, so `cut` taps at each end are left out.
    int64_t half = std::min(K / 2, (T - 1) / dilation);
    int64_t taps = 2 * half + 1, cut = K / 2 - half;
    int64_t step = half ? dilation : 1;
    int64_t blocks = (C + lanes - 1) / lanes;
    int64_t rows = whole_tiles(T) + (whole_tiles(taps) - 1) * step;  // of a panel

    int64_t width(int64_t block) const { return std::min(lanes, C - block * lanes); }
    // Where a job, one block of one window, starts in x.
    int64_t place(int64_t job) const { return job / blocks * T * C + job % blocks * lanes; }
    int team(int threads) const { return std::clamp<int64_t>(B * blocks, 1, threads); }

    // Taps of all blocks, (blocks, taps) rows; backwards where the gradient runs against time.
    std::vector<Row> filters(const float* w, bool backwards) const {
        std::vector<Row> all(blocks * taps);
        for (int64_t c = 0; c < C; ++c)
            for (int64_t k = 0; k < taps; ++k)
                all[c / lanes * taps + k].v[c % lanes] =
                    w[c * K + cut + (backwards ? taps - 1 - k : k)];
        return all;
    }

    // in (T, C) from its channel block on -> the middle rows of a panel.
    void load(const float* in, int64_t width, Row* panel) const {
        panel += half * step;
        if (width == lanes)
            for (int64_t t = 0; t < T; ++t) std::memcpy(&panel[t], in + t * C, sizeof(Row));
        else
            for (int64_t t = 0; t < T; ++t)
                for (int64_t c = 0; c < width; ++c) panel[t].v[c] = in[t * C + c];
    }

    // panel (rows), filter (taps) -> out (T, C) from its channel block on.
    void convolve(const Row* panel, const Row* filter, const Row& start, int64_t width,
                  float* out) const {
        for (int64_t t = 0; t < T; t += tile) {
            Row sum[tile];
#pragma GCC unroll 16
            for (int64_t i = 0; i < tile; ++i) sum[i] = start;
            const Row* x = panel + t;
            for (int64_t k = 0; k < taps; ++k, x += step) {
                const Row w = filter[k];
#pragma GCC unroll 16
                for (int64_t i = 0; i < tile; ++i) sum[i].v += w.v * x[i].v;
            }
            if (width == lanes && t + tile <= T) {
#pragma GCC unroll 16
                for (int64_t i = 0; i < tile; ++i)
                    std::memcpy(out + (t + i) * C, &sum[i], sizeof(Row));
            } else {
                Row last[tile];  // a copy, or the sums would leave their registers
#pragma GCC unroll 16
                for (int64_t i = 0; i < tile; ++i) last[i] = sum[i];
                for (int64_t i = 0; i < std::min(tile, T - t); ++i)
                    std::memcpy(out + (t + i) * C, &last[i], width * sizeof(float));
            }
        }
    }

    // x, gy (panels) -> out: a row for each of the whole tiles of taps, then one for the bias.
    void correlate(const Row* x, const Row* gy, Row* out) const {
        gy += half * step;
        Row total{};
        for (int64_t k = 0; k < taps; k += tile) {
            Row sum[tile] = {};
            total = Row{};
            const Row* ahead = x + k * step;
            for (int64_t t = 0; t < T; ++t) {
                const Row g = gy[t];
#pragma GCC unroll 16
                for (int64_t i = 0; i < tile; ++i) sum[i].v += g.v * ahead[t + i * step].v;
                total.v += g.v;
            }
#pragma GCC unroll 16
            for (int64_t i = 0; i < tile; ++i) out[k + i] = sum[i];
        }
        out[whole_tiles(taps)] = total;
    }
};

}  // namespace detail
using detail::Depthwise;

// T, C, dilation and threads are at least 1.
inline void depthwise_forward(const Depthwise& d, const float* x, const float* w, const float* bias,
                              int threads, float* y) {
    using namespace detail;
    const int team = d.team(threads);
    const std::vector<Row> filters = d.filters(w, false);
    std::vector<Row> panels(team * d.rows);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t job = 0; job < d.B * d.blocks; ++job) {
        const int64_t block = job % d.blocks, width = d.width(block), at = d.place(job);
        Row* panel = panels.data() + omp_get_thread_num() * d.rows;
        Row start{};
        if (bias) std::memcpy(&start, bias + block * lanes, width * sizeof(float));
        d.load(x + at, width, panel);
        d.convolve(panel, &filters[block * d.taps], start, width, y + at);
    }
}

inline void depthwise_backward(const Depthwise& d, const float* x, const float* w, const float* gy,
                               int threads, float* gx, float* gw, float* gb) {
    using namespace detail;
    const int64_t K = d.K;
    const int team = d.team(threads);
    const bool weights = gw || gb;
    const int64_t sums = whole_tiles(d.taps) + 1;
    const std::vector<Row> filters = d.filters(w, true);
    std::vector<Row> panels(2 * team * d.rows);
    const int64_t n_parts = weights ? d.B * d.blocks * sums : 0;
    std::unique_ptr<Row[]> parts(new Row[n_parts]);  // (B, blocks, sums)
#pragma omp parallel num_threads(team)
    {
        Row* ahead = panels.data() + 2 * omp_get_thread_num() * d.rows;
        Row* back = ahead + d.rows;
#pragma omp for schedule(static)
        for (int64_t job = 0; job < d.B * d.blocks; ++job) {
            const int64_t block = job % d.blocks, width = d.width(block), at = d.place(job);
            d.load(gy + at, width, back);
            if (gx) d.convolve(back, &filters[block * d.taps], Row{}, width, gx + at);
            if (!weights) continue;
            d.load(x + at, width, ahead);
            d.correlate(ahead, back, parts.get() + job * sums);
        }
        if (weights)
#pragma omp for schedule(static)
            for (int64_t block = 0; block < d.blocks; ++block) {
                const int64_t first = block * lanes, width = d.width(block);
                for (int64_t k = 0; k < sums; ++k) {
                    Row sum{};
                    for (int64_t b = 0; b < d.B; ++b)
                        sum.v += parts[(b * d.blocks + block) * sums + k].v;
                    for (int64_t c = 0; c < width; ++c) {
                        if (gw && k < d.taps) gw[(first + c) * K + d.cut + k] = sum.v[c];
                        if (gb && k == sums - 1) gb[first + c] = sum.v[c];
                    }
                }
                if (gw)
                    for (int64_t c = 0; c < width; ++c) {
                        std::fill_n(gw + (first + c) * K, d.cut, 0.0f);
                        std::fill_n(gw + (first + c) * K + K - d.cut, d.cut, 0.0f);
                    }
            }
    }
}

}  // namespace eeg
