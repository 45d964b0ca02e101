/* Runs ops on the shapes of real models, one run for each line that it is sent, so that ci/bench
 * can take turns with PyTorch on the same case (ci/bench_torch.py speaks the same):
 *
 *     bench_ops THREADS [OP]
 *
 * prints one JSON line for each op (or for that one), shape and dtype: {"op", "dtype", "shape",
 * "bytes", "flops"}, as an observer hears of them: bytes of operands and result, multiplications
 * and additions of products.  "copy" shows how fast the memory moves bytes.  "linear grid" is run
 * only where it is named: rows of tokens by the widths of real models.  Then a line "run" on stdin
 * runs it and has the seconds printed; "next" goes on.  dtype "fp8" is a weight stored as fp8_e4m3
 * in a module that computes in bf16. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/core/memory.h"
#include "kernels/device.h"
#include "kernels/ops.h"

enum { MAX_OPERANDS = 4 };

typedef struct bench bench;

struct bench {
    const char *op, *shape;
    mp_tensor (*run)(mp_ctx *c, const bench *b, const mp_tensor *t);
    struct {
        int rank;
        int64_t dim[5];
        bool weight;
    } operand[MAX_OPERANDS];
    int heads, groups, padding;
    bool causal;
    mp_act act;
};

static mp_tensor linear(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    (void)b;
    return mp_linear(c, t[0], t[1], t[2]);
}

static mp_tensor conv(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    return mp_conv2d(c, t[0], t[1], t[2],
                     (mp_conv2d_opts){.padding = b->padding, .groups = b->groups});
}

static mp_tensor conv3d(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    return mp_conv3d(c, t[0], t[1], t[2],
                     (mp_conv3d_opts){.time_padding = 1, .padding = b->padding});
}

static mp_tensor attention(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    return mp_attn_softmax(c, t[0], t[1], t[2],
                           (mp_attn_opts){.heads = b->heads, .causal = b->causal, .mask = t[3]});
}

static mp_tensor linear_attention(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    return mp_attn_linear(c, t[0], t[1], t[2], b->heads, 1e-15f);
}

static mp_tensor activation(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    return mp_activate(c, t[0], b->act);
}

static mp_tensor layer_norm(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    (void)b;
    return mp_layer_norm(c, t[0], t[1], t[2], 1e-6f);
}

static mp_tensor rms_norm(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    (void)b;
    return mp_rms_norm(c, t[0], t[1], MP_NONE, 1e-6f, MP_RMS_TORCH);
}

static mp_tensor group_norm(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    return mp_group_norm(c, t[0], b->groups, t[1], t[2], 1e-6f);
}

static mp_tensor modulate(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    (void)b;
    return mp_modulate(c, t[0], t[1], t[2]);
}

static mp_tensor add_gated(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    (void)b;
    return mp_add_gated(c, t[0], t[1], t[2]);
}

static mp_tensor glu(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    return mp_glu(c, t[0], b->act);
}

static mp_tensor add(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    (void)b;
    return mp_add(c, t[0], t[1]);
}

static mp_tensor rope(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    return mp_rope_half(c, t[0], t[1], t[2], b->heads);
}

static mp_tensor bilinear(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    (void)b;
    return mp_resize_bilinear(c, t[0], 2 * t[0].dim[1], 2 * t[0].dim[2]);
}

/* To fp32 and, of fp32, to bf16. */
static mp_tensor cast(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    (void)b;
    return mp_cast(c, t[0], t[0].dtype == MP_F32 ? MP_BF16 : MP_F32);
}

static mp_tensor swap_axes(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    (void)b;
    return mp_permute(c, t[0], (const int[]){0, 2, 1, 3});
}

static mp_tensor copy(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    (void)b;
    return mp_permute(c, t[0], (const int[]){0, 1, 2});
}

/* An input and a parameter of this shape. */
#define X(...)                                                                             \
    {                                                                                      \
        .rank = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), .dim = { __VA_ARGS__ } \
    }
