// Depthwise convolution over time: every channel has a short filter of its own. Zeros before and
// after keep the length.
//
//   x, y, gy, gx (B, T, C)   B windows, T samples, C channels, channels fastest; float or bfloat16,
//                            computed in float; gy = dL/dy, gx = dL/dx
//   w, gw (C, K)             K taps, odd; tap k reads k - K/2 steps of `dilation` samples ahead
//   bias, gb (C)             each of bias, gx, gw, gb may be null
//
//   y[b,t,c]  = bias[c] + sum_k w[c,k] x[b, t + (k - K/2) dilation, c]
//   gx[b,t,c] = sum_k w[c,k] gy[b, t - (k - K/2) dilation, c]
//   gw[c,k]   = sum_bt gy[b,t,c] x[b, t + (k - K/2) dilation, c]      gb[c] = sum_bt gy[b,t,c]
//
// One window's `width` neighbouring channels are copied into a panel between rows of zeros: it
// stays in L1, aligned, and no tap needs to ask where the signal ends. A single last channel, as of
// 129, would leave its panel nearly empty: there, neighbouring samples lie side by side. Whatever
// the number of threads, each sum is made in the same order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "bfloat.hpp"
#include "simd.hpp"
#include "threads.hpp"
#include "view.hpp"

namespace eeg {

template <class Number>
struct Gradients {
    View<Number, 3> x;
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

constexpr int64_t line_bytes = 64;  // of the processor's caches

// Memory that will be needed, asked for a few lines at a time between computations: all at once
// would keep what is needed now waiting.
struct Fetch {
    const char* next[2] = {};
    int64_t lines = 0;  // each time

    void some() {
        for (const char*& at : next) {
            if (!at) continue;
            for (int64_t i = 0; i < lines; ++i, at += line_bytes) __builtin_prefetch(at, 0, 2);
        }
    }
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

    template <class Number>
    Layer(const View<Number, 3>& x, const View<const float, 2>& weight, int64_t dilation_)
        : B(x.shape[0]), T(x.shape[1]), C(x.shape[2]), K(weight.shape[1]), dilation(dilation_) {}

    int64_t line() const { return rows + width; }  // numbers of a line, with what a vector reads on
    int64_t jobs() const { return B * blocks; }    // each one block of one window
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

    // What a job should ask for of the next window, of one array or of two. The whole blocks of a
    // window share all of it among them.
    template <class Number>
    Fetch fetch(int64_t job, const Number* one, const Number* two = nullptr) const {
        const int64_t sharing = std::max<int64_t>(1, C / width), block = job % blocks;
        if (job + blocks >= jobs() || block >= sharing) return {};
        const int64_t bytes = T * C * sizeof(Number), tiles = whole_tiles(T) / tile;
        const int64_t lines = bytes / (line_bytes * sharing * tiles) + 1;
        const int64_t from = (job / blocks + 1) * bytes + block * lines * tiles * line_bytes;
        const auto at = [&](const Number* all) {
            return all ? reinterpret_cast<const char*>(all) + from : nullptr;
        };
        return {{at(one), at(two)}, lines};
    }

    // in (T, C) from its channel block on -> the middle rows of a panel.
    template <class Number>
    void load(const Number* in, int64_t channels, Row* panel) const {
        panel += half * step;
        if (channels == width)
            for (int64_t t = 0; t < T; ++t) get_vector<width>(in + t * C, panel[t].v);
        else
            for (int64_t t = 0; t < T; ++t)
                for (int64_t c = 0; c < channels; ++c) panel[t].v[c] = get(in[t * C + c]);
    }

    // panel (rows), filter (taps) -> out (T, C) from its channel block on.
    template <class Number>
    void convolve(const Row* panel, const Row* filter, const Row& start, int64_t channels,
                  Number* out, Fetch fetch) const {
        for (int64_t t = 0; t < T; t += tile) {
            fetch.some();
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
                for (int64_t i = 0; i < tile; ++i) put_vector<width>(sum[i].v, out + (t + i) * C);
            } else {
                Row last[tile];  // a copy, or the sums would leave their registers
#pragma GCC unroll 16
                for (int64_t i = 0; i < tile; ++i) last[i] = sum[i];
                for (int64_t i = 0; i < std::min(tile, T - t); ++i)
                    for (int64_t c = 0; c < channels; ++c) put(last[i].v[c], out[(t + i) * C + c]);
            }
        }
    }

