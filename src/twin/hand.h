/* What a worker holds, and its way from one event to the next. hand.py says what each call means. */

#ifndef WORKPOOL_HAND_H
#define WORKPOOL_HAND_H

#include <Python.h>

extern PyType_Spec hand_spec;

#endif
