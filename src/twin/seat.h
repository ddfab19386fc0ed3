/* What a pool stands on, so that C finds its core and its mutex at once; and what goes into a pool through `add`. */

#ifndef WORKPOOL_SEAT_H
#define WORKPOOL_SEAT_H

#include "lanes.h"
#include "module.h"
#include "mutex.h"

typedef struct {
    PyObject_HEAD
    Lanes *core;      /* NULL until there is one of ours */
    PyObject *mutex;
    Mutex *own;       /* the mutex, if it is one of ours: another takes its place in a forked child */
} Seat;

extern PyType_Spec seat_spec, entrance_spec;

/* Pass the place where Python gives other threads their turn, and heeds signals: 0, or FAILED with what they raised. */
int give_turn(State *state);

#endif
