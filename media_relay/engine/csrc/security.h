/* SRTP (RFC 3711, RFC 7714) of a leg's streams. media_relay/engine/security.py is the specification.

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

#endif
