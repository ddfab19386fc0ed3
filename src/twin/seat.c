#include "seat.h"

#include <structmember.h>

/* Pass the place where Python gives other threads their turn, and heeds signals: a loop in C never does. To give up the
   interpreter unasked would not do: who waits for it begins to wait anew each time, and so never asks. */
int
give_turn(State *state)
{
    PyObject *done = PyObject_CallNoArgs(state->breath);
    Py_XDECREF(done);
    return done == NULL ? FAILED : 0;
}

static PyObject *
seat_get(Seat *self, void *place)
{
    PyObject *found = *(PyObject **)((char *)self + (size_t)place);
    if (found == NULL) {
        PyErr_SetString(PyExc_AttributeError, "this pool was never made: its __init__ has not run");
        return NULL;
    }
    return Py_NewRef(found);
}

static int
seat_set(Seat *self, PyObject *value, void *closure)
{
    PyObject **place = (PyObject **)((char *)self + (size_t)closure);
    State *state = find_state(Py_TYPE(self));
    if (state == NULL) {
        return -1;
    }
    if (value == NULL ||
        ((size_t)closure == offsetof(Seat, core) && !PyObject_TypeCheck(value, state->lanes_type))) {
        PyErr_SetString(PyExc_TypeError, "a pool cannot stand on this");
        return -1;
    }
    if ((size_t)closure == offsetof(Seat, mutex)) {
        self->own = Py_IS_TYPE(value, state->mutex_type) ? (Mutex *)value : NULL;
    }
    PyObject *was = *place;
    *place = Py_NewRef(value);
    Py_XDECREF(was);
    return 0;
}

static int
seat_traverse(Seat *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->core);
    Py_VISIT(self->mutex);
    return 0;
}

static int
seat_clear(Seat *self)
{
    self->own = NULL;
    Py_CLEAR(self->core);
    Py_CLEAR(self->mutex);
    return 0;
}

static void
seat_dealloc(Seat *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    seat_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static int enter(State *state, Seat *seat, PyObject *key, PyObject *event);

#define STRIDE 64  /* Pairs after which signals are heeded and other threads have their turn. */

/* _enter_some(iterator): enter its pairs while nothing is in the way of one.

   Returns how many there were, the pair that is for Python to see to or `nothing`, and what was raised or None. */
static PyObject *
seat_enter_some(Seat *self, PyObject *iterator)
{
    State *state = find_state(Py_TYPE(self));
    if (state == NULL || !PyIter_Check(iterator)) {
        return state == NULL ? NULL : PyErr_Format(PyExc_TypeError, "an iterator is needed, and %R is none", iterator);
    }
    Py_ssize_t count = 0;
    int found = 1;
    PyObject *pair = NULL;
    while (found == 1 && (pair = PyIter_Next(iterator)) != NULL) {
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
            break;  /* Python unpacks what else can be unpacked. */
        }
        found = enter(state, self, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1));
        if (found == 1) {
            Py_CLEAR(pair);
            if (++count % STRIDE == 0 && give_turn(state) < 0) {
                found = FAILED;
            }
        }
    }
    if (found == FAILED) {
        Py_CLEAR(pair);
    }
    PyObject *error = PyErr_GetRaisedException();
    return Py_BuildValue("nNN", count, pair ? pair : Py_NewRef(state->nothing), error ? error : Py_NewRef(Py_None));
}

/* _enter_at_once(key, event): whether it was entered; False where something is in the way. */
static PyObject *
seat_enter_at_once(Seat *self, PyObject *const *args, Py_ssize_t nargs)
{
    State *state = find_state(Py_TYPE(self));
    if (state == NULL || nargs != 2) {
        return state == NULL ? NULL : PyErr_Format(PyExc_TypeError, "a key and an event are needed");
    }
    int found = enter(state, self, args[0], args[1]);
    return found == FAILED ? NULL : PyBool_FromLong(found);
}

