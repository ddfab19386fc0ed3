#include "ring.h"

#include <structmember.h>

/* Move to a block of another size, at least as large as what is in use. */
int
ring_resize(Ring *ring, Py_ssize_t size)
{
    PyObject **slots = PyMem_New(PyObject *, size);
    if (slots == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t at = 0; at < ring->used; at++) {
        slots[at] = *ring_slot(ring, at);
    }
    PyMem_Free(ring->slots);
    ring->slots = slots;
    ring->size = size;
    ring->head = 0;
    return 0;
}

PyObject *
ring_new(PyTypeObject *type, Py_ssize_t width)
{
    Ring *ring = (Ring *)type->tp_alloc(type, 0);
    if (ring != NULL) {
        ring->width = width;
    }
    return (PyObject *)ring;
}

static PyObject *
item_at(Ring *ring, Py_ssize_t at)
{
    PyObject *first = *ring_slot(ring, at * ring->width);
    if (ring->width == 1) {
        return Py_NewRef(first);
    }
    first = Py_NewRef(ring_has_lane(ring, first) ? ((Ring *)first)->key : first);
    PyObject *second = Py_NewRef(*ring_slot(ring, at * ring->width + 1));
    PyObject *item = PyTuple_Pack(2, first, second);  /* It can collect garbage, and so change the ring. */
    Py_DECREF(first);
    Py_DECREF(second);
    return item;
}

/* What to store for an item that Python gives: -1 with TypeError where that is no pair of a key and an event and should
   be. A ring would be taken for a lane in the key's place. */
static int
unpack(Ring *ring, PyObject *item, PyObject **first, PyObject **second)
{
    if (ring->width == 1) {
        *first = item;
        *second = NULL;
        return 0;
    }
    if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 2 || ring_has_lane(ring, PyTuple_GET_ITEM(item, 0))) {
        PyErr_Format(PyExc_TypeError, "a pair of key and event is needed, and %R is none", item);
        return -1;
    }
    *first = PyTuple_GET_ITEM(item, 0);
    *second = PyTuple_GET_ITEM(item, 1);
    return 0;
}

static PyObject *
ring_append(Ring *ring, PyObject *item)
{
    PyObject *first, *second;
    if (unpack(ring, item, &first, &second) < 0 || ring_reserve(ring) < 0) {
        return NULL;
    }
    if (ring->width == 1) {
        ring_push(ring, Py_NewRef(first));
    }
    else {
        ring_push_pair(ring, Py_NewRef(first), Py_NewRef(second));
    }
    Py_RETURN_NONE;
}

static PyObject *
ring_appendleft(Ring *ring, PyObject *item)
{
    PyObject *first, *second;
    if (unpack(ring, item, &first, &second) < 0 || ring_reserve(ring) < 0) {
        return NULL;
    }
    ring->head = (ring->head - ring->width) & (ring->size - 1);
    ring->used += ring->width;
    *ring_slot(ring, 0) = Py_NewRef(first);
    if (ring->width > 1) {
        *ring_slot(ring, 1) = Py_NewRef(second);
    }
    Py_RETURN_NONE;
}

static PyObject *
ring_popleft(Ring *ring, PyObject *Py_UNUSED(ignored))
{
    PyObject *key, *event, *lane, *item = ring->width > 1 ? PyTuple_New(2) : NULL;  /* First: it can collect garbage. */
    if (ring->width > 1 && item == NULL) {
        return NULL;
    }
    if (ring->used == 0) {
        Py_XDECREF(item);
        PyErr_SetString(PyExc_IndexError, "pop from an empty ring");
        return NULL;
    }
    if (item == NULL) {
        return ring_pop(ring);
    }
    ring_pop_pair(ring, &key, &event, &lane);
    PyTuple_SET_ITEM(item, 0, key);
    PyTuple_SET_ITEM(item, 1, event);
    Py_XDECREF(lane);
    return item;
}

static PyObject *
ring_copy(Ring *ring, PyObject *Py_UNUSED(ignored))
{
    Ring *copy = (Ring *)ring_new(Py_TYPE(ring), ring->width);
    if (copy == NULL || (ring->size && ring_resize(copy, ring->size) < 0)) {
        Py_XDECREF(copy);
        return NULL;
    }
    for (Py_ssize_t at = 0; at < ring->used; at++) {
        copy->slots[at] = Py_NewRef(*ring_slot(ring, at));
    }
    copy->used = ring->used;
    return (PyObject *)copy;
}

