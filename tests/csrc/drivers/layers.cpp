// Drives the depthwise convolution, forward and backward.
#include "driver.hpp"

#include "../../../csrc/depthwise.hpp"

using namespace eeg;

int main() {
    for (const int64_t dilation : {1, 3, 90}) {
        const int64_t B = 5, T = 83, C = 37, K = 15;
        const std::vector<float> in = random_floats(B * T * C), taps = random_floats(C * K),
                                 start = random_floats(C);
        const View<const float, 3> x{in.data(), {B, T, C}};
        const View<const float, 2> weight{taps.data(), {C, K}};
        same<float>("depthwise forward", x.size(), [&](Threads threads, float* y) {
            depthwise_forward(x, weight, view_of(start), dilation, {y, {B, T, C}}, threads);
        });
        same<float>("depthwise backward", x.size() + C * K + C, [&](Threads threads, float* out) {
            const Gradients to{
                {out, {B, T, C}}, {out + x.size(), {C, K}}, {out + x.size() + C * K, {C}}};
            depthwise_backward(x, weight, x, dilation, to, threads);
        });
    }
    return failures;
}
