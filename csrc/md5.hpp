// MD5 (RFC 1321) of many pieces of files, 8 at a time: one piece goes from step to step in order,
// but the same step of 8 pieces is one vector instruction.
//
// Shapes: a piece is so many bytes of a file, hashed in blocks of 64 bytes; lane l of every vector
// belongs to one piece. A lane whose piece is done takes the next one.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "file.hpp"
#include "simd.hpp"

namespace eeg {

struct Md5Piece {
    const File* file;
    int64_t offset, bytes;
    uint8_t* digest;  // (16)
};

namespace detail {

constexpr int md5_lanes = 8;
constexpr int64_t md5_block = 64, md5_chunk = 1 << 15;  // a chunk of each lane: together 256 KB
typedef Vector<uint32_t, md5_lanes> words8;
struct Md5State {
    words8 word[4];
};

constexpr uint32_t md5_start[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
constexpr int md5_turns[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};

inline const uint32_t* md5_constants() {
    static const auto table = [] {
        std::array<uint32_t, 64> made;
        for (int i = 0; i < 64; ++i)
            made[i] = uint32_t(std::floor(0x1p32 * std::fabs(std::sin(i + 1.0))));
        return made;
    }();
    return table.data();
}

// 8 words of each lane, from `at` bytes on: word j of all lanes becomes w[j], an 8 x 8 transpose.
inline void md5_words(const uint8_t* const* data, int64_t at, words8* w) {
    words8 row[8], two[8], four[8];
    for (int l = 0; l < 8; ++l) std::memcpy(&row[l], data[l] + at, 32);
    for (int l = 0; l < 8; l += 2) {
        two[l] = shuffle<0, 8, 1, 9, 4, 12, 5, 13>(row[l], row[l + 1]);
        two[l + 1] = shuffle<2, 10, 3, 11, 6, 14, 7, 15>(row[l], row[l + 1]);
    }
    for (int l = 0; l < 8; l += 4)
        for (int i = 0; i < 2; ++i) {
            const words8 low = two[l + i], high = two[l + i + 2];
            four[l + 2 * i] = shuffle<0, 1, 8, 9, 4, 5, 12, 13>(low, high);
            four[l + 2 * i + 1] = shuffle<2, 3, 10, 11, 6, 7, 14, 15>(low, high);
        }
    for (int i = 0; i < 4; ++i) {
        w[i] = shuffle<0, 1, 2, 3, 8, 9, 10, 11>(four[i], four[i + 4]);
        w[i + 4] = shuffle<4, 5, 6, 7, 12, 13, 14, 15>(four[i], four[i + 4]);
    }
}

// n blocks of each lane. data (lanes): where each one's blocks begin.
inline void md5_blocks(Md5State& state, const uint8_t* const* data, int64_t n) {
    const uint32_t* constants = md5_constants();
    for (int64_t block = 0; block < n; ++block) {
        words8 w[16];
        md5_words(data, md5_block * block, w);
        md5_words(data, md5_block * block + 32, w + 8);
        words8 a = state.word[0], b = state.word[1], c = state.word[2], d = state.word[3];
#pragma GCC unroll 64
        for (int i = 0; i < 64; ++i) {
            const int turn = md5_turns[i / 16][i % 4];
            words8 f;
            int word;
            if (i < 16) {
                f = d ^ (b & (c ^ d));
                word = i;
            } else if (i < 32) {
                f = c ^ (d & (b ^ c));
                word = (5 * i + 1) % 16;
            } else if (i < 48) {
                f = b ^ c ^ d;
                word = (3 * i + 5) % 16;
            } else {
                f = c ^ (b | ~d);
                word = 7 * i % 16;
            }
            f += a + constants[i] + w[word];
            a = d;
            d = c;
            c = b;
            b += f << turn | f >> (32 - turn);
        }
        state.word[0] += a;
        state.word[1] += b;
        state.word[2] += c;
        state.word[3] += d;
    }
}

// One lane's piece, read chunk by chunk; behind its last byte stands MD5's padding.
class Md5Lane {
  public:
    Md5Lane() : buffer_(md5_chunk + 2 * md5_block) {}

    void begin(const Md5Piece& piece) {
        piece_ = &piece;
        read_ = 0;
        ended_ = false;
        fill();
    }
    bool busy() const { return piece_ != nullptr; }
    int64_t blocks() const { return blocks_; }  // that are read and not hashed
    const uint8_t* data() const { return at_; }

    // n blocks are hashed. -> whether the piece is done
    bool advance(int64_t n) {
        at_ += md5_block * n;
        blocks_ -= n;
        if (blocks_ > 0) return false;
        if (!ended_) fill();
        return blocks_ == 0;
    }
    void end(const Md5State& state, int lane) {
        for (int i = 0; i < 4; ++i) {
            const uint32_t word = state.word[i][lane];
            std::memcpy(piece_->digest + 4 * i, &word, 4);
        }
        piece_ = nullptr;
        at_ = buffer_.data();  // it goes on being hashed, for nothing
    }

  private:
    void fill() {
        int64_t size = std::min(md5_chunk, piece_->bytes - read_);
        piece_->file->read(piece_->offset + read_, size, buffer_.data());
        read_ += size;
        if (size < md5_chunk) {  // the last one, perhaps empty
            const uint64_t bits = 8 * uint64_t(piece_->bytes);
            const int64_t padded = (size + 8) / md5_block * md5_block + md5_block;
            std::memset(buffer_.data() + size, 0, padded - size);
            buffer_[size] = 0x80;
            std::memcpy(buffer_.data() + padded - 8, &bits, 8);
            size = padded;
            ended_ = true;
        }
        at_ = buffer_.data();
        blocks_ = size / md5_block;
    }
    const Md5Piece* piece_ = nullptr;
    std::vector<uint8_t> buffer_;
    const uint8_t* at_ = buffer_.data();
    int64_t blocks_ = 0, read_ = 0;
    bool ended_ = false;
};

}  // namespace detail

// The MD5 of each piece. Throws std::system_error where a file cannot be read, or ends too early.
inline void md5(const std::vector<Md5Piece>& pieces) {
    using namespace detail;
    std::vector<Md5Lane> lane(md5_lanes);
    Md5State state{};
    size_t next = 0;
    const auto take = [&](int l) {
        if (next == pieces.size()) return;
        for (int i = 0; i < 4; ++i) state.word[i][l] = md5_start[i];
        lane[l].begin(pieces[next++]);
    };
    for (int l = 0; l < md5_lanes; ++l) take(l);
    for (;;) {
        int64_t n = md5_chunk / md5_block;
        bool busy = false;
        const uint8_t* data[md5_lanes];
        for (int l = 0; l < md5_lanes; ++l) {
            if (lane[l].busy()) {
                busy = true;
                n = std::min(n, lane[l].blocks());
            }
            data[l] = lane[l].data();
        }
        if (!busy) return;
        md5_blocks(state, data, n);
        for (int l = 0; l < md5_lanes; ++l)
            if (lane[l].busy() && lane[l].advance(n)) {
                lane[l].end(state, l);
                take(l);
            }
    }
}

}  // namespace eeg
