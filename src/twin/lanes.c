#include "lanes.h"

#include <structmember.h>

#include "module.h"

#define SMALL 8  /* Keys up to which a dict is not given up, because it never grew. */

static int
wake(Lanes *self)
{
    if (self->waking || self->asleep == 0 || self->ready->used == 0 || !self->serving) {
        return QUIET;
    }
    self->waking = 1;
    return WAKE;
}

/* Take the key out again that was entered last, without a look-up, and keep the error, if there is one. */
static void
forget_last(PyObject *lanes)
{
    PyObject *error = PyErr_GetRaisedException();
    PyObject *last = PyObject_CallMethod(lanes, "popitem", NULL);
    if (last == NULL) {
        PyErr_WriteUnraisable(lanes);
    }
    Py_XDECREF(last);
    PyErr_SetRaisedException(error);
}

/* The lane of a key, made where there is none: a strong reference. */
static PyObject *
set_default(PyObject *lanes, PyObject *key)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *behind = NULL;
    (void)PyDict_SetDefaultRef(lanes, key, Py_None, &behind);
    return behind;
#else
    return Py_XNewRef(PyDict_SetDefault(lanes, key, Py_None));
#endif
}

/* The lane of a key: a strong reference, or NULL with KeyError or what a look-up raised. */
static PyObject *
look_up(PyObject *lanes, PyObject *key)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *behind = NULL;
    (void)PyDict_GetItemRef(lanes, key, &behind);
#else
    PyObject *behind = Py_XNewRef(PyDict_GetItemWithError(lanes, key));
#endif
    if (behind == NULL && !PyErr_Occurred()) {
        PyObject *args = PyTuple_Pack(1, key);  /* A key that is a tuple is no list of arguments. */
        if (args != NULL) {
            PyErr_SetObject(PyExc_KeyError, args);
            Py_DECREF(args);
        }
    }
    return behind;
}

/* Whether what is in a lane's place is one; 0 with TypeError where Python has put something else there. */
static int
is_lane(Lanes *self, PyObject *behind)
{
    if (behind == Py_None || (Py_IS_TYPE(behind, self->ring_type) && ((Ring *)behind)->width == 1)) {
        return 1;
    }
    PyErr_Format(PyExc_TypeError, "a lane is a Ring or None, and %R is neither", behind);
    return 0;
}

/* Whether a key that was not among the lanes is held: 1 with its lane and the dict of that, or FAILED, and the key, which
   had been entered, is taken out again; or 0. */
static int
find_aside(Lanes *self, PyObject *key, PyObject **lanes, PyObject **behind)
{
    PyObject *aside = Py_NewRef(self->aside);  /* As below. */
    int held = PyDict_Contains(aside, key);
    if (held != 0) {
        forget_last(*lanes);
    }
    if (held > 0) {
        Py_SETREF(*behind, look_up(aside, key));
        held = *behind != NULL && is_lane(self, *behind) ? 1 : FAILED;
        Py_SETREF(*lanes, aside);
        return held;
    }
    Py_DECREF(aside);
    return held;
}

