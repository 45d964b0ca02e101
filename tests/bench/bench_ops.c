/* Times the products on the shapes of real models:
 *
 *     bench_ops THREADS [OP]
 *
 * prints one JSON line for each op (or for that one), shape and dtype: {"op", "dtype", "shape",
 * "seconds"}, seconds being the smallest of several runs.  ci/bench_torch.py prints the same lines
 * for PyTorch.  dtype "fp8" is a weight stored as fp8_e4m3 in a module that computes in bf16. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/core/memory.h"
#include "kernels/device.h"
#include "kernels/ops.h"

enum { MAX_OPERANDS = 4, MIN_RUNS = 3, MAX_RUNS = 50 };
static const double budget = 0.6; /* seconds for one line, unless three runs take longer */

typedef struct bench bench;

struct bench {
    const char *op, *shape;
    mp_tensor (*run)(mp_ctx *c, const bench *b, const mp_tensor *t);
    struct {
        int rank;
        int64_t dim[4];
        bool weight;
    } operand[MAX_OPERANDS];
    int heads, groups, padding;
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

static mp_tensor attention(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    return mp_attn_softmax(c, t[0], t[1], t[2], (mp_attn_opts){.heads = b->heads, .mask = t[3]});
}

static mp_tensor linear_attention(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    return mp_attn_linear(c, t[0], t[1], t[2], b->heads, 1e-15f);
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
    {.op = "linear attention",
     .shape = "70x32, 1024",
     .run = linear_attention,
     .operand = {X(1, 1024, 2240), X(1, 1024, 2240), X(1, 1024, 2240)},
     .heads = 70},
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

static double seconds_of(mp_ctx *c, const bench *b, const mp_tensor *t)
{
    double best = 1e30;
    const double start = now();

    for (int i = 0; i < MAX_RUNS && (i < MIN_RUNS || now() - start < budget); i++) {
        const mp_mark mark = mp_open(c);
        const double before = now();
        b->run(c, b, t);
        const double took = now() - before;
        best = took < best ? took : best;
        mp_drop(c, mark);
    }
    if (mp_failed(c))
        die(mp_ctx_error(c)->text);
    return best;
}

static void measure(mp_ctx *c, const bench *b, const struct mode *m)
{
    const mp_mark mark = mp_open(c);
    mp_tensor t[MAX_OPERANDS];

    for (int i = 0; i < MAX_OPERANDS; i++) {
        const mp_dtype store = b->operand[i].weight ? m->store : m->dtype;
        t[i] = b->operand[i].rank
                   ? operand(c, store, m->dtype, b->operand[i].rank, b->operand[i].dim)
                   : MP_NONE;
    }
    printf("{\"op\": \"%s\", \"dtype\": \"%s\", \"shape\": \"%s\", \"seconds\": %.6g}\n", b->op,
           m->name, b->shape, seconds_of(c, b, t));
    fflush(stdout);
    mp_drop(c, mark);
}

int main(int argc, char **argv)
{
    const mp_device_options o = {.threads = argc > 1 ? atoi(argv[1]) : 0,
                                 .isa = getenv("MPBENCH_ISA")};
    mp_error err = {0};
    mp_ctx *c;

    if (mp_device_open(&o, &c, &err))
        die(err.text);
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++)
        for (size_t m = 0; m < sizeof modes / sizeof *modes; m++)
            if ((modes[m].store == modes[m].dtype || benches[i].run == linear) &&
                (argc < 3 || !strcmp(argv[2], benches[i].op)))
                measure(c, &benches[i], &modes[m]);
    mp_device_close(c);
}
