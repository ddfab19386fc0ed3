/* The lock of a pool: whose thread is inside.

   Under the interpreter lock it is a flag, not a lock: a thread that only runs C between taking and releasing it is
   never seen inside, and pays two stores. It is found taken where Python runs inside: a rare step, or a key's own
   `__hash__` and `__eq__`. On a build without the interpreter lock, taking it is one atomic exchange. */

#ifndef WORKPOOL_MUTEX_H
#define WORKPOOL_MUTEX_H

#include <Python.h>

#if defined(Py_GIL_DISABLED) && !defined(WORKPOOL_ATOMIC)
#define WORKPOOL_ATOMIC 1
#endif

#ifdef WORKPOOL_ATOMIC
#include <stdatomic.h>
typedef _Atomic unsigned long owner_t;
#else
typedef unsigned long owner_t;
#endif

typedef struct {
    PyObject_HEAD
    owner_t owner;  /* the thread that is inside, or 0 */
} Mutex;

extern PyType_Spec mutex_spec;

/* Whether it was free, and is the calling thread's now. */
static inline int
mutex_try(Mutex *mutex, unsigned long me)
{
#ifdef WORKPOOL_ATOMIC
    unsigned long nobody = 0;
    return atomic_compare_exchange_strong_explicit(
        &mutex->owner, &nobody, me, memory_order_acquire, memory_order_relaxed);
#else
    if (mutex->owner != 0) {
        return 0;
    }
    mutex->owner = me;
    return 1;
#endif
}

static inline void
mutex_leave(Mutex *mutex)
{
#ifdef WORKPOOL_ATOMIC
    atomic_store_explicit(&mutex->owner, 0, memory_order_release);
#else
    mutex->owner = 0;
#endif
}

/* Wait until it is free, and take it: 0, or -1 with what a signal handler raised meanwhile. */
int mutex_wait(Mutex *mutex, unsigned long me);

#endif