#define W(...)                                                                            \
    {                                                                                     \
        .rank = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), .dim = {__VA_ARGS__}, \
        .weight = true                                                                    \
    }

static const bench benches[] = {
    {.op = "linear",
     .shape = "1024x2240x2240",
     .run = linear,
     .operand = {X(1024, 2240), W(2240, 2240), W(2240)}},
    {.op = "linear",
     .shape = "2x2240x13440",
     .run = linear,
     .operand = {X(2, 2240), W(13440, 2240), W(13440)}},
    {.op = "linear",
     .shape = "300x2304x2240",
     .run = linear,
     .operand = {X(300, 2304), W(2240, 2304), W(2240)}},
    {.op = "conv3x3",
     .shape = "64x64x128 to 128",
     .run = conv,
     .operand = {X(1, 64, 64, 128), W(128, 128, 3, 3), W(128)},
     .padding = 1},
    {.op = "conv3x3",
     .shape = "256x256x128 to 128",
     .run = conv,
     .operand = {X(1, 256, 256, 128), W(128, 128, 3, 3), W(128)},
     .padding = 1},
    {.op = "conv3x3",
     .shape = "128x128x256 to 256",
     .run = conv,
     .operand = {X(1, 128, 128, 256), W(256, 256, 3, 3), W(256)},
     .padding = 1},
    {.op = "conv3x3",
     .shape = "64x64x512 to 512",
     .run = conv,
     .operand = {X(1, 64, 64, 512), W(512, 512, 3, 3), W(512)},
     .padding = 1},
    {.op = "conv3x3",
     .shape = "128x128x3 to 128",
     .run = conv,
     .operand = {X(1, 128, 128, 3), W(128, 3, 3, 3), W(128)},
     .padding = 1},
    {.op = "conv1x1",
     .shape = "64x64x256 to 512",
     .run = conv,
     .operand = {X(1, 64, 64, 256), W(512, 256, 1, 1), W(512)}},
    {.op = "conv1x1 grouped",
     .shape = "32x32x1536, 48 groups",
     .run = conv,
     .operand = {X(1, 32, 32, 1536), W(1536, 32, 1, 1)},
     .groups = 48},
    {.op = "depthwise3x3",
     .shape = "64x64x2240",
     .run = conv,
     .operand = {X(1, 64, 64, 2240), W(2240, 1, 3, 3), W(2240)},
     .padding = 1,
     .groups = 2240},
    {.op = "conv3d 3x3x3",
     .shape = "3x32x64x96 to 96",
     .run = conv3d,
     .operand = {X(1, 3, 32, 64, 96), W(96, 96, 3, 3, 3), W(96)},
     .padding = 1},
    {.op = "conv3d 3x1x1",
     .shape = "5x32x64x192 to 192",
     .run = conv3d,
     .operand = {X(1, 5, 32, 64, 192), W(192, 192, 3, 1, 1), W(192)}},
    {.op = "attention",
     .shape = "24x64, 1024 x 1024",
     .run = attention,
     .operand = {X(1, 1024, 1536), X(1, 1024, 1536), X(1, 1024, 1536)},
     .heads = 24},
    {.op = "attention masked",
     .shape = "20x112, 1024 x 300",
     .run = attention,
     .operand = {X(1, 1024, 2240), X(1, 300, 2240), X(1, 300, 2240), X(1, 300)},
     .heads = 20},
    {.op = "attention",
     .shape = "24x64, 4096 x 4096",
     .run = attention,
     .operand = {X(1, 4096, 1536), X(1, 4096, 1536), X(1, 4096, 1536)},
     .heads = 24},
    {.op = "attention causal",
     .shape = "24x64, 1024 x 1024",
     .run = attention,
     .operand = {X(1, 1024, 1536), X(1, 1024, 1536), X(1, 1024, 1536)},
     .heads = 24,
     .causal = true},
    {.op = "linear attention",
     .shape = "70x32, 1024",
     .run = linear_attention,
     .operand = {X(1, 1024, 2240), X(1, 1024, 2240), X(1, 1024, 2240)},
     .heads = 70},
    {.op = "copy", .shape = "1024x2240", .run = copy, .operand = {X(1, 1024, 2240)}},
    {.op = "copy", .shape = "128x128x512", .run = copy, .operand = {X(1, 16384, 512)}},
    {.op = "layer norm",
     .shape = "1024x2240",
     .run = layer_norm,
     .operand = {X(1, 1024, 2240), W(2240), W(2240)}},
    {.op = "rms norm",
     .shape = "1024x2240",
     .run = rms_norm,
     .operand = {X(1, 1024, 2240), W(2240)}},
    {.op = "group norm",
     .shape = "128x128x512, 32 groups",
     .run = group_norm,
     .operand = {X(1, 128, 128, 512), W(512), W(512)},
     .groups = 32},
    {.op = "silu",
     .shape = "1024x2240",
     .run = activation,
     .operand = {X(1, 1024, 2240)},
     .act = MP_ACT_SILU},
    {.op = "gelu",
     .shape = "1024x2240",
     .run = activation,
     .operand = {X(1, 1024, 2240)},
     .act = MP_ACT_GELU},
    {.op = "gelu tanh",
     .shape = "1024x2240",
     .run = activation,
     .operand = {X(1, 1024, 2240)},
     .act = MP_ACT_GELU_TANH},
    {.op = "relu6",
     .shape = "1024x2240",
     .run = activation,
     .operand = {X(1, 1024, 2240)},
     .act = MP_ACT_RELU6},
    {.op = "glu",
     .shape = "1024x11200",
     .run = glu,
     .operand = {X(1, 1024, 11200)},
     .act = MP_ACT_SILU},
    {.op = "add",
     .shape = "1024x2240",
     .run = add,
     .operand = {X(1, 1024, 2240), X(1, 1024, 2240)}},
    {.op = "modulate",
     .shape = "1024x2240",
     .run = modulate,
     .operand = {X(1, 1024, 2240), X(1, 1, 2240), X(1, 1, 2240)}},
    {.op = "add gated",
     .shape = "1024x2240",
     .run = add_gated,
     .operand = {X(1, 1024, 2240), X(1, 1, 2240), X(1, 1024, 2240)}},
    {.op = "rope",
     .shape = "8x256, 300",
     .run = rope,
     .operand = {X(1, 300, 2048), X(300, 256), X(300, 256)},
     .heads = 8},
    {.op = "bilinear x2", .shape = "64x64x128", .run = bilinear, .operand = {X(1, 64, 64, 128)}},
    {.op = "cast", .shape = "1024x2240", .run = cast, .operand = {X(1, 1024, 2240)}},
    {.op = "permute", .shape = "1024x2240 turned", .run = swap_axes, .operand = {X(1, 1024, 2240)}},
    {.op = "permute",
     .shape = "1024x20x112 to heads",
     .run = swap_axes,
     .operand = {X(1, 1024, 20, 112)}},
};

