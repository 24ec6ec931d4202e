// What a physiologist would measure in a window: potentials, rhythms, flicker, and how rough the
// signal is. eeg/models/features.py says in one line what each feature is.
//
// Shapes: as in channels.hpp. Groups are lists of channel numbers; M channels are in any group. A
// channel that cannot be used is left out of its groups; what then cannot be computed is NaN.
#pragma once

#include <string>

#include "channels.hpp"

namespace eeg {

// The features of a window, in the order of eeg/models/features.py, which says what they are. A
// new one is named here and written below; a test compares the two lists.
// clang-format off
#define EEG_QUARTERS(F, name) F(name##_1) F(name##_2) F(name##_3) F(name##_4)
#define EEG_FEATURES(F)                                                   \
    F(p300_amplitude) F(p300_latency) F(n200_amplitude)                   \
    F(cpp_slope) EEG_QUARTERS(F, cpp)                                     \
    F(motor_slope) F(motor_amplitude)                                     \
    F(lrp_amplitude) F(lrp_onset) F(lrp_side)                             \
    EEG_QUARTERS(F, mu) EEG_QUARTERS(F, beta)                             \
    F(alpha_suppression) F(theta_beta_ratio)                              \
    F(ssvep20) F(ssvep25) EEG_QUARTERS(F, ssvep_difference)               \
    F(alpha_peak_frequency) F(alpha_peak_height)                          \
    F(aperiodic_slope) F(aperiodic_offset)
// clang-format on
#define EEG_GROUPS(F) F(parietal) F(motor_left) F(motor_right) F(frontal) F(occipital)

enum Group { EEG_GROUPS(EEG_ITEM) n_groups };
namespace of {
enum Feature { EEG_FEATURES(EEG_ITEM) n_before_groups };
constexpr const char* names[] = {EEG_FEATURES(EEG_NAME)};
}  // namespace of
constexpr const char* group_names[] = {EEG_GROUPS(EEG_NAME)};
constexpr int n_features = of::n_before_groups + n_groups * n_channel_features;

// The names of the columns that window_features writes, in their order.
inline std::vector<std::string> feature_names() {
    std::vector<std::string> all(of::names, of::names + of::n_before_groups);
    for (const char* group : group_names)
        for (const char* name : own::names) all.push_back(std::string(group) + "_" + name);
    return all;
}

namespace feature {

// samples; a mean over 100 ms is blind to 10, 20 and 30 Hz: alpha and the flicker
constexpr int64_t smoothing = 10;

// A Hann-windowed DFT of n samples at a few frequencies, for parts of a window.
struct ShortDft {
    int64_t n, count, P;
    std::vector<double> table;  // (n, 2, P)
    double sum = 0;             // of the Hann window

    ShortDft(int64_t n_, const std::vector<double>& hertz)
        : n(n_), count(hertz.size()), P((count + 7) / 8 * 8), table(2 * n * P, 0.0) {
        for (int64_t t = 0; t < n; ++t) {
            const double hann = 0.5 - 0.5 * std::cos(2 * M_PI * t / n);
            sum += hann;
            for (int64_t k = 0; k < count; ++k) {
                const double angle = 2 * M_PI * hertz[k] * t / rate;
                table[2 * t * P + k] = hann * std::cos(angle);
                table[(2 * t + 1) * P + k] = hann * std::sin(angle);
            }
        }
    }
    // x (n), every `stride`-th -> power (P), |DFT|^2 of x less its mean; z (2, P) is scratch
    void operator()(const double* x, int64_t stride, double* z, double* power) const {
        double mean = 0;
        for (int64_t t = 0; t < n; ++t) mean += x[t * stride];
        mean /= std::max<int64_t>(n, 1);
        std::fill(z, z + 2 * P, 0.0);
        for (int64_t t = 0; t < n; ++t)
            for (int64_t k = 0; k < 2 * P; ++k)
                z[k] += (x[t * stride] - mean) * table[2 * t * P + k];
        for (int64_t k = 0; k < P; ++k) power[k] = z[k] * z[k] + z[P + k] * z[P + k];
    }
};

inline std::vector<double> frequencies(Range range, int64_t n) {
    std::vector<double> all;
    for (int64_t k = range.first; k < range.last; ++k) all.push_back(k * rate / n);
    return all;
}

inline double total(const double* x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += x[i];
    return sum;
}

// Least squares. slope per step of x; NaN for fewer than `least` points.
struct Line {
    double slope, at_zero;
};
inline Line fit(const double* x, const double* y, int64_t n, int64_t least) {
    if (n < least) return {nan, nan};
    const double mx = total(x, n) / n, my = total(y, n) / n;
    double xy = 0, xx = 0;
    for (int64_t i = 0; i < n; ++i) {
        xy += (x[i] - mx) * (y[i] - my);
        xx += (x[i] - mx) * (x[i] - mx);
    }
    return {xy / xx, my - xy / xx * mx};
}

struct Plan {
    int64_t T;
    Dft dft;
    // bins of the 1/f line: 2-6 and 14-38 Hz, without the flicker at 20 and 25 Hz
    std::vector<int64_t> aperiodic;
    Range alpha_peak;  // 6-14 Hz
    Range mu, beta_quarter, alpha_half;
    ShortDft whole;    // 20 and 25 Hz
    ShortDft quarter;  // mu, beta, 20 and 25 Hz
    ShortDft half;     // alpha
    std::vector<double> seconds, log_hertz;

