/* Numbers that the engine's thread alone writes, and others read while it does. */
#ifndef DIALCAST_COUNTER_H
#define DIALCAST_COUNTER_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic int64_t counter;

static inline int64_t counter_of(const counter *counter) { return atomic_load_explicit(counter, memory_order_relaxed); }

/* One writer, so no locked instruction is needed. */
static inline void counter_add(counter *counter, int64_t more)
{
    atomic_store_explicit(counter, counter_of(counter) + more, memory_order_relaxed);
}

#endif
