// Python classes ArtifactWriter, ArtifactReader and TensorInfo.
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <bit>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "host_objects.hpp"
#include "pygolf/artifact.hpp"
#include "pygolf/error.hpp"

namespace pygolf::binding {
namespace {

using namespace py::literals;  // "name"_a

// numpy has no bfloat16: its bits travel as uint16.
py::dtype numpy_dtype(DType dtype) {
    return py::dtype(dtype == DType::kBFloat16 ? "uint16" : std::string(dtype_name(dtype)));
}

std::string text(const py::handle& value) { return py::cast<std::string>(py::str(value)); }

// Shape and memory of an argument that must be a C-contiguous array of `dtype`.
struct ArrayView {
    std::vector<std::uint32_t> shape;
    std::span<const std::byte> bytes;
};

ArrayView view_of(const py::array& array, const py::dtype& dtype, const std::string& what) {
    if (!array.dtype().equal(dtype) || !(array.flags() & py::array::c_style)) {
        fail<ArgumentError>(what, " is a ", text(array.dtype()), " array of shape ",
                            text(array.attr("shape")), " and strides ", text(array.attr("strides")),
                            ", expected a C-contiguous ", text(dtype),
                            " array; convert it with numpy.ascontiguousarray(x, dtype)");
    }
    ArrayView view;
    for (py::ssize_t i = 0; i < array.ndim(); ++i) {
        if (array.shape(i) > std::numeric_limits<std::uint32_t>::max()) {
            fail<ArgumentError>(what, " has ", array.shape(i), " rows in dimension ", i,
                                ", expected less than 2^32");
        }
        view.shape.push_back(static_cast<std::uint32_t>(array.shape(i)));
    }
    view.bytes = {static_cast<const std::byte*>(array.data()), static_cast<std::size_t>(array.nbytes())};
    return view;
}

template <typename T>
std::span<const T> elements(const ArrayView& view) {
    return {reinterpret_cast<const T*>(view.bytes.data()), view.bytes.size() / sizeof(T)};
}

void add_dense(ArtifactWriter& writer, const std::string& name, const py::array& array,
               const std::string& dtype, const std::string& codec) {
    const DType number = dtype_from_name(dtype);
    const auto view = view_of(array, numpy_dtype(number), message("tensor '", name, "' (dtype ", dtype, ")"));
    writer.add_dense(name, number, view.shape, view.bytes, codec_from_name(codec));
}

void add_rows(ArtifactWriter& writer, const std::string& name, const py::array& codes,
              const py::array& scales, int bits, const std::string& codec) {
    const auto codes_RC = view_of(codes, py::dtype("int8"), message("tensor '", name, "', codes"));
    const auto scales_R = view_of(scales, py::dtype("float16"), message("tensor '", name, "', scales"));
    if (codes_RC.shape.size() != 2 || scales_R.shape.size() != 1) {
        fail<ArgumentError>("tensor '", name, "': codes have ", codes_RC.shape.size(),
                            " dimensions and scales ", scales_R.shape.size(),
                            ", expected codes [R, C] and scales [R]");
    }
    writer.add_rows(name, codes_RC.shape[0], codes_RC.shape[1], elements<std::int8_t>(codes_RC),
                    elements<std::uint16_t>(scales_R), bits, codec_from_name(codec));
}

// Views of the three arrays of a `factors` tensor; `name` is for messages.
struct FactorArrays {
    FactorArrays(const std::string& name, const py::array& codes, const py::array& row_logs,
                 const py::array& col_logs)
        : codes_RC(view_of(codes, py::dtype("int16"), message(name, "codes"))),
          rows_R(view_of(row_logs, py::dtype("int16"), message(name, "row_logs"))),
          cols_C(view_of(col_logs, py::dtype("int16"), message(name, "col_logs"))) {
        if (rows_R.shape.size() == 1 && cols_C.shape.size() == 1 &&
            codes_RC.shape == std::vector{rows_R.shape[0], cols_C.shape[0]}) {
            return;
        }
        fail<ArgumentError>(name, "codes have shape ", text(codes.attr("shape")), ", row_logs ",
                            text(row_logs.attr("shape")), " and col_logs ", text(col_logs.attr("shape")),
                            ", expected codes [R, C], row_logs [R] and col_logs [C]");
    }

