// pygolf._core: host objects (token shards, batch plan, token loader, artifacts) for Python. It knows nothing
// of torch.
#include "host_objects.hpp"

#include "pygolf/error.hpp"

namespace pygolf::binding {
namespace {

template <typename CppError>
py::object add_error(py::module_& module, const char* name, const py::handle& base, const char* doc) {
    auto& error = py::register_local_exception<CppError>(module, name, base);
    error.doc() = doc;
    return error;
}

// The last translator that was registered is tried first, so a base class comes before what derives from it.
void bind_errors(py::module_& module) {
    const auto base =
        add_error<Error>(module, "PygolfError", PyExc_Exception, "Base of every error of pygolf.");
    const auto format =
        add_error<FormatError>(module, "FormatError", base,
                               "A file breaks its format; the message begins with the broken rule's id.");
    add_error<ChecksumError>(module, "ChecksumError", format, "A stored checksum and the bytes disagree.");
    add_error<VersionError>(module, "VersionError", format, "A newer pygolf wrote the file.");
    add_error<IoError>(module, "IoError", base, "The system refused to open, read, map or write a file.");
    add_error<ArgumentError>(module, "ArgumentError", base,
                             "The caller passed something that cannot be right.");
    add_error<NumericError>(module, "NumericError", base,
                            "Not finite, or not positive definite beyond repair.");
}

}  // namespace
}  // namespace pygolf::binding

PYBIND11_MODULE(_core, module) {
    module.doc() =
        "Host objects of pygolf: token shards, batch plan, token loader, artifact reader and writer.";
    pygolf::binding::bind_errors(module);
    pygolf::binding::bind_loader(module);
    pygolf::binding::bind_artifact(module);
}
