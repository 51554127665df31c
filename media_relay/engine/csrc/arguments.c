#include "arguments.h"

#include <arpa/inet.h>
#include <string.h>

static bool read_address(const char *host, int port, union address *address)
{
    memset(address, 0, sizeof *address);
    if (port >= 0 && port <= 0xFFFF) {
        if (inet_pton(AF_INET, host, &address->four.sin_addr) == 1) {
            address->four.sin_family = AF_INET;
            address->four.sin_port = htons((uint16_t)port);
            return true;
        }
        if (inet_pton(AF_INET6, host, &address->six.sin6_addr) == 1) {
            address->six.sin6_family = AF_INET6;
            address->six.sin6_port = htons((uint16_t)port);
            return true;
        }
    }
    PyErr_Format(PyExc_ValueError, "no address: %s, port %d", host, port);
    return false;
}

bool within(long value, long most, const char *what)
{
    if (value >= 0 && value <= most)
        return true;
    PyErr_Format(PyExc_ValueError, "%s must be from 0 to %ld", what, most);
    return false;
}

/* A profile and the key and salt for it. */
static bool read_keys(int profile, const char *key, Py_ssize_t size, struct keys *keys)
{
    if (!within(profile, AES_CM_128_HMAC_SHA1_80, "profile"))
        return false;
    if (profile == IN_THE_CLEAR)
        return true;
    const char *missing = security_missing((enum profile)profile);
    if (missing != NULL) {
        PyErr_SetString(PyExc_RuntimeError, missing);
        return false;
    }
    if ((size_t)size != security_key_bytes((enum profile)profile)) {
        PyErr_SetString(PyExc_ValueError, "the key is not as long as its profile's");
        return false;
    }
    keys->profile = (enum profile)profile;
    memcpy(keys->key_and_salt, key, (size_t)size);
    return true;
}

static bool read_sets(PyObject *given, struct parameter_sets *sets)
{
    Py_ssize_t count = PyTuple_Size(given);
    for (Py_ssize_t i = 0; i < count; i++) {
        char *unit;
        Py_ssize_t size;
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(given, i), &unit, &size) < 0)
            return false;
        if (!sets_add(sets, (const uint8_t *)unit, (size_t)size)) {
            sets_clear(sets); /* more than any encoder makes: none */
            return true;
        }
    }
    return count >= 0;
}

bool read_inlet(PyObject *given, struct inlet_spec *spec)
{
    const char *host, *codec, *key;
    int port, payload_type, layout, forward, profile;
    Py_ssize_t key_size;
    PyObject *sets;
    if (!PyArg_ParseTuple(given, "isiiipsiiiO!iy#", &spec->fd, &host, &port, &spec->medium, &spec->encoding, &forward, &codec,
                          &spec->coding.clock_rate, &payload_type, &layout, &PyTuple_Type, &sets, &profile, &key, &key_size))
        return false;
    if (!read_address(host, port, &spec->peer) || !within(payload_type, 127, "payload type") ||
        !within(layout, OCTET_ALIGNED, "layout") || !within(spec->medium, 31, "medium") ||
        !within(spec->coding.clock_rate, 1 << 24, "clock rate"))
        return false;
    if (strlen(codec) >= sizeof spec->coding.codec) {
        PyErr_SetString(PyExc_ValueError, "the codec's name is too long");
        return false;
    }
    strcpy(spec->coding.codec, codec);
    spec->forward = forward;
    spec->coding.payload_type = (uint8_t)payload_type;
    spec->coding.layout = (enum layout)layout;
    return read_keys(profile, key, key_size, &spec->keys) && read_sets(sets, &spec->sets);
}

bool read_outlet(PyObject *given, struct outlet_spec *spec)
{
    const char *host, *key;
    int port, payload_type, flow, layout, profile;
    unsigned long ssrc;
    long long first, offset;
    Py_ssize_t key_size;
    if (!PyArg_ParseTuple(given, "isiiiikiiLLiy#", &spec->outlet.fd, &host, &port, &spec->medium, &spec->encoding,
                          &payload_type, &ssrc, &flow, &layout, &first, &offset, &profile, &key, &key_size))
        return false;
    if (!read_address(host, port, &spec->outlet.to) || !within(payload_type, 127, "payload type") ||
        !within(flow, PAUSED, "flow") || !within(layout, OCTET_ALIGNED, "layout") || !within(spec->medium, 31, "medium"))
        return false;
    spec->outlet.payload_type = (uint8_t)payload_type;
    spec->outlet.ssrc = (uint32_t)ssrc;
    spec->outlet.flow = (enum flow)flow;
    spec->outlet.layout = (enum layout)layout;
    spec->first = first;
    spec->offset = offset;
    spec->outlet.secured = profile != IN_THE_CLEAR;
    return read_keys(profile, key, key_size, &spec->keys);
}