    [[nodiscard]] std::span<const std::int16_t> codes() const { return elements<std::int16_t>(codes_RC); }
    [[nodiscard]] FactorGrid grid(float step, int states) const {
        return {states, step, elements<std::int16_t>(rows_R), elements<std::int16_t>(cols_C)};
    }

    ArrayView codes_RC;
    ArrayView rows_R;
    ArrayView cols_C;
};

void add_factors(ArtifactWriter& writer, const std::string& name, const py::array& codes,
                 const py::array& row_logs, const py::array& col_logs, float step, int states,
                 const std::string& codec) {
    const FactorArrays arrays(message("tensor '", name, "', "), codes, row_logs, col_logs);
    writer.add_factors(name, arrays.codes(), arrays.grid(step, states), codec_from_name(codec));
}

std::uint64_t size_of_codes(const py::array& codes, const py::array& row_logs, const py::array& col_logs,
                            int states, int threads) {
    const FactorArrays arrays("", codes, row_logs, col_logs);
    const py::gil_scoped_release release;
    return coded_bytes(arrays.codes(), arrays.grid(1, states), threads);
}

py::array values_of_codes(const py::array& codes, const py::array& row_logs, const py::array& col_logs,
                          float step, int states) {
    const FactorArrays arrays("", codes, row_logs, col_logs);
    py::array_t<float> values({row_logs.size(), col_logs.size()});
    const std::span<float> out(values.mutable_data(), static_cast<std::size_t>(values.size()));
    const py::gil_scoped_release release;
    dequantize_factors(arrays.codes(), arrays.grid(step, states), out);
    return values;
}

py::bytes serialize(const ArtifactWriter& writer, int threads) {
    std::vector<std::byte> bytes;
    {
        const py::gil_scoped_release release;
        bytes = writer.serialize(threads);
    }
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// One section as an array: a view of the map that keeps the reader alive if it lies there as it is, else a
// decoded copy. Read-only either way, so that a caller cannot come to depend on the codec.
py::array section_array(const py::object& self, const std::string& name, Role role, const py::dtype& dtype,
                        const std::vector<std::uint32_t>& shape) {
    const auto& reader = py::cast<const ArtifactReader&>(self);
    const auto raw = reader.raw(name, role);
    const auto item = static_cast<std::uintptr_t>(dtype.itemsize());
    if (raw && std::bit_cast<std::uintptr_t>(raw->data()) % item == 0) {
        return read_only_view(dtype, shape, raw->data(), self);
    }
    py::array array(dtype, shape);
    const std::span out(static_cast<std::byte*>(array.mutable_data()),
                        static_cast<std::size_t>(array.nbytes()));
    {
        const py::gil_scoped_release release;
        reader.read(name, role, out);
    }
    array.attr("setflags")("write"_a = false);
    return array;
}

py::array codes(const py::object& self, const std::string& name) {
    const auto& tensor = py::cast<const ArtifactReader&>(self).find(name);
    const auto dtype = py::dtype(tensor.encoding == Encoding::kFactors ? "int16" : "int8");
    return section_array(self, name, Role::kCodes, dtype, tensor.shape);
}

template <Role role>
py::array logs(const ArtifactReader& reader, const std::string& name) {
    const std::vector<std::int16_t> values = reader.logs(name, role);
    return py::array_t<std::int16_t>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::array scales(const py::object& self, const std::string& name) {
    const auto& tensor = py::cast<const ArtifactReader&>(self).find(name);
    return section_array(self, name, Role::kScales, py::dtype("float16"), {tensor.shape.front()});
}

py::array dense(const py::object& self, const std::string& name) {
    const auto& tensor = py::cast<const ArtifactReader&>(self).find(name);
    return section_array(self, name, Role::kData, numpy_dtype(tensor.dtype), tensor.shape);
}

py::array dequantize(const ArtifactReader& reader, const std::string& name) {
    py::array_t<float> values(reader.find(name).shape);
    const std::span out(values.mutable_data(), static_cast<std::size_t>(values.size()));
    const py::gil_scoped_release release;
    reader.dequantize(name, out);
    return values;
}

py::list section_tuples(const TensorInfo& tensor) {
    py::list tuples;
    for (const SectionInfo& section : tensor.sections) {
        tuples.append(py::make_tuple(role_name(section.role), codec_info(section.codec).name, section.offset,
                                     section.stored_bytes, section.crc32));
    }
    return tuples;
}

std::optional<std::string> tensor_dtype(const TensorInfo& tensor) {
    if (tensor.encoding != Encoding::kDense) return std::nullopt;
    return std::string(dtype_name(tensor.dtype));
}

// A field that only `factors` has.
template <auto member>
auto factors_only(const TensorInfo& tensor) {
    return tensor.encoding == Encoding::kFactors ? std::optional(tensor.*member) : std::nullopt;
}

std::optional<int> tensor_bits(const TensorInfo& tensor) {
    return tensor.encoding == Encoding::kRows ? std::optional(tensor.bits) : std::nullopt;
}

// Of the section with the numbers or codes, which comes last.
std::string_view tensor_codec(const TensorInfo& tensor) {
    return codec_info(tensor.sections.back().codec).name;
}

std::string tensor_repr(const TensorInfo& tensor) {
    std::string kind = message(tensor.bits, " bits");
    if (tensor.encoding == Encoding::kDense) kind = dtype_name(tensor.dtype);
    if (tensor.encoding == Encoding::kFactors) kind = message(tensor.states, " states");
    return message("<TensorInfo '", tensor.name, "' ", text(py::tuple(py::cast(tensor.shape))), " ",
                   encoding_name(tensor.encoding), " ", kind, " ", tensor_codec(tensor), ", ",
                   tensor.stored_bytes(), " bytes>");
}

void bind_tensor_info(py::module_& module) {
    py::class_<TensorInfo>(module, "TensorInfo", "What an artifact says about one tensor.")
        .def_readonly("name", &TensorInfo::name)
        .def_property_readonly("shape",
                               [](const TensorInfo& tensor) { return py::tuple(py::cast(tensor.shape)); })
        .def_property_readonly(
            "encoding", [](const TensorInfo& tensor) { return encoding_name(tensor.encoding); },
            "'dense', 'rows' or 'factors'.")
        .def_property_readonly("dtype", tensor_dtype,
                               "Of dense: 'float32', 'float16' or 'bfloat16'; else None.")
        .def_property_readonly("bits", tensor_bits, "Of rows: |code| <= 2**(bits - 1) - 1; else None.")
        .def_property_readonly("states", factors_only<&TensorInfo::states>,
                               "Of factors: states of the trellis, 1 if there is none; else None.")
        .def_property_readonly("step", factors_only<&TensorInfo::step>, "Of factors: their unit; else None.")
        .def_property_readonly("codec", tensor_codec, "Codec of the numbers or codes.")
        .def_property_readonly("stored_bytes", &TensorInfo::stored_bytes,
                               "Bytes of all sections in the file.")
        .def_property_readonly("sections", section_tuples,
                               "(role, codec, offset, stored_bytes, crc32) of each.")
        .def("__repr__", tensor_repr);
}

void bind_writer(py::module_& module) {
    py::class_<ArtifactWriter>(
        module, "ArtifactWriter",
        "Collects tensors and writes them to one file; the bytes depend on what was added\n"
        "and on libzstd's version only.")
        .def(py::init<std::string, int>(), "manifest"_a, py::kw_only(), "zstd_level"_a = kMaxZstdLevel)
        .def("add_dense", add_dense, "name"_a, "array"_a, "dtype"_a = "float16", "codec"_a = "zstd",
             "Adds a C-contiguous array of exactly `dtype` (bfloat16: its bits as uint16), 1 to 4 "
             "dimensions.\n"
             "Codecs: 'zstd', 'raw'. Raises ArgumentError.")
        .def("add_rows", add_rows, "name"_a, "codes"_a, "scales"_a, "bits"_a = 6, "codec"_a = "bytes-zstd",
             "Adds codes int8 [R, C] with |code| <= 2**(bits - 1) - 1 and one float16 scale a row, [R].\n"
             "Codecs: 'entropy', 'bytes-zstd', 'bitpack', 'raw'. Raises ArgumentError.")
        .def("add_factors", add_factors, "name"_a, "codes"_a, "row_logs"_a, "col_logs"_a, py::kw_only(),
             "step"_a, "states"_a = 1, "codec"_a = "entropy",
             "Adds codes int16 [R, C] whose unit is step * 2**((row_logs[r] + col_logs[c]) / 16), logarithms "
             "int16\n"
             "from -512 to 511 and at most 255 apart; `step` is rounded to float32. `states` is that of the "
             "trellis:\n"
             "1 (none), 4 or 8. Codecs: 'entropy', 'zstd', 'raw'. Raises ArgumentError.")
        .def("serialize", serialize, "threads"_a = 0, "The whole file; threads 0: one a core.")
        .def("write", &ArtifactWriter::write, "path"_a, "threads"_a = 0,
             py::call_guard<py::gil_scoped_release>(),
             "Writes the file under a temporary name, syncs and renames it; returns its size in bytes.\n"
             "Raises IoError (disk full included) and then leaves an old file untouched.");
}

void bind_reader(py::module_& module) {
    py::class_<ArtifactReader>(
        module, "ArtifactReader",
        "Reads an artifact through a memory map. Raises IoError, or a FormatError that begins\n"
        "with the broken rule of csrc/FORMAT.md; damaged sections raise when they are read.")
        .def(py::init(&ArtifactReader::open), "path"_a)
        .def_property_readonly("path", &ArtifactReader::path)
        .def_property_readonly("file_bytes", &ArtifactReader::file_bytes)
        .def_property_readonly("manifest", &ArtifactReader::manifest)
        .def_property_readonly("tensors", &ArtifactReader::tensors, "list[TensorInfo] in file order.")
        .def("codes", codes, "name"_a, "Codes [R, C] of a rows (int8) or factors tensor (int16), read-only.")
        .def("row_logs", logs<Role::kRowFactors>, "name"_a, "Of a factors tensor: int16 [R].")
        .def("col_logs", logs<Role::kColFactors>, "name"_a, "Of a factors tensor: int16 [C].")
        .def("scales", scales, "name"_a, "Scales of a rows tensor: float16 [R], read-only.")
        .def("dense", dense, "name"_a, "Numbers of a dense tensor as stored (bfloat16: uint16), read-only.")
        .def("dequantize", dequantize, "name"_a, "Any tensor as a new float32 array.")
        .def("check", &ArtifactReader::check, "threads"_a = 0, py::call_guard<py::gil_scoped_release>(),
             "Verifies every checksum and decodes every section; raises what is wrong first.");
}

}  // namespace

void bind_artifact(py::module_& module) {
    bind_tensor_info(module);
    bind_writer(module);
    bind_reader(module);
    module.def("dequantize_factors", values_of_codes, "codes"_a, "row_logs"_a, "col_logs"_a, "step"_a,
               "states"_a = 1, "What a reader makes of such codes: a new float32 array [R, C].");
    module.def("coded_bytes", size_of_codes, "codes"_a, "row_logs"_a, "col_logs"_a, "states"_a = 1,
               "threads"_a = 0,
               "Bytes that ArtifactWriter.add_factors with codec 'entropy' will store for these arrays; "
               "threads 0: one a core.");
}

}  // namespace pygolf::binding
