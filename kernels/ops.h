/* Every operation.  The one page to read before writing a model.
 *
 * Conventions.  Layouts are those of tensor.h: [B, N, D] and channels-last [B, H, W, C] and
 * [B, T, H, W, C].  The result is a new tensor of the context's pool unless said otherwise.  Dtypes
 * follow torch's rules (kernels/op_rules.def, conforming to tests/fixtures/op_dtype_table.csv); a
 * refused pair fails with MP_EDTYPE and torch's own text.  "Rounds once" means: everything inside
 * in fp32 from the widened operands, one rounding to the result dtype.  Where a composite op stands
 * for several torch ops, its comment lists each rounding point; fusing never removes one. Errors of
 * all: MP_EDTYPE, MP_ESHAPE, MP_ENOMEM.  All this is the policy strict; kernels/core/policy.h has
 * what the others change.  On a failed context every op returns MP_NONE.
 */
#ifndef MP_KERNELS_OPS_H
#define MP_KERNELS_OPS_H

#include "kernels/core/ctx.h"

/* ---- products (kernels/linear.c, conv.c) ------------------------------------------ */

/* y = x w^T + b.  x [..., K], w [N, K], b [N] or MP_NONE -> [..., N].  fp32 accumulation, the bias
 * added in fp32, rounds once.  torch.nn.functional.linear. */
mp_tensor mp_linear(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b);

typedef struct mp_conv2d_opts {
    int stride; /* 0 means 1 */
    int padding;
    int groups; /* 0 means 1 */
} mp_conv2d_opts;
/* x [B, H, W, C], w [O, C/groups, kh, kw], b [O] or MP_NONE -> [B, H', W', O].  Rounds once.
 * torch.nn.functional.conv2d with zero padding. */
mp_tensor mp_conv2d(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, mp_conv2d_opts o);

typedef struct mp_conv3d_opts {
    int time_stride, stride; /* in time, and in height and width; 0 means 1 */
    int time_padding, padding;
    int groups; /* 0 means 1 */
} mp_conv3d_opts;
/* x [B, T, H, W, C], w [O, C/groups, kt, kh, kw], b [O] or MP_NONE -> [B, T', H', W', O].  Rounds
 * once, over all of the kernel.  torch.nn.functional.conv3d with zero padding. */
mp_tensor mp_conv3d(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, mp_conv3d_opts o);

/* a [..., M, K] times b [..., K, N] -> [..., M, N]; equal leading dimensions.  Rounds once. */
mp_tensor mp_matmul(mp_ctx *c, mp_tensor a, mp_tensor b);

/* ---- attention (kernels/attention.c) --------------------------------------------------------- */

typedef enum mp_attn_rounding {
    /* torch's CPU flash kernel behind scaled_dot_product_attention: scores (q k^T * scale + bias +
     * mask) and softmax in fp32, the unnormalised exp rounded to the dtype before it meets V,
     * divided by the fp32 sum after. */
    MP_ATTN_SDPA,
    /* transformers' eager_attention_forward: q k^T rounds; * scale rounds; with a softcap: /
     * rounds, tanh rounds, * rounds; + bias rounds; + mask rounds; softmax in fp32 rounds; p v
     * rounds. */
    MP_ATTN_EAGER,
} mp_attn_rounding;

typedef struct mp_attn_opts {
    int heads;     /* of q */
    int kv_heads;  /* 0: as heads; else a divisor of heads (grouped queries) */
    float scale;   /* 0: 1 / sqrt(head dimension) */
    float softcap; /* 0: none (eager only) */
    bool causal;
    int window; /* causal with a sliding window: key j of query i iff i - window < j <= i; 0: none
                 */
    /* MP_NONE, or additive [B, S_k], the same for each head and query; of q's dtype, with SDPA
     * also fp32 */
    mp_tensor mask;
    /* MP_NONE, or additive by distance (T5's relative positions) [heads, S_q + S_k - 1], of a dtype
     * that mask may have: key j of query i gets bias[head][j - i + S_q - 1], in every batch entry
     */
    mp_tensor bias;
    mp_attn_rounding rounding;
} mp_attn_opts;
/* q [B, S_q, heads*d], k and v [B, S_k, kv_heads*d] -> [B, S_q, heads*d].  Streams over blocks of
 * queries: the score matrix never exists as a whole. */
mp_tensor mp_attn_softmax(mp_ctx *c, mp_tensor q, mp_tensor k, mp_tensor v, mp_attn_opts o);

/* Sana's linear attention (SanaLinearAttnProcessor2_0 of attention_processor.py; arXiv 2410.10629):
 *     relu(q), relu(k); to fp32; S = [v; 1] relu(k)^T;  o = S relu(q);  o[:d] / (o[d] + eps)
 * all in fp32, rounds once to q's dtype.  q, k, v [B, N, heads*d] -> [B, N, heads*d]. */
mp_tensor mp_attn_linear(mp_ctx *c, mp_tensor q, mp_tensor k, mp_tensor v, int heads, float eps);

