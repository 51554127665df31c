#include "unprotection.h"

#include <string.h>

/* The library is loaded when the first key is set, and not linked: so this builds and runs where it is not installed,
   and `pip install` needs no probing of the system. Its header, if there is one when this is compiled, has the types. */
#if __has_include(<srtp2/srtp.h>)

#include <dlfcn.h>
#include <pthread.h>
#include <srtp2/srtp.h>
#include <stdlib.h>

#include "limits.h"
#include "rtp.h"

#define LIBRARY "libsrtp2.so.1"

static struct {
    __typeof__(srtp_init) *init;
    __typeof__(srtp_create) *create;
    __typeof__(srtp_dealloc) *dealloc;
    __typeof__(srtp_unprotect) *unprotect;
    __typeof__(srtp_crypto_policy_set_from_profile_for_rtp) *rtp_policy;
    __typeof__(srtp_crypto_policy_set_from_profile_for_rtcp) *rtcp_policy;
    bool loaded, gcm;
} lib;

static const srtp_profile_t library_profile[] = {
    [AEAD_AES_128_GCM] = srtp_profile_aead_aes_128_gcm,
    [AES_CM_128_HMAC_SHA1_80] = srtp_profile_aes128_cm_sha1_80,
};

static srtp_t session_new(const struct keys *keys)
{
    struct keys copy = *keys; /* the library does not promise to leave them as they are */
    srtp_policy_t policy;
    memset(&policy, 0, sizeof policy);
    srtp_t session = NULL;
    bool good = lib.rtp_policy(&policy.rtp, library_profile[keys->profile]) == srtp_err_status_ok &&
                lib.rtcp_policy(&policy.rtcp, library_profile[keys->profile]) == srtp_err_status_ok;
    policy.ssrc.type = ssrc_any_inbound;
    policy.key = copy.key_and_salt;
    policy.window_size = SECURITY_WINDOW;
    if (!good || lib.create(&session, &policy) != srtp_err_status_ok)
        session = NULL;
    explicit_bzero(&copy, sizeof copy);
    return session;
}

static void load(void)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return;
    lib.init = dlsym(library, "srtp_init");
    lib.create = dlsym(library, "srtp_create");
    lib.dealloc = dlsym(library, "srtp_dealloc");
    lib.unprotect = dlsym(library, "srtp_unprotect");
    lib.rtp_policy = dlsym(library, "srtp_crypto_policy_set_from_profile_for_rtp");
    lib.rtcp_policy = dlsym(library, "srtp_crypto_policy_set_from_profile_for_rtcp");
    lib.loaded = lib.init != NULL && lib.create != NULL && lib.dealloc != NULL && lib.unprotect != NULL &&
                 lib.rtp_policy != NULL && lib.rtcp_policy != NULL && lib.init() == srtp_err_status_ok;
    if (lib.loaded) { /* the library may have been built without GCM */
        srtp_t session = session_new(&(struct keys){.profile = AEAD_AES_128_GCM});
        lib.gcm = session != NULL;
        if (session != NULL)
            lib.dealloc(session);
    }
}

const char *unprotection_missing(enum profile profile)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    if (!lib.loaded)
        return "media cannot be encrypted: libsrtp2 is not installed: apt-get install libsrtp2-dev";
    if (profile == AEAD_AES_128_GCM && !lib.gcm)
        return "media cannot be encrypted with AEAD_AES_128_GCM: libsrtp2 was built without it";
    return NULL;
}

struct inbound {
    struct keys keys;
    srtp_t session;
    uint32_t ssrcs[SECURITY_SSRCS];
    int count;
};

static struct inbound *inbound_new(const struct keys *keys)
{
    struct inbound *inbound = calloc(1, sizeof *inbound);
    if (inbound == NULL)
        return NULL;
    inbound->session = session_new(keys);
    if (inbound->session == NULL) {
        free(inbound);
        return NULL;
    }
    inbound->keys = *keys;
    return inbound;
}

static void inbound_free(struct inbound *inbound)
{
    if (inbound == NULL)
        return;
    lib.dealloc(inbound->session);
    explicit_bzero(&inbound->keys, sizeof inbound->keys);
    free(inbound);
}

struct unprotection *unprotection_of(struct unprotection **all, int medium, int encoding, const struct keys *keys)
{
    struct unprotection *each = *all;
    while (each != NULL && !(each->medium == medium && each->encoding == encoding))
        each = each->next;
    if (each != NULL && each->inbound != NULL && memcmp(&each->inbound->keys, keys, sizeof *keys) == 0)
        return each;
    struct inbound *inbound = inbound_new(keys);
    if (inbound == NULL)
        return NULL;
    if (each == NULL) {
        each = calloc(1, sizeof *each);
        if (each == NULL) {
            inbound_free(inbound);
            return NULL;
        }
        *each = (struct unprotection){.medium = medium, .encoding = encoding, .next = *all};
        *all = each;
    }
    inbound_free(each->inbound);
    each->inbound = inbound;
    return each;
}

void unprotections_free(struct unprotection **all)
{
    while (*all != NULL) {
        struct unprotection *gone = *all;
        *all = gone->next;
        inbound_free(gone->inbound);
        free(gone);
    }
}

size_t unprotection_apply(struct unprotection *unprotection, uint8_t *packet, size_t size)
{
    struct inbound *inbound = unprotection->inbound;
    if (size < RTP_HEADER + security_overhead(inbound->keys.profile))
        return 0;
    uint32_t ssrc = get32(packet + 8);
    int known = 0;
    while (known < inbound->count && inbound->ssrcs[known] != ssrc)
        known++;
    if (known == SECURITY_SSRCS)
        return 0;
    int length = (int)size;
    if (lib.unprotect(inbound->session, packet, &length) != srtp_err_status_ok || length < RTP_HEADER)
        return 0;
    if (known == inbound->count)
        inbound->ssrcs[inbound->count++] = ssrc;
    return (size_t)length;
}

#else

const char *unprotection_missing(enum profile profile)
{
    (void)profile;
    return "media cannot be encrypted: dialcast was built without libsrtp2: apt-get install libsrtp2-dev, and install "
           "dialcast again";
}

/* Never called, as nobody gets past `unprotection_missing`. */
struct unprotection *unprotection_of(struct unprotection **all, int medium, int encoding, const struct keys *keys)
{
    (void)all, (void)medium, (void)encoding, (void)keys;
    return NULL;
}

void unprotections_free(struct unprotection **all) { (void)all; }

size_t unprotection_apply(struct unprotection *unprotection, uint8_t *packet, size_t size)
{
    (void)unprotection, (void)packet, (void)size;
    return 0;
}

#endif
