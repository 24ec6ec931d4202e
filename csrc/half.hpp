// Samples as they lie in a cache: float, or the 16 bits of float16, which are converted in blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#ifdef __F16C__
#include <immintrin.h>
#endif

namespace eeg {

constexpr float half_max = 65504.0f;

inline uint16_t to_half_one(float x) {  // rounds to nearest even; x is within +-half_max or NaN
    uint32_t b;
    std::memcpy(&b, &x, 4);
    const uint32_t sign = b >> 16 & 0x8000, magnitude = b & 0x7fffffff;
    if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);  // NaN
    if (magnitude < 0x38800000) {  // subnormal: let the float unit round, at 2^-24 a step
        float m;
        std::memcpy(&m, &magnitude, 4);
        m += 0.5f;  // 0.5 + k * 2^-24 holds exactly the steps wanted
        uint32_t k;
        std::memcpy(&k, &m, 4);
        return static_cast<uint16_t>(sign | (k - 0x3f000000));
    }
    const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return static_cast<uint16_t>(sign | ((rounded - 0x38000000) >> 13));
}

inline float from_half_one(uint16_t h) {
    const uint32_t sign = uint32_t(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    float x;
    if (exponent == 0) {
        x = static_cast<float>(fraction) * 5.9604644775390625e-8f;  // 2^-24
        uint32_t b;
        std::memcpy(&b, &x, 4);
        b |= sign;
        std::memcpy(&x, &b, 4);
        return x;
    }
    const uint32_t b = sign | (exponent == 31 ? 0x7f800000u | fraction << 13
                                              : (exponent + 112) << 23 | fraction << 13);
    std::memcpy(&x, &b, 4);
    return x;
}

// in (n) float -> out (n) half. What is too large becomes the largest half; returns how many did.
inline int64_t to_half(const float* in, int64_t n, uint16_t* out) {
    int64_t clipped = 0, i = 0;
    for (int64_t j = 0; j < n; ++j) clipped += in[j] > half_max || in[j] < -half_max;
#ifdef __F16C__
    const __m256 top = _mm256_set1_ps(half_max), bottom = _mm256_set1_ps(-half_max);
    for (; i + 8 <= n; i += 8) {  // min and max return their second operand for NaN: it stays NaN
        const __m256 x = _mm256_max_ps(bottom, _mm256_min_ps(top, _mm256_loadu_ps(in + i)));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                         _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    }
#endif
    for (; i < n; ++i)
        out[i] = to_half_one(in[i] > half_max ? half_max : in[i] < -half_max ? -half_max : in[i]);
    return clipped;
}

inline void from_half(const uint16_t* in, int64_t n, float* out) {
    int64_t i = 0;
#ifdef __F16C__
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(
            out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
#endif
    for (; i < n; ++i) out[i] = from_half_one(in[i]);
}

struct Samples {
    const void* data;
    bool half;

    // The n samples from the i-th on: those in memory, or, of halves, converted ones in `room`.
    const float* floats(int64_t i, int64_t n, float* room) const {
        if (!half) return static_cast<const float*>(data) + i;
        from_half(static_cast<const uint16_t*>(data) + i, n, room);
        return room;
    }
};

// N windows of C channels x `stride` samples, of which T count, from `first` on.
struct Windows {
    Samples X;
    int64_t N, C, stride, first, T;

    // The samples of a channel; `room` holds T of them.
    const float* row(int64_t window, int64_t channel, float* room) const {
        return X.floats((window * C + channel) * stride + first, T, room);
    }
};

}  // namespace eeg