/* DC-AE's multi-scale attention core (SanaMultiscaleAttnProcessor2_0).  x [B, H, W, G*3*d] is read
 * as G groups of (q, k, v) of d channels each -> [B, H, W, G*d].
 * linear: as mp_attn_linear, fp32 inside, rounds once.
 * quadratic: s = relu(k)^T relu(q) rounds to x's dtype; then in fp32 s / (sum over keys + eps);
 *     s rounds to v's dtype; v s rounds.  With `no_cast_back` (before diffusers #10590's fix) the
 *     scores stay fp32 and v s is refused for any dtype but fp32, with torch's text. */
mp_tensor mp_attn_multiscale_linear(mp_ctx *c, mp_tensor x, int head_dim, float eps);
mp_tensor mp_attn_multiscale_quadratic(mp_ctx *c, mp_tensor x, int head_dim, float eps,
                                       bool no_cast_back);

/* Rotary embedding, "rotate half" form.  x [B, S, heads*d], cos and sin [S, d] in x's dtype.
 * x*cos rounds, rotate_half(x)*sin rounds, the sum rounds (apply_rotary_pos_emb). */
mp_tensor mp_rope_half(mp_ctx *c, mp_tensor x, mp_tensor cos, mp_tensor sin, int heads);

/* ---- norms (kernels/norm.c) --------------------------------------------------------------------
 */

/* Over the last dimension; w and b [D] or MP_NONE.  Rounds once.  torch.nn.functional.layer_norm */
mp_tensor mp_layer_norm(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, float eps);

typedef enum mp_rms_style {
    /* torch.nn.functional.rms_norm: rounds once. */
    MP_RMS_TORCH,
    /* diffusers.models.normalization.RMSNorm: x * rsqrt(mean(x^2) + eps) in fp32; rounds to the
     * weight's dtype if that is fp16 or bf16 (else stays fp32 and the result is fp32); * w rounds;
     * + b rounds.  Without a weight: rounds to x's dtype. */
    MP_RMS_DIFFUSERS,
    /* Gemma2RMSNorm: fp32 throughout, times (1 + w), rounds once to x's dtype. */
    MP_RMS_GEMMA,
} mp_rms_style;
mp_tensor mp_rms_norm(mp_ctx *c, mp_tensor x, mp_tensor w, mp_tensor b, float eps,
                      mp_rms_style style);

/* Inference form over the last dimension (channels): (x - mean) / sqrt(var + eps) * w + b, fp32
 * inside, rounds once.  torch.nn.BatchNorm2d in eval mode. */
mp_tensor mp_batch_norm(mp_ctx *c, mp_tensor x, mp_tensor mean, mp_tensor var, mp_tensor w,
                        mp_tensor b, float eps);

/* x [B, .., C]: over all but B and the C / groups channels of a group; w and b [C] or MP_NONE.
 * Statistics in fp64, the rest in fp32, rounds once.  torch.nn.functional.group_norm */
mp_tensor mp_group_norm(mp_ctx *c, mp_tensor x, int groups, mp_tensor w, mp_tensor b, float eps);

/* Over the last dimension, fp32 inside, rounds once. */
mp_tensor mp_softmax(mp_ctx *c, mp_tensor x);

/* ---- elementwise (kernels/elementwise.c) --------------------------------------------------------
 */

/* Trailing-aligned broadcasting as in torch; promotes as torch does; rounds once.  A tensor without
 * dimensions beside one with some promotes nothing: it rounds to the other's dtype first, except as
 * b of mp_mul, where it stays as it is. */
mp_tensor mp_add(mp_ctx *c, mp_tensor a, mp_tensor b);
mp_tensor mp_mul(mp_ctx *c, mp_tensor a, mp_tensor b);
/* Python-number operands: add rounds the number to x's dtype first, mul and div keep it in fp32. */
mp_tensor mp_add_scalar(mp_ctx *c, mp_tensor x, float s);
mp_tensor mp_mul_scalar(mp_ctx *c, mp_tensor x, float s);
mp_tensor mp_div_scalar(mp_ctx *c, mp_tensor x, float s);
mp_tensor mp_clip(mp_ctx *c, mp_tensor x, float lo, float hi);
/* T5Block's guard: an fp16 x with an infinity anywhere is clipped to +-(65504 - 1000), which rounds
 * to 64512; any other x comes back as it is.  A NaN stays. */
mp_tensor mp_clip_infinite(mp_ctx *c, mp_tensor x);

typedef enum mp_act {
    MP_ACT_NONE,
    MP_ACT_SILU,
    MP_ACT_RELU,
    MP_ACT_RELU6,
    MP_ACT_GELU, /* erf */
    MP_ACT_GELU_TANH,
    /* x * sigmoid(1.702 * x): the product, the sigmoid and the outer product round
     * (transformers' QuickGELUActivation) */
    MP_ACT_QUICK_GELU,
    MP_ACT_TANH,
    MP_ACT_SIGMOID,
    MP_ACT_MISH,
    /* transformers' NewGELUActivation, written out in torch's ops: 0.5 * x * (1 + tanh(sqrt(2/pi) *
     * (x + 0.044715 * x**3))).  x**3 rounds (in bf16 x*x does, too), 0.044715 * rounds, x + rounds,
     * sqrt(2/pi) * rounds, tanh rounds, 1 + rounds, 0.5 * x rounds, the product rounds. */
    MP_ACT_GELU_NEW,
} mp_act;
/* Names of diffusers' get_activation and transformers' ACT2FN ("silu", "swish", "relu", "relu6",
 * "gelu", "gelu_pytorch_tanh", "gelu_tanh", "gelu_new", "quick_gelu", "tanh", "sigmoid", "mish");
 * false for another. */
