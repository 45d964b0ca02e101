/* Comparing a model with real Diffusers, module by module.
 *
 * A golden file (tests/fixtures/sana_blocks.py) holds each module's output under its path.  The
 * recorder is an observer: of all ops whose module is that path or lies below it, the last one's
 * output is the module's.
 *
 *     mp_blocks b;
 *     mp_blocks_open(&b, c, "goldens/sana/blocks/vae_decoder.fp32.safetensors", "vae");
 *     mp_tensor z = mp_blocks_tensor(&b, "input.z");
 *     ... forward ...
 *     mp_blocks_check(&b, 2e-6, 40);
 */
#ifndef MP_TESTS_SUPPORT_MP_BLOCKS_H
#define MP_TESTS_SUPPORT_MP_BLOCKS_H

#include "tests/support/mp_test.h"

typedef struct mp_block_record {
    mp_tensor golden; /* its name is the module's path */
    float *values;    /* last output, fp32 */
    mp_tensor shape;  /* dims of it */
    int64_t numel;
} mp_block_record;

typedef struct mp_blocks {
    mp_ctx *ctx;
    mp_safetensors *file;
    const char *component;
    mp_block_record *records;
    int64_t count;
} mp_blocks;

/* mp_test_ctx of the best instruction set on every core. */
mp_ctx *mp_blocks_ctx(void);
/* path: under tests/fixtures.  component NULL: nothing is recorded, only inputs are read. */
void mp_blocks_open(mp_blocks *b, mp_ctx *c, const char *path, const char *component);
void mp_blocks_close(mp_blocks *b);

/* Tensors of the file, in the pool.  Pictures come in [B, C, H, W] and go out as [B, H, W, C]. */
mp_tensor mp_blocks_tensor(mp_blocks *b, const char *name);
mp_tensor mp_blocks_picture(mp_blocks *b, const char *name);
/* n integers of an I64 tensor. */
int64_t mp_blocks_int(const mp_blocks *b, const char *name, int64_t i);
/* Masks and ids as the models take them (mp_free). */
uint8_t *mp_blocks_mask(const mp_blocks *b, const char *name);

/* Every recorded module lies within `limit` (relative L2) of its golden, and at least `least`
 * modules were recorded. */
void mp_blocks_check(mp_blocks *b, double limit, int least);
void mp_blocks_check_one(mp_blocks *b, const char *path, double limit);

/* ||a - b|| / ||b|| of y against the file's tensor; [B, H, W, C] is turned where the golden is
 * [B, C, H, W]. */
double mp_blocks_distance(mp_blocks *b, mp_tensor y, const char *name);

#endif
