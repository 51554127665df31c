/* What Python describes inlets and outlets by, read and bounded: `_native.pyi` says what each tuple holds. */
#ifndef DIALCAST_ARGUMENTS_H
#define DIALCAST_ARGUMENTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "engine.h"

/* All of them: false, and a Python exception, when it cannot be read. */
bool within(long value, long most, const char *what);
/* The caller clears the parameter sets, whatever came of it. */
bool read_inlet(PyObject *given, struct inlet_spec *spec);
bool read_outlet(PyObject *given, struct outlet_spec *spec);

#endif