bool mp_act_parse(const char *name, mp_act *out);
/* Rounds once, but for MP_ACT_QUICK_GELU and MP_ACT_GELU_NEW. */
mp_tensor mp_activate(mp_ctx *c, mp_tensor x, mp_act act);
/* Reuses x's memory when x is an activation that nothing else will read: y = act(x), same bits. */
mp_tensor mp_activate_(mp_ctx *c, mp_tensor x, mp_act act);
mp_tensor mp_exp(mp_ctx *c, mp_tensor x);
mp_tensor mp_where(mp_ctx *c, const uint8_t *mask, mp_tensor a, mp_tensor b); /* mask [numel] */
mp_tensor mp_sum(mp_ctx *c, mp_tensor x); /* all elements -> rank 0; fp32 inside, rounds once */

/* x [.., 2D] = (a, g) -> a * act(g) [.., D].  act rounds, the product rounds. */
mp_tensor mp_glu(mp_ctx *c, mp_tensor x, mp_act act);
/* act(g) * u: act rounds, the product rounds.  (Gemma's MLP.) */
mp_tensor mp_gate(mp_ctx *c, mp_tensor g, mp_tensor u, mp_act act);
/* x * (1 + scale) + shift.  x [B, N, D], shift and scale [B, 1, D]: 1 + scale rounds, * rounds,
 * + rounds. */
mp_tensor mp_modulate(mp_ctx *c, mp_tensor x, mp_tensor shift, mp_tensor scale);
/* x + gate * y.  gate [B, 1, D]: the product rounds, the sum rounds. */
mp_tensor mp_add_gated(mp_ctx *c, mp_tensor x, mp_tensor gate, mp_tensor y);

/* y = x in another dtype; x itself when it has that dtype already. */
mp_tensor mp_cast(mp_ctx *c, mp_tensor x, mp_dtype d);

/* ---- shape and resampling (kernels/shape.c)
 * -------------------------------------------------------- */

/* rows of w [V, D] by id -> [n, D].  An id outside 0..V-1 is MP_ESHAPE. */
mp_tensor mp_embedding(mp_ctx *c, const int32_t *ids, int64_t n, mp_tensor w);
/* n tensors along `axis` (negative counts from the end); promotes as torch does. */
mp_tensor mp_cat(mp_ctx *c, int n, const mp_tensor *xs, int axis);
/* torch.narrow as a copy: entries [start, start + length) of axis. */
mp_tensor mp_narrow_axis(mp_ctx *c, mp_tensor x, int axis, int64_t start, int64_t length);
/* General permutation, torch.permute + contiguous. */
mp_tensor mp_permute(mp_ctx *c, mp_tensor x, const int *axes);
/* Zero padding at the bottom and right of [B, H, W, C] (F.pad(x, (0, w, 0, h))). */
mp_tensor mp_pad_hw(mp_ctx *c, mp_tensor x, int64_t h, int64_t w);
/* [B, H, W, C*r*r] <-> [B, H*r, W*r, C] with torch's channel order (c*r*r + i*r + j). */
mp_tensor mp_pixel_shuffle(mp_ctx *c, mp_tensor x, int r);
mp_tensor mp_pixel_unshuffle(mp_ctx *c, mp_tensor x, int r);
/* Each channel n times in a row: [.., C] -> [.., C*n] (repeat_interleave on the channel axis). */
mp_tensor mp_repeat_channels(mp_ctx *c, mp_tensor x, int n);
/* Mean over groups of `group` neighbouring channels: [.., C] -> [.., C/group]; fp32 sum, / group,
 * rounds once (unflatten + mean). */
mp_tensor mp_mean_channels(mp_ctx *c, mp_tensor x, int group);
/* torch.nn.functional.interpolate, scale factor 2, mode nearest: [B, H, W, C] -> [B, 2H, 2W, C]. */
mp_tensor mp_upsample_nearest2(mp_ctx *c, mp_tensor x);
/* mode bilinear, align_corners=False, no antialias, to h x w; fp32 inside, rounds once. */
mp_tensor mp_resize_bilinear(mp_ctx *c, mp_tensor x, int64_t h, int64_t w);

/* ---- reading results back (kernels/measure.c)
 * -------------------------------------------------------- */

typedef struct mp_range {
    int64_t nan, inf;
    float max_abs; /* over the finite values */
} mp_range;
mp_range mp_measure(mp_ctx *c, mp_tensor x);

#endif
