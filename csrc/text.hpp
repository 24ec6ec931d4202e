// Messages from parts.
#pragma once

#include <sstream>
#include <string>

namespace eeg {

template <class... Parts>
std::string text(const Parts&... parts) {
    std::ostringstream all;
    (all << ... << parts);
    return all.str();
}

}  // namespace eeg
