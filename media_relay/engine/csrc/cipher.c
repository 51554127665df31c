#include "cipher.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "rtp.h"

#define LIBRARY "libcrypto.so.3"
#define GET_TAG 0x10 /* EVP_CTRL_AEAD_GET_TAG */
#define SALT 14
#define SHA1_BYTES 20
#define SHA1_BLOCK 64
#define CM_TAG 10
#define GCM_TAG 16

enum label { FOR_ENCRYPTION, FOR_AUTHENTICATION, FOR_SALT }; /* RFC 3711 section 4.3.2 */

/* SHA_CTX of openssl/sha.h; loaded like the rest and not linked, so its header need not be there either. */
struct sha1 {
    uint32_t state[5], low, high, block[16], used;
};

static struct {
    void *(*cipher_ctx_new)(void);
    void (*cipher_ctx_free)(void *);
    int (*init)(void *, const void *, void *, const uint8_t *, const uint8_t *);
    int (*update)(void *, uint8_t *, int *, const uint8_t *, int);
    int (*final)(void *, uint8_t *, int *);
    int (*ctrl)(void *, int, int, void *);
    const void *(*aes_128_ctr)(void);
    const void *(*aes_128_gcm)(void);
    int (*sha1_init)(struct sha1 *);
    int (*sha1_update)(struct sha1 *, const void *, size_t);
    int (*sha1_final)(uint8_t *, struct sha1 *);
    bool loaded;
} lib;

struct cipher {
    enum profile profile;
    void *aes;
    uint8_t iv[16];            /* the salt and the SSRC; the index is added for each packet */
    struct sha1 inner, outer; /* HMAC (RFC 2104) after its key */
};

static void load(void)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return;
    const struct {
        const char *name;
        void *into;
    } wanted[] = {
        {"EVP_CIPHER_CTX_new", &lib.cipher_ctx_new},
        {"EVP_CIPHER_CTX_free", &lib.cipher_ctx_free},
        {"EVP_EncryptInit_ex", &lib.init},
        {"EVP_EncryptUpdate", &lib.update},
        {"EVP_EncryptFinal_ex", &lib.final},
        {"EVP_CIPHER_CTX_ctrl", &lib.ctrl},
        {"EVP_aes_128_ctr", &lib.aes_128_ctr},
        {"EVP_aes_128_gcm", &lib.aes_128_gcm},
        {"SHA1_Init", &lib.sha1_init},
        {"SHA1_Update", &lib.sha1_update},
        {"SHA1_Final", &lib.sha1_final},
    };
    lib.loaded = true;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *found = dlsym(library, wanted[i].name);
        memcpy(wanted[i].into, &found, sizeof found);
        lib.loaded &= found != NULL;
    }
}

bool cipher_load(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return lib.loaded;
}

/* RFC 3711 section 4.3.3: the key stream under the salt with the label in it. */
static bool derive(void *ctr, const struct keys *keys, enum label label, uint8_t *key, int size)
{
    uint8_t start[16] = {0};
    int written;
    memcpy(start, keys->key_and_salt + 16, SALT); /* GCM's salt of 12 has two zeros behind it (RFC 7714 section 11) */
    start[7] ^= (uint8_t)label;
    memset(key, 0, (size_t)size);
    return lib.init(ctr, lib.aes_128_ctr(), NULL, keys->key_and_salt, start) == 1 &&
           lib.update(ctr, key, &written, key, size) == 1;
}

static void hmac_key(struct cipher *cipher, const uint8_t *key)
{
    uint8_t pad[SHA1_BLOCK];
    for (int outer = 0; outer < 2; outer++) {
        memset(pad, outer ? 0x5C : 0x36, sizeof pad);
        for (int i = 0; i < SHA1_BYTES; i++)
            pad[i] ^= key[i];
        struct sha1 *state = outer ? &cipher->outer : &cipher->inner;
        lib.sha1_init(state);
        lib.sha1_update(state, pad, sizeof pad);
    }
    explicit_bzero(pad, sizeof pad);
}

