// The gather: copies windows of mapped caches into a batch, converted, z-scored and augmented.
//
// Shapes: a cache part is (N, C, S), with S >= T samples a window. A batch is (B, C, T) float.
// Window b takes T of its stored samples, from offset[b] + shift on; augment.hpp draws the shift.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "augment.hpp"
#include "threads.hpp"
#include "view.hpp"

namespace eeg {

// Where the B windows of a batch lie.
struct Places {
    View<const int32_t> part;    // which of the cache's parts
    View<const int64_t> row;     // which window of it
    View<const int32_t> offset;  // its first sample, before the shift
    View<const int64_t> window;  // its number in the whole, the key of its draws
};

// What is done to a window.
struct Treatment {
    const Augment& augment;
    bool zscore;
    View<const int32_t> mirror;  // (C) the channel on the other side of the head
};

struct Batch {
    View<float, 3> x;     // (B, C, T)
    View<int32_t> shift;  // (B) what was drawn, for labels
    View<float> mix;      // (B) and for mixup
};

namespace detail {

// Rows are asked for so many ahead of their use: the processor itself does not look beyond a page.
constexpr int64_t ahead = 4;

template <class Number>
void fetch(const Number* row, int64_t n) {
    for (int64_t i = 0; i < n; i += 64 / sizeof(Number)) __builtin_prefetch(row + i);
}

// One window: stored (C, S) from its first sample on -> x (C, T).
template <class Stored>
void gather_window(const Stored* stored, int64_t S, const Draw& draw, const Treatment& how,
                   const View<float, 2>& x) {
    const auto [C, T] = x.shape;
    if constexpr (std::is_same_v<Stored, float>)
        if (S == T && !how.zscore && !how.augment.changes()) {  // as it lies
            std::memcpy(x.data, stored, C * T * sizeof(float));
            return;
        }
    const auto row_of = [&](int64_t c) { return stored + (draw.mirror ? how.mirror[c] : c) * S; };
    std::array<bool, 4> dropped{};
    for (int64_t c = 0; c < C; ++c) {
        float* const row = x.at(c);
        if (c + ahead < C) fetch(row_of(c + ahead), T);
        if (c % 4 == 0) dropped = how.augment.dropped(draw, c / 4);
        if (dropped[c % 4]) {
            std::fill(row, row + T, 0.0f);
            continue;
        }
        const float* const floats = as_floats(row_of(c), T, row);
        how.augment.treat(draw, c, how.zscore, floats, row, T);
    }
}

}  // namespace detail

// Every part has the batch's channels and the same S; every window lies in its part, with its
// largest shift.
inline void gather(const std::vector<Samples>& parts, const Places& places, const Treatment& how,
                   const Batch& batch, Threads threads) {
    const int64_t B = batch.x.shape[0], C = batch.x.shape[1], T = batch.x.shape[2];
    const int team = threads.over(B);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t b = 0; b < B; ++b) {
        const Draw draw = how.augment.draw(static_cast<uint64_t>(places.window[b]), T);
        batch.shift[b] = draw.shift_samples;
        batch.mix[b] = draw.mix;
        const int64_t first = places.offset[b] + draw.shift_samples;
        const View<float, 2> x{batch.x.at(b), {C, T}};
        std::visit(
            [&](const auto& part) {
                const auto* stored = part.at(places.row[b]) + first;
                detail::gather_window(stored, part.shape[2], draw, how, x);
            },
            parts[places.part[b]]);
    }
}

}  // namespace eeg