    // The same for one channel: in and out every C-th number; line (rows) as a panel of it.
    template <class Number>
    void load_line(const Number* in, float* line) const {
        for (int64_t t = 0; t < T; ++t) line[half * step + t] = get(in[t * C]);
    }
    template <class Number>
    void convolve_line(const float* line, const Row* filter, float start, Number* out) const {
        for (int64_t t = 0; t < T; t += width) {
            Row sum{Vector<float, width>{} + start};
            for (int64_t k = 0; k < taps; ++k) {
                Row x;
                std::memcpy(&x, line + t + k * step, sizeof x);
                sum.v += filter[k].v[0] * x.v;
            }
            const int64_t n = std::min(width, T - t);
            for (int64_t i = 0; i < n; ++i) put(sum.v[i], out[(t + i) * C]);
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

    // x, gy (lines of one channel) -> out as correlate's, in its first lane.
    void correlate_line(const float* x, const float* gy, Row* out) const {
        gy += half * step;
        const int64_t whole = T / width * width;
        for (int64_t k = 0; k < taps; ++k) {
            Row sum{};
            for (int64_t t = 0; t < whole; t += width) {
                Row g, ahead;
                std::memcpy(&g, gy + t, sizeof g);
                std::memcpy(&ahead, x + t + k * step, sizeof ahead);
                sum.v += g.v * ahead.v;
            }
            float all = 0;
            for (int64_t i = 0; i < width; ++i) all += sum.v[i];
            for (int64_t t = whole; t < T; ++t) all += gy[t] * x[t + k * step];
            out[k] = Row{};
            out[k].v[0] = all;
        }
        float total = 0;
        for (int64_t t = 0; t < T; ++t) total += gy[t];
        out[whole_tiles(taps)] = Row{};
        out[whole_tiles(taps)].v[0] = total;
    }
};

// parts (B, blocks, sums) -> one block's gradients of weight and bias, summed over the windows.
template <class Number>
void sum_parts(const Layer& d, const Row* parts, int64_t sums, int64_t block,
               const Gradients<Number>& to) {
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
template <class Number>
void depthwise_forward(const View<const Number, 3>& x, const View<const float, 2>& weight,
                       const View<const float>& bias, int64_t dilation, const View<Number, 3>& y,
                       Threads threads) {
    using namespace depthwise;
    const Layer d(x, weight, dilation);
    const int team = threads.over(d.jobs());
    const std::vector<Row> filters = d.filters(weight, false);
    std::vector<Row> panels(team * d.rows);
    std::vector<float> lines(team * d.line());
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t job = 0; job < d.jobs(); ++job) {
        const int64_t block = job % d.blocks, channels = d.channels(block), at = d.place(job);
        const Row* filter = &filters[block * d.taps];
        Row start{};
        if (bias) std::memcpy(&start, bias.at(block * width), channels * sizeof(float));
        if (channels == 1) {
            float* line = lines.data() + omp_get_thread_num() * d.line();
            d.load_line(x.data + at, line);
            d.convolve_line(line, filter, start.v[0], y.data + at);
        } else {
            Row* panel = panels.data() + omp_get_thread_num() * d.rows;
            d.load(x.data + at, channels, panel);
            d.convolve(panel, filter, start, channels, y.data + at, d.fetch(job, x.data));
        }
    }
}

namespace depthwise {

// What one thread needs to compute the gradients of a job.
struct Scratch {
    std::vector<Row> ahead, back;
    std::vector<float> line_ahead, line_back;

    explicit Scratch(const Layer& d)
        : ahead(d.rows), back(d.rows), line_ahead(d.line()), line_back(d.line()) {}
};

template <class Number>
struct Job {
    const Number *x, *gy;
    const Row* filter;
    int64_t channels;
    Fetch fetch;
    Number* to_x;  // this and parts may be null
    Row* parts;    // of the gradients of weight and bias
};

template <class Number>
void gradients_of(const Layer& d, const Job<Number>& job, Scratch& s) {
    if (job.channels == 1) {
        d.load_line(job.gy, s.line_back.data());
        if (job.to_x) d.convolve_line(s.line_back.data(), job.filter, 0.0f, job.to_x);
        if (!job.parts) return;
        d.load_line(job.x, s.line_ahead.data());
        d.correlate_line(s.line_ahead.data(), s.line_back.data(), job.parts);
        return;
    }
    d.load(job.gy, job.channels, s.back.data());
    if (job.to_x) d.convolve(s.back.data(), job.filter, Row{}, job.channels, job.to_x, job.fetch);
    if (!job.parts) return;
    d.load(job.x, job.channels, s.ahead.data());
    d.correlate(s.ahead.data(), s.back.data(), job.parts);
}

}  // namespace depthwise

// Each of the gradients may be missing.
template <class Number>
void depthwise_backward(const View<const Number, 3>& x, const View<const float, 2>& weight,
                        const View<const Number, 3>& gy, int64_t dilation,
                        const Gradients<Number>& to, Threads threads) {
    using namespace depthwise;
    const Layer d(x, weight, dilation);
    const int team = threads.over(d.jobs());
    const bool weights = to.weight || to.bias;
    const int64_t sums = whole_tiles(d.taps) + 1;
    const std::vector<Row> filters = d.filters(weight, true);
    std::vector<Scratch> scratch(team, Scratch(d));
    std::unique_ptr<Row[]> parts(new Row[weights ? d.jobs() * sums : 0]);
#pragma omp parallel num_threads(team)
    {
#pragma omp for schedule(static)
        for (int64_t job = 0; job < d.jobs(); ++job) {
            const int64_t block = job % d.blocks, at = d.place(job);
            const Job<Number> one{x.data + at,
                                  gy.data + at,
                                  &filters[block * d.taps],
                                  d.channels(block),
                                  d.fetch(job, gy.data, weights ? x.data : nullptr),
                                  to.x ? to.x.data + at : nullptr,
                                  weights ? parts.get() + job * sums : nullptr};
            gradients_of(d, one, scratch[omp_get_thread_num()]);
        }
        if (weights)
#pragma omp for schedule(static)
            for (int64_t block = 0; block < d.blocks; ++block)
                sum_parts(d, parts.get(), sums, block, to);
    }
}

}  // namespace eeg
