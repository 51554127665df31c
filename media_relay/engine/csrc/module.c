/* The engine as a Python type: arguments checked and copied, the GIL released while its thread is waited for.
   `_native.pyi` says what goes in and comes out. */
#include "arguments.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <structmember.h>

#define INJECTED 4096 /* datagrams in one call, and numbers in one `resend` */

typedef struct {
    PyObject_HEAD
    struct engine *engine;
} Object;

static struct engine *engine_of(PyObject *self)
{
    struct engine *engine = ((Object *)self)->engine;
    if (engine == NULL)
        PyErr_SetString(PyExc_ValueError, "the engine is closed");
    return engine;
}

static void run(struct engine *engine, void (*work)(struct engine *, void *), void *argument)
{
    Py_BEGIN_ALLOW_THREADS
    engine_run(engine, work, argument);
    Py_END_ALLOW_THREADS
}

/* Sockets */

struct fd_call {
    int fd;
    bool good;
    int error; /* errno is its thread's */
};

static void do_watch(struct engine *engine, void *argument)
{
    struct fd_call *call = argument;
    call->good = engine_watch(engine, call->fd);
    call->error = errno;
}

static void do_unwatch(struct engine *engine, void *argument) { engine_unwatch(engine, ((struct fd_call *)argument)->fd); }

