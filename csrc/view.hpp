// Arrays as kernels take them: where the numbers lie, and the shape that was checked before.
// Numbers lie row by row, without gaps.
#pragma once

#include <array>
#include <cstdint>
#include <variant>
#include <vector>

#include "half.hpp"

namespace eeg {

template <class T, int rank = 1>
struct View {
    T* data = nullptr;
    std::array<int64_t, rank> shape{};

    // Whether there is an array: some are optional.
    explicit operator bool() const { return data != nullptr; }
    int64_t size() const {
        int64_t all = 1;
        for (const int64_t n : shape) all *= n;
        return all;
    }
    T& operator[](int64_t i) const { return data[i]; }

    // The first number of a row, of a window, ...: of what its leading indices name.
    template <class... Index>
    T* at(Index... index) const {
        static_assert(sizeof...(index) <= rank);
        const int64_t named[] = {index...};
        int64_t place = 0;
        for (size_t axis = 0; axis < rank; ++axis)
            place = place * shape[axis] + (axis < sizeof...(index) ? named[axis] : 0);
        return data + place;
    }
};

template <class T>
View<const T> view_of(const std::vector<T>& list) {
    return {list.data(), {static_cast<int64_t>(list.size())}};
}

// Windows of C channels x S samples (N, C, S): float, or the bits of float16; std::visit knows.
typedef std::variant<View<const float, 3>, View<const uint16_t, 3>> Samples;

// n samples in memory as floats: themselves, or of halves, converted ones in `room`.
inline const float* as_floats(const float* in, int64_t, float*) { return in; }
inline const float* as_floats(const uint16_t* in, int64_t n, float* room) {
    from_half(in, n, room);
    return room;
}

// N windows of C channels, of whose samples T count, from `first` on.
struct Windows {
    Samples X;
    int64_t N, C, first, T;

    // The samples of a channel; `room` holds T of them.
    const float* row(int64_t window, int64_t channel, float* room) const {
        return std::visit(
            [&](const auto& x) { return as_floats(x.at(window, channel) + first, T, room); }, X);
    }
};

}  // namespace eeg
