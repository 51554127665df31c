#include "security.h"

#include "cipher.h"
#include "unprotection.h"

const char *security_missing(enum profile profile)
{
    if (!cipher_load())
        return "media cannot be encrypted: OpenSSL 3 is not installed: apt-get install libssl3";
    return unprotection_missing(profile);
}

size_t security_key_bytes(enum profile profile) { return profile == AEAD_AES_128_GCM ? 28 : KEY_BYTES; }
size_t security_overhead(enum profile profile) { return profile == AEAD_AES_128_GCM ? 16 : 10; }
