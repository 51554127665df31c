/* SRTP (RFC 3711, RFC 7714) of a leg's streams, by libsrtp2. media_relay/engine/security.py is the specification.

   A key and a master salt belong to one direction of one medium. Whoever holds keys here wipes them. */
#ifndef DIALCAST_SECURITY_H
#define DIALCAST_SECURITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEY_BYTES 30        /* AES_CM_128_HMAC_SHA1_80: 16 of key, 14 of salt; AEAD_AES_128_GCM has a salt of 12 */
#define PROTECTION_BYTES 16 /* the most that protecting a packet adds, its authentication tag */

enum profile { IN_THE_CLEAR, AEAD_AES_128_GCM, AES_CM_128_HMAC_SHA1_80 };

struct keys {
    enum profile profile;
    uint8_t key_and_salt[KEY_BYTES]; /* what a profile does not need of it is zero */
};

/* NULL when packets can be protected with this profile, else what is missing. */
const char *security_missing(enum profile profile);
size_t security_key_bytes(enum profile profile);
/* What protecting a packet adds. */
size_t security_overhead(enum profile profile);

/* What we send under one SSRC. */
struct protection;

/* NULL when there is no memory for it. */
struct protection *protection_new(const struct keys *keys, uint32_t ssrc);
void protection_free(struct protection *protection);
bool protection_is(const struct protection *protection, const struct keys *keys, uint32_t ssrc);
/* Encrypts an RTP packet in place, room for PROTECTION_BYTES behind it, aligned to 4 bytes; `number` is its endless
   sequence number. Its new size, 0 when it must not go out: see security.py. */
size_t protection_apply(struct protection *protection, int64_t number, uint8_t *packet, size_t size);

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
