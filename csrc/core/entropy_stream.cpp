#include "entropy_stream.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>

#include "byte_cursor.hpp"
#include "entropy_model.hpp"
#include "pygolf/error.hpp"
#include "pygolf/trellis.hpp"

namespace pygolf::entropy {
namespace {

using Word = std::uint32_t;
using State = std::uint64_t;
constexpr int kWordBits = 32;
constexpr State kLowest = State{1} << 31;  // of a state between codes; the highest is below kLowest << 32
constexpr std::size_t kStateBytes = sizeof(State);
constexpr int kLengthBits = 5;  // of an escape's bit count

using Tables = std::vector<SymbolTable>;

Tables fresh_tables(int states) {
    const auto initial = initial_tables();
    return {initial.begin(), states == 1 ? initial.begin() + kTables : initial.end()};
}

// The tables are rebuilt after runs 1, 2, 3, 4, 6, 8, 12...: 2^k and 3 * 2^k. Rare rebuilds keep decoding
// fast, and the more codes a table has seen, the less a few more can change it.
void learn(Tables& tables, std::size_t runs_done) {
    const std::size_t odd_part = runs_done >> std::countr_zero(runs_done);
    if (odd_part != 1 && odd_part != 3) return;
    for (SymbolTable& table : tables) table.rebuild();
}

// A code without its low bits is the nearest multiple of 2^shift; the rest is -half or more.
constexpr std::int64_t half_of(int shift) { return (std::int64_t{1} << shift) >> 1; }

// The low bits of wide codes lie behind their run, so that decoding the symbols has no branch for them; with
// a trellis, which needs all of a code before the next one, behind the code.

// Which quantizer the next code belongs to.
class Quantizers {
  public:
    explicit Quantizers(const StreamModel& model)
        : walk_(model.states), inside_C_(model.inside_C), centre_(model.centre) {}

    // Whether a code in the trellis belongs to quantizer 1.
    [[nodiscard]] bool odd() const { return walk_.quantizer(true) != 0; }

    // How far behind its table of quantizer 0 a code's table of quantizer 1 lies: nowhere for a code that is
    // not in the trellis or loses low bits. It does not wait for the code before.
    [[nodiscard]] std::size_t stride(int spread_class) const {
        return spread_class < kTables ? inside_C_[col_] * std::size_t{kTables} : 0;
    }

    void advance(std::int32_t code) {
        walk_.advance(std::int64_t{code} + centre_, inside_C_[col_]);
        if (++col_ < inside_C_.size()) return;
        walk_.restart();
        col_ = 0;
    }

  private:
    TrellisWalk walk_;
    std::span<const std::uint8_t> inside_C_;
    std::size_t col_ = 0;
    std::int32_t centre_;
};

// --- encoder ---

// Bits in writing order, first bit lowest; the stream stores the bytes last to first.
class BitWriter {
  public:
    void put(std::uint32_t value, int bits) {
        pending_ |= std::uint64_t{value} << pending_bits_;
        for (pending_bits_ += bits; pending_bits_ >= 8; pending_bits_ -= 8, pending_ >>= 8)
            bytes_.push_back(static_cast<std::uint8_t>(pending_));
    }

    [[nodiscard]] std::vector<std::uint8_t> finish() {
        if (pending_bits_ > 0) put(0, 8 - pending_bits_);
        return std::move(bytes_);
    }

  private:
    std::vector<std::uint8_t> bytes_;
    std::uint64_t pending_ = 0;
    int pending_bits_ = 0;
};

void put_escaped(BitWriter& bits, std::int64_t high, int radius) {
    const auto excess = static_cast<std::uint32_t>(std::abs(high) - radius);  // 1 or more
    const int length = std::bit_width(excess) - 1;
    bits.put(high < 0, 1);
    bits.put(static_cast<std::uint32_t>(length), kLengthBits);
    bits.put(excess - (std::uint32_t{1} << length), length);
}

class StreamEncoder {
  public:
    StreamEncoder(std::size_t count, const StreamModel& model)
        : weight_(std::uint32_t{1} << model.learning_shift),
          trellis_(model.states > 1),
          quantizers_(model),
          tables_(fresh_tables(model.states)) {
        intervals_.reserve(count);
    }

    void run(std::span<const std::uint8_t> classes, std::span<const std::int32_t> codes) {
        for (std::size_t i = 0; i < codes.size(); ++i) {
            add_symbol(classes[i], codes[i]);
            if (!trellis_) continue;
            add_rest(classes[i], codes[i]);
            quantizers_.advance(codes[i]);
        }
        for (std::size_t i = 0; i < codes.size() && !trellis_; ++i) add_rest(classes[i], codes[i]);
        learn(tables_, ++runs_done_);
    }

