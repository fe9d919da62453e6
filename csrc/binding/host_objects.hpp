// Pieces of the pybind11 module pygolf._core. Each bind_* function adds one family of classes;
// host_objects.cpp calls them after it has registered the exceptions.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <utility>

namespace pygolf::binding {

namespace py = pybind11;

void bind_loader(py::module_& module);
void bind_artifact(py::module_& module);

// A read-only array over memory that `owner` keeps alive, and that the array therefore keeps alive too.
inline py::array read_only_view(const py::dtype& dtype, py::array::ShapeContainer shape, const void* data,
                                py::handle owner) {
    py::array view(dtype, std::move(shape), data, owner);
    view.attr("setflags")(py::arg("write") = false);
    return view;
}

}  // namespace pygolf::binding
