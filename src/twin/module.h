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

#endif