    // rANS writes its words last to first, so it waits until every interval is known.
    [[nodiscard]] std::vector<std::uint8_t> finish() {
        State state = kLowest;
        std::vector<Word> words;
        for (auto interval = intervals_.rbegin(); interval != intervals_.rend(); ++interval) {
            const State frequency = interval->frequency;
            if (state >= frequency << (63 - kFrequencyBits)) {
                words.push_back(static_cast<Word>(state));
                state >>= kWordBits;
            }
            state = (state / frequency << kFrequencyBits) + state % frequency + interval->start;
        }
        std::ranges::reverse(words);
        return assemble(state, words);
    }

  private:
    void add_symbol(int spread_class, std::int64_t code) {
        const int shift = shift_of(spread_class);
        const std::int64_t high = (code + half_of(shift)) >> shift;
        const auto index = static_cast<std::size_t>(table_of(spread_class));
        SymbolTable& table =
            tables_[index + (trellis_ && quantizers_.odd() ? quantizers_.stride(spread_class) : 0)];
        const bool escaped = std::abs(high) > table.radius();
        if (escaped) put_escaped(bits_, high, table.radius());
        const auto symbol = escaped ? table.escape() : static_cast<std::uint32_t>(high + table.radius());
        intervals_.push_back(table.interval(symbol));
        table.count(symbol, weight_);
    }

    void add_rest(int spread_class, std::int32_t code) {
        const int shift = shift_of(spread_class);
        const auto rest = static_cast<std::uint32_t>(code + half_of(shift));
        bits_.put(rest & ((std::uint32_t{1} << shift) - 1), shift);
    }

    [[nodiscard]] std::vector<std::uint8_t> assemble(State state, std::span<const Word> words) {
        const std::vector<std::uint8_t> raw = bits_.finish();
        std::vector<std::uint8_t> bytes(kStateBytes + words.size_bytes() + raw.size());
        std::memcpy(bytes.data(), &state, kStateBytes);
        if (!words.empty()) std::memcpy(&bytes[kStateBytes], words.data(), words.size_bytes());
        std::ranges::reverse_copy(raw, bytes.end() - static_cast<std::ptrdiff_t>(raw.size()));
        return bytes;
    }

    std::uint32_t weight_;
    bool trellis_;
    Quantizers quantizers_;
    Tables tables_;
    std::size_t runs_done_ = 0;
    std::vector<Interval> intervals_;
    BitWriter bits_;
};

// --- decoder ---

class StreamDecoder {
  public:
    StreamDecoder(std::span<const std::uint8_t> bytes, const StreamModel& model)
        : weight_(std::uint32_t{1} << model.learning_shift),
          trellis_(model.states > 1),
          quantizers_(model),
          tables_(fresh_tables(model.states)) {
        if (bytes.size() < kStateBytes) fail_short();
        std::memcpy(&state_, bytes.data(), kStateBytes);
        left_ = bytes.subspan(kStateBytes);
    }

    void run(std::span<const std::uint8_t> classes, std::span<std::int32_t> codes) {
        trellis_ ? run_trellis(classes, codes) : run_plain(classes, codes);
        learn(tables_, ++runs_done_);
    }

    void finish() const {
        if (state_ == kLowest && left_.empty() && pending_ == 0) return;
        fail<FormatError>("[E4] entropy-coded codes: a stream ends in state ", state_, " with ", left_.size(),
                          " bytes left, expected ", kLowest, " and none", kDamaged);
    }

  private:
    void run_plain(std::span<const std::uint8_t> classes, std::span<std::int32_t> codes) {
        State state = state_;  // in a register, which a member is not
        for (std::size_t i = 0; i < codes.size(); ++i)
            codes[i] = take_symbol(state, tables_[table_index_[classes[i]]]);
        state_ = state;
        if (*std::ranges::max_element(classes) < kTables) return;
        for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = with_rest(codes[i], classes[i]);
    }

    void run_trellis(std::span<const std::uint8_t> classes, std::span<std::int32_t> codes) {
        State state = state_;
        Quantizers quantizers = quantizers_;
        for (std::size_t i = 0; i < codes.size(); ++i) {
            const int k = classes[i];
            SymbolTable* const even = &tables_[table_index_[classes[i]]];
            SymbolTable* const odd = even + quantizers.stride(k);
            codes[i] = take_symbol(state, quantizers.odd() ? *odd : *even);
            if (k >= kTables) codes[i] = with_rest(codes[i], k);
            quantizers.advance(codes[i]);
        }
        quantizers_ = quantizers;
        state_ = state;
    }