struct cipher *cipher_new(const struct keys *keys, uint32_t ssrc)
{
    struct cipher *cipher = calloc(1, sizeof *cipher);
    if (cipher == NULL)
        return NULL;
    uint8_t key[16], authentication[SHA1_BYTES], salt[SALT];
    bool gcm = keys->profile == AEAD_AES_128_GCM;
    void *ctr = lib.cipher_ctx_new();
    cipher->profile = keys->profile;
    cipher->aes = lib.cipher_ctx_new();
    bool good = ctr != NULL && cipher->aes != NULL && derive(ctr, keys, FOR_ENCRYPTION, key, sizeof key) &&
                derive(ctr, keys, FOR_AUTHENTICATION, authentication, sizeof authentication) &&
                derive(ctr, keys, FOR_SALT, salt, gcm ? 12 : SALT) &&
                lib.init(cipher->aes, gcm ? lib.aes_128_gcm() : lib.aes_128_ctr(), NULL, key, NULL) == 1;
    if (good) {
        uint8_t name[4];
        put32(name, ssrc);
        memcpy(cipher->iv, salt, gcm ? 12 : SALT);
        for (int i = 0; i < 4; i++)
            cipher->iv[(gcm ? 2 : 4) + i] ^= name[i];
        hmac_key(cipher, authentication);
    }
    lib.cipher_ctx_free(ctr);
    explicit_bzero(key, sizeof key);
    explicit_bzero(authentication, sizeof authentication);
    explicit_bzero(salt, sizeof salt);
    if (good)
        return cipher;
    cipher_free(cipher);
    return NULL;
}

void cipher_free(struct cipher *cipher)
{
    if (cipher == NULL)
        return;
    lib.cipher_ctx_free(cipher->aes); /* wipes its key */
    explicit_bzero(cipher, sizeof *cipher);
    free(cipher);
}

static bool gcm(struct cipher *cipher, const uint8_t *iv, uint8_t *packet, int size)
{
    int written;
    uint8_t *payload = packet + RTP_HEADER;
    return lib.init(cipher->aes, NULL, NULL, NULL, iv) == 1 &&
           lib.update(cipher->aes, NULL, &written, packet, RTP_HEADER) == 1 && /* authenticated, not encrypted */
           lib.update(cipher->aes, payload, &written, payload, size - RTP_HEADER) == 1 &&
           lib.final(cipher->aes, packet + size, &written) == 1 &&
           lib.ctrl(cipher->aes, GET_TAG, GCM_TAG, packet + size) == 1;
}

static bool counter_mode(struct cipher *cipher, const uint8_t *iv, uint32_t rolled_over, uint8_t *packet, int size)
{
    int written;
    uint8_t *payload = packet + RTP_HEADER, digest[SHA1_BYTES], behind[4];
    if (lib.init(cipher->aes, NULL, NULL, NULL, iv) != 1 ||
        lib.update(cipher->aes, payload, &written, payload, size - RTP_HEADER) != 1)
        return false;
    put32(behind, rolled_over);
    struct sha1 state = cipher->inner;
    lib.sha1_update(&state, packet, (size_t)size);
    lib.sha1_update(&state, behind, sizeof behind);
    lib.sha1_final(digest, &state);
    state = cipher->outer;
    lib.sha1_update(&state, digest, sizeof digest);
    lib.sha1_final(digest, &state);
    memcpy(packet + size, digest, CM_TAG);
    return true;
}

size_t cipher_protect(struct cipher *cipher, uint64_t index, uint8_t *packet, size_t size)
{
    uint8_t iv[16];
    bool is_gcm = cipher->profile == AEAD_AES_128_GCM;
    memcpy(iv, cipher->iv, sizeof iv);
    for (int i = 0; i < 6; i++)
        iv[(is_gcm ? 6 : 8) + i] ^= (uint8_t)(index >> (40 - 8 * i));
    if (is_gcm)
        return gcm(cipher, iv, packet, (int)size) ? size + GCM_TAG : 0;
    return counter_mode(cipher, iv, (uint32_t)(index >> 16), packet, (int)size) ? size + CM_TAG : 0;
}
