// Layers of networks.
#pragma once

#include "../depthwise.hpp"
#include "checks.hpp"

namespace eeg::bind {

struct DepthwiseInputs {
    View<const float, 3> x;
    View<const float, 2> weight;
};

inline DepthwiseInputs depthwise_inputs(const array<float>& x, const array<float>& weight,
                                        int64_t dilation) {
    const std::string windows =
        "(windows, samples, channels) with at least one sample and one channel";
    const auto seen = view<3>("x", x, windows);
    if (seen.shape[1] == 0 || seen.shape[2] == 0) wrong("x", windows, x);
    const std::string filters = text("(", x.shape(2), " channels, an odd number of taps)");
    const auto taps = view<2>("weight", weight, filters);
    if (taps.shape[0] != seen.shape[2] || taps.shape[1] % 2 == 0) wrong("weight", filters, weight);
    if (dilation < 1)
        throw py::value_error(text("dilation must be at least 1 sample, got ", dilation));
    return {seen, taps};
}

inline void forward(const array<float>& x, const array<float>& weight,
                    const std::optional<array<float>>& bias, int64_t dilation, array<float> y,
                    int threads) {
    const auto [seen, taps] = depthwise_inputs(x, weight, dilation);
    const auto to = written("y", y, seen.shape);
    View<const float> start;
    if (bias) start = view("bias", *bias, std::array{seen.shape[2]});
    const Threads used(threads);
    py::gil_scoped_release release;
    depthwise_forward(seen, taps, start, dilation, to, used);
}

inline void backward(const array<float>& x, const array<float>& weight, const array<float>& gy,
                     int64_t dilation, std::optional<array<float>> gx,
                     std::optional<array<float>> gw, std::optional<array<float>> gb, int threads) {
    const auto [seen, taps] = depthwise_inputs(x, weight, dilation);
    const auto arrives = view("gy", gy, seen.shape);
    const Gradients to{written("gx", gx, seen.shape), written("gw", gw, taps.shape),
                       written("gb", gb, std::array{seen.shape[2]})};
    const Threads used(threads);
    py::gil_scoped_release release;
    depthwise_backward(seen, taps, arrives, dilation, to, used);
}

}  // namespace eeg::bind
