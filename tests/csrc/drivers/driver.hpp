// What the drivers share. A driver calls every kernel of a family with one thread and with four,
// whose results must be equal bit for bit. It needs no Python: the thread sanitizer runs it, and an
// emulator of another processor.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "../../../csrc/threads.hpp"
#include "../../../csrc/view.hpp"

static uint64_t random_state = 88172645463325252ull;
inline uint64_t random_bits() {  // xorshift64*
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 2685821657736338717ull;
}

// -1 ... 1
inline std::vector<float> random_floats(int64_t n) {
    std::vector<float> all(static_cast<size_t>(n));
    for (float& x : all) x = static_cast<float>(random_bits() >> 40) * 0x1p-23f - 1;
    return all;
}

inline int failures = 0;

// Runs work(threads, out), out (n) of T, with 1 and with 4 threads.
template <class T, class Work>
void same(const char* name, int64_t n, const Work& work) {
    std::vector<T> one(static_cast<size_t>(n), T(7)), four(one);
    work(eeg::Threads(1), one.data());
    work(eeg::Threads(4), four.data());
    const bool equal = std::memcmp(one.data(), four.data(), one.size() * sizeof(T)) == 0;
    double sum = 0;
    for (const T& x : one) sum += x == x ? static_cast<double>(x) : 0;
    std::printf("%-24s %s (sum %.9g)\n", name, equal ? "equal" : "DIFFERENT", sum);
    failures += !equal;
}
