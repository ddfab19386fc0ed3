/* The twin of `Lanes` in lanes.py, which says what it does and why. Here is only how it does it in C: with a dict for
   the lanes, rings for what waits, and each transition whole: the key is looked up first, room is made second, and
   what then changes cannot fail. A release, which can run the user's code, comes last of all.

   The caller holds the mutex of the pool, so no other thread comes between although a look-up can run Python. */

#ifndef WORKPOOL_LANES_H
#define WORKPOOL_LANES_H

#include "ring.h"

typedef struct {
    PyObject_HEAD
    PyObject *lanes;       /* dict: key -> None, or a Ring of events */
    PyObject *aside;       /* dict: the same, of keys that are held */
    Ring *ready;           /* pairs */
    PyObject *holds;       /* list: the key in flight at each worker, or `nothing` */
    PyObject *nothing;
    PyTypeObject *ring_type;
    Py_ssize_t limit, asleep, waiting, in_flight;
    long long added, handled;  /* These only grow. */
    Py_ssize_t widest;     /* keys that the dict has had since it was last given up */
    char serving, waking;
} Lanes;

extern PyType_Spec lanes_spec;

enum { FAILED = -1, QUIET = 0, WAKE = 1, REFUSED = 2 };

/* FAILED with an exception and nothing changed; REFUSED at the limit; else accepted, and whether to wake a worker. */
int lanes_submit(Lanes *self, PyObject *key, PyObject *event, int force);

/* What a worker goes on with. The lane travels with its key, once there is one, for a look-up less at each event: it is
   the same until the key is idle. */
typedef struct {
    PyObject *key, *event;
    PyObject *lane;  /* a Ring, or NULL where it has to be looked up */
} Head;

/* 1 with the head that a worker goes on with, 0 where it is counted asleep, FAILED. */
int lanes_take(Lanes *self, Py_ssize_t worker, Head *head);

/* The same; `lane` is that of the key whose event has ended, where it is known, or NULL. */
int lanes_next(Lanes *self, Py_ssize_t worker, PyObject *ended, PyObject *lane, Head *head);

#endif
