// A fuzzer over the BDF reader: good files of many shapes with bytes, fields and lengths changed,
// parsed and, where the header is believed, decoded at random windows. `make sanitize` builds it
// with the sanitizers; it finds by crashing.
//
//     fuzz_bdf [files] [seed]

#include <cstdio>
#include <memory>

#include <sys/mman.h>
#include <unistd.h>

#include "../../../csrc/reader.hpp"

static uint64_t state;
static uint64_t next() {  // xorshift64*
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return state * 2685821657736338717ull;
}
static int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }

static void put(std::vector<uint8_t>& file, int64_t at, const std::string& text, size_t width) {
    for (size_t i = 0; i < width; ++i)
        file[static_cast<size_t>(at) + i] = i < text.size() ? static_cast<uint8_t>(text[i]) : ' ';
}

static std::vector<uint8_t> good_file() {
    const int64_t S = 1 + below(4), N = 1 + below(12), R = 1 + below(4);
    std::vector<uint8_t> file(static_cast<size_t>(256 * (S + 1) + 3 * S * N * R), ' ');
    for (auto& b : file) b = static_cast<uint8_t>(next());
    file[0] = 255;
    put(file, 1, "BIOSEMI", 7);
    put(file, 184, std::to_string(256 * (S + 1)), 8), put(file, 236, std::to_string(R), 8),
        put(file, 244, "1", 8), put(file, 252, std::to_string(S), 4);
    const char* labels[] = {"E1", "Cz", "Status", "BDF Annotations"};
    for (int64_t s = 0; s < S; ++s) {
        auto field = [&](int64_t before, size_t width, const std::string& text) {
            put(file, 256 + S * before + static_cast<int64_t>(width) * s, text, width);
        };
        field(0, 16, s ? labels[below(4)] : "E1"), field(96, 8, below(2) ? "uV" : "mV"),
            field(104, 8, "-100"), field(112, 8, "100");
        field(120, 8, "-8388608"), field(128, 8, "8388607"), field(216, 8, std::to_string(N));
    }
    return file;
}

static void spoil(std::vector<uint8_t>& file) {
    static const char* numbers[] = {"0",        "-1",    "1",    "2",    "99999999",
                                    "-9999999", "1e300", "nan",  "inf",  "1e-30",
                                    "0.5",      "",      "0x10", "12 3", "9999"};
    const int64_t fields[] = {184, 236, 244, 252};
    for (int64_t k = below(4); k > 0 && !file.empty(); --k) switch (below(5)) {
            case 0:
                file[static_cast<size_t>(below(static_cast<int64_t>(file.size())))] =
                    static_cast<uint8_t>(next());
                break;
            case 1:
                file[static_cast<size_t>(
                    below(std::min<int64_t>(static_cast<int64_t>(file.size()), 1600)))] =
                    static_cast<uint8_t>('-' + below(13));
                break;
            case 2: {
                const int64_t at = fields[below(4)];
                if (at + 8 < static_cast<int64_t>(file.size()))
                    put(file, at, numbers[below(15)], at == 252 ? 4 : 8);
                break;
            }
            case 3: {  // a field of the first signals
                const int64_t at = 256 + 8 * below(160);
                if (at + 8 < static_cast<int64_t>(file.size()))
                    put(file, at, numbers[below(15)], 8);
                break;
            }
            default:
                file.resize(static_cast<size_t>(below(static_cast<int64_t>(file.size()) + 20)));
        }
}

// The rest of the header is read when another file lies there.
static void swapped_while_read(const std::vector<uint8_t>& whole) {
    const int64_t size = static_cast<int64_t>(whole.size());
    // exactly as long as the file: a byte more is found
    std::unique_ptr<uint8_t[]> file(new uint8_t[whole.size()]);
    std::copy(whole.begin(), whole.end(), file.get());
    const auto read = [&](int64_t offset, int64_t bytes, uint8_t* out) {
        std::copy_n(file.get() + offset, bytes, out);
        if (size >= 256) std::copy_n("4000", 4, file.get() + 252);
    };
    eeg::read_bdf_header(read, size);
}

// All channels of three windows, in float and in float16; sometimes the file shrinks before.
static double decode(const eeg::BdfFile& file, int descriptor, int64_t size) {
    const eeg::BdfHeader& h = file.header();
    if (below(20) == 0 && ftruncate(descriptor, below(size)) != 0) std::abort();
    const int64_t T = 1 + below(40), C = static_cast<int64_t>(h.signals.size());
    const std::vector<int64_t> starts = {below(h.n_times()), -below(T), h.n_times() - 1};
    std::vector<int32_t> channels;
    for (int32_t s = 0; s < C; ++s) channels.push_back(s);
    std::vector<float> out(static_cast<size_t>(3 * C * T));
    std::vector<uint16_t> half(out.size());
    file.read(eeg::view_of(starts), eeg::view_of(channels),
              eeg::View<float, 3>{out.data(), {3, C, T}});
    file.read(eeg::view_of(starts), eeg::view_of(channels),
              eeg::View<uint16_t, 3>{half.data(), {3, C, T}});
    return out[0];
}

int main(int count, char** words) {
    const int64_t files = count > 1 ? std::atoll(words[1]) : 1000000;
    state = count > 2 ? static_cast<uint64_t>(std::atoll(words[2])) : 88172645463325252ull;
    const int descriptor = memfd_create("spoilt", 0);
    const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
    int64_t refused = 0, decoded = 0, ended = 0;
    double sum = 0;
    for (int64_t i = 0; i < files; ++i) {
        auto whole = good_file();
        spoil(whole);
        const int64_t size = static_cast<int64_t>(whole.size());
        if (ftruncate(descriptor, 0) != 0 ||
            pwrite(descriptor, whole.data(), whole.size(), 0) != size)
            std::abort();
        try {
            if (below(20) == 0) swapped_while_read(whole);
            const double first = decode(eeg::BdfFile(path), descriptor, size);
            if (std::isfinite(first)) sum += first;
            ++decoded;
        } catch (const eeg::BadBdf&) {
            ++refused;
        } catch (const std::system_error&) {
            ++ended;
        }
    }
    std::printf("%lld files: %lld decoded, %lld refused with a reason, %lld ended early (sum %g)\n",
                static_cast<long long>(files), static_cast<long long>(decoded),
                static_cast<long long>(refused), static_cast<long long>(ended), sum);
    return decoded == 0 || refused == 0 || ended == 0;
}
