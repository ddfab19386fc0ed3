#include "hand.h"

#include <structmember.h>

#include "seat.h"

typedef struct {
    PyObject_HEAD
    Seat *seat;
    Lanes *core;
    Mutex *mutex;
    PyObject *handler;
    PyObject *notes;     /* dict */
    PyObject *adders;    /* dict */
    Py_ssize_t worker;
    Py_ssize_t half;     /* so few events wait that adders may come in */
    Head held;           /* NULL in each place, or the event only: it is released, and its key is not passed on yet */
    PyObject *last;      /* the key that was passed on, while somebody has to look at that */
    State *state;
    char ended;
    char takes_delivery;
    char is_python;      /* the handler gives other threads their turn by itself, at each call */
    char running;        /* it is a worker's, and within `run` */
} Hand;

static PyObject *
hand_delivery(Hand *self, PyObject *Py_UNUSED(ignored))
{
    State *state = find_state(Py_TYPE(self));
    if (state == NULL || self->held.event == NULL) {
        return state == NULL ? NULL : PyErr_Format(PyExc_RuntimeError, "this hand holds no event");
    }
    PyObject *attempt = PyDict_GET_SIZE(self->notes)
        ? PyObject_CallMethodOneArg((PyObject *)self->core, state->attempt, self->held.key)
        : PyLong_FromLong(1);
    PyObject *delivery = attempt
        ? PyObject_CallFunctionObjArgs(state->delivery, self->held.key, attempt, NULL)
        : NULL;
    Py_XDECREF(attempt);
    return delivery;
}

static PyObject *
handle(Hand *self)
{
    if (!self->takes_delivery) {
        return PyObject_CallOneArg(self->handler, self->held.event);
    }
    PyObject *delivery = hand_delivery(self, NULL);
    if (delivery == NULL) {
        return NULL;
    }
    PyObject *args[] = {self->held.event, delivery};
    PyObject *result = PyObject_Vectorcall(self->handler, args, 2, NULL);
    Py_DECREF(delivery);
    return result;
}

enum { LOOK = 1, FORKED = 2 };

/* Pass the key on whose event was handled: 0, LOOK with the mutex taken, FORKED, or FAILED. */
static int
pass_on(Hand *self)
{
    Mutex *mutex = self->mutex;
    Py_CLEAR(self->held.event);
    if (self->seat->own != mutex) {
        return FORKED;
    }
    unsigned long me = PyThread_get_thread_ident();
    if (!mutex_try(mutex, me) && mutex_wait(mutex, me) < 0) {
        return FAILED;
    }
    PyObject *ended = self->held.key, *lane = self->held.lane;
    Head next = {NULL, NULL, NULL};
    if (lanes_next(self->core, self->worker, ended, lane, &next) == FAILED) {
        return FAILED;
    }
    self->held = next;
    self->ended = 0;
    Py_XDECREF(lane);
    if (PyDict_GET_SIZE(self->notes) ||
        (PyDict_GET_SIZE(self->adders) && (self->core->waiting <= self->half || self->core->asleep))) {
        Py_XSETREF(self->last, ended);
        return LOOK;
    }
    mutex_leave(mutex);
    Py_DECREF(ended);
    return 0;
}

static PyObject *
tell_outcome(int outcome)
{
    return outcome == FAILED ? NULL : Py_NewRef(outcome == LOOK ? Py_True : outcome == FORKED ? Py_False : Py_None);
}

static PyObject *
hand_pass_on(Hand *self, PyObject *Py_UNUSED(ignored))
{
    if (self->running || self->held.key == NULL) {
        return PyErr_Format(PyExc_RuntimeError, self->running ? "this hand is at work" : "this hand holds nothing");
    }
    return tell_outcome(pass_on(self));
}

static PyObject *
run(Hand *self)
{
    int outcome = 0;
    while (self->held.event != NULL && outcome == 0) {
        PyObject *result = handle(self);
        if (result == NULL) {
            return PyErr_GetRaisedException();
        }
        self->ended = 1;
        Py_DECREF(result);
        if (!self->is_python && give_turn(self->state) < 0) {
            return NULL;
        }
        outcome = pass_on(self);
    }
    return tell_outcome(outcome);
}

static PyObject *
hand_run(Hand *self, PyObject *Py_UNUSED(ignored))
{
    if (self->running) {
        return PyErr_Format(PyExc_RuntimeError, "this hand is at work already");
    }
    self->running = 1;
    PyObject *result = run(self);
    self->running = 0;
    return result;
}

static PyObject *
hand_get_item(Hand *self, void *Py_UNUSED(closure))
{
    if (self->held.event == NULL) {
        Py_RETURN_NONE;
    }
    return PyTuple_Pack(2, self->held.key, self->held.event);
}

