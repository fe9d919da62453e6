#include "utf8.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace pygolf {
namespace {

// A lead byte in [first, last] is followed by `more` bytes 80..BF, of which the first lies in [low, high]
// instead: that narrower range is what rules out overlong forms, surrogates and values above U+10FFFF.
struct Sequence {
    std::uint8_t first, last;
    std::size_t more;
    std::uint8_t low, high;
};
constexpr std::array kSequences = {
    Sequence{0x00, 0x7F, 0, 0x80, 0xBF}, Sequence{0xC2, 0xDF, 1, 0x80, 0xBF},
    Sequence{0xE0, 0xE0, 2, 0xA0, 0xBF}, Sequence{0xE1, 0xEC, 2, 0x80, 0xBF},
    Sequence{0xED, 0xED, 2, 0x80, 0x9F}, Sequence{0xEE, 0xEF, 2, 0x80, 0xBF},
    Sequence{0xF0, 0xF0, 3, 0x90, 0xBF}, Sequence{0xF1, 0xF3, 3, 0x80, 0xBF},
    Sequence{0xF4, 0xF4, 3, 0x80, 0x8F},
};

// Length of the well-formed sequence at the start of `text`, 0 if there is none.
std::size_t sequence_length(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
    for (const Sequence& sequence : kSequences) {
        if (byte(0) < sequence.first || byte(0) > sequence.last) continue;
        if (text.size() <= sequence.more) return 0;
        for (std::size_t i = 1; i <= sequence.more; ++i) {
            const std::uint8_t low = i == 1 ? sequence.low : 0x80;
            const std::uint8_t high = i == 1 ? sequence.high : 0xBF;
            if (byte(i) < low || byte(i) > high) return 0;
        }
        return sequence.more + 1;
    }
    return 0;
}

}  // namespace

bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        const std::size_t length = sequence_length(text);
        if (length == 0) return false;
        text.remove_prefix(length);
    }
    return true;
}

bool is_plain_text(std::string_view text) {
    const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
    return is_utf8(text) && std::ranges::none_of(text, is_control);
}

}  // namespace pygolf
