/* The parameters of one component: mapped files, bound by name to a weights struct.
 *
 * Files, in Diffusers' order: `<stem>[.variant].safetensors` or the sharded form with
 * `<stem>.safetensors.index[.variant].json`; stem is diffusion_pytorch_model or model.  Pickles are
 * never read.
 *
 * dtype is the component's (from_pretrained(torch_dtype=...)).  A parameter whose file format
 * widens exactly to it stays mapped and is widened on use; any other, and one that is not aligned
 * in its file, is converted once, into memory of its own.  `storage` keeps the weights of linear,
 * convolution and embedding layers in a narrower format, cast on use (layerwise casting): a value
 * is rounded to dtype first and then to storage, as Diffusers does.  A parameter with a part of its
 * name among keep_fp32 stays fp32 in an fp16 or bf16 component (_keep_in_fp32_modules), unless
 * round_trip_fp32 (keep_fp32_of_fp16: in an fp16 one); `overrides` win over all, the last that
 * matches over the others.
 *
 * Binding collects everything that is wrong, and mp_weights_finish says it in one error:
 *
 *     mp_weights_bind(w, &p->to_q, 2, MP_DIMS(inner, dim),
 * "transformer_blocks.%d.attn1.to_q.weight", i);
 *     ...
 *     return mp_weights_finish(w, &err);   // lists missing, misshapen and surplus parameters
 */
#ifndef MP_PIPELINES_COMMON_WEIGHTS_H
#define MP_PIPELINES_COMMON_WEIGHTS_H

#include "kernels/core/convert.h"
#include "kernels/core/policy.h"
#include "kernels/core/status.h"
#include "kernels/core/tensor.h"

typedef struct mp_weights mp_weights;
struct mp_weights_options;

/* Asks a model what it needs instead of giving it weights: no file is opened, and mp_weights_finish
 * tells every parameter that was bound, in the order of the names.  `store` of p is the dtype in
 * which a run of this precision keeps it, so a file in these dtypes is mapped and never converted;
 * p has no data, and o and p live during the call only. */
typedef struct mp_weights_survey {
    void (*parameter)(void *user, const struct mp_weights_options *o, const mp_tensor *p);
    void *user;
} mp_weights_survey;

typedef struct mp_weights_options {
    const char *component;           /* prefix of every tensor's name: "transformer" */
    const char *stem;                /* "diffusion_pytorch_model" or "model" */
    const char *variant;             /* "fp16", or NULL */
    const mp_weights_survey *survey; /* NULL: none */
    mp_dtype dtype;
    mp_dtype storage; /* MP_DTYPE_COUNT: as dtype */
    mp_e4m3_overflow e4m3;
    const char *const *keep_fp32; /* NULL-terminated module names, or NULL */
    /* As keep_fp32, in an fp16 component alone: transformers' _keep_in_fp32_modules, while
     * Diffusers' holds under bf16, too. */
    const char *const *keep_fp32_of_fp16;
    /* Kept out of storage beside what always is: found anywhere in a module's path ("norm"), or at
     * its ends with ^ and $ ("^proj_in$").  The model's _skip_layerwise_casting_patterns;
     * NULL-terminated, or NULL.  The names of keep_fp32 are skipped too. */
    const char *const *storage_skip;
    const mp_dtype_override *overrides;
    int override_count;
    bool round_trip_fp32; /* load: to -- buffers too are cast, as .to(dtype) does */
    /* For the device "meta": converted parameters get their address space and no values. */
    bool no_values;
    bool load_later; /* mp_weights_finish leaves the conversion to mp_weights_load */
} mp_weights_options;

/* The options and what they point to must live until mp_weights_finish. */
mp_code mp_weights_open(const char *dir, const mp_weights_options *o, mp_weights **out,
                        mp_error *err);
void mp_weights_close(mp_weights *w); /* NULL is fine; every bound tensor dies */

/* Binds *slot to the parameter of that name and shape; remembers what is missing or misshapen.
 * Shape and dtype are there at once; data and store are final after mp_weights_finish, and *slot
 * must stay where it is until then. */
void mp_weights_bind(mp_weights *w, mp_tensor *slot, int rank, const int64_t *dims,
                     const char *format, ...) __attribute__((format(printf, 5, 6)));
/* Names (fnmatch patterns) that may be in the file and are not used: "lm_head.*". */
void mp_weights_ignore(mp_weights *w, const char *pattern);
/* Strips this prefix from the file's names when present ("model." of a Gemma2ForCausalLM file).
 * Before the first bind. */
void mp_weights_strip(mp_weights *w, const char *prefix);
/* Whether the files have a parameter of that name: for a part that some checkpoints lack. */
bool mp_weights_has(const mp_weights *w, const char *name);
mp_code mp_weights_finish(mp_weights *w, mp_error *err);

/* Makes the converted parameters, unless they are there: under load_later before the first op of
 * the model, and again after mp_weights_unload.  Fails for want of memory only. */
mp_code mp_weights_load(mp_weights *w, mp_error *err);
bool mp_weights_need_load(const mp_weights *w);
/* Gives all pages back to the system.  Those of the files come again on use; the converted ones
 * need mp_weights_load, and whoever touches them before that is killed.  Bound tensors stay. */
void mp_weights_unload(mp_weights *w);

typedef struct mp_weights_stats {
    size_t mapped;    /* bytes of the files */
    size_t in_place;  /* of them, those of bound parameters that are not converted */
    size_t converted; /* bytes of own memory, loaded or not */
    int64_t parameters;
} mp_weights_stats;
mp_weights_stats mp_weights_get_stats(const mp_weights *w);
/* Bytes of the files' pages that are in this process's memory now. */
size_t mp_weights_resident(const mp_weights *w);
/* The dtype that torch reports as model.dtype: the component's. */
mp_dtype mp_weights_dtype(const mp_weights *w);

/* Pairs that models share. */
typedef struct mp_affine {
    mp_tensor weight, bias;
} mp_affine;
/* [out, in] weight and, if asked, [out] bias, under the formatted module name. */
void mp_weights_bind_linear(mp_weights *w, mp_affine *p, int64_t out, int64_t in, bool bias,
                            const char *format, ...) __attribute__((format(printf, 6, 7)));
/* [out, in/groups, k, k] */
void mp_weights_bind_conv2d(mp_weights *w, mp_affine *p, int64_t out, int64_t in_per_group, int k,
                            bool bias, const char *format, ...)
    __attribute__((format(printf, 7, 8)));

#endif