static PyObject *py_watch(PyObject *self, PyObject *arguments)
{
    struct engine *engine = engine_of(self);
    struct fd_call call = {.good = false};
    if (engine == NULL || !PyArg_ParseTuple(arguments, "i", &call.fd) || !within(call.fd, 1 << 20, "descriptor"))
        return NULL;
    run(engine, do_watch, &call);
    errno = call.error;
    if (!call.good)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *py_unwatch(PyObject *self, PyObject *arguments)
{
    struct engine *engine = engine_of(self);
    struct fd_call call;
    if (engine == NULL || !PyArg_ParseTuple(arguments, "i", &call.fd))
        return NULL;
    run(engine, do_unwatch, &call);
    Py_RETURN_NONE;
}

/* Groups and legs */

struct id_call {
    uint64_t id, made;
    double seconds, rate;
    int64_t bytes;
};

static void do_add_group(struct engine *engine, void *argument)
{
    struct id_call *call = argument;
    call->made = engine_add_group(engine, call->seconds, call->bytes, call->rate);
}

static void do_add_leg(struct engine *engine, void *argument)
{
    struct id_call *call = argument;
    call->made = engine_add_leg(engine, call->id);
}

static void do_remove_group(struct engine *engine, void *argument)
{
    engine_remove_group(engine, ((struct id_call *)argument)->id);
}

static void do_remove_leg(struct engine *engine, void *argument)
{
    engine_remove_leg(engine, ((struct id_call *)argument)->id);
}

static PyObject *handle(uint64_t made)
{
    return made != 0 ? PyLong_FromUnsignedLongLong(made) : PyErr_NoMemory();
}

static PyObject *py_add_group(PyObject *self, PyObject *arguments)
{
    struct engine *engine = engine_of(self);
    struct id_call call = {0};
    long long bytes;
    if (engine == NULL || !PyArg_ParseTuple(arguments, "dLd", &call.seconds, &bytes, &call.rate))
        return NULL;
    call.bytes = bytes;
    run(engine, do_add_group, &call);
    return handle(call.made);
}

static PyObject *with_id(PyObject *self, PyObject *arguments, void (*work)(struct engine *, void *), bool makes)
{
    struct engine *engine = engine_of(self);
    struct id_call call = {0};
    unsigned long long id;
    if (engine == NULL || !PyArg_ParseTuple(arguments, "K", &id))
        return NULL;
    call.id = id;
    run(engine, work, &call);
    if (makes)
        return handle(call.made);
    Py_RETURN_NONE;
}

static PyObject *py_add_leg(PyObject *self, PyObject *arguments) { return with_id(self, arguments, do_add_leg, true); }
static PyObject *py_remove_leg(PyObject *self, PyObject *arguments) { return with_id(self, arguments, do_remove_leg, false); }
static PyObject *py_remove_group(PyObject *self, PyObject *arguments)
{
    return with_id(self, arguments, do_remove_group, false);
}

#define LINES 16 /* inlets or outlets of one leg */

struct leg_call {
    uint64_t leg;
    struct inlet_spec inlets[LINES];
    struct outlet_spec outlets[LINES];
    int inlet_count, outlet_count;
    double now;
    bool good;
};

static void do_set_leg(struct engine *engine, void *argument)
{
    struct leg_call *call = argument;
    call->good =
        engine_set_leg(engine, call->leg, call->inlets, call->inlet_count, call->outlets, call->outlet_count, call->now);
}

static bool read_leg(PyObject *arguments, struct leg_call *call)
{
    unsigned long long leg;
    PyObject *inlets, *outlets;
    if (!PyArg_ParseTuple(arguments, "KO!O!d", &leg, &PyTuple_Type, &inlets, &PyTuple_Type, &outlets, &call->now))
        return false;
    call->leg = leg;
    if (!within(PyTuple_Size(inlets), LINES, "inlets") || !within(PyTuple_Size(outlets), LINES, "outlets"))
        return false;
    for (; call->inlet_count < PyTuple_Size(inlets); call->inlet_count++)
        if (!read_inlet(PyTuple_GetItem(inlets, call->inlet_count), &call->inlets[call->inlet_count]))
            return false;
    for (; call->outlet_count < PyTuple_Size(outlets); call->outlet_count++)
        if (!read_outlet(PyTuple_GetItem(outlets, call->outlet_count), &call->outlets[call->outlet_count]))
            return false;
    return true;
}

static PyObject *py_set_leg(PyObject *self, PyObject *arguments)
{
    struct engine *engine = engine_of(self);
    struct leg_call *call = engine != NULL ? PyMem_Calloc(1, sizeof *call) : NULL;
    if (call == NULL)
        return engine != NULL ? PyErr_NoMemory() : NULL;
    bool readable = read_leg(arguments, call);
    if (readable)
        run(engine, do_set_leg, call);
    for (int i = 0; i < LINES; i++)
        sets_clear(&call->inlets[i].sets);
    bool good = call->good;
    explicit_bzero(call, sizeof *call); /* it holds keys */
    PyMem_Free(call);
    if (!readable)
        return NULL;
    if (!good) {
        PyErr_SetString(PyExc_ValueError, "no such leg, or no memory for it");
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Packets */

struct inject_call {
    uint64_t group;
    int medium, encoding, count;
    double now;
    const uint8_t *datagrams[INJECTED];
    size_t sizes[INJECTED];
};

static void do_inject(struct engine *engine, void *argument)
{
    struct inject_call *call = argument;
    engine_inject(engine, call->group, call->medium, call->encoding, call->datagrams, call->sizes, call->count, call->now);
}

static PyObject *py_inject(PyObject *self, PyObject *arguments)
{
    struct engine *engine = engine_of(self);
    unsigned long long group;
    PyObject *given;
    struct inject_call *call = engine != NULL ? PyMem_Malloc(sizeof *call) : NULL;
    if (call == NULL)
        return engine != NULL ? PyErr_NoMemory() : NULL;
    bool good = PyArg_ParseTuple(arguments, "KiiO!d", &group, &call->medium, &call->encoding, &PyTuple_Type, &given, &call->now) &&
                within(PyTuple_Size(given), INJECTED, "datagrams");
    call->group = group;
    for (call->count = 0; good && call->count < PyTuple_Size(given); call->count++) {
        char *data;
        Py_ssize_t size;
        good = PyBytes_AsStringAndSize(PyTuple_GetItem(given, call->count), &data, &size) == 0;
        call->datagrams[call->count] = (const uint8_t *)data;
        call->sizes[call->count] = good && size <= MAX_MEDIA_BYTES ? (size_t)size : 0; /* too large: dropped as garbage */
    }
    if (good)
        run(engine, do_inject, call);
    PyMem_Free(call);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}

struct resend_call {
    uint64_t leg;
    int medium, count, sent;
    double now;
    uint16_t lost[INJECTED];
};

static void do_resend(struct engine *engine, void *argument)
{
    struct resend_call *call = argument;
    call->sent = engine_resend(engine, call->leg, call->medium, call->lost, call->count, call->now);
}

static PyObject *py_resend(PyObject *self, PyObject *arguments)
{
    struct engine *engine = engine_of(self);
    struct resend_call call = {0};
    unsigned long long leg;
    PyObject *lost;
    if (engine == NULL || !PyArg_ParseTuple(arguments, "KiO!d", &leg, &call.medium, &PyTuple_Type, &lost, &call.now) ||
        !within(PyTuple_Size(lost), INJECTED, "numbers"))
        return NULL;
    call.leg = leg;
    for (; call.count < PyTuple_Size(lost); call.count++) {
        unsigned long number = PyLong_AsUnsignedLong(PyTuple_GetItem(lost, call.count));
        if (PyErr_Occurred())
            return NULL;
        call.lost[call.count] = (uint16_t)number;
    }
    run(engine, do_resend, &call);
    return PyLong_FromLong(call.sent);
}

struct step_call {
    double now, due;
};

static void do_step(struct engine *engine, void *argument)
{
    struct step_call *call = argument;
    call->due = engine_step(engine, call->now);
}

static PyObject *py_step(PyObject *self, PyObject *arguments)
{
    struct engine *engine = engine_of(self);
    struct step_call call;
    if (engine == NULL || !PyArg_ParseTuple(arguments, "d", &call.now))
        return NULL;
    if (engine_threaded(engine))
        Py_RETURN_NONE; /* its thread does it */
    run(engine, do_step, &call);
    if (call.due < 0)
        Py_RETURN_NONE;
    return PyFloat_FromDouble(call.due);
}

/* What is told */

static PyObject *event_as_tuple(const struct event *event)
{
    char host[INET6_ADDRSTRLEN] = "";
    int port = 0;
    if (event->kind == DATAGRAM || event->kind == UNREACHABLE) {
        bool four = event->from.any.sa_family == AF_INET;
        const void *address = four ? (const void *)&event->from.four.sin_addr : (const void *)&event->from.six.sin6_addr;
        inet_ntop(event->from.any.sa_family, address, host, sizeof host);
        port = ntohs(four ? event->from.four.sin_port : event->from.six.sin6_port);
    }
    if (event->kind == DATAGRAM)
        return Py_BuildValue("(iiy#si)", event->kind, event->fd, event->data, (Py_ssize_t)event->size, host, port);
    if (event->kind == UNREACHABLE)
        return Py_BuildValue("(iiKsi)", event->kind, event->fd, (unsigned long long)event->leg, host, port);
    if (event->kind == MISSING)
        return Py_BuildValue("(iKiy#)", event->kind, (unsigned long long)event->group, event->medium, event->data, (Py_ssize_t)event->size);
    return Py_BuildValue("(iKKi)", event->kind, (unsigned long long)event->group, (unsigned long long)event->leg, event->medium);
}

static PyObject *py_events(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct engine *engine = engine_of(self);
    PyObject *list = engine != NULL ? PyList_New(0) : NULL;
    if (list == NULL)
        return NULL;
    struct event event;
    int taken = 0;
    for (; taken < EVENTS_AT_ONCE && events_take(engine_events(engine), &event); taken++) {
        PyObject *told = event_as_tuple(&event);
        free(event.data);
        if (told == NULL || PyList_Append(list, told) < 0) {
            Py_XDECREF(told);
            Py_DECREF(list);
            return NULL;
        }
        Py_DECREF(told);
    }
    enum asked asked = taken == EVENTS_AT_ONCE ? GOT_SOME : taken > 0 ? GOT_THE_REST : GOT_NOTHING;
    Py_BEGIN_ALLOW_THREADS
    engine_asked(engine, asked);
    Py_END_ALLOW_THREADS
    return list;
}

struct ask_call {
    uint64_t id;
    int medium;
    bool found;
    union {
        struct source_state source;
        struct outlet_state outlet;
        struct leg_state leg;
        struct totals totals;
    } of;
};

static void do_source(struct engine *engine, void *argument)
{
    struct ask_call *call = argument;
    call->found = engine_source(engine, call->id, call->medium, &call->of.source);
}

static void do_outlet(struct engine *engine, void *argument)
{
    struct ask_call *call = argument;
    call->found = engine_outlet(engine, call->id, call->medium, &call->of.outlet);
}

static void do_leg(struct engine *engine, void *argument)
{
    struct ask_call *call = argument;
    call->found = engine_leg(engine, call->id, &call->of.leg);
}

static void do_totals(struct engine *engine, void *argument) { engine_totals(engine, &((struct ask_call *)argument)->of.totals); }

static bool asked(PyObject *self, PyObject *arguments, void (*work)(struct engine *, void *), struct ask_call *call)
{
    struct engine *engine = engine_of(self);
    unsigned long long id;
    *call = (struct ask_call){0};
    if (engine == NULL || !PyArg_ParseTuple(arguments, "K|i", &id, &call->medium))
        return false;
    call->id = id;
    engine_look(engine, work, call);
    return true;
}

static PyObject *py_source(PyObject *self, PyObject *arguments)
{
    struct ask_call call;
    if (!asked(self, arguments, do_source, &call))
        return NULL;
    if (!call.found)
        Py_RETURN_NONE;
    const struct source_state *state = &call.of.source;
    const struct reception *reception = &state->reception;
    return Py_BuildValue("(kidLL(kkOLLLd))", (unsigned long)state->ssrc, state->clock_rate, state->arrived_at,
                         (long long)state->timestamp, (long long)state->offset, (unsigned long)reception->serial,
                         (unsigned long)reception->begun, reception->known ? Py_True : Py_False, (long long)reception->base,
                         (long long)reception->highest, (long long)reception->packets, reception->jitter);
}

static PyObject *py_outlet(PyObject *self, PyObject *arguments)
{
    struct ask_call call;
    if (!asked(self, arguments, do_outlet, &call))
        return NULL;
    if (!call.found)
        Py_RETURN_NONE;
    const struct outlet_state *state = &call.of.outlet;
    return Py_BuildValue("(kLLL)", (unsigned long)state->ssrc, (long long)state->packets, (long long)state->octets,
                         (long long)state->offset);
}

static PyObject *py_leg(PyObject *self, PyObject *arguments)
{
    struct ask_call call;
    if (!asked(self, arguments, do_leg, &call))
        return NULL;
    if (!call.found)
        Py_RETURN_NONE;
    const struct leg_state *state = &call.of.leg;
    return Py_BuildValue("(dLLLL)", state->heard_at, (long long)state->received, (long long)state->packets,
                         (long long)state->octets, (long long)state->octets_received);
}

static PyObject *py_totals(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct engine *engine = engine_of(self);
    struct ask_call call = {0};
    if (engine == NULL)
        return NULL;
    run(engine, do_totals, &call);
    const struct totals *totals = &call.of.totals;
    return Py_BuildValue("(LLLLLLLLL)", (long long)totals->packets_in, (long long)totals->octets_in,
                         (long long)totals->sent.packets, (long long)totals->sent.octets, (long long)totals->sent.no_room,
                         (long long)totals->over_rate, (long long)totals->sent.resent, (long long)totals->cache_bytes,
                         (long long)totals->unauthentic);
}

/* The type */

static PyObject *py_fileno(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct engine *engine = engine_of(self);
    return engine != NULL ? PyLong_FromLong(engine_fileno(engine)) : NULL;
}

static void close_engine(PyObject *self)
{
    struct engine *engine = ((Object *)self)->engine;
    ((Object *)self)->engine = NULL;
    if (engine != NULL) {
        Py_BEGIN_ALLOW_THREADS
        engine_free(engine);
        Py_END_ALLOW_THREADS
    }
}

static PyObject *py_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    close_engine(self);
    Py_RETURN_NONE;
}

static PyObject *py_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"threaded", NULL};
    int threaded = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|p", names, &threaded))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Object *self = (Object *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    self->engine = engine_new(threaded);
    if (self->engine != NULL)
        return (PyObject *)self;
    Py_DECREF(self);
    return PyErr_SetFromErrno(PyExc_OSError);
}

