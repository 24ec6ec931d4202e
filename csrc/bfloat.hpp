// bfloat16, the upper 16 bits of a float: read without loss, and rounded to the nearest, ties to
// even, where it is written.
#pragma once

#include <cstdint>
#include <cstring>

namespace eeg {

struct Bfloat {
    uint16_t bits;

    Bfloat() = default;
    Bfloat(float x) {
        uint32_t all;
        std::memcpy(&all, &x, 4);
        const uint32_t rounded = (all + 0x7fff + (all >> 16 & 1)) >> 16;
        const bool is_nan = (all & 0x7fffffff) > 0x7f800000;
        bits = static_cast<uint16_t>(is_nan ? 0x7fc0 : rounded);
    }
    operator float() const {
        const uint32_t all = uint32_t(bits) << 16;
        float x;
        std::memcpy(&x, &all, 4);
        return x;
    }
};
static_assert(sizeof(Bfloat) == 2);

}  // namespace eeg
