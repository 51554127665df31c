#include "protection.h"

#include <stdlib.h>
#include <string.h>

#include "cipher.h"
#include "limits.h"
#include "rtp.h"

struct protection {
    struct keys keys;
    uint32_t ssrc;
    struct cipher *cipher;
    bool started;
    int64_t highest;
    int64_t first; /* number that went out under these keys: what is older has no index under them */
    struct {
        uint32_t number, tag;
    } sent[SECURITY_WINDOW];
};

struct protection *protection_new(const struct keys *keys, uint32_t ssrc)
{
    struct protection *protection = calloc(1, sizeof *protection);
    if (protection == NULL)
        return NULL;
    protection->keys = *keys;
    protection->ssrc = ssrc;
    memset(protection->sent, 0xFF, sizeof protection->sent);
    protection->cipher = cipher_new(keys, ssrc);
    if (protection->cipher != NULL)
        return protection;
    protection_free(protection);
    return NULL;
}

void protection_free(struct protection *protection)
{
    if (protection == NULL)
        return;
    cipher_free(protection->cipher);
    explicit_bzero(&protection->keys, sizeof protection->keys);
    free(protection);
}

bool protection_is(const struct protection *protection, const struct keys *keys, uint32_t ssrc)
{
    return protection->ssrc == ssrc && memcmp(&protection->keys, keys, sizeof *keys) == 0;
}

size_t protection_apply(struct protection *protection, int64_t number, uint8_t *packet, size_t size)
{
    if (!protection->started) {
        protection->started = true;
        protection->first = protection->highest = number; /* its roll-over count is 0 */
    }
    if (number < protection->first || number <= protection->highest - SECURITY_WINDOW)
        return 0;
    size = cipher_protect(protection->cipher, (uint64_t)(number - (protection->first & ~0xFFFF)), packet, size);
    if (size == 0)
        return 0;
    if (number > protection->highest)
        protection->highest = number;
    uint32_t tag = get32(packet + size - 4);
    size_t at = (size_t)number % SECURITY_WINDOW;
    if (protection->sent[at].number == (uint32_t)number && protection->sent[at].tag != tag)
        return 0; /* other octets under the same index would tell the authentication key (RFC 7714 section 8.4) */
    protection->sent[at].number = (uint32_t)number;
    protection->sent[at].tag = tag;
    return size;
}