/* How parameters are stored and what the module computes in. */
static const struct mode {
    const char *name;
    mp_dtype store, dtype;
} modes[] = {
    {"fp32", MP_F32, MP_F32},
    {"fp16", MP_F16, MP_F16},
    {"bf16", MP_BF16, MP_BF16},
    {"fp8", MP_F8_E4M3, MP_BF16},
};

static void die(const char *text)
{
    fprintf(stderr, "bench_ops: %s\n", text);
    exit(1);
}

/* Numbers between -1 and 1, none of them denormal in any dtype. */
static mp_tensor operand(mp_ctx *c, mp_dtype store, mp_dtype dtype, int rank, const int64_t *dims)
{
    mp_tensor t = mp_new(c, store, rank, dims);
    float *values = mp_alloc((size_t)mp_numel(t), sizeof *values);

    if (mp_failed(c) || !values)
        die("no memory");
    for (int64_t i = 0; i < mp_numel(t); i++) {
        const uint32_t h = (uint32_t)i * 2654435761u;
        values[i] = ((float)(h >> 16) - 32767.5f) / 32768.0f;
    }
    mp_narrow(store, MP_E4M3_SATURATE, values, t.data, mp_numel(t));
    mp_free(values);
    t.dtype = dtype;
    return t;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Seconds of one run. */
static double seconds_of(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    const mp_mark mark = mp_open(c);
    const double before = now();
    b->run(c, b, t);
    const double took = now() - before;

    if (mp_failed(c))
        die(mp_ctx_error(c)->text);
    mp_drop(c, mark);
    return took;
}

typedef struct work {
    uint64_t bytes, flops;
} work;

static void hear(void *user, const mp_op_event *e)
{
    work *w = user;

    w->bytes += e->bytes;
    w->flops += e->flops;
}

static void serve(mp_ctx *c, const bench *b, const struct mode *m)
{
    const mp_mark mark = mp_open(c);
    mp_tensor t[MAX_OPERANDS];
    work w = {0};
    const mp_observer ear = {.output = hear, .user = &w};
    char line[16];

    for (int i = 0; i < MAX_OPERANDS; i++) {
        const mp_dtype store = b->operand[i].weight ? m->store : m->dtype;
        t[i] = b->operand[i].rank
                   ? operand(c, store, m->dtype, b->operand[i].rank, b->operand[i].dim)
                   : MP_NONE;
    }
    mp_observe(c, ear);
    seconds_of(c, b, t); /* scratch is there, and the weights are read, from now on */
    mp_unobserve(c, ear);
    printf("{\"op\": \"%s\", \"dtype\": \"%s\", \"shape\": \"%s\", \"bytes\": %" PRIu64
           ", \"flops\": %" PRIu64 "}\n",
           b->op, m->name, b->shape, w.bytes, w.flops);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) && !strcmp(line, "run\n")) {
        printf("%.9f\n", seconds_of(c, b, t));
        fflush(stdout);
    }
    mp_drop(c, mark);
}

