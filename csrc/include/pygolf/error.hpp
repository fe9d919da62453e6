// Typed errors of the core library.
//
// Every message names the thing, the value found, the value expected and the next step. A FormatError begins
// with the id of the broken rule in csrc/FORMAT.md, for example "[S2] data/x.bin: magic is 0, expected
// 20240520; ...". The Python binding maps each class to the exception of the same name.
//
// Thread safety: the free functions are pure; an error object is an ordinary value.
#pragma once

#include <array>
#include <charconv>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

namespace pygolf {

// Base of every error that the library throws on purpose.
class Error : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// A file breaks its format.
class FormatError : public Error {
  public:
    using Error::Error;
};

// A section's stored checksum and its bytes disagree.
class ChecksumError : public FormatError {
  public:
    using FormatError::FormatError;
};

// The file was written by a newer version of the format than this build reads.
class VersionError : public FormatError {
  public:
    using FormatError::FormatError;
};

// The operating system refused to open, read, map or write (disk full included).
class IoError : public Error {
  public:
    using Error::Error;
};

// The caller passed something that cannot be right.
class ArgumentError : public Error {
  public:
    using Error::Error;
};

// NaN or infinity in the input, or a matrix that is not positive definite beyond repair.
class NumericError : public Error {
  public:
    using Error::Error;
};

// Appends a text, a character or a number to a message. No stream: a stream's digits depend on the process's
// locale, and its facets clash where another copy of the C++ library is loaded.
template <typename Part>
void append_part(std::string& text, const Part& part) {
    if constexpr (std::is_convertible_v<Part, std::string_view>) {
        text += std::string_view(part);
    } else if constexpr (std::is_same_v<Part, char>) {
        text += part;
    } else if constexpr (std::is_same_v<Part, bool>) {
        text += part ? "true" : "false";
    } else {
        std::array<char, 48> digits;
        std::to_chars_result end{};
        if constexpr (std::is_floating_point_v<Part>) {
            end = std::to_chars(digits.begin(), digits.end(), part, std::chars_format::general, 6);
        } else {
            end = std::to_chars(digits.begin(), digits.end(), part);
        }
        text.append(digits.begin(), end.ptr);
    }
}

// Joins the parts: message("rows is ", 0, ", expected 1 or more").
template <typename... Parts>
[[nodiscard]] std::string message(const Parts&... parts) {
    std::string text;
    (append_part(text, parts), ...);
    return text;
}

// Throws E with the joined parts: fail<ArgumentError>("bits is ", bits, ", expected 2 to 8").
template <typename E, typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
    throw E(message(parts...));
}

// IoError "PREFIXcannot ACTION PATH: STRERROR (errno N)HINT", for example fail_io("open", path, errno). Pass
// errno as it was right after the failed call; a hint begins with "; ".
[[noreturn]] inline void fail_io(std::string_view action, const std::filesystem::path& path, int error_number,
                                 std::string_view hint = "", std::string_view prefix = "") {
    fail<IoError>(prefix, "cannot ", action, " ", path.string(), ": ",
                  std::generic_category().message(error_number), " (errno ", error_number, ")", hint);
}

}  // namespace pygolf
