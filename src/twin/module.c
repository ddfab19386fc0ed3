/* workpool._twin: what each event passes, in C. lanes.py, hand.py and mutex.py say what it does. */

#include "module.h"

#include "hand.h"
#include "lanes.h"
#include "mutex.h"
#include "ring.h"
#include "seat.h"

State *
find_state(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &twin_module);
    State *state = module == NULL ? NULL : (State *)PyModule_GetState(module);
    if (state != NULL && state->nothing == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "workpool._twin is gone: the interpreter ends");
        return NULL;
    }
    return state;
}

static PyObject *
import_from(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL) {
        return NULL;
    }
    PyObject *found = PyObject_GetAttrString(module, name);
    Py_DECREF(module);
    return found;
}

static int
add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **place)
{
    *place = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *place == NULL ? -1 : PyModule_AddType(module, *place);
}

static int
fill(PyObject *module)
{
    State *state = PyModule_GetState(module);
    state->nothing = import_from("workpool.lanes", "NOTHING");
    state->require_hashable = import_from("workpool.arguments", "require_hashable");
    state->delivery = import_from("workpool.handlers", "Delivery");
    state->wake = PyUnicode_InternFromString("_wake");
    state->attempt = PyUnicode_InternFromString("attempt");
    PyObject *names = PyDict_New();
    state->breath = names ? PyRun_String("lambda: None", Py_eval_input, names, names) : NULL;
    Py_XDECREF(names);
    if (state->nothing == NULL || state->require_hashable == NULL || state->delivery == NULL ||
        state->wake == NULL || state->attempt == NULL || state->breath == NULL ||
        add_type(module, &ring_spec, &state->ring_type) < 0 ||
        add_type(module, &mutex_spec, &state->mutex_type) < 0 ||
        add_type(module, &lanes_spec, &state->lanes_type) < 0 ||
        add_type(module, &seat_spec, &state->seat_type) < 0 ||
        add_type(module, &entrance_spec, &state->entrance_type) < 0 ||
        add_type(module, &hand_spec, &state->hand_type) < 0) {
        return -1;
    }
    return 0;
}

static int
traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->nothing);
    Py_VISIT(state->require_hashable);
    Py_VISIT(state->delivery);
    Py_VISIT(state->wake);
    Py_VISIT(state->attempt);
    Py_VISIT(state->breath);
    Py_VISIT(state->ring_type);
    Py_VISIT(state->mutex_type);
    Py_VISIT(state->lanes_type);
    Py_VISIT(state->seat_type);
    Py_VISIT(state->entrance_type);
    Py_VISIT(state->hand_type);
    return 0;
}

static int
clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->nothing);
    Py_CLEAR(state->require_hashable);
    Py_CLEAR(state->delivery);
    Py_CLEAR(state->wake);
    Py_CLEAR(state->attempt);
    Py_CLEAR(state->breath);
    Py_CLEAR(state->ring_type);
    Py_CLEAR(state->mutex_type);
    Py_CLEAR(state->lanes_type);
    Py_CLEAR(state->seat_type);
    Py_CLEAR(state->entrance_type);
    Py_CLEAR(state->hand_type);
    return 0;
}

static void
release(void *module)
{
    clear((PyObject *)module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

struct PyModuleDef twin_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "workpool._twin",
    .m_doc = "What each event passes, in C.",
    .m_size = sizeof(State),
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = release,
};

PyMODINIT_FUNC
PyInit__twin(void)
{
    return PyModuleDef_Init(&twin_module);
}
