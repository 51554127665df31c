/* Protects what we send by SRTP, and sees to it that no index is used for two packets. */
#ifndef DIALCAST_PROTECTION_H
#define DIALCAST_PROTECTION_H

#include "security.h"

/* What we send under one SSRC. */
struct protection;

/* NULL when there is no memory for it. */
struct protection *protection_new(const struct keys *keys, uint32_t ssrc);
void protection_free(struct protection *protection);
bool protection_is(const struct protection *protection, const struct keys *keys, uint32_t ssrc);
/* Encrypts an RTP packet in place, room for PROTECTION_BYTES behind it, aligned to 4 bytes; `number` is its endless
   sequence number. Its new size, 0 when it must not go out: see security.py. */
size_t protection_apply(struct protection *protection, int64_t number, uint8_t *packet, size_t size);

#endif
