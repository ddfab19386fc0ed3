/* A queue of objects in one block of memory: what `deque` is to the reference, in half of the time and of the memory.

   Its items are single objects, or pairs of a key and an event, which are a tuple only where Python sees them. In the
   key's slot there may be its lane, which Python does not see there: a lane is a ring that knows its key, and no ring
   is a key itself, for it has no hash. Pushing needs room, which `ring_reserve` makes: so whoever reserves first can
   change several things and fail at none of them. */

#ifndef WORKPOOL_RING_H
#define WORKPOOL_RING_H

#include <Python.h>

typedef struct {
    PyObject_HEAD
    PyObject **slots;  /* NULL where there are none */
    Py_ssize_t size;   /* slots: a power of two, or 0 */
    Py_ssize_t head;   /* where the first item is */
    Py_ssize_t used;   /* slots in use, from there on and round the end */
    Py_ssize_t width;  /* slots that an item takes: 1, or 2 for pairs */
    PyObject *key;     /* of a lane: whose it is, from when it travels with its key; else NULL */
} Ring;

extern PyType_Spec ring_spec;

PyObject *ring_new(PyTypeObject *type, Py_ssize_t width);
int ring_resize(Ring *ring, Py_ssize_t size);

static inline Py_ssize_t
ring_length(const Ring *ring)
{
    return ring->used / ring->width;
}

static inline PyObject **
ring_slot(const Ring *ring, Py_ssize_t at)
{
    return &ring->slots[(ring->head + at) & (ring->size - 1)];
}

/* Make room for one more item: 0, or -1 with MemoryError and nothing changed. */
static inline int
ring_reserve(Ring *ring)
{
    if (ring->used + ring->width <= ring->size) {
        return 0;
    }
    return ring_resize(ring, ring->size ? 2 * ring->size : 4);
}

/* Append an object, for which there is room. Takes over the reference. */
static inline void
ring_push(Ring *ring, PyObject *object)
{
    *ring_slot(ring, ring->used++) = object;
}

/* Append a pair, for which there is room: a key or the lane that knows it, and an event. Takes over the references. */
static inline void
ring_push_pair(Ring *ring, PyObject *first, PyObject *second)
{
    ring_push(ring, first);
    ring_push(ring, second);
}

/* Give back what it grew by. */
static inline void
ring_shrink(Ring *ring)
{
    if (ring->size > 64 && ring->used < ring->size / 8) {
        if (ring_resize(ring, ring->size / 4) < 0) {
            PyErr_Clear();  /* It stays as large as it is, and works. */
        }
    }
}

static inline void
ring_drop(Ring *ring)
{
    ring->head = (ring->head + ring->width) & (ring->size - 1);
    ring->used -= ring->width;
    ring_shrink(ring);
}

/* Take the first object of a ring that has one, and hand over the reference. */
static inline PyObject *
ring_pop(Ring *ring)
{
    PyObject *object = *ring_slot(ring, 0);
    ring_drop(ring);
    return object;
}

/* Whether the first slot of a pair has the key's lane in place of the key. */
static inline int
ring_has_lane(const Ring *ring, PyObject *first)
{
    return Py_IS_TYPE(first, Py_TYPE(ring));
}

/* Take the first pair of a ring that has one, and hand over the references; `lane` is NULL where it is not known. */
static inline void
ring_pop_pair(Ring *ring, PyObject **key, PyObject **event, PyObject **lane)
{
    PyObject *first = *ring_slot(ring, 0);
    *event = *ring_slot(ring, 1);
    if (ring_has_lane(ring, first)) {
        *lane = first;
        *key = Py_NewRef(((Ring *)first)->key);
    }
    else {
        *lane = NULL;
        *key = first;
    }
    ring_drop(ring);
}

#endif
