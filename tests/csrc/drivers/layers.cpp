// Drives the layers, forward and backward: the depthwise convolution, and the norm with its ReLU.
#include "driver.hpp"

#include "../../../csrc/depthwise.hpp"
#include "../../../csrc/norm.hpp"

using namespace eeg;

static void convolutions(int64_t C) {
    for (const int64_t dilation : {1, 3, 90}) {
        const int64_t B = 5, T = 83, K = 15;
        const std::vector<float> in = random_floats(B * T * C), taps = random_floats(C * K),
                                 start = random_floats(C);
        const View<const float, 3> x{in.data(), {B, T, C}};
        const View<const float, 2> weight{taps.data(), {C, K}};
        same<float>("depthwise forward", x.size(), [&](Threads threads, float* y) {
            const View<float, 3> to{y, {B, T, C}};
            depthwise_forward(x, weight, view_of(start), dilation, to, threads);
        });
        same<float>("depthwise backward", x.size() + C * K + C, [&](Threads threads, float* out) {
            const Gradients<float> to{
                {out, {B, T, C}}, {out + x.size(), {C, K}}, {out + x.size() + C * K, {C}}};
            depthwise_backward(x, weight, x, dilation, to, threads);
        });
    }
}

template <class Number>
static void norms() {
    const int64_t B = 7, T = 31, C = 37;
    std::vector<Number> in(B * T * C);
    for (Number& x : in) put(random_floats(1)[0], x);
    const std::vector<float> gain = random_floats(C), bias = random_floats(C),
                             masks = random_floats(B * C), mean = random_floats(C),
                             variance(static_cast<size_t>(C), 0.3f);
    const View<const Number, 3> x{in.data(), {B, T, C}};
    const View<const float, 2> mask{masks.data(), {B, C}};
    const NormInputs<Number> inputs{x, mask, view_of(gain), view_of(bias), 1e-5f};
    same<float>("norm forward", x.size() + 2 * C, [&](Threads threads, float* out) {
        const BatchMoments moments{{out, {C}}, {out + C, {C}}};
        const View<Number, 3> y{reinterpret_cast<Number*>(out + 2 * C), {B, T, C}};
        norm_forward(inputs, x, y, moments, threads);
    });
    same<float>("norm backward", x.size() + 2 * C, [&](Threads threads, float* out) {
        const NormGradients sums{{out, {C}}, {out + C, {C}}};
        const View<Number, 3> gz{reinterpret_cast<Number*>(out + 2 * C), {B, T, C}};
        norm_backward(inputs, view_of(mean), view_of(variance), x, gz, sums, threads);
    });
}

int main() {
    convolutions(37);
    convolutions(33);  // a single last channel
    norms<float>();
    norms<Bfloat>();
    return failures;
}
