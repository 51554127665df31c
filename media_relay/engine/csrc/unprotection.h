/* Opens what a peer sends by SRTP, by libsrtp2: its replay list and its guess at the roll-over count are well tried. */
#ifndef DIALCAST_UNPROTECTION_H
#define DIALCAST_UNPROTECTION_H

#include "security.h"

/* NULL when packets of this profile can be decrypted, else what is missing. */
const char *unprotection_missing(enum profile profile);

/* What a peer sends us for one medium, under whichever SSRCs. */
struct unprotection {
    int medium, encoding;
    struct unprotection *next;
    struct inbound *inbound;
};

/* The same one again, its replay list and roll-over count kept, as long as the keys are; NULL when there is no memory. */
struct unprotection *unprotection_of(struct unprotection **all, int medium, int encoding, const struct keys *keys);
void unprotections_free(struct unprotection **all);
/* Decrypts a packet in place, aligned to 4 bytes. Its new size, 0 when forged, replayed, too old or garbage. */
size_t unprotection_apply(struct unprotection *unprotection, uint8_t *packet, size_t size);

#endif