static void py_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    close_engine(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"fileno", py_fileno, METH_NOARGS, NULL},
    {"close", py_close, METH_NOARGS, NULL},
    {"watch", py_watch, METH_VARARGS, NULL},
    {"unwatch", py_unwatch, METH_VARARGS, NULL},
    {"add_group", py_add_group, METH_VARARGS, NULL},
    {"add_leg", py_add_leg, METH_VARARGS, NULL},
    {"set_leg", py_set_leg, METH_VARARGS, NULL},
    {"remove_group", py_remove_group, METH_VARARGS, NULL},
    {"remove_leg", py_remove_leg, METH_VARARGS, NULL},
    {"inject", py_inject, METH_VARARGS, NULL},
    {"resend", py_resend, METH_VARARGS, NULL},
    {"step", py_step, METH_VARARGS, NULL},
    {"events", py_events, METH_NOARGS, NULL},
    {"source", py_source, METH_VARARGS, NULL},
    {"outlet", py_outlet, METH_VARARGS, NULL},
    {"leg", py_leg, METH_VARARGS, NULL},
    {"totals", py_totals, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, py_new},
    {Py_tp_dealloc, py_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec engine_type = {
    .name = "media_relay.engine._native.Engine",
    .basicsize = sizeof(Object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

static PyObject *py_unable(PyObject *self, PyObject *arguments)
{
    (void)self;
    int profile;
    if (!PyArg_ParseTuple(arguments, "i", &profile) || !within(profile, AES_CM_128_HMAC_SHA1_80, "profile"))
        return NULL;
    const char *missing = profile != IN_THE_CLEAR ? security_missing((enum profile)profile) : NULL;
    return Py_BuildValue("z", missing);
}

static PyMethodDef functions[] = {{"unable", py_unable, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};

static int fill(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &engine_type, NULL);
    if (type == NULL)
        return -1;
    int added = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return added;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_methods = functions,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&module); }