int
lanes_submit(Lanes *self, PyObject *key, PyObject *event, int force)
{
    if (self->waiting >= self->limit && !force) {
        return REFUSED;
    }
    PyObject *lanes = Py_NewRef(self->lanes);  /* A look-up can run Python. */
    int result = FAILED;
    Py_ssize_t keys = PyDict_GET_SIZE(lanes);
    PyObject *behind = set_default(lanes, key);
    if (behind == NULL || !is_lane(self, behind)) {
        goto done;
    }
    int idle = PyDict_GET_SIZE(lanes) > keys;
    if (idle && PyDict_GET_SIZE(self->aside)) {
        int held = find_aside(self, key, &lanes, &behind);
        if (held == FAILED) {
            goto done;
        }
        idle = !held;
    }
    if (idle) {
        if (ring_reserve(self->ready) < 0) {
            forget_last(lanes);
            goto done;
        }
        ring_push_pair(self->ready, Py_NewRef(key), Py_NewRef(event));
        self->widest = Py_MAX(self->widest, keys + 1);
        self->waiting++;
        self->added++;
        result = wake(self);
        goto done;
    }
    if (behind == Py_None) {
        Ring *ring = (Ring *)ring_new(self->ring_type, 1);
        if (ring == NULL || ring_reserve(ring) < 0 || PyDict_SetItem(lanes, key, (PyObject *)ring) < 0) {
            Py_XDECREF(ring);
            goto done;
        }
        ring_push(ring, Py_NewRef(event));
        Py_DECREF(ring);
    }
    else {
        if (ring_reserve((Ring *)behind) < 0) {
            goto done;
        }
        ring_push((Ring *)behind, Py_NewRef(event));
    }
    self->waiting++;
    self->added++;
    result = QUIET;
done:
    Py_XDECREF(behind);
    Py_DECREF(lanes);
    return result;
}

/* The first that is ready, for a worker; what it held is returned, for the caller to release last. */
static PyObject *
hand_over(Lanes *self, Py_ssize_t worker, Head *head)
{
    ring_pop_pair(self->ready, &head->key, &head->event, &head->lane);
    PyObject *held = PyList_GET_ITEM(self->holds, worker);
    PyList_SET_ITEM(self->holds, worker, Py_NewRef(head->key));
    self->waiting--;
    return held;
}

static int
require_worker(Lanes *self, Py_ssize_t worker)
{
    if (worker >= 0 && worker < PyList_GET_SIZE(self->holds)) {
        return 0;
    }
    PyErr_Format(PyExc_IndexError, "there is no worker %zd", worker);
    return FAILED;
}

int
lanes_take(Lanes *self, Py_ssize_t worker, Head *head)
{
    if (require_worker(self, worker) < 0) {
        return FAILED;
    }
    self->waking = 0;
    if (self->ready->used == 0 || !self->serving) {
        return 0;
    }
    self->in_flight++;
    self->asleep--;
    Py_DECREF(hand_over(self, worker, head));
    return 1;
}

/* Let the lane of a key move up: its next event to the end of the ring, or the key is idle. The lane learns the key
   here, where it is the very object that the dict has, and not in `submit`, where it may be another that equals it. */
static int
move_up(Lanes *self, PyObject *key, PyObject *lane)
{
    Ring *ring = (Ring *)lane;
    if (lane != NULL && ring->used) {
        if (ring_reserve(self->ready) < 0) {
            return FAILED;
        }
        if (ring->key == NULL) {
            ring->key = Py_NewRef(key);
        }
        ring_push_pair(self->ready, Py_NewRef(ring->key == key ? lane : key), ring_pop(ring));
        return 0;
    }
    PyObject *lanes = Py_NewRef(self->lanes);  /* A look-up can run Python. */
    int moved = FAILED;
    if (lane != NULL) {
        moved = PyDict_DelItem(lanes, key);
    }
    else if ((lane = look_up(lanes, key)) != NULL && is_lane(self, lane)) {
        int more = lane != Py_None && ((Ring *)lane)->used;
        moved = more ? move_up(self, key, lane) : PyDict_DelItem(lanes, key);
        Py_DECREF(lane);
    }
    Py_DECREF(lanes);
    return moved;
}

int
lanes_next(Lanes *self, Py_ssize_t worker, PyObject *ended, PyObject *lane, Head *head)
{
    if (require_worker(self, worker) < 0) {
        return FAILED;
    }
    int moved = move_up(self, ended, lane);
    if (moved < 0 || require_worker(self, worker) < 0) {  /* Once more: a look-up can run Python. */
        return FAILED;
    }
    self->handled++;
    if (self->ready->used && self->serving) {
        Py_DECREF(hand_over(self, worker, head));
        return 1;
    }
    PyObject *held = PyList_GET_ITEM(self->holds, worker);
    PyList_SET_ITEM(self->holds, worker, Py_NewRef(self->nothing));
    self->in_flight--;
    self->asleep++;
    if (self->widest > SMALL && PyDict_GET_SIZE(self->lanes) == 0) {
        PyDict_Clear(self->lanes);  /* A dict that grew never shrinks by itself. */
        self->widest = 0;
    }
    Py_DECREF(held);
    return 0;
}

