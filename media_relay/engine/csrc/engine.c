/* The loop: sockets are read, bursts sent in slices, viewers caught up; and the thread it may run on. */
#include "groups.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <malloc.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define READY 64
#define ERRORS 64 /* drained at a time, so that a flood of ICMP cannot hold the relay up */
#define HOLD_ASKS (MAX_EVENTS / EVENTS_AT_ONCE + 2) /* by then all that was waiting is taken */
#define WARM_PIECE 65536 /* small enough for the thread's heap: malloc(3), M_MMAP_THRESHOLD */
#define BUFFER (MAX_MEDIA_BYTES + 16) /* one more than is read would do, but each is aligned */

static double monotonic(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

/* Sockets */

bool engine_watch(struct engine *engine, int fd)
{
    if (fd >= engine->watched_room) {
        int room = fd + 64;
        struct watched *watched = realloc(engine->watched, sizeof *watched * (size_t)room);
        if (watched == NULL)
            return false;
        memset(watched + engine->watched_room, 0, sizeof *watched * (size_t)(room - engine->watched_room));
        engine->watched = watched;
        engine->watched_room = room;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(engine->epoll, EPOLL_CTL_ADD, fd, &event) < 0 && errno != EEXIST)
        return false;
    engine->watched[fd].watched = true; /* it may have been already, and a burst from it be going out */
    return true;
}

void engine_unwatch(struct engine *engine, int fd)
{
    feeds_finish(engine);
    if (fd < 0 || fd >= engine->watched_room || !engine->watched[fd].watched)
        return;
    epoll_ctl(engine->epoll, EPOLL_CTL_DEL, fd, NULL);
    if (engine->watched[fd].held > 0)
        engine->held--;
    events_forget(&engine->events, fd);
    engine->watched[fd] = (struct watched){0}; /* the number may be another socket's soon */
}

static void listen_for(struct engine *engine, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(engine->epoll, EPOLL_CTL_MOD, fd, &event);
}

void hold_socket(struct engine *engine, int fd)
{
    bool told = fd >= 0 && fd < engine->watched_room && engine->watched[fd].watched && engine->watched[fd].told;
    if (!engine->threaded || !told)
        return;
    if (engine->watched[fd].held == 0)
        engine->held++;
    engine->watched[fd].held = HOLD_ASKS;
    listen_for(engine, fd, 0);
}

/* What Python had not taken yet when it began to put a source's packets on the line, it takes until nothing is left; when
   it asks again that is on the line as well. In a flood there is always more, but not of what was waiting then. */
static void let_go(struct engine *engine, void *argument)
{
    enum asked asked = *(enum asked *)argument;
    for (int fd = 0; fd < engine->watched_room && engine->held > 0; fd++) {
        struct watched *watched = &engine->watched[fd];
        if (watched->held == 0)
            continue;
        watched->held = asked == GOT_NOTHING ? 0 : asked == GOT_THE_REST && watched->held > 1 ? 1 : watched->held - 1;
        if (watched->held > 0)
            continue;
        watched->told = false;
        engine->held--;
        listen_for(engine, fd, EPOLLIN);
    }
}

void engine_asked(struct engine *engine, enum asked asked)
{
    if (engine->held > 0)
        engine_run(engine, let_go, &asked);
}

/* Which addresses ICMP reported (ip(7), IP_RECVERR): the sockets are shared, so the pending error is of some peer. */
static void read_errors(struct engine *engine, int fd, double now)
{
    struct watched *watched = &engine->watched[fd];
    bool told = now < watched->errors_from; /* anybody can forge them: the others are read and forgotten */
    int pending;
    socklen_t length = sizeof pending;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &pending, &length); /* reading clears it; else the next send would fail */
    for (int i = 0; i < ERRORS; i++) {
        char control[512], data[1];
        struct event event = {.kind = UNREACHABLE, .fd = fd};
        struct iovec vector = {data, sizeof data};
        struct msghdr header = {
            .msg_name = &event.from,
            .msg_namelen = sizeof event.from,
            .msg_iov = &vector,
            .msg_iovlen = 1,
            .msg_control = control,
            .msg_controllen = sizeof control,
        };
        if (recvmsg(fd, &header, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
            return;
        for (struct cmsghdr *each = CMSG_FIRSTHDR(&header); each != NULL; each = CMSG_NXTHDR(&header, each)) {
            bool wanted = (each->cmsg_level == IPPROTO_IP && each->cmsg_type == IP_RECVERR) ||
                          (each->cmsg_level == IPPROTO_IPV6 && each->cmsg_type == IPV6_RECVERR);
            struct sock_extended_err error;
            if (!wanted || each->cmsg_len < CMSG_LEN(sizeof error))
                continue;
            memcpy(&error, CMSG_DATA(each), sizeof error);
            bool icmp = error.ee_origin == SO_EE_ORIGIN_ICMP || error.ee_origin == SO_EE_ORIGIN_ICMP6;
            if (!icmp || error.ee_errno == EMSGSIZE || header.msg_namelen == 0 || told)
                continue;
            const struct inlet *inlet = inlet_of(engine, fd, &event.from);
            event.leg = inlet != NULL ? inlet->leg->id : 0;
            watched->errors_from = now + ERRORS_INTERVAL;
            events_put(&engine->events, &event);
        }
    }
}

static void tell_datagram(struct engine *engine, int fd, const uint8_t *data, size_t size, const union address *from)
{
    struct event event = {.kind = DATAGRAM, .fd = fd, .from = *from, .size = (uint16_t)size};
    event.data = malloc(size + 1);
    if (event.data == NULL)
        return;
    engine->watched[fd].told = true;
    memcpy(event.data, data, size);
    events_put(&engine->events, &event);
}

static void prepare_to_read(struct engine *engine)
{
    for (int i = 0; i < READ_BUDGET; i++) {
        engine->vectors[i] = (struct iovec){engine->buffers + (size_t)i * BUFFER, BUFFER};
        engine->received[i].msg_hdr = (struct msghdr){
            .msg_name = &engine->from[i], .msg_namelen = sizeof engine->from[i], .msg_iov = &engine->vectors[i], .msg_iovlen = 1};
    }
}

static void read_socket(struct engine *engine, int fd, double now)
{
    struct mmsghdr *headers = engine->received;
    const union address *from = engine->from;
    int got = recvmmsg(fd, headers, READ_BUDGET, MSG_DONTWAIT, NULL);
    const uint8_t *burst[READ_BUDGET];
    size_t sizes[READ_BUDGET];
    int gathered = 0;
    const struct inlet *sender = NULL;
    struct inlet *inlet = NULL; /* a burst is of one peer, so it is looked up once */
    struct feed *feed = NULL;
    for (int i = 0; i < got; i++) {
        uint8_t *data = engine->vectors[i].iov_base;
        size_t size = headers[i].msg_len;
        headers[i].msg_hdr.msg_namelen = sizeof from[i]; /* for the next time */
        if (size > MAX_MEDIA_BYTES)
            continue;
        if (inlet == NULL || !same_peer(&inlet->peer, &from[i]))
            inlet = inlet_of(engine, fd, &from[i]);
        if (inlet == NULL || !rtp_is(data, size)) {
            if (size <= MAX_OTHER_BYTES)
                tell_datagram(engine, fd, data, size, &from[i]);
            continue;
        }
        struct leg *leg = inlet->leg;
        size_t wire = size;
        if (inlet->security != NULL && (size = unprotection_apply(inlet->security, data, size)) == 0) {
            engine->past.unauthentic++;
            continue;
        }
        atomic_store_explicit(&leg->heard_at, now, memory_order_relaxed);
        counter_add(&leg->received, 1);
        counter_add(&leg->octets_received, (int64_t)wire);
        if (!inlet->forward || !group_allows(leg->group, wire, now))
            continue;
        if (sender != inlet) {
            if (gathered > 0 && feed != NULL)
                feed_inject(engine, feed, fd, burst, sizes, gathered, now);
            gathered = 0;
            sender = inlet;
            feed = feed_of(leg->group, inlet->medium, inlet->encoding);
        }
        burst[gathered] = data;
        sizes[gathered++] = size;
    }
    if (gathered > 0 && feed != NULL)
        feed_inject(engine, feed, fd, burst, sizes, gathered, now);
}

/* Reads what is ready, except sockets whose last burst is still going out; `now` is negative for the clock's time. True when
   somebody asks for the thread. */
static bool read_ready(struct engine *engine, double now, int timeout)
{
    struct epoll_event ready[READY];
    int count = epoll_wait(engine->epoll, ready, READY, timeout);
    bool called = false;
    for (int i = 0; i < count; i++) {
        int fd = ready[i].data.fd;
        if (fd == engine->calls) {
            called = true;
            continue;
        }
        if (!engine->watched[fd].watched)
            continue;
        if (now < 0)
            now = monotonic();
        if (ready[i].events & EPOLLERR)
            read_errors(engine, fd, now);
        if (ready[i].events & EPOLLIN && engine->watched[fd].busy == 0)
            read_socket(engine, fd, now);
    }
    return called;
}

double engine_step(struct engine *engine, double now)
{
    read_ready(engine, now, 0);
    feeds_finish(engine);
    return catch_up(engine, now);
}

/* The thread */

static void serve_call(struct engine *engine)
{
    uint64_t unused;
    ssize_t got = read(engine->calls, &unused, sizeof unused);
    (void)got;
    pthread_mutex_lock(&engine->lock);
    struct call *call = engine->call;
    engine->call = NULL;
    pthread_mutex_unlock(&engine->lock);
    if (call == NULL)
        return;
    call->work(engine, call->argument);
    pthread_mutex_lock(&engine->lock);
    call->done = true;
    pthread_cond_signal(&engine->done);
    pthread_mutex_unlock(&engine->lock);
}

/* A page that the kernel has to find and clear costs more than ten packets sent: what streams of a few megabytes a second
   remember is had beforehand, and memory that was let go is kept for the next packets. */
static void warm_up(void)
{
    void *pieces[WARM_BYTES / WARM_PIECE];
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        if ((pieces[i] = malloc(WARM_PIECE)) != NULL)
            memset(pieces[i], 1, WARM_PIECE);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        free(pieces[i]);
}

static void *run(void *argument)
{
    struct engine *engine = argument;
    warm_up();
    double due = -1;
    while (!engine->stopping) {
        int timeout = -1;
        if (engine->pending != NULL) {
            timeout = 0;
        } else if (due >= 0) {
            double left = due - monotonic();
            timeout = left > 0 ? (int)ceil(left * 1000) : 0;
        }
        if (read_ready(engine, -1, timeout))
            serve_call(engine);
        feeds_advance(engine);
        due = engine->catching != NULL ? catch_up(engine, monotonic()) : -1;
    }
    return NULL;
}

void engine_run(struct engine *engine, void (*work)(struct engine *, void *), void *argument)
{
    if (!engine->threaded) {
        work(engine, argument);
        return;
    }
    struct call call = {work, argument, false};
    uint64_t one = 1;
    pthread_mutex_lock(&engine->callers);
    pthread_mutex_lock(&engine->lock);
    engine->call = &call;
    ssize_t put = write(engine->calls, &one, sizeof one);
    (void)put;
    while (!call.done)
        pthread_cond_wait(&engine->done, &engine->lock);
    pthread_mutex_unlock(&engine->lock);
    pthread_mutex_unlock(&engine->callers);
}

void engine_look(struct engine *engine, void (*work)(struct engine *, void *), void *argument)
{
    pthread_mutex_lock(&engine->callers); /* tables change in `engine_run` only */
    work(engine, argument);
    pthread_mutex_unlock(&engine->callers);
}

static bool start_thread(struct engine *engine)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are Python's */
    bool started = pthread_create(&engine->thread, NULL, run, engine) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

struct engine *engine_new(bool threaded)
{
    struct engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL)
        return NULL;
    engine->epoll = epoll_create1(EPOLL_CLOEXEC);
    engine->calls = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    engine->buffers = malloc((size_t)READ_BUDGET * BUFFER);
    prepare_to_read(engine);
    pthread_mutex_init(&engine->callers, NULL);
    pthread_mutex_init(&engine->lock, NULL);
    pthread_cond_init(&engine->done, NULL);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = engine->calls};
    bool good = events_open(&engine->events) && engine->epoll >= 0 && engine->calls >= 0 && engine->buffers != NULL &&
                epoll_ctl(engine->epoll, EPOLL_CTL_ADD, engine->calls, &event) == 0;
    if (good && threaded)
        good = engine->threaded = start_thread(engine);
    if (good)
        return engine;
    engine_free(engine);
    return NULL;
}

static void stop(struct engine *engine, void *unused)
{
    (void)unused;
    engine->stopping = true;
}

void engine_free(struct engine *engine)
{
    if (engine->threaded) {
        engine_run(engine, stop, NULL);
        pthread_join(engine->thread, NULL);
    }
    for (size_t i = 0; i < engine->groups.size; i++)
        while (engine->groups.buckets[i] != NULL)
            engine_remove_group(engine, ((struct group *)engine->groups.buckets[i])->id);
    free(engine->groups.buckets);
    free(engine->legs.buckets);
    free(engine->peers.buckets);
    free(engine->watched);
    free(engine->buffers);
    events_close(&engine->events);
    if (engine->epoll >= 0)
        close(engine->epoll);
    if (engine->calls >= 0)
        close(engine->calls);
    free(engine);
}

int engine_fileno(const struct engine *engine) { return engine->threaded ? engine->events.wakes : engine->epoll; }
struct events *engine_events(struct engine *engine) { return &engine->events; }
bool engine_threaded(const struct engine *engine) { return engine->threaded; }
