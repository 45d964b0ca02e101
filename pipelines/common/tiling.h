/* Tiled evaluation of an autoencoder: overlapping tiles, one at a time, blended into one result.
 *
 * The same bits as Diffusers' tiled_decode and tiled_encode, which hold every tile until the end:
 * here a tile lives until its neighbours have met it.  What stays is the result, the lower edges of
 * the row of tiles above, and the right edge of the tile before. */
#ifndef MP_PIPELINES_COMMON_TILING_H
#define MP_PIPELINES_COMMON_TILING_H

#include "kernels/core/ctx.h"
#include "pipelines/common/pipeline.h"

/* Evaluates one tile: [B, h, w, C] -> [B, h', w', C']. */
typedef mp_tensor mp_tile_fn(mp_ctx *c, const void *model, mp_tensor tile);

typedef struct mp_tile_axis {
    int64_t tile;   /* of the input: largest extent of a tile */
    int64_t step;   /* of the input: distance between two tiles */
    int64_t blend;  /* of the output: overlap that fades from one tile to the next */
    int64_t stride; /* of the output: what a tile contributes to the result at most */
    int64_t limit;  /* of the output: the result is cut to this */
} mp_tile_axis;

typedef struct mp_tile_plan {
    mp_tile_axis height, width;
    int64_t multiple; /* input tiles are padded with zeros to a multiple of it; 0 or 1: not */
    int64_t mul, div; /* output extent = input extent * mul / div */
} mp_tile_plan;

/* x [B, H, W, C] -> [B, H', W', C'] */
mp_tensor mp_tiled_forward(mp_ctx *c, const mp_tile_plan *plan, mp_tensor x, mp_tile_fn *fn,
                           const void *model);

/* The plan of a spatial autoencoder that compresses by `factor`.  decode: from latent to picture.
 * The plain case is every tile of a larger picture; see Diffusers' tiled_decode, tiled_encode. */
mp_tile_plan mp_tile_plan_decode(const mp_tiling *t, int64_t factor);
mp_tile_plan mp_tile_plan_encode(const mp_tiling *t, int64_t factor, int64_t height, int64_t width);

/* What cannot work: a tile smaller than the compression, a stride below it, a stride larger than
 * the tile.  The message names the number and the remedy. */
mp_code mp_tiling_check(const mp_tiling *t, int64_t factor, mp_error *err);

/* b's first rows (axis 1) or columns (axis 2) fade in from a's last ones over `extent` lines:
 *     b[y] = a[y - extent] * (1 - y/extent) + b[y] * (y/extent)
 * Each product and the sum round to the dtype; the weights are Python numbers (blend_v, blend_h).
 * a and b [B, h, w, C] agree in all but the axis.  Changes b in place. */
void mp_tile_blend(mp_ctx *c, mp_tensor a, mp_tensor b, int axis, int64_t extent);

#endif