/* The same, as Python calls them. */

static PyObject *
submit(Lanes *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (names != NULL && PyTuple_GET_SIZE(names) == 1 && count == 2 &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "force") == 0) {
        names = NULL;
        count = 3;
    }
    if (count < 2 || count > 3 || (names != NULL && PyTuple_GET_SIZE(names))) {
        PyErr_SetString(PyExc_TypeError, "submit(key, event, force=False)");
        return NULL;
    }
    int force = count == 3 ? PyObject_IsTrue(args[2]) : 0;
    if (force < 0) {
        return NULL;
    }
    int found = lanes_submit(self, args[0], args[1], force);
    return found == FAILED ? NULL : found == REFUSED ? Py_NewRef(Py_None) : PyBool_FromLong(found);
}

/* Fill a pair, which was made before the step: after it, nothing may fail. */
static PyObject *
item_or_none(int found, PyObject *item, Head *head)
{
    if (found <= 0) {
        Py_DECREF(item);
        return found < 0 ? NULL : Py_NewRef(Py_None);
    }
    PyTuple_SET_ITEM(item, 0, head->key);
    PyTuple_SET_ITEM(item, 1, head->event);
    Py_XDECREF(head->lane);
    return item;
}

static PyObject *
take(Lanes *self, PyObject *number)
{
    Head head;
    Py_ssize_t worker = PyLong_AsSsize_t(number);
    if (worker == -1 && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *item = PyTuple_New(2);
    if (item == NULL) {
        return NULL;
    }
    int found = lanes_take(self, worker, &head);
    return item_or_none(found, item, &head);
}

static PyObject *
next(Lanes *self, PyObject *const *args, Py_ssize_t count)
{
    Head head;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "next(worker, key)");
        return NULL;
    }
    Py_ssize_t worker = PyLong_AsSsize_t(args[0]);
    if (worker == -1 && PyErr_Occurred()) {
        return NULL;
    }
    PyObject *item = PyTuple_New(2);
    if (item == NULL) {
        return NULL;
    }
    int found = lanes_next(self, worker, args[1], NULL, &head);
    return item_or_none(found, item, &head);
}

static PyObject *
ask_to_wake(Lanes *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(wake(self));
}

static int
lanes_init(Lanes *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"limit", NULL};
    Py_ssize_t limit = PY_SSIZE_T_MAX;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|n:Lanes", names, &limit)) {
        return -1;
    }
    self->limit = limit;
    return 0;
}

static PyObject *
lanes_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    State *state = find_state(type);
    if (state == NULL) {
        return NULL;
    }
    Lanes *self = (Lanes *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->serving = 1;
    self->limit = PY_SSIZE_T_MAX;
    self->nothing = Py_NewRef(state->nothing);
    self->ring_type = (PyTypeObject *)Py_NewRef(state->ring_type);
    self->lanes = PyDict_New();
    self->aside = PyDict_New();
    self->ready = (Ring *)ring_new(self->ring_type, 2);
    self->holds = PyList_New(0);
    if (self->lanes == NULL || self->aside == NULL || self->ready == NULL || self->holds == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static int
lanes_traverse(Lanes *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->lanes);
    Py_VISIT(self->aside);
    Py_VISIT(self->ready);
    Py_VISIT(self->holds);
    Py_VISIT(self->nothing);
    Py_VISIT(self->ring_type);
    return 0;  /* No tp_clear: every cycle goes through one of the containers, which have their own. */
}

static void
lanes_dealloc(Lanes *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->lanes);
    Py_XDECREF(self->aside);
    Py_XDECREF(self->ready);
    Py_XDECREF(self->holds);
    Py_XDECREF(self->nothing);
    Py_XDECREF(self->ring_type);
    type->tp_free(self);
    Py_DECREF(type);
}