    std::int32_t take_symbol(State& state, SymbolTable& table) {
        const auto slot = static_cast<std::uint32_t>(state % kFrequencySum);
        const std::uint32_t symbol = table.find(slot);
        const auto [start, frequency] = table.interval(symbol);
        state = frequency * (state >> kFrequencyBits) + slot - start;
        if (state < kLowest) state = state << kWordBits | take_word();
        table.count(symbol, weight_);
        return symbol == table.escape() ? take_escaped(table.radius())
                                        : static_cast<std::int32_t>(symbol) - table.radius();
    }

    [[noreturn]] static void fail_short() {
        fail<FormatError>("[E3] entropy-coded codes: a stream ends before its last code", kDamaged);
    }

    Word take_word() {
        if (left_.size() < sizeof(Word)) fail_short();
        Word word = 0;
        std::memcpy(&word, left_.data(), sizeof(Word));
        left_ = left_.subspan(sizeof(Word));
        return word;
    }

    std::uint32_t take_bits(int bits) {
        for (; pending_bits_ < bits; pending_bits_ += 8) {
            if (left_.empty()) fail_short();
            pending_ |= std::uint64_t{left_.back()} << pending_bits_;
            left_ = left_.first(left_.size() - 1);
        }
        const auto value = static_cast<std::uint32_t>(pending_ & ((std::uint64_t{1} << bits) - 1));
        pending_ >>= bits;
        pending_bits_ -= bits;
        return value;
    }

    std::int32_t take_escaped(int radius) {
        const bool negative = take_bits(1) != 0;
        const auto length = static_cast<int>(take_bits(kLengthBits));
        const std::int64_t magnitude = radius + (std::int64_t{1} << length) + take_bits(length);
        return to_code(negative ? -magnitude : magnitude);
    }

    // The code whose high bits are `high`.
    std::int32_t with_rest(std::int32_t high, int spread_class) {
        const int shift = shift_of(spread_class);
        return to_code(std::int64_t{high} * (std::int64_t{1} << shift) + take_bits(shift) - half_of(shift));
    }

    [[nodiscard]] static std::int32_t to_code(std::int64_t value) {
        const auto code = static_cast<std::int32_t>(value);
        if (code != value)
            fail<FormatError>("[E5] entropy-coded codes: a code is ", value, ", expected 32 bits", kDamaged);
        return code;
    }

    static constexpr auto table_index_ = [] {
        std::array<std::uint8_t, kClasses> index{};
        for (int k = 0; k < kClasses; ++k)
            index[static_cast<std::size_t>(k)] = static_cast<std::uint8_t>(table_of(k));
        return index;
    }();

    std::uint32_t weight_;
    bool trellis_;
    Quantizers quantizers_;
    State state_ = 0;
    std::span<const std::uint8_t> left_;  // words from the front, raw bits from the back
    std::uint64_t pending_ = 0;           // raw bits taken from left_ and not yet used
    int pending_bits_ = 0;
    Tables tables_;
    std::size_t runs_done_ = 0;
};

// Calls f(begin, size) for each run of a stream.
template <typename F>
void for_each_run(std::size_t count, const F& f) {
    for (std::size_t begin = 0; begin < count; begin += kRun) f(begin, std::min(kRun, count - begin));
}

}  // namespace

std::vector<std::uint8_t> encode_stream(std::size_t count, const StreamModel& model,
                                        const FillClasses& classes, const ReadCodes& codes) {
    StreamEncoder encoder(count, model);
    std::array<std::uint8_t, kRun> run_classes;
    std::array<std::int32_t, kRun> run_codes;
    for_each_run(count, [&](std::size_t begin, std::size_t size) {
        classes(begin, std::span(run_classes).first(size));
        codes(begin, std::span(run_codes).first(size));
        encoder.run(std::span(run_classes).first(size), std::span(run_codes).first(size));
    });
    return encoder.finish();
}

void decode_stream(std::span<const std::uint8_t> bytes, std::size_t count, const StreamModel& model,
                   const FillClasses& classes, const WriteCodes& codes) {
    StreamDecoder decoder(bytes, model);
    std::array<std::uint8_t, kRun> run_classes;
    std::array<std::int32_t, kRun> run_codes;
    for_each_run(count, [&](std::size_t begin, std::size_t size) {
        classes(begin, std::span(run_classes).first(size));
        decoder.run(std::span(run_classes).first(size), std::span(run_codes).first(size));
        codes(begin, std::span<const std::int32_t>(run_codes).first(size));
    });
    decoder.finish();
}

}  // namespace pygolf::entropy
