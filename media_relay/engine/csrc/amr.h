/* AMR and AMR-WB payloads from one packing into the other (RFC 4867 sections 4.3 and 4.4). */
#ifndef DIALCAST_AMR_H
#define DIALCAST_AMR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AMR_FRAMES 50                          /* one second of 20 ms frames */
#define AMR_BYTES (2 + AMR_FRAMES * (1 + 60))  /* the largest result */

/* The size of `out` written, or -1 for what is not AMR in the packing that was negotiated. */
int amr_convert(const uint8_t *payload, size_t size, bool from_aligned, bool wide, uint8_t out[AMR_BYTES]);

#endif