static int
hand_set_item(Hand *self, PyObject *item, void *Py_UNUSED(closure))
{
    PyObject *key = NULL, *event = NULL;
    if (self->running) {
        PyErr_SetString(PyExc_RuntimeError, "this hand is at work");
        return -1;
    }
    if (item != Py_None) {
        if (item == NULL || !PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 2) {
            PyErr_SetString(PyExc_TypeError, "a hand holds a pair of key and event, or None");
            return -1;
        }
        key = Py_NewRef(PyTuple_GET_ITEM(item, 0));
        event = Py_NewRef(PyTuple_GET_ITEM(item, 1));
    }
    Head was = self->held;
    self->held = (Head){key, event, NULL};
    Py_XDECREF(was.key);
    Py_XDECREF(was.event);
    Py_XDECREF(was.lane);
    return 0;
}

static PyObject *
hand_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"pool", "worker", "handler", "takes_delivery", NULL};
    PyObject *pool, *handler;
    Py_ssize_t worker;
    int takes_delivery;
    State *state = find_state(type);
    if (state == NULL || !PyArg_ParseTupleAndKeywords(
            args, kwargs, "O!nOp:Hand", names, state->seat_type, &pool, &worker, &handler, &takes_delivery)) {
        return NULL;
    }
    Seat *seat = (Seat *)pool;
    if (seat->core == NULL || seat->own == NULL) {
        return PyErr_Format(PyExc_RuntimeError, "this pool has no core, or belongs to the parent process");
    }
    Hand *self = (Hand *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->seat = (Seat *)Py_NewRef(seat);
    self->core = (Lanes *)Py_NewRef(seat->core);
    self->mutex = (Mutex *)Py_NewRef(seat->own);
    self->handler = Py_NewRef(handler);
    self->worker = worker;
    self->state = state;
    self->last = Py_NewRef(Py_None);
    self->takes_delivery = (char)takes_delivery;
    self->is_python =
        PyFunction_Check(handler) || (PyMethod_Check(handler) && PyFunction_Check(PyMethod_GET_FUNCTION(handler)));
    PyObject *half = PyObject_GetAttrString((PyObject *)seat->core, "half");
    self->half = half ? PyLong_AsSsize_t(half) : -1;
    Py_XDECREF(half);
    self->notes = PyObject_GetAttrString((PyObject *)seat->core, "notes");
    self->adders = self->notes ? PyObject_GetAttrString((PyObject *)seat->core, "adders") : NULL;
    if (self->adders != NULL && !(PyDict_Check(self->notes) && PyDict_Check(self->adders))) {
        PyErr_SetString(PyExc_TypeError, "the notes and the adders of a core are dicts");
    }
    if (PyErr_Occurred()) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static int
hand_traverse(Hand *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->seat);
    Py_VISIT(self->core);
    Py_VISIT(self->mutex);
    Py_VISIT(self->handler);
    Py_VISIT(self->notes);
    Py_VISIT(self->adders);
    Py_VISIT(self->held.key);
    Py_VISIT(self->held.event);
    Py_VISIT(self->held.lane);
    Py_VISIT(self->last);
    return 0;
}

static int
hand_clear(Hand *self)
{
    Py_CLEAR(self->held.key);
    Py_CLEAR(self->held.event);
    Py_CLEAR(self->held.lane);
    Py_CLEAR(self->last);
    return 0;
}

static void
hand_dealloc(Hand *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    hand_clear(self);
    Py_XDECREF(self->seat);
    Py_XDECREF(self->core);
    Py_XDECREF(self->mutex);
    Py_XDECREF(self->handler);
    Py_XDECREF(self->notes);
    Py_XDECREF(self->adders);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef hand_methods[] = {
    {"run", (PyCFunction)hand_run, METH_NOARGS, "As in hand.py."},
    {"pass_on", (PyCFunction)hand_pass_on, METH_NOARGS, "As in hand.py."},
    {"delivery", (PyCFunction)hand_delivery, METH_NOARGS, "As in hand.py."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef hand_members[] = {
    {"event", T_OBJECT, offsetof(Hand, held.event), READONLY, "The event that it holds, or None."},
    {"ended", T_BOOL, offsetof(Hand, ended), 0, "Its event was handled, and its key is not passed on yet."},
    {"last", T_OBJECT_EX, offsetof(Hand, last), 0, "The key that was passed on, while somebody has to look at that."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef hand_getset[] = {
    {"item", (getter)hand_get_item, (setter)hand_set_item, "The key and the event that it holds, or None.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static int
hand_bool(Hand *self)
{
    return self->held.event != NULL;
}

static PyType_Slot hand_slots[] = {
    {Py_nb_bool, hand_bool},
    {Py_tp_doc, "What one worker holds."},
    {Py_tp_new, hand_new},
    {Py_tp_dealloc, hand_dealloc},
    {Py_tp_traverse, hand_traverse},
    {Py_tp_clear, hand_clear},
    {Py_tp_methods, hand_methods},
    {Py_tp_members, hand_members},
    {Py_tp_getset, hand_getset},
    {0, NULL},
};

PyType_Spec hand_spec = {
    .name = "workpool._twin.Hand",
    .basicsize = sizeof(Hand),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = hand_slots,
};