    explicit Plan(int64_t T_)
        : T(T_), dft(T_), alpha_peak(bins_between(6, 14, T_)), mu(bins_between(8, 13, T_ / 4)),
          beta_quarter(bins_between(13, 30, T_ / 4)), alpha_half(bins_between(8, 13, T_ / 2)),
          whole(T_, {20, 25}), quarter(T_ / 4, quarter_frequencies()),
          half(T_ / 2, frequencies(alpha_half, T_ / 2)) {
        for (Range r : {bins_between(2, 6, T), bins_between(14, 38, T)})
            for (int64_t k = r.first; k < r.last; ++k) {
                const double f = k * rate / T;
                if (std::fabs(f - 20) > 1 + 1e-9 && std::fabs(f - 25) > 1 + 1e-9 && k + 1 < dft.K)
                    aperiodic.push_back(k);
            }
        for (int64_t t = 0; t < T; ++t) seconds.push_back(t / rate);
        for (int64_t k = 0; k < dft.K; ++k) log_hertz.push_back(std::log10(k * rate / T));
    }
    std::vector<double> quarter_frequencies() const {
        std::vector<double> all = frequencies(mu, T / 4), more = frequencies(beta_quarter, T / 4);
        all.insert(all.end(), more.begin(), more.end());
        all.insert(all.end(), {20, 25});
        return all;
    }
};

// The channels of each group.
struct Groups {
    int64_t M;
    const int32_t* chosen;         // (M) the channels of any group
    const int32_t* members;        // positions in chosen, one group after the other
    int64_t offset[n_groups + 1];  // where each group's members start

    template <class Work>
    void each(int group, const Channels& channels, const Work& work) const {
        for (int64_t i = offset[group]; i < offset[group + 1]; ++i)
            if (channels.channel[members[i]].usable) work(members[i]);
    }
};

// The memory of one thread.
struct Scratch {
    Channels channels;
    Channel mean[n_groups];
    std::vector<double> wave;  // (n_groups, T)
    std::vector<double> smooth, spectrum, power, z, log_x, log_y;

