// Reading files: recordings, caches past the system's own cache, checksums.
#pragma once

#include <deque>
#include <memory>
#include <utility>

#include "../file.hpp"
#include "../md5.hpp"
#include "../reader.hpp"
#include "checks.hpp"

namespace eeg::bind {

inline int64_t read_bdf(const BdfFile& file, const array<int64_t>& starts,
                        const array<int32_t>& channels, py::array out) {
    const bool half = is_half("out", out);
    const auto first = copied("starts", starts, "one number a window", 0);
    const auto chosen = copied("channels", channels, "a list of signal numbers");
    const int64_t n = starts.size(), C = channels.size();
    if (out.ndim() != 3 || out.shape(0) != n || out.shape(1) != C || !contiguous(out))
        wrong("out", text("C-contiguous (", n, ", ", C, ", T)"), out);
    const BdfHeader& header = file.header();
    const int64_t T = out.shape(2);
    check_indices("signal", chosen, header.signals.size());
    // a window must touch the recording; its margins may reach over the edge
    for (const int64_t start : first)
        if (start <= -T || start >= header.n_times())
            throw py::index_error(
                text("a window at sample ", start, " of a recording of ", header.n_times()));
    const auto read_as = [&](auto* to) {
        py::gil_scoped_release release;
        return file.read(view_of(first), view_of(chosen),
                         View<std::remove_pointer_t<decltype(to)>, 3>{to, {n, C, T}});
    };
    void* const to = out.mutable_data();
    return half ? read_as(static_cast<uint16_t*>(to)) : read_as(static_cast<float*>(to));
}

inline std::vector<std::string> labels(const BdfFile& file) {
    std::vector<std::string> all;
    for (const auto& signal : file.header().signals) all.push_back(signal.label);
    return all;
}

// Places in files, held while a kernel reads them.
struct CheckedPieces {
    std::vector<int32_t> which;
    std::vector<int64_t> offset, bytes;

    CheckedPieces(const array<int32_t>& which_, const array<int64_t>& offset_,
                  const array<int64_t>& bytes_, int64_t n, int64_t files)
        : which(copied("which", which_, n)), offset(copied("offset", offset_, n)),
          bytes(copied("bytes", bytes_, n)) {
        check_indices("file", which, files);
    }
};

#ifdef __linux__
inline std::unique_ptr<DirectFiles> open_direct(const std::vector<std::string>& paths,
                                                int64_t most) {
    constexpr int64_t limit = 65536;  // of Linux, for all processes
    if (most < 1 || most > limit)
        throw py::value_error(text("most must be 1 to ", limit, " pieces, got ", most));
    return std::make_unique<DirectFiles>(paths, most);
}

// (device, inode) of each file: whether it is the one that was opened before, by the same name.
inline std::vector<std::pair<uint64_t, uint64_t>> identities(const DirectFiles& files) {
    std::vector<std::pair<uint64_t, uint64_t>> found;
    for (const auto& file : files.files()) found.emplace_back(file.device(), file.inode());
    return found;
}

inline void read_direct(DirectFiles& files, const array<int32_t>& which,
                        const array<int64_t>& offset, const array<int64_t>& bytes,
                        array<uint8_t> out, array<int64_t> got) {
    if (out.ndim() != 2) wrong("out", "(B, bytes)", out);
    const int64_t n = out.shape(0), room = out.shape(1);
    if (n > files.most())
        throw py::index_error(text(n, " pieces, at most ", files.most(), " at a time"));
    const CheckedPieces pieces(which, offset, bytes, n, files.count());
    for (const int64_t many : pieces.bytes)
        if (many < 0 || many > room)
            throw py::index_error(text(many, " bytes do not fit in ", room));
    const auto to = written("out", out, std::array{n, room});
    const auto done = written("got", got, std::array{n});
    py::gil_scoped_release release;
    files.read({view_of(pieces.which), view_of(pieces.offset), view_of(pieces.bytes)}, to, done);
}
#endif

inline void md5_of(const std::vector<std::string>& paths, const array<int32_t>& which,
                   const array<int64_t>& offset, const array<int64_t>& bytes, array<uint8_t> out) {
    const int64_t n = which.size();
    const auto to = written("out", out, std::array<int64_t, 2>{n, 16});
    const CheckedPieces pieces(which, offset, bytes, n, paths.size());
    std::deque<File> files;
    for (const auto& path : paths) files.emplace_back(path);
    std::vector<Md5Piece> all;
    for (int64_t i = 0; i < n; ++i) {
        if (pieces.offset[i] < 0 || pieces.bytes[i] < 0)
            throw py::index_error(text(pieces.bytes[i], " bytes from ", pieces.offset[i]));
        all.push_back({&files[pieces.which[i]], pieces.offset[i], pieces.bytes[i], to.at(i)});
    }
    py::gil_scoped_release release;
    md5(all);
}

}  // namespace eeg::bind
