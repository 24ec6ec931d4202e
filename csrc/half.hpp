// float16, the 16 bits of a sample in a cache, to and from float, in blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#ifdef __F16C__
#include <immintrin.h>
#endif

namespace eeg {

constexpr float half_max = 65504.0f;

// Only converted, to the nearest, ties to even.
#ifdef __x86_64__
typedef _Float16 Half;
#else
typedef __fp16 Half;
#endif

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
    for (; i < n; ++i) {
        const Half x = std::min(std::max(in[i], -half_max), half_max);
        std::memcpy(out + i, &x, 2);
    }
    return clipped;
}

inline void from_half(const uint16_t* in, int64_t n, float* out) {
    int64_t i = 0;
#ifdef __F16C__
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(
            out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
#endif
    for (; i < n; ++i) {
        Half x;
        std::memcpy(&x, in + i, 2);
        out[i] = x;
    }
}

}  // namespace eeg
