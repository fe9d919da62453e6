// Little-endian numbers at the end and at the start of byte sequences.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pygolf/error.hpp"

namespace pygolf {

static_assert(std::endian::native == std::endian::little, "the file's numbers are little-endian");

// How messages about files end.
inline constexpr std::string_view kDamaged = "; the file is damaged or cut, copy or make it again";
inline constexpr std::string_view kNewer = "; it was made by a newer pygolf, upgrade to read it";

template <typename T>
void append_number(std::vector<std::byte>& bytes, T value) {
    const auto raw = std::bit_cast<std::array<std::byte, sizeof(T)>>(value);
    for (const std::byte byte : raw) bytes.push_back(byte);
}

// Takes little-endian numbers off the front of `bytes`.
class Cursor {
  public:
    Cursor(std::span<const std::byte> bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}

    [[nodiscard]] std::size_t left() const { return bytes_.size(); }

    std::span<const std::byte> take_bytes(std::size_t count) {
        if (count > bytes_.size()) {
            fail<FormatError>("[A11] ", where_, ": tensor table ends inside a record, ", bytes_.size(),
                              " bytes are left, expected ", count, " or more; make the artifact again");
        }
        const auto taken = bytes_.first(count);
        bytes_ = bytes_.subspan(count);
        return taken;
    }

    template <typename T>
    T take() {
        T value{};
        std::memcpy(&value, take_bytes(sizeof value).data(), sizeof value);
        return value;
    }

  private:
    std::span<const std::byte> bytes_;
    std::string where_;
};

}  // namespace pygolf