static PyMethodDef seat_methods[] = {
    {"_enter_at_once", (PyCFunction)(void (*)(void))seat_enter_at_once, METH_FASTCALL,
     "Enter an event where nothing is in its way; whether it was."},
    {"_enter_some", (PyCFunction)seat_enter_some, METH_O,
     "Enter pairs while nothing is in the way of one: how many, the pair or NOTHING, what was raised or None."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef seat_getset[] = {
    {"_core", (getter)seat_get, (setter)seat_set, NULL, (void *)offsetof(Seat, core)},
    {"_mutex", (getter)seat_get, (setter)seat_set, NULL, (void *)offsetof(Seat, mutex)},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot seat_slots[] = {
    {Py_tp_doc, "What a pool stands on."},
    {Py_tp_dealloc, seat_dealloc},
    {Py_tp_traverse, seat_traverse},
    {Py_tp_clear, seat_clear},
    {Py_tp_getset, seat_getset},
    {Py_tp_methods, seat_methods},
    {0, NULL},
};

PyType_Spec seat_spec = {
    .name = "workpool._twin.Seat",
    .basicsize = sizeof(Seat),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = seat_slots,
};

/* Call `_wake`, once more where it was cut short: a wake-up may be sent twice, and never be lost. */
static int
ring_for_a_worker(State *state, Seat *seat)
{
    PyObject *done = PyObject_CallMethodNoArgs((PyObject *)seat, state->wake);
    if (done == NULL) {
        PyObject *error = PyErr_GetRaisedException();
        Py_XDECREF(PyObject_CallMethodNoArgs((PyObject *)seat, state->wake));
        PyErr_Clear();  /* The first is what is told. */
        PyErr_SetRaisedException(error);
        return -1;
    }
    Py_DECREF(done);
    return 0;
}

/* Add an event where nothing is in its way: 1, or 0 where it is for Python to see to, or FAILED. */
static int
enter(State *state, Seat *seat, PyObject *key, PyObject *event)
{
    unsigned long me = PyThread_get_thread_ident();
    if (seat->own == NULL || seat->core == NULL || !mutex_try(seat->own, me)) {
        return 0;
    }
    /* The pool may let go of them meanwhile: a look-up can run Python, and that can fork. */
    Mutex *mutex = (Mutex *)Py_NewRef(seat->own);
    Lanes *core = (Lanes *)Py_NewRef(seat->core);
    int found = lanes_submit(core, key, event, 0);
    if (found == WAKE && ring_for_a_worker(state, seat) < 0) {
        found = FAILED;
    }
    mutex_leave(mutex);
    Py_DECREF(mutex);
    Py_DECREF(core);
    if (found == FAILED && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyObject *error = PyErr_GetRaisedException();
        PyObject *checked = PyObject_CallOneArg(state->require_hashable, key);  /* Raises what says it better. */
        if (checked != NULL) {
            PyErr_SetRaisedException(Py_NewRef(error));
        }
        Py_XDECREF(checked);
        Py_DECREF(error);
    }
    return found == FAILED ? FAILED : found != REFUSED;
}

/* Entrance: `add`. What it cannot do at once it leaves to the function that it stands before. */

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *function;
    PyObject *dict;
    State *state;
} Entrance;

static PyObject *
entrance_call(Entrance *self, PyObject *const *args, size_t flags, PyObject *names)
{
    if (PyVectorcall_NARGS(flags) == 3 && names == NULL && PyObject_TypeCheck(args[0], self->state->seat_type)) {
        int found = enter(self->state, (Seat *)args[0], args[1], args[2]);
        if (found != 0) {
            return found == FAILED ? NULL : Py_NewRef(Py_None);
        }
    }
    return PyObject_Vectorcall(self->function, args, flags, names);
}

static PyObject *
entrance_get(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type))
{
    return object == NULL ? Py_NewRef(self) : PyMethod_New(self, object);
}

static PyObject *
entrance_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"function", NULL};
    PyObject *function;
    State *state = find_state(type);
    if (state == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "O:Entrance", names, &function)) {
        return NULL;
    }
    Entrance *self = (Entrance *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->vectorcall = (vectorcallfunc)entrance_call;
    self->function = Py_NewRef(function);
    self->state = state;
    PyObject *functools = PyImport_ImportModule("functools");
    PyObject *updated = functools ? PyObject_CallMethod(functools, "update_wrapper", "OO", self, function) : NULL;
    Py_XDECREF(functools);
    if (updated == NULL) {
        Py_DECREF(self);
    }
    else {
        Py_DECREF(updated);
    }
    return updated == NULL ? NULL : (PyObject *)self;
}

static int
entrance_traverse(Entrance *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->function);
    Py_VISIT(self->dict);
    return 0;
}

static int
entrance_clear(Entrance *self)
{
    Py_CLEAR(self->dict);
    Py_CLEAR(self->function);
    return 0;
}

static void
entrance_dealloc(Entrance *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    entrance_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef entrance_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Entrance, vectorcall), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(Entrance, dict), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef entrance_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot entrance_slots[] = {
    {Py_tp_doc, "A method that takes an event in C where nothing is in its way."},
    {Py_tp_new, entrance_new},
    {Py_tp_dealloc, entrance_dealloc},
    {Py_tp_traverse, entrance_traverse},
    {Py_tp_clear, entrance_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, entrance_get},
    {Py_tp_members, entrance_members},
    {Py_tp_getset, entrance_getset},
    {0, NULL},
};

PyType_Spec entrance_spec = {
    .name = "workpool._twin.Entrance",
    .basicsize = sizeof(Entrance),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_METHOD_DESCRIPTOR,
    .slots = entrance_slots,
};
