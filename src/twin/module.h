/* What each interpreter has of its own. */

#ifndef WORKPOOL_MODULE_H
#define WORKPOOL_MODULE_H

#include <Python.h>

typedef struct {
    PyObject *nothing;           /* lanes.NOTHING */
    PyObject *require_hashable;  /* arguments.require_hashable */
    PyObject *delivery;          /* handlers.Delivery */
    PyObject *wake, *attempt;    /* names of methods */
    PyObject *breath;            /* a function in Python that does nothing */
    PyTypeObject *ring_type, *mutex_type, *lanes_type, *seat_type, *entrance_type, *hand_type;
} State;

extern struct PyModuleDef twin_module;

/* The state of the module that made a type, or a type that this one stands on; NULL with an exception. */
State *find_state(PyTypeObject *type);

#if PY_VERSION_HEX < 0x030C0000
/* As Python has them from 3.12 on: take the exception that is set, as an object; and set it again, handing it over.
   Where none is set it is NULL. */
static inline PyObject *
PyErr_GetRaisedException(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
        Py_DECREF(traceback);
    }
    Py_XDECREF(type);
    return value;
}

static inline void
PyErr_SetRaisedException(PyObject *error)
{
    PyObject *type = error ? (PyObject *)Py_TYPE(error) : NULL;
    PyErr_Restore(Py_XNewRef(type), error, error ? PyException_GetTraceback(error) : NULL);
}
#endif

#endif
