#include "mutex.h"

#include <pythread.h>

int
mutex_wait(Mutex *mutex, unsigned long me)
{
    if (mutex->owner == me) {
        PyErr_SetString(PyExc_RuntimeError, "this thread is inside already");
        return -1;
    }
    PyThread_type_lock bed = PyThread_allocate_lock();
    if (bed == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyThread_acquire_lock(bed, NOWAIT_LOCK);
    int failed = 0;
    while (!failed && !mutex_try(mutex, me)) {
        Py_BEGIN_ALLOW_THREADS
        PyThread_acquire_lock_timed(bed, 1, 0);  /* Never free: this is the portable way to sleep for a moment. */
        Py_END_ALLOW_THREADS
        failed = PyErr_CheckSignals() < 0;
    }
    PyThread_release_lock(bed);
    PyThread_free_lock(bed);
    return failed ? -1 : 0;
}

static PyObject *
mutex_acquire(Mutex *mutex, PyObject *const *args, Py_ssize_t count)
{
    unsigned long me = PyThread_get_thread_ident();
    int blocking = count == 1 ? PyObject_IsTrue(args[0]) : 1;
    if (count > 1) {
        PyErr_SetString(PyExc_TypeError, "acquire(blocking=True)");
        return NULL;
    }
    if (blocking >= 0 && mutex_try(mutex, me)) {
        Py_RETURN_TRUE;
    }
    if (blocking < 0 || (blocking && mutex_wait(mutex, me) < 0)) {
        return NULL;
    }
    return PyBool_FromLong(blocking);
}

static PyObject *
mutex_release(Mutex *mutex, PyObject *Py_UNUSED(ignored))
{
    if (mutex->owner != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError, "cannot release a mutex that this thread has not taken");
        return NULL;
    }
    mutex_leave(mutex);
    Py_RETURN_NONE;
}

static PyObject *
mutex_is_owned(Mutex *mutex, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(mutex->owner == PyThread_get_thread_ident());
}

static void
mutex_dealloc(Mutex *mutex)
{
    PyTypeObject *type = Py_TYPE(mutex);
    type->tp_free(mutex);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))mutex_acquire, METH_FASTCALL,
     "acquire(blocking=True): take it; whether it was free, where that is not waited for."},
    {"release", (PyCFunction)mutex_release, METH_NOARGS, "Give it back."},
    {"_is_owned", (PyCFunction)mutex_is_owned, METH_NOARGS, "Whether this thread has it."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A lock that knows its owner."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, mutex_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

PyType_Spec mutex_spec = {
    .name = "workpool._twin.Mutex",
    .basicsize = sizeof(Mutex),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