static void serve_all(mp_ctx *c, const bench *b)
{
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++)
        if (modes[m].store == modes[m].dtype || b->run == linear)
            serve(c, b, &modes[m]);
}

static void serve_grid(mp_ctx *c)
{
    static const int64_t rows[] = {1, 77, 1024, 4096}, widths[] = {1152, 1536, 2240, 5600, 8960};
    enum { ROWS = sizeof rows / sizeof *rows, WIDTHS = sizeof widths / sizeof *widths };

    for (int i = 0; i < ROWS * WIDTHS * WIDTHS; i++) {
        const int64_t m = rows[i / (WIDTHS * WIDTHS)], k = widths[i / WIDTHS % WIDTHS];
        const int64_t n = widths[i % WIDTHS];
        char shape[64];
        snprintf(shape, sizeof shape, "%" PRId64 "x%" PRId64 "x%" PRId64, m, k, n);
        serve_all(c, &(bench){.op = "linear grid",
                              .shape = shape,
                              .run = linear,
                              .operand = {X(m, k), W(n, k), W(n)}});
    }
}

int main(int argc, char **argv)
{
    const mp_device_options o = {.threads = argc > 1 ? atoi(argv[1]) : 0,
                                 .isa = getenv("MPBENCH_ISA")};
    mp_error err = {0};
    mp_ctx *c;

    if (mp_device_open(&o, &c, &err))
        die(err.text);
    if (argc > 2 && !strcmp(argv[2], "linear grid"))
        serve_grid(c);
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++)
        if (argc < 3 || !strcmp(argv[2], benches[i].op))
            serve_all(c, &benches[i]);
    mp_device_close(c);
}
