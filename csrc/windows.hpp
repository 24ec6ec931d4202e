// Gather: windows of mapped caches into a batch, converted, z-scored and augmented on the way, in one pass.
//
// Shapes: a cache part is (N, C, S), float or half, S >= T samples stored a window. A batch is (B, C, T) float.
// Window b takes the T samples from offset[b] + shift of its stored ones; shift is part of what augment.hpp draws.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <omp.h>

#include "augment.hpp"
#include "half.hpp"

namespace eeg {

struct Part {
    const void* data;  // (N, C, S)
    bool half;
};

struct Moments {
    float mean, scale;  // scale: 1 / std, or 0 where the channel is flat
};

// Mean and 1 / std of a row. In two passes and with the first mean's own error taken out: an offset does not cancel.
inline Moments moments(const float* x, int64_t T) {
    float sum = 0, rest = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t t = 0; t < T; ++t) sum += x[t];
    const float mean = sum / static_cast<float>(T);
#pragma omp simd reduction(+ : rest, squares)
    for (int64_t t = 0; t < T; ++t) {
        const float d = x[t] - mean;
        rest += d;
        squares += d * d;
    }
    rest /= static_cast<float>(T);
    const float variance = squares / static_cast<float>(T) - rest * rest;
    const float noise = 1e-12f * mean * mean;  // what rounding alone makes of a constant
    return {mean + rest, variance > noise       ? 1 / std::sqrt(variance)
                         : variance == variance ? 0
                                                : variance};
}

// part (B): which of `parts`; row (B): which window of it; offset (B); window (B): its number in the whole, the key of its
// draws. mirror (C): the channel on the other side of the head. shift, mix (B): what was drawn, for labels and mixup.
inline void gather(const Part* parts, const int32_t* part, const int64_t* row,
                   const int32_t* offset, const int64_t* window, int64_t B, int64_t C, int64_t S,
                   int64_t T, bool zscore, const Augment& augment, const int32_t* mirror,
                   float* out, int32_t* shift, float* mix, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t b = 0; b < B; ++b) {
        const Draw draw = augment.draw(static_cast<uint64_t>(window[b]), T);
        shift[b] = draw.shift;
        mix[b] = draw.mix;
        const Part& p = parts[part[b]];
        const int64_t from = row[b] * C * S + offset[b] + draw.shift;
        float* target = out + b * C * T;
        if (!p.half && S == T && !zscore && !augment.any) {  // as it lies
            std::memcpy(target, static_cast<const float*>(p.data) + from,
                        static_cast<size_t>(C * T) * sizeof(float));
            continue;
        }
        for (int64_t c = 0; c < C; ++c) {
            const int64_t source = from + (draw.mirror ? mirror[c] : c) * S;
            float* x = target + c * T;
            if (augment.dropped(draw, c)) {
                std::memset(x, 0, static_cast<size_t>(T) * sizeof(float));
                continue;
            }
            if (p.half)
                from_half(static_cast<const uint16_t*>(p.data) + source, T, x);
            else
                std::memcpy(x, static_cast<const float*>(p.data) + source,
                            static_cast<size_t>(T) * sizeof(float));
            float noise = 0;
            if (zscore) {
                const Moments m = moments(x, T);
                const float gain = m.scale * draw.scale;
#pragma omp simd
                for (int64_t t = 0; t < T; ++t) x[t] = (x[t] - m.mean) * gain;
                noise = m.scale == 0 ? 0 : augment.noise;
            } else {
                if (augment.noise > 0) {
                    const float scale = moments(x, T).scale;
                    noise = scale == 0 ? 0 : augment.noise / scale;
                }
                if (augment.scale > 0) {
#pragma omp simd
                    for (int64_t t = 0; t < T; ++t) x[t] *= draw.scale;
                }
            }
            if (augment.noise > 0) augment.add_noise(draw, c, noise * draw.scale, x, T);
            if (draw.mask_length)
                std::memset(x + draw.mask_start, 0,
                            static_cast<size_t>(draw.mask_length) * sizeof(float));
        }
    }
}

}  // namespace eeg
