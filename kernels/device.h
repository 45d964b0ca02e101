/* Opens a device and describes it.
 *
 *     mp_ctx *c;
 *     mp_device_options o = {.threads = 0};
 *     if (mp_device_open(&o, &c, &err)) ...
 *     mp_device_close(c);
 */
#ifndef MP_KERNELS_DEVICE_H
#define MP_KERNELS_DEVICE_H

#include "kernels/core/ctx.h"

typedef struct mp_device_options {
    /* "cpu" (NULL is "cpu"); "meta": as torch's, shapes, dtypes, errors and memory of every op and
     * none of its arithmetic; activations are zero or undefined and weights are never read */
    const char *device;
    const char *isa;     /* "base", "avx2", "avx512", "avx512bf16", "amx"; NULL: the best */
    int threads;         /* 1 to 256; 0: one on each logical CPU that this process may use */
    bool alone;          /* until it is closed, the calling thread serves this context alone and
                          * starts no other process: it keeps to one core, as the workers do.  For
                          * measuring; a generation is a few percent slower so */
    size_t memory_limit; /* bytes of activations; 0: none.  Over it is MP_ENOMEM */
    mp_policy policy;
    mp_e4m3_overflow e4m3;
} mp_device_options;

mp_code mp_device_open(const mp_device_options *options, mp_ctx **out, mp_error *err);
/* Ends the threads that libraries start when the program does, before they compete with its own:
 * for the beginning of main. */
void mp_device_quiet(void);
void mp_device_close(mp_ctx *c); /* joins the threads, unmaps the pool; NULL is fine */

typedef struct mp_device_info {
    char isa[16];   /* chosen */
    char isas[96];  /* all that this machine can run, best first, separated by spaces */
    char cpu[96];   /* model name */
    char blas[128]; /* OpenBLAS's own configuration string and core name */
    int threads;
    int cores;     /* hwloc's physical cores this process may use */
    size_t memory; /* bytes of RAM */
} mp_device_info;
void mp_device_describe(const mp_ctx *c, mp_device_info *out);
/* Bytes that the threads hold as scratch: it grows with the largest op and stays. */
size_t mp_device_scratch(const mp_ctx *c);
/* The same without a context (no threads are started). */
mp_code mp_device_probe(const char *isa, mp_device_info *out, mp_error *err);

#endif
