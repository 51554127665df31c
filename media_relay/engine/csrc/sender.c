#include "sender.h"

#include <errno.h>
#include <netinet/udp.h>
#include <string.h>

#include "outgoing.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef SOL_UDP
#define SOL_UDP 17
#endif

bool batch_fits(const struct batch *batch, int fd, size_t copied)
{
    return batch->packets == 0 ||
           (fd == batch->fd && batch->packets < BATCH_PACKETS &&
            batch->scratch_used + (copied > 0 ? copied + SCRATCH_ALIGN : 0) <= BATCH_SCRATCH);
}

static struct message *run_for(struct batch *batch, const struct outgoing *owner, size_t bytes)
{
    if (batch->messages == 0)
        return NULL;
    struct message *message = &batch->message[batch->messages - 1];
    bool fits = message->owner == owner && !message->closed && message->packets < RUN_PACKETS && bytes <= message->segment &&
                message->segment <= GSO_SEGMENT && message->bytes + bytes <= RUN_BYTES;
    return fits ? message : NULL;
}

static void make_run(struct batch *batch, int index)
{
    struct msghdr *header = &batch->header[index].msg_hdr;
    header->msg_control = batch->control[index].space;
    header->msg_controllen = sizeof batch->control[index].space;
    struct cmsghdr *control = CMSG_FIRSTHDR(header);
    control->cmsg_level = SOL_UDP;
    control->cmsg_type = UDP_SEGMENT;
    control->cmsg_len = CMSG_LEN(sizeof(uint16_t));
    memcpy(CMSG_DATA(control), &batch->message[index].segment, sizeof(uint16_t));
}

/* A packet of `bytes` octets, `overhead` of them no payload, whose octets are at `head` and `rest`. */
static void add(struct batch *batch, int fd, struct outgoing *owner, union address *to, bool gso, struct iovec head,
                struct iovec rest, size_t overhead, int64_t sequence, int64_t timestamp)
{
    size_t bytes = head.iov_len + rest.iov_len;
    struct message *message = gso ? run_for(batch, owner, bytes) : NULL;
    int vector = 2 * batch->packets;
    batch->fd = fd;
    if (message != NULL) {
        if (message->packets == 1)
            make_run(batch, batch->messages - 1);
        message->closed = bytes < message->segment;
    } else {
        struct msghdr *header = &batch->header[batch->messages].msg_hdr;
        *header = (struct msghdr){
            .msg_name = to,
            .msg_namelen = to->any.sa_family == AF_INET ? sizeof to->four : sizeof to->six,
            .msg_iov = &batch->vector[vector],
        };
        message = &batch->message[batch->messages++];
        *message = (struct message){
            .owner = owner,
            .segment = (uint16_t)bytes,
            .overhead = (uint16_t)overhead,
            .sequence = sequence,
            .timestamp = timestamp,
        };
    }
    batch->packets++;
    batch->vector[vector] = head;
    batch->vector[vector + 1] = rest;
    batch->header[batch->messages - 1].msg_hdr.msg_iovlen += 2;
    message->packets++;
    message->octets += (uint32_t)(bytes - overhead);
    message->bytes += (uint32_t)bytes;
}

uint8_t *batch_add(struct batch *batch, int fd, struct outgoing *owner, union address *to, bool gso, const uint8_t *payload,
                   size_t size, bool copy, int64_t sequence, int64_t timestamp)
{
    if (copy) {
        payload = memcpy(batch_scratch(batch), payload, size);
        batch->scratch_used += size;
    }
    uint8_t *rtp = batch->rtp[batch->packets];
    struct iovec head = {rtp, RTP_HEADER}, rest = {(void *)(uintptr_t)payload, size};
    add(batch, fd, owner, to, gso, head, rest, RTP_HEADER, sequence, timestamp);
    return rtp;
}

uint8_t *batch_scratch(struct batch *batch)
{
    batch->scratch_used = (batch->scratch_used + SCRATCH_ALIGN - 1) / SCRATCH_ALIGN * SCRATCH_ALIGN;
    return batch->scratch + batch->scratch_used;
}

void batch_add_scratch(struct batch *batch, int fd, struct outgoing *owner, union address *to, bool gso, size_t size,
                       size_t overhead, int64_t sequence, int64_t timestamp)
{
    uint8_t *packet = batch_scratch(batch);
    batch->scratch_used += size;
    struct iovec head = {packet, RTP_HEADER}, rest = {packet + RTP_HEADER, size - RTP_HEADER};
    add(batch, fd, owner, to, gso, head, rest, overhead, sequence, timestamp);
}

static bool gone(int error)
{
    return error == ECONNREFUSED || error == EHOSTUNREACH || error == ENETUNREACH || error == EHOSTDOWN || error == ENETDOWN;
}

static bool no_runs(int error) { return error == EIO || error == EINVAL || error == EMSGSIZE || error == ENOPROTOOPT; }

/* One packet; false when the socket is full. Whatever else fails is a loss like any on the network. */
static bool send_one(int fd, const struct msghdr *like, int packet)
{
    struct msghdr header = {
        .msg_name = like->msg_name,
        .msg_namelen = like->msg_namelen,
        .msg_iov = like->msg_iov + 2 * packet,
        .msg_iovlen = 2,
    };
    for (int attempt = 0; attempt < SEND_ATTEMPTS; attempt++) {
        if (sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return true;
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return false;
        if (!gone(errno) && errno != EINTR)
            return true;
    }
    return true;
}

static int end_of_owner(const struct batch *batch, int at)
{
    const struct outgoing *owner = batch->message[at].owner;
    while (at < batch->messages && batch->message[at].owner == owner)
        at++;
    return at;
}

static void send_messages(struct batch *batch, int fd, int at, int end)
{
    int attempts = 0;
    while (at < end) {
        int sent = sendmmsg(fd, batch->header + at, (unsigned)(end - at), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            for (int next = at + sent; at < next; at++)
                outgoing_sent(&batch->message[at]);
            attempts = 0;
            continue;
        }
        struct message *message = &batch->message[at];
        if (errno == EINTR || (gone(errno) && ++attempts < SEND_ATTEMPTS))
            continue;
        attempts = 0;
        if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) {
            int rest = end_of_owner(batch, at);
            if (errno != ENOBUFS && outgoing_takes_lane(message->owner, batch))
                send_messages(batch, message->owner->lane, at, rest); /* which has its own socket now: no deeper */
            else /* the rest of this viewer's frame is worth nothing without it; the others have their own chance */
                for (int lost = at; lost < rest; lost++)
                    outgoing_full(&batch->message[lost], 0);
            at = rest;
            continue;
        }
        if (message->packets > 1 && no_runs(errno)) {
            outgoing_takes_no_runs(message->owner);
            int packet = 0;
            while (packet < message->packets && send_one(fd, &batch->header[at].msg_hdr, packet))
                packet++;
            if (packet < message->packets)
                outgoing_full(message, packet);
            else
                outgoing_sent(message);
        } else {
            outgoing_sent(message); /* unroutable: lost to this viewer, its number stays */
        }
        at++;
    }
}

void batch_send(struct batch *batch)
{
    send_messages(batch, batch->fd, 0, batch->messages);
    batch->messages = batch->packets = 0;
    batch->scratch_used = 0;
}
