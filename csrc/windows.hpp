// Gather: copies windows of mapped caches into a batch, converted, z-scored and augmented.
//
// Shapes: a cache part is (N, C, S), with S >= T samples a window. A batch is (B, C, T) float.
// Window b takes T of its stored samples, from offset[b] + shift on; augment.hpp draws the shift.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <omp.h>

#include "augment.hpp"
#include "half.hpp"

namespace eeg {

// part (B): which of `parts`; row (B): which window of it; offset (B); window (B): its number in
// the whole, the key of its draws. mirror (C): the channel on the other side of the head. shift,
// mix (B): what was drawn, for labels and mixup.
inline void gather(const Samples* parts, const int32_t* part, const int64_t* row,
                   const int32_t* offset, const int64_t* window, int64_t B, int64_t C, int64_t S,
                   int64_t T, bool zscore, const Augment& augment, const int32_t* mirror,
                   float* out, int32_t* shift, float* mix, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t b = 0; b < B; ++b) {
        const Draw draw = augment.draw(static_cast<uint64_t>(window[b]), T);
        shift[b] = draw.shift_samples;
        mix[b] = draw.mix;
        const Samples& p = parts[part[b]];
        const int64_t from = row[b] * C * S + offset[b] + draw.shift_samples;
        float* target = out + b * C * T;
        if (!p.half && S == T && !zscore && !augment.changes()) {  // as it lies
            std::memcpy(target, p.floats(from, C * T, nullptr), C * T * sizeof(float));
            continue;
        }
        for (int64_t c = 0; c < C; ++c) {
            float* x = target + c * T;
            if (augment.dropped(draw, c)) {
                std::fill(x, x + T, 0.0f);
                continue;
            }
            const float* stored = p.floats(from + (draw.mirror ? mirror[c] : c) * S, T, x);
            if (stored != x) std::memcpy(x, stored, T * sizeof(float));
            augment.treat(draw, c, zscore, x, T);
        }
    }
}

}  // namespace eeg
