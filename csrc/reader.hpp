// A BDF file that is open: its header, and its windows as they are asked for.
#pragma once

#include <string>
#include <vector>

#include "bdf.hpp"
#include "file.hpp"

namespace eeg {

class BdfFile {
  public:
    explicit BdfFile(const std::string& path) : file_(path) {
        const auto read = [&](int64_t offset, int64_t bytes, uint8_t* out) {
            file_.read(offset, bytes, out);
        };
        header_ = read_bdf_header(read, file_.size());
    }
    const BdfHeader& header() const { return header_; }

    // As read_windows.
    template <class Out>
    int64_t read(const View<const int64_t>& starts, const View<const int32_t>& channels,
                 const View<Out, 3>& out) const {
        std::vector<uint8_t> buffer;
        const auto records = [&](int64_t record, int64_t count) -> const uint8_t* {
            const size_t bytes = count * header_.record_bytes;
            if (bytes > buffer.size()) buffer.resize(bytes);
            file_.read(header_.header_bytes + record * header_.record_bytes, bytes, buffer.data());
            return buffer.data();
        };
        return read_windows(header_, records, starts, channels, out);
    }

  private:
    File file_;
    BdfHeader header_;
};

}  // namespace eeg
