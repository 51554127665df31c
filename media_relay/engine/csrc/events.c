#include "events.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

bool events_open(struct events *events)
{
    events->first = events->count = 0;
    memset(events->waiting, 0, sizeof events->waiting);
    pthread_mutex_init(&events->lock, NULL);
    events->wakes = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return events->wakes >= 0;
}

void events_close(struct events *events)
{
    struct event event;
    while (events_take(events, &event))
        free(event.data);
    close(events->wakes);
    pthread_mutex_destroy(&events->lock);
}

static uint16_t *waiting_of(struct events *events, const struct event *event)
{
    return &events->waiting[(unsigned)event->fd % EVENT_SOCKETS];
}

static struct event take_oldest(struct events *events)
{
    struct event event = events->at[events->first];
    events->first = (events->first + 1) % MAX_EVENTS;
    events->count--;
    if (event.kind == DATAGRAM)
        --*waiting_of(events, &event);
    return event;
}

static bool has_room(struct events *events, const struct event *event)
{
    if (event->kind == DATAGRAM && *waiting_of(events, event) == SOCKET_EVENTS)
        return false;
    return events->count < MAX_EVENTS || event->kind == SOURCE_STARTED || event->kind == KEYFRAME_NEEDED;
}

void events_put(struct events *events, const struct event *event)
{
    uint8_t *lost = NULL;
    pthread_mutex_lock(&events->lock);
    bool wake = !events->woken && event->kind != KEYFRAME_SEEN;
    events->woken |= wake;
    if (has_room(events, event)) {
        if (events->count == MAX_EVENTS)
            lost = take_oldest(events).data;
        if (event->kind == DATAGRAM)
            ++*waiting_of(events, event);
        events->at[(events->first + events->count++) % MAX_EVENTS] = *event;
    } else {
        lost = event->data;
    }
    pthread_mutex_unlock(&events->lock);
    free(lost);
    if (wake) {
        uint64_t one = 1;
        ssize_t unused = write(events->wakes, &one, sizeof one);
        (void)unused;
    }
}

void events_forget(struct events *events, int fd)
{
    pthread_mutex_lock(&events->lock);
    for (int count = events->count; count > 0; count--) {
        struct event event = take_oldest(events);
        if (event.fd == fd) {
            free(event.data);
            continue;
        }
        if (event.kind == DATAGRAM)
            ++*waiting_of(events, &event);
        events->at[(events->first + events->count++) % MAX_EVENTS] = event;
    }
    pthread_mutex_unlock(&events->lock);
}

bool events_take(struct events *events, struct event *event)
{
    pthread_mutex_lock(&events->lock);
    bool any = events->count > 0;
    if (any) {
        *event = take_oldest(events);
    } else {
        uint64_t unused;
        ssize_t got = read(events->wakes, &unused, sizeof unused);
        (void)got;
        events->woken = false;
    }
    pthread_mutex_unlock(&events->lock);
    return any;
}
