// Makes the operator library importable as pygolf._ops: importing it runs the registrations in torch_ops.cpp.
#include <Python.h>

PyMODINIT_FUNC PyInit__ops() {
    static PyModuleDef module{
        PyModuleDef_HEAD_INIT, "_ops", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
    return PyModule_Create(&module);
}