    Scratch(const Plan& p, int64_t M)
        : channels(p.dft, M, true), wave(n_groups * p.T), smooth(p.T), spectrum(p.dft.K),
          power(std::max({p.quarter.P, p.half.P, p.whole.P})),
          z(std::max<int64_t>(2 * power.size(), p.T)), log_x(p.dft.K), log_y(p.dft.K) {}
};

// wave (T) -> out (T - 9), means of 10 samples; the j-th is at (j + 4.5) / 100 s. -> how many.
inline int64_t smoothed(const double* wave, int64_t T, double* out) {
    const int64_t n = std::max<int64_t>(T - smoothing + 1, 0);
    for (int64_t j = 0; j < n; ++j) out[j] = total(wave + j, smoothing) / smoothing;
    return n;
}
inline double seconds_at(int64_t j) { return (j + (smoothing - 1) / 2.0) / rate; }

// The 1/f line through log10 of a spectrum (K) over log10 of frequency.
inline Line aperiodic_line(const Plan& p, Scratch& s, const double* spectrum) {
    const int64_t n = p.aperiodic.size();
    for (int64_t i = 0; i < n; ++i) {
        s.log_x[i] = p.log_hertz[p.aperiodic[i]];
        s.log_y[i] = std::log10(spectrum[p.aperiodic[i]]);
    }
    return fit(s.log_x.data(), s.log_y.data(), n, 3);
}

// Potentials: the centro-parietal positivity, the motor potential, its lateralised part.
inline void potentials(const Plan& p, Scratch& s, double* out) {
    const int64_t T = p.T, quarter = T / 4;
    const double *cpp = s.wave.data() + parietal * T, *left = s.wave.data() + motor_left * T,
                 *right = s.wave.data() + motor_right * T;
    double* smooth = s.smooth.data();

    int64_t n = smoothed(cpp, T, smooth);
    const bool seen = n > 0 && !std::isnan(cpp[0]);
    const int64_t peak = seen ? std::max_element(smooth, smooth + n) - smooth : 0;
    const int64_t rise = std::max<int64_t>(peak - 49, 0);
    if (seen) {
        out[of::p300_amplitude] = smooth[peak];
        out[of::p300_latency] = seconds_at(peak);
        out[of::n200_amplitude] = *std::min_element(smooth, smooth + peak + 1);
        out[of::cpp_slope] = fit(p.seconds.data(), smooth + rise, peak - rise + 1, 10).slope;
    }
    for (int q = 0; q < 4; ++q) out[of::cpp_1 + q] = total(cpp + q * quarter, quarter) / quarter;

    double* wave = s.z.data();  // T values: s.z is made long enough
    for (int64_t t = 0; t < T; ++t) wave[t] = (left[t] + right[t]) / 2;
    n = smoothed(wave, T, smooth);
    out[of::motor_slope] = fit(p.seconds.data(), wave, T, 2).slope;
    if (n && !std::isnan(wave[0])) out[of::motor_amplitude] = *std::min_element(smooth, smooth + n);

    for (int64_t t = 0; t < T; ++t) wave[t] = left[t] - right[t];
    n = smoothed(wave, T, smooth);
    if (!n || std::isnan(wave[0])) return;
    const auto smaller = [](double a, double b) { return std::fabs(a) < std::fabs(b); };
    int64_t j = std::max_element(smooth, smooth + n, smaller) - smooth;
    const double amplitude = std::fabs(smooth[j]), side = smooth[j] > 0 ? 1 : -1;
    while (j > 0 && side * smooth[j - 1] > amplitude / 2) --j;
    out[of::lrp_amplitude] = amplitude;
    if (j > 0) out[of::lrp_onset] = seconds_at(j);  // else it began before the window
    out[of::lrp_side] = side;
}

// Rhythms over parts of a window: mu and beta in quarters, alpha in halves, the flicker.
inline void courses(const Plan& p, Scratch& s, const Groups& groups, double* out) {
    const int64_t T = p.T, n_mu = p.mu.size(), n_beta = p.beta_quarter.size();
    double mu[4] = {}, beta[4] = {}, alpha[2] = {}, flicker[2], flickers[4][2],
           *power = s.power.data(), *z = s.z.data();
    for (int group : {motor_left, motor_right})
        groups.each(group, s.channels, [&](int64_t m) {
            for (int q = 0; q < 4; ++q) {
                p.quarter(s.channels.signal(m) + W * q * p.quarter.n, W, z, power);
                mu[q] += total(power, n_mu);
                beta[q] += total(power + n_mu, n_beta);
            }
        });
    groups.each(occipital, s.channels, [&](int64_t m) {
        for (int h = 0; h < 2; ++h) {
            p.half(s.channels.signal(m) + W * h * p.half.n, W, z, power);
            alpha[h] += total(power, p.half.count);
        }
    });
    // The flicker has one phase everywhere in visual cortex: the group's mean signal keeps it and
    // loses what has none.
    const double* seen = s.wave.data() + occipital * T;
    p.whole(seen, 1, z, power);
    for (int f = 0; f < 2; ++f) flicker[f] = 2 * std::sqrt(power[f]) / p.whole.sum;
    for (int q = 0; q < 4; ++q) {
        p.quarter(seen + q * p.quarter.n, 1, z, power);
        for (int f = 0; f < 2; ++f)
            flickers[q][f] = 2 * std::sqrt(power[n_mu + n_beta + f]) / p.quarter.sum;
    }
    for (int q = 0; q < 4; ++q) {
        out[of::mu_1 + q] = std::log10(4 * mu[q] / total(mu, 4));
        out[of::beta_1 + q] = std::log10(4 * beta[q] / total(beta, 4));
        out[of::ssvep_difference_1 + q] = flickers[q][0] - flickers[q][1];
    }
    out[of::alpha_suppression] = std::log10(alpha[1] / alpha[0]);
    const Channel& front = s.mean[frontal];
    out[of::theta_beta_ratio] = std::log10(front.value[own::theta] / front.value[own::beta]);
    out[of::ssvep20] = flicker[0];
    out[of::ssvep25] = flicker[1];
}

// What carries age: the occipital alpha peak's frequency and the fall of the scalp's spectrum.
inline void spectral_shape(const Plan& p, Scratch& s, const Groups& groups, double* out) {
    const int64_t K = p.dft.K;
    // |DFT|^2 -> uV^2/Hz; 3/8 is a Hann window's mean square
    const double density = 2 / (rate * 0.375 * p.T);
    double* spectrum = s.spectrum.data();
    double used = 0;
    const auto add = [&](int64_t m) {
        ++used;
        for (int64_t k = 1; k + 1 < K; ++k) spectrum[k] += s.channels.hann_power(m, k);
    };
    const auto average = [&] {
        for (int64_t k = 0; k < K; ++k) spectrum[k] *= density / used;
    };
    std::fill(spectrum, spectrum + K, 0.0);
    groups.each(occipital, s.channels, add);
    average();
    Line line = aperiodic_line(p, s, spectrum);
    int64_t peak = -1;
    const int64_t stop = std::min(p.alpha_peak.last, K - 2);
    for (int64_t k = std::max<int64_t>(p.alpha_peak.first, 2); k < stop; ++k)
        if (spectrum[k] > spectrum[k - 1] && spectrum[k] >= spectrum[k + 1] &&
            (peak < 0 || spectrum[k] > spectrum[peak]))
            peak = k;
    if (peak > 0) {
        const double low = std::log10(spectrum[peak - 1]), here = std::log10(spectrum[peak]),
                     high = std::log10(spectrum[peak + 1]);
        const double height = here - (line.at_zero + line.slope * p.log_hertz[peak]);
        // A bump of twice the 1/f line. The parabola through three bins is finer than a bin.
        if (height > std::log10(2.0)) {
            const double bin = peak + 0.5 * (low - high) / (low - 2 * here + high);
            out[of::alpha_peak_frequency] = bin * rate / p.T;
            out[of::alpha_peak_height] = height;
        }
    }
    used = 0;
    std::fill(spectrum, spectrum + K, 0.0);
    for (int64_t m = 0; m < groups.M; ++m)
        if (s.channels.channel[m].usable) add(m);
    average();
    line = aperiodic_line(p, s, spectrum);
    out[of::aperiodic_slope] = line.slope;
    out[of::aperiodic_offset] = line.at_zero;
}

// Means over the usable channels of each group; 0 / 0 is NaN where there are none.
inline void average_groups(const Groups& groups, int64_t T, Scratch& s) {
    for (int group = 0; group < n_groups; ++group) {
        double sum[n_channel_features] = {}, used = 0, *wave = s.wave.data() + group * T;
        std::fill(wave, wave + T, 0.0);
        groups.each(group, s.channels, [&](int64_t m) {
            const double* d = s.channels.signal(m);
            ++used;
            for (int f = 0; f < n_channel_features; ++f) sum[f] += s.channels.channel[m].value[f];
            for (int64_t t = 0; t < T; ++t) wave[t] += d[W * t];
        });
        for (int64_t t = 0; t < T; ++t) wave[t] /= used;
        for (int f = 0; f < n_channel_features; ++f) s.mean[group].value[f] = sum[f] / used;
    }
}

}  // namespace feature

// chosen (M): channels; members: positions in it, one group after the other; sizes (n_groups): how
// many of them each group has. out (X.N, n_features), NaN where a feature cannot be computed.
inline void window_features(const Windows& X, const View<const int32_t>& chosen,
                            const View<const int32_t>& members, const View<const int32_t>& sizes,
                            const View<float, 2>& out, Threads threads) {
    const feature::Plan plan(X.T);
    feature::Groups groups{chosen.size(), chosen.data, members.data, {}};
    for (int g = 0; g < n_groups; ++g) groups.offset[g + 1] = groups.offset[g] + sizes[g];
    const feature::Scratch scratch(plan, chosen.size());
    feature::over_windows(X.N, threads, scratch, [&](int64_t w, feature::Scratch& s) {
        double all[n_features];
        std::fill(all, all + n_features, feature::nan);
        s.channels.describe_window(X, w, chosen.data);
        feature::average_groups(groups, X.T, s);
        feature::potentials(plan, s, all);
        feature::courses(plan, s, groups, all);
        feature::spectral_shape(plan, s, groups, all);
        double* at = all + of::n_before_groups;
        for (const feature::Channel& mean : s.mean)
            for (int f = 0; f < n_channel_features; ++f)
                *at++ = f <= own::log_power ? std::log10(mean.value[f]) : mean.value[f];
        for (int f = 0; f < n_features; ++f)
            *out.at(w, f) = std::isfinite(all[f]) ? all[f] : feature::nan;
    });
}

}  // namespace eeg
