// Lists what is in an artifact, and dequantizes one tensor.
//
//   inspect_artifact model.golf                     manifest and tensors
//   inspect_artifact model.golf NAME                the tensor's values as text, one a line
//   inspect_artifact model.golf NAME values.f32     the same as raw little-endian float32, row-major
#include <cstdio>
#include <fstream>
#include <ios>
#include <span>
#include <string>
#include <vector>

#include "pygolf/artifact.hpp"
#include "pygolf/error.hpp"

namespace {

std::string shape_text(const pygolf::TensorInfo& tensor) {
    std::string text;
    for (const auto size : tensor.shape) text += (text.empty() ? "" : " x ") + std::to_string(size);
    return text;
}

void list(const pygolf::ArtifactReader& reader) {
    std::printf("%s\n", reader.manifest().c_str());
    for (const auto& tensor : reader.tensors()) {
        const auto codec = pygolf::codec_info(tensor.sections.back().codec).name;
        std::printf("%-40s %-16s %-7s %-10s %10llu bytes\n", tensor.name.c_str(), shape_text(tensor).c_str(),
                    std::string(pygolf::encoding_name(tensor.encoding)).c_str(), std::string(codec).c_str(),
                    static_cast<unsigned long long>(tensor.stored_bytes()));
    }
}

std::vector<float> values_of(const pygolf::ArtifactReader& reader, const std::string& name) {
    std::vector<float> values(reader.find(name).elements());
    reader.dequantize(name, values);
    return values;
}

void print(std::span<const float> values) {
    for (const float value : values)
        std::printf("%.9g\n", static_cast<double>(value));  // 9 digits identify a float
}

void write(std::span<const float> values, const std::string& path) {
    std::ofstream file(path, std::ios::binary);
    const auto bytes = std::as_bytes(values);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!file.flush()) pygolf::fail<pygolf::IoError>("cannot write ", path);
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 2 || count > 4) {
        std::fprintf(stderr, "usage: inspect_artifact ARTIFACT [TENSOR [OUTPUT.f32]]\n");
        return 2;
    }
    try {
        const auto reader = pygolf::ArtifactReader::open(arguments[1]);
        if (count == 2) list(reader);
        if (count == 3) print(values_of(reader, arguments[2]));
        if (count == 4) write(values_of(reader, arguments[2]), arguments[3]);
    } catch (const pygolf::Error& error) {
        std::fprintf(stderr, "inspect_artifact: %s\n", error.what());
        return 1;
    }
    return 0;
}
