/* A queue of objects in one block of memory: what `deque` is to the reference, in half of the time and of the memory.

   Its items are single objects, or pairs, which are a tuple only where Python sees them. Pushing needs room, which
   `ring_reserve` makes: so whoever reserves first can change several things and fail at none of them. */

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

/* Append an item, for which there is room. Takes over both references; `second` is for pairs. */
static inline void
ring_push(Ring *ring, PyObject *first, PyObject *second)
{
    *ring_slot(ring, ring->used++) = first;
    if (ring->width == 2) {
        *ring_slot(ring, ring->used++) = second;
    }
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

/* Take the first item of a ring that has one, and hand over its references. */
static inline void
ring_pop(Ring *ring, PyObject **first, PyObject **second)
{
    *first = *ring_slot(ring, 0);
    if (ring->width == 2) {
        *second = *ring_slot(ring, 1);
    }
    ring->head = (ring->head + ring->width) & (ring->size - 1);
    ring->used -= ring->width;
    ring_shrink(ring);
}

#endif
