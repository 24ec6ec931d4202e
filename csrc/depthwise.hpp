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
// One window's `width` neighbouring channels are copied into a panel between rows of zeros: it
// stays in L1, aligned, and no tap needs to ask where the signal ends. Whatever the number of
// threads, each sum is made in the same order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "simd.hpp"
#include "threads.hpp"
#include "view.hpp"

namespace eeg {

struct Gradients {
    View<float, 3> x;
    View<float, 2> weight;
    View<float> bias;
};

namespace depthwise {

// channels side by side
constexpr int64_t width = std::max<int64_t>(lanes<float>, 8);
// sums in registers: enough to hide the latency of a multiply-add, few enough for 16 registers
constexpr int64_t tile = 8;

struct Row {  // one sample, or one tap, of `width` channels
    Vector<float, width> v;
};

inline int64_t whole_tiles(int64_t n) { return (n + tile - 1) / tile * tile; }

struct Layer {
    int64_t B, T, C, K, dilation;
    // Taps further out than `half` meet only zeros, so `cut` taps at each end are left out.
    int64_t half = std::min(K / 2, (T - 1) / dilation);
    int64_t taps = 2 * half + 1, cut = K / 2 - half;
    int64_t step = half ? dilation : 1;
    int64_t blocks = (C + width - 1) / width;
    int64_t rows = whole_tiles(T) + (whole_tiles(taps) - 1) * step;  // of a panel

    Layer(const View<const float, 3>& x, const View<const float, 2>& weight, int64_t dilation_)
        : B(x.shape[0]), T(x.shape[1]), C(x.shape[2]), K(weight.shape[1]), dilation(dilation_) {}

    int64_t jobs() const { return B * blocks; }  // each one block of one window
    int64_t channels(int64_t block) const { return std::min(width, C - block * width); }
    // Where a job starts in x.
    int64_t place(int64_t job) const { return job / blocks * T * C + job % blocks * width; }

    // Taps of all blocks, (blocks, taps) rows; backwards where the gradient runs against time.
    std::vector<Row> filters(const View<const float, 2>& w, bool backwards) const {
        std::vector<Row> all(blocks * taps);
        for (int64_t c = 0; c < C; ++c)
            for (int64_t k = 0; k < taps; ++k)
                all[c / width * taps + k].v[c % width] =
                    *w.at(c, cut + (backwards ? taps - 1 - k : k));
        return all;
    }

    // in (T, C) from its channel block on -> the middle rows of a panel.
    void load(const float* in, int64_t channels, Row* panel) const {
        panel += half * step;
        if (channels == width)
            for (int64_t t = 0; t < T; ++t) std::memcpy(&panel[t], in + t * C, sizeof(Row));
        else
            for (int64_t t = 0; t < T; ++t)
                for (int64_t c = 0; c < channels; ++c) panel[t].v[c] = in[t * C + c];
    }

    // panel (rows), filter (taps) -> out (T, C) from its channel block on.
    void convolve(const Row* panel, const Row* filter, const Row& start, int64_t channels,
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
            if (channels == width && t + tile <= T) {
#pragma GCC unroll 16
                for (int64_t i = 0; i < tile; ++i)
                    std::memcpy(out + (t + i) * C, &sum[i], sizeof(Row));
            } else {
                Row last[tile];  // a copy, or the sums would leave their registers
#pragma GCC unroll 16
                for (int64_t i = 0; i < tile; ++i) last[i] = sum[i];
                for (int64_t i = 0; i < std::min(tile, T - t); ++i)
                    std::memcpy(out + (t + i) * C, &last[i], channels * sizeof(float));
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

// parts (B, blocks, sums) -> one block's gradients of weight and bias, summed over the windows.
inline void sum_parts(const Layer& d, const Row* parts, int64_t sums, int64_t block,
                      const Gradients& to) {
    const int64_t first = block * width, channels = d.channels(block);
    for (int64_t k = 0; k < sums; ++k) {
        Row sum{};
        for (int64_t b = 0; b < d.B; ++b) sum.v += parts[(b * d.blocks + block) * sums + k].v;
        for (int64_t c = 0; c < channels; ++c) {
            if (to.weight && k < d.taps) *to.weight.at(first + c, d.cut + k) = sum.v[c];
            if (to.bias && k == sums - 1) to.bias[first + c] = sum.v[c];
        }
    }
    if (!to.weight) return;
    for (int64_t c = first; c < first + channels; ++c) {  // taps that meet only zeros
        std::fill_n(to.weight.at(c), d.cut, 0.0f);
        std::fill_n(to.weight.at(c) + d.K - d.cut, d.cut, 0.0f);
    }
}

}  // namespace depthwise

// T, C and dilation are at least 1.
inline void depthwise_forward(const View<const float, 3>& x, const View<const float, 2>& weight,
                              const View<const float>& bias, int64_t dilation,
                              const View<float, 3>& y, Threads threads) {
    using namespace depthwise;
    const Layer d(x, weight, dilation);
    const int team = threads.over(d.jobs());
    const std::vector<Row> filters = d.filters(weight, false);
    std::vector<Row> panels(team * d.rows);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t job = 0; job < d.jobs(); ++job) {
        const int64_t block = job % d.blocks, channels = d.channels(block), at = d.place(job);
        Row* panel = panels.data() + omp_get_thread_num() * d.rows;
        Row start{};
        if (bias) std::memcpy(&start, bias.at(block * width), channels * sizeof(float));
        d.load(x.data + at, channels, panel);
        d.convolve(panel, &filters[block * d.taps], start, channels, y.data + at);
    }
}

// Each of the gradients may be missing.
inline void depthwise_backward(const View<const float, 3>& x, const View<const float, 2>& weight,
                               const View<const float, 3>& gy, int64_t dilation,
                               const Gradients& to, Threads threads) {
    using namespace depthwise;
    const Layer d(x, weight, dilation);
    const int team = threads.over(d.jobs());
    const bool weights = to.weight || to.bias;
    const int64_t sums = whole_tiles(d.taps) + 1;
    const std::vector<Row> filters = d.filters(weight, true);
    std::vector<Row> panels(2 * team * d.rows);
    std::unique_ptr<Row[]> parts(new Row[weights ? d.jobs() * sums : 0]);
#pragma omp parallel num_threads(team)
    {
        Row* ahead = panels.data() + 2 * omp_get_thread_num() * d.rows;
        Row* back = ahead + d.rows;
#pragma omp for schedule(static)
        for (int64_t job = 0; job < d.jobs(); ++job) {
            const int64_t block = job % d.blocks, channels = d.channels(block), at = d.place(job);
            d.load(gy.data + at, channels, back);
            if (to.x) d.convolve(back, &filters[block * d.taps], Row{}, channels, to.x.data + at);
            if (!weights) continue;
            d.load(x.data + at, channels, ahead);
            d.correlate(ahead, back, parts.get() + job * sums);
        }
        if (weights)
#pragma omp for schedule(static)
            for (int64_t block = 0; block < d.blocks; ++block)
                sum_parts(d, parts.get(), sums, block, to);
    }
}

}  // namespace eeg
