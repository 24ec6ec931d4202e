// Drives the readers of files, each called by four threads at once: MD5, BDF, and direct reading
// through one object. The file is made up of numbers, in the folder named, which can read directly.
//
//     files [folder]
#include "driver.hpp"

#include <atomic>
#include <fstream>
#include <thread>

#include "../../../csrc/md5.hpp"
#include "../../../csrc/reader.hpp"

using namespace eeg;

template <class Work>
void by_four(const char* name, const Work& work) {
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) threads.emplace_back([&, i] { wrong += !work(i); });
    for (auto& thread : threads) thread.join();
    std::printf("%-24s %s\n", name, wrong ? "DIFFERENT" : "equal");
    failures += wrong;
}

// One signal of 100 samples a record, 64 records.
static std::string bdf() {
    std::string head(512, ' '), data(64 * 300, '\0');
    const auto put = [&](size_t at, const char* text) {
        head.replace(at, std::strlen(text), text);
    };
    put(0,
        "\xff"
        "BIOSEMI");
    for (const auto& [at, text] : {std::pair(184, "512"), {236, "64"}, {244, "1"}, {252, "1"}})
        put(static_cast<size_t>(at), text);
    for (const auto& [before, text] : {std::pair(0, "E1"),
                                       {96, "uV"},
                                       {104, "-8388608"},
                                       {112, "8388607"},
                                       {120, "-8388608"},
                                       {128, "8388607"},
                                       {216, "100"}})
        put(256 + static_cast<size_t>(before), text);
    for (size_t t = 0; t < data.size() / 3; ++t) {  // the sample is its own number
        data[3 * t] = static_cast<char>(t);
        data[3 * t + 1] = static_cast<char>(t >> 8);
    }
    return head + data;
}

int main(int count, char** words) {
    const std::string path = std::string(count > 1 ? words[1] : ".") + "/driven.bdf";
    const std::string content = bdf();
    std::ofstream(path, std::ios::binary) << content;

    const BdfFile recording(path);
    by_four("BDF", [&](int i) {
        const std::vector<int64_t> starts = {17 * i, 6000, 99};
        const std::vector<int32_t> channels = {0};
        std::vector<float> out(3 * 250);
        recording.read(view_of(starts), view_of(channels), View<float, 3>{out.data(), {3, 1, 250}});
        bool right = true;
        for (size_t w = 0; w < 3; ++w)
            for (size_t t = 0; t < 250; ++t)
                right &= out[250 * w + t] == static_cast<float>(starts[w]) + static_cast<float>(t);
        return right;
    });
    const File file(path);
    std::vector<uint8_t> first(16);
    md5({{&file, 0, file.size(), first.data()}});
    by_four("MD5", [&](int) {
        std::vector<uint8_t> digests(16 * 9);
        std::vector<Md5Piece> pieces;
        for (int64_t i = 0; i < 9; ++i)
            pieces.push_back({&file, 0, file.size(), digests.data() + 16 * i});
        md5(pieces);
        return std::memcmp(digests.data() + 16 * 8, first.data(), 16) == 0;
    });
#ifdef __linux__
    try {
        DirectFiles direct({path}, 4);
        by_four("direct reading", [&](int i) {
            alignas(4096) static thread_local uint8_t room[4 * 4096];
            const std::vector<int32_t> which(4, 0);
            const std::vector<int64_t> bytes(4, 4096), offset = {4096 * (i % 4), 0, 4096, 8192};
            std::vector<int64_t> got(4);
            bool right = true;
            for (int turn = 0; turn < 50; ++turn) {
                direct.read({view_of(which), view_of(offset), view_of(bytes)}, {room, {4, 4096}},
                            {got.data(), {4}});
                for (size_t k = 0; k < 4; ++k)
                    right &= got[k] == 4096 &&
                             std::memcmp(room + 4096 * k, content.data() + offset[k], 4096) == 0;
            }
            return right;
        });
    } catch (const std::system_error& e) {
        std::printf("direct reading           not possible here: %s\n", e.what());
    }
#endif
    return failures;
}
