/* Limits of the engine: those of its specification, the Python modules one folder up, which say why. */
#ifndef DIALCAST_LIMITS_H
#define DIALCAST_LIMITS_H

#define HISTORY 1024              /* packets of a stream remembered: how late one may come, how far back a NACK reaches */
#define HISTORY_SECONDS 2.0       /* or as long as the keyframe cache: older packets are let go */
#define MAX_DROPOUT 3000          /* a longer jump in sequence numbers is a restart (RFC 3550 A.1) */
#define MAX_MISORDER 100          /* in reception statistics, packets at most this far behind are late */
#define RETIRED_SSRC_SECONDS 2.0
#define MAX_SHIFTS 32
#define MAX_PARAMETER_SETS 8
#define MAX_PARAMETER_BYTES 2048
#define MAX_MISSING 64            /* packets of one burst told as missing */

#define READ_BUDGET 64            /* datagrams read from one socket before the others get their turn */
#define MAX_MEDIA_BYTES 16384
#define MAX_OTHER_BYTES 2048
#ifndef MAX_EVENTS /* fuzzing makes it small, to see it full */
#define MAX_EVENTS 8192
#endif

#ifndef SOCKET_EVENTS
#define SOCKET_EVENTS (MAX_EVENTS / 16) /* datagrams of one socket among them */
#endif
#define EVENTS_AT_ONCE 512        /* told to Python before it may turn to something else */
#define ERRORS_INTERVAL 0.02      /* seconds in which one socket's ICMP errors are told once, 64 at most */
#define TELL_INTERVAL 0.05        /* seconds between two events of a kind that a source can make as many of as it likes */

#define CATCH_UP_PACKETS 16
#define CATCH_UP_LEGS 16
#define CATCH_UP_INTERVAL 0.005   /* seconds */
#define REPLAY_INTERVAL 1.0
#define TRICKLE_PACKETS 10        /* a second towards a host that has not proven itself */
#define TRICKLE_BYTES 200
#define TRICKLE_HOSTS 1024        /* such hosts a second; the others get nothing */
#define RESEND_BURST 64.0
#define RESEND_RATE 200.0

#define WARM_BYTES 8388608        /* ready before the first packet */
#define KEPT_BYTES 67108864       /* of memory let go */

#define SECURITY_WINDOW HISTORY   /* how far behind the newest a protected packet may be, either way */
#define SECURITY_SSRCS 64         /* of one peer's medium under one key: each has a replay list for as long as the leg lives */

#define SLICE 64                  /* viewers served before other groups get their turn */
#define RUN_PACKETS 16            /* packets in one UDP GSO message */
#define GSO_SEGMENT 1452          /* larger packets may exceed a path's MTU: they are sent one by one */
#define RUN_BYTES 65000
#define MAX_LANES 1024           /* viewers with a socket of their own, as the shared one was full */
#define LANE_SECONDS 10.0         /* without a full socket, after which they share again */
#define SEND_ATTEMPTS 3           /* an ICMP error pending on a shared socket is of some other peer, and reported once */

#endif
