/* The least that a compiled element can be, in C: it sees every byte and passes it on. What one costs is measured with it. */

#include <Python.h>
#include <relay_element.h>

static int64_t look(void *shared, void *state, int half, uint8_t *bytes, size_t size, size_t room) {
    (void)shared, (void)state, (void)half, (void)bytes, (void)room;
    return (int64_t)size;
}

static const relay_element functions = {
    .abi = RELAY_ELEMENT_ABI,
    .halves = RELAY_REQUESTS | RELAY_RESPONSES,
    .data = look,
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "passthrough", .m_size = -1};

PyMODINIT_FUNC PyInit_passthrough(void) {
    PyObject *made = PyModule_Create(&module);
    PyObject *capsule = relay_element_capsule(&functions);
    if (made == NULL || capsule == NULL || PyModule_AddObject(made, "functions", capsule) < 0) {
        Py_XDECREF(capsule);
        Py_XDECREF(made);
        return NULL;
    }
    return made;
}
