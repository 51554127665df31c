/* Packets gathered into as few system calls as they fit: runs of equal size by UDP GSO (udp(7), UDP_SEGMENT), many
   messages by sendmmsg(2). One batch goes out over one socket. */
#ifndef DIALCAST_SENDER_H
#define DIALCAST_SENDER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "limits.h"
#include "rtp.h"

#ifndef BATCH_PACKETS /* and this */
#define BATCH_PACKETS 1024
#endif
#define BATCH_SCRATCH 262144 /* holds what was repacked or encrypted; pages nobody needed are never touched */
#define SCRATCH_ALIGN 16

struct outgoing;

union address {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
};

/* One message: a packet, or a run of packets of one size, of which the last may be shorter. */
struct message {
    struct outgoing *owner;
    int packets;
    uint16_t segment, overhead; /* of each packet, what is no payload */
    bool closed; /* a shorter packet ended the run */
    uint32_t octets, bytes;
    int64_t sequence, timestamp; /* of the first packet */
};

struct batch {
    int fd, messages, packets;
    int lanes; /* sockets that viewers have for themselves */
    size_t scratch_used;
    struct message message[BATCH_PACKETS];
    struct mmsghdr header[BATCH_PACKETS];
    struct iovec vector[2 * BATCH_PACKETS];
    uint8_t rtp[BATCH_PACKETS][RTP_HEADER];
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(uint16_t))];
    } control[BATCH_PACKETS];
    _Alignas(SCRATCH_ALIGN) uint8_t scratch[BATCH_SCRATCH];
};

/* True if one more packet of this socket has room, `copied` octets of it in the scratch memory. */
bool batch_fits(const struct batch *batch, int fd, size_t copied);
/* Adds a packet; fill in the RTP header returned. The payload stays where it is until `batch_send`, unless `copy`. */
uint8_t *batch_add(struct batch *batch, int fd, struct outgoing *owner, union address *to, bool gso, const uint8_t *payload,
                   size_t size, bool copy, int64_t sequence, int64_t timestamp);
/* Where the next packet may be written as it is to go out, and the adding of it: `size` octets, `overhead` no payload. */
uint8_t *batch_scratch(struct batch *batch);
void batch_add_scratch(struct batch *batch, int fd, struct outgoing *owner, union address *to, bool gso, size_t size,
                       size_t overhead, int64_t sequence, int64_t timestamp);
/* Sends all of it, and tells each owner what became of its messages (`outgoing_sent`, `outgoing_full`). */
void batch_send(struct batch *batch);

#endif