static PyObject *
ring_item(Ring *ring, Py_ssize_t at)
{
    if (at < 0 || at >= ring_length(ring)) {
        PyErr_SetString(PyExc_IndexError, "ring index out of range");
        return NULL;
    }
    return item_at(ring, at);
}

static int
ring_delete_item(Ring *ring, Py_ssize_t at, PyObject *value)
{
    if (value != NULL || at < 0 || at >= ring_length(ring)) {
        PyErr_SetString(value ? PyExc_TypeError : PyExc_IndexError, "an item of a ring that is there can be deleted");
        return -1;
    }
    Py_ssize_t to = at * ring->width;
    PyObject *first = *ring_slot(ring, to);
    PyObject *second = ring->width > 1 ? *ring_slot(ring, to + 1) : NULL;
    if (to < ring->used / 2) {  /* The shorter side moves. */
        for (to += ring->width - 1; to >= ring->width; to--) {
            *ring_slot(ring, to) = *ring_slot(ring, to - ring->width);
        }
        ring->head = (ring->head + ring->width) & (ring->size - 1);
    }
    else {
        for (; to + ring->width < ring->used; to++) {
            *ring_slot(ring, to) = *ring_slot(ring, to + ring->width);
        }
    }
    ring->used -= ring->width;
    ring_shrink(ring);
    Py_DECREF(first);
    Py_XDECREF(second);
    return 0;
}

static int
ring_traverse(Ring *ring, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(ring));
    for (Py_ssize_t at = 0; at < ring->used; at++) {
        Py_VISIT(*ring_slot(ring, at));
    }
    Py_VISIT(ring->key);
    return 0;
}

/* The key stays: a ring of pairs that was not cleared yet asks its lanes for theirs. A cycle that goes through the key
   goes through what holds the lane, too, which is cleared itself. */
static int
ring_clear(Ring *ring)
{
    Ring was = *ring;  /* Emptied first: a release can run code that looks here again. */
    ring->slots = NULL;
    ring->size = ring->head = ring->used = 0;
    for (Py_ssize_t at = 0; at < was.used; at++) {
        Py_DECREF(*ring_slot(&was, at));
    }
    PyMem_Free(was.slots);
    return 0;
}

static void
ring_dealloc(Ring *ring)
{
    PyTypeObject *type = Py_TYPE(ring);
    PyObject_GC_UnTrack(ring);
    Py_TRASHCAN_BEGIN(ring, ring_dealloc)
    ring_clear(ring);
    Py_XDECREF(ring->key);
    type->tp_free(ring);
    Py_DECREF(type);
    Py_TRASHCAN_END
}

static PyObject *
ring_sizeof(Ring *ring, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSsize_t(Py_TYPE(ring)->tp_basicsize + ring->size * (Py_ssize_t)sizeof(PyObject *));
}

static PyObject *
ring_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"width", NULL};
    Py_ssize_t width = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|n:Ring", names, &width)) {
        return NULL;
    }
    if (width != 1 && width != 2) {
        PyErr_SetString(PyExc_ValueError, "width must be 1 or 2");
        return NULL;
    }
    return ring_new(type, width);
}

static PyMethodDef methods[] = {
    {"append", (PyCFunction)ring_append, METH_O, "Put an item at the end."},
    {"appendleft", (PyCFunction)ring_appendleft, METH_O, "Put an item at the front."},
    {"popleft", (PyCFunction)ring_popleft, METH_NOARGS, "Take the first item."},
    {"__copy__", (PyCFunction)ring_copy, METH_NOARGS, NULL},
    {"__sizeof__", (PyCFunction)ring_sizeof, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A queue of objects, or of pairs of them (width=2)."},
    {Py_tp_new, ring_make},
    {Py_tp_dealloc, ring_dealloc},
    {Py_tp_traverse, ring_traverse},
    {Py_tp_clear, ring_clear},
    {Py_tp_methods, methods},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_sq_length, ring_length},
    {Py_sq_item, ring_item},
    {Py_sq_ass_item, ring_delete_item},
    {0, NULL},
};

PyType_Spec ring_spec = {
    .name = "workpool._twin.Ring",
    .basicsize = sizeof(Ring),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
