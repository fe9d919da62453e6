// UTF-8 as RFC 3629 has it.
#pragma once

#include <string_view>

namespace pygolf {

// Well formed: no overlong forms, no surrogates, nothing above U+10FFFF.
[[nodiscard]] bool is_utf8(std::string_view text);

// The same, without control characters (below 0x20, 0x7F): fit to be printed on one line.
[[nodiscard]] bool is_plain_text(std::string_view text);

}  // namespace pygolf