/* The containers are exchanged as a whole now and then, for others of the same kind. */

static int
exchange(PyObject **place, PyObject *value, int fits, const char *name)
{
    if (value == NULL || !fits) {
        PyErr_Format(PyExc_TypeError, "%s cannot be %R", name, value == NULL ? Py_None : value);
        return -1;
    }
    PyObject *was = *place;
    *place = Py_NewRef(value);
    Py_DECREF(was);
    return 0;
}

static PyObject *
get_lanes(Lanes *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->lanes);
}

static int
set_lanes(Lanes *self, PyObject *value, void *Py_UNUSED(closure))
{
    self->widest = 0;
    return exchange(&self->lanes, value, value != NULL && PyDict_CheckExact(value), "lanes");
}

static PyObject *
get_aside(Lanes *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->aside);
}

static int
set_aside(Lanes *self, PyObject *value, void *Py_UNUSED(closure))
{
    return exchange(&self->aside, value, value != NULL && PyDict_CheckExact(value), "aside");
}

static PyObject *
get_ready(Lanes *self, void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)self->ready);
}

static int
set_ready(Lanes *self, PyObject *value, void *Py_UNUSED(closure))
{
    int fits = value != NULL && Py_IS_TYPE(value, self->ring_type) && ((Ring *)value)->width > 1;
    return exchange((PyObject **)&self->ready, value, fits, "ready");
}

static PyObject *
get_holds(Lanes *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->holds);
}

static int
set_holds(Lanes *self, PyObject *value, void *Py_UNUSED(closure))
{
    return exchange(&self->holds, value, value != NULL && PyList_CheckExact(value), "holds");
}

static PyGetSetDef getset[] = {
    {"lanes", (getter)get_lanes, (setter)set_lanes, NULL, NULL},
    {"aside", (getter)get_aside, (setter)set_aside, NULL, NULL},
    {"ready", (getter)get_ready, (setter)set_ready, NULL, NULL},
    {"holds", (getter)get_holds, (setter)set_holds, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"limit", T_PYSSIZET, offsetof(Lanes, limit), 0, NULL},
    {"asleep", T_PYSSIZET, offsetof(Lanes, asleep), 0, NULL},
    {"added", T_LONGLONG, offsetof(Lanes, added), 0, NULL},
    {"waiting", T_PYSSIZET, offsetof(Lanes, waiting), 0, NULL},
    {"in_flight", T_PYSSIZET, offsetof(Lanes, in_flight), 0, NULL},
    {"handled", T_LONGLONG, offsetof(Lanes, handled), 0, NULL},
    {"serving", T_BOOL, offsetof(Lanes, serving), 0, NULL},
    {"waking", T_BOOL, offsetof(Lanes, waking), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef methods[] = {
    {"submit", (PyCFunction)(void (*)(void))submit, METH_FASTCALL | METH_KEYWORDS, "As in lanes.py."},
    {"take", (PyCFunction)take, METH_O, "As in lanes.py."},
    {"next", (PyCFunction)(void (*)(void))next, METH_FASTCALL, "As in lanes.py."},
    {"wake", (PyCFunction)ask_to_wake, METH_NOARGS, "As in lanes.py."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "The lanes of all active keys, and the workers that are asleep for want of one."},
    {Py_tp_new, lanes_new},
    {Py_tp_init, lanes_init},
    {Py_tp_dealloc, lanes_dealloc},
    {Py_tp_traverse, lanes_traverse},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_getset, getset},
    {0, NULL},
};

PyType_Spec lanes_spec = {
    .name = "workpool._twin.Lanes",
    .basicsize = sizeof(Lanes),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};
