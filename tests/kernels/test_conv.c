/* Convolutions against float64 (make_kernels_product.py), and exactly on integers, on every
 * instruction set. */
#include <sys/resource.h>

#include "tests/kernels/product.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

typedef struct conv_case {
    int64_t b, h, w, c, o, kh, kw;
    int stride, padding, groups;
    bool bias;
} conv_case;

/* CONV of the script. */
static const conv_case convs[] = {
    {2, 3, 5, 7, 5, 1, 1, 1, 0, 1, true},    {1, 5, 4, 9, 3, 1, 1, 2, 0, 1, false},
    {1, 2, 3, 4, 3, 1, 1, 1, 1, 1, true},    {1, 1, 2, 8, 5, 1, 1, 1, 0, 1, true},
    {2, 5, 7, 6, 4, 3, 3, 1, 1, 1, true},    {1, 6, 5, 3, 5, 3, 3, 2, 1, 1, false},
    {1, 4, 3, 5, 4, 3, 3, 1, 0, 1, true},    {1, 3, 3, 70, 3, 3, 3, 1, 1, 1, true},
    {1, 6, 7, 5, 4, 2, 2, 2, 0, 1, true},    {1, 3, 4, 3, 2, 2, 2, 1, 1, 1, false},
    {1, 5, 6, 3, 4, 5, 5, 1, 2, 1, true},    {1, 7, 5, 2, 3, 5, 5, 2, 2, 1, false},
    {1, 4, 5, 3, 2, 3, 1, 1, 1, 1, true},    {1, 1, 1, 3, 2, 3, 3, 1, 2, 1, true},
    {1, 4, 5, 37, 37, 3, 3, 1, 1, 37, true}, {2, 5, 3, 5, 5, 3, 3, 1, 1, 5, false},
    {1, 6, 5, 33, 33, 3, 3, 2, 1, 33, true}, {1, 4, 3, 32, 32, 5, 5, 1, 2, 32, true},
    {1, 3, 5, 6, 6, 2, 2, 1, 0, 6, true},    {1, 9, 4, 2, 2, 9, 9, 1, 4, 2, true},
    {1, 3, 4, 12, 8, 3, 3, 1, 1, 4, true},   {2, 2, 3, 12, 6, 1, 1, 1, 0, 3, false},
    {1, 3, 3, 4, 8, 3, 3, 1, 1, 4, true},
};

typedef struct video_case {
    conv_case plane;
    int64_t t, kt;
    int time_stride, time_padding;
    int64_t zeros; /* frames put before */
} video_case;

/* VIDEO of the script. */
static const video_case videos[] = {
    {{1, 4, 5, 5, 4, 3, 3, 1, 1, 1, true}, 3, 3, 1, 1, 0},
    {{1, 3, 4, 6, 5, 3, 3, 1, 1, 1, true}, 3, 3, 1, 0, 2},
    {{1, 3, 4, 5, 6, 1, 1, 1, 0, 1, true}, 5, 3, 2, 0, 0},
    {{2, 3, 3, 5, 4, 1, 1, 1, 0, 1, false}, 2, 1, 1, 0, 0},
    {{2, 5, 7, 3, 2, 3, 3, 1, 1, 1, false}, 3, 3, 1, 1, 0},
    {{1, 3, 4, 6, 4, 3, 3, 1, 1, 2, true}, 3, 3, 1, 1, 0},
    {{1, 4, 3, 5, 3, 3, 3, 1, 1, 1, true}, 1, 3, 1, 1, 0},
    {{1, 4, 6, 3, 8, 2, 2, 2, 0, 1, true}, 3, 1, 1, 0, 0},
    {{1, 3, 4, 5, 5, 3, 3, 1, 1, 5, true}, 2, 1, 1, 0, 0},
    {{1, 3, 3, 4, 4, 3, 3, 1, 1, 4, false}, 3, 3, 1, 1, 0},
    {{1, 3, 16, 32, 2, 3, 3, 1, 1, 1, true}, 3, 3, 1, 1, 0},
    {{1, 4, 8, 33, 2, 1, 1, 1, 0, 1, true}, 4, 3, 1, 1, 0},
    {{1, 2, 3, 4, 3, 1, 1, 1, 1, 1, true}, 2, 2, 3, 3, 0},
};

/* A picture has no frames. */
static bool is_video(const video_case *v)
{
    return v->kt > 0;
}

static video_case picture_of(const conv_case *v)
{
    return (video_case){.plane = *v};
}

/* The dimensions of x and w, and their rank. */
static int x_dims(const video_case *v, int64_t *dims)
{
    const conv_case *p = &v->plane;
    const int64_t video[] = {p->b, v->t, p->h, p->w, p->c}, picture[] = {p->b, p->h, p->w, p->c};

    memcpy(dims, is_video(v) ? video : picture, is_video(v) ? sizeof video : sizeof picture);
    return is_video(v) ? 5 : 4;
}

static int w_dims(const video_case *v, int64_t *dims)
{
    const conv_case *p = &v->plane;
    const int64_t per_group = p->c / p->groups;
    const int64_t video[] = {p->o, per_group, v->kt, p->kh, p->kw};
    const int64_t picture[] = {p->o, per_group, p->kh, p->kw};

    memcpy(dims, is_video(v) ? video : picture, is_video(v) ? sizeof video : sizeof picture);
    return is_video(v) ? 5 : 4;
}

static mp_tensor run(mp_ctx *c, const video_case *v, mp_tensor x, mp_tensor w, mp_tensor b)
{
    const conv_case *p = &v->plane;

    if (!is_video(v))
        return mp_conv2d(c, x, w, b, (mp_conv2d_opts){p->stride, p->padding, p->groups});
    return mp_conv3d(
        c, x, w, b,
        (mp_conv3d_opts){v->time_stride, p->stride, v->time_padding, p->padding, p->groups});
}

static mp_tensor zeros(mp_ctx *c, product_mode mode, int rank, const int64_t *dims)
{
    mp_tensor t = mp_new(c, mode.store, rank, dims);

    mp_test_ok(c);
    t.dtype = mode.dtype;
    memset(t.data, 0, mp_nbytes(t));
    return t;
}

/* Causal: frames of zeros before x's own. */
static mp_tensor after_zeros(mp_ctx *c, const video_case *v, mp_tensor x)
{
    const conv_case *p = &v->plane;

    if (!v->zeros)
        return x;
    const mp_tensor before =
        zeros(c, product_as(x.dtype), 5, MP_DIMS(p->b, v->zeros, p->h, p->w, p->c));
    return mp_cat(c, 2, (const mp_tensor[]){before, x}, 1);
}

/* Where the script takes operands from, and what it calls the result. */
typedef struct golden_case {
    int64_t x, w, b;
    const char *name;
} golden_case;

static void check_conv(mp_ctx *c, const mp_safetensors *g, const video_case *v, golden_case at,
                       product_mode mode)
{
    const conv_case *p = &v->plane;
    const mp_mark mark = mp_open(c);
    int64_t dims[5];
    const int rank = x_dims(v, dims);
    const mp_tensor x = product_take(c, g, at.x, product_as(mode.dtype), rank, dims);
    w_dims(v, dims);
    const mp_tensor w = product_take(c, g, at.w, mode, rank, dims);
    const mp_tensor b = p->bias ? product_take(c, g, at.b, mode, 1, MP_DIMS(p->o)) : MP_NONE;
    const mp_tensor norm = mp_test_golden(g, "norm.%s.%s", at.name, mode.name);
    const mp_tensor golden = mp_test_golden(g, "%s.%s", at.name, mode.name);
    const mp_tensor y = run(c, v, after_zeros(c, v, x), w, b);

    mp_test_ok(c);
    mp_test_close(y, golden, product_bound(golden, *(const float *)norm.data, mp_numel(w) / p->o));
    mp_drop(c, mark);
}

static void test_conv__every_geometry_and_storage_is_float64s_rounded(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/product_conv.safetensors");
    char name[24];

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        for (int i = 0; i < COUNT(convs); i++)
            for (int m = 0; m < PRODUCT_CONV; m++) {
                const video_case v = picture_of(&convs[i]);
                snprintf(name, sizeof name, "conv.%d", i);
                check_conv(c, g, &v, (golden_case){17 * i, 900 + i, 77 + i, name},
                           product_modes[m]);
            }
        for (int i = 0; i < COUNT(videos); i++)
            for (int m = 0; m < PRODUCT_PLAIN; m++) {
                snprintf(name, sizeof name, "video.%d", i);
                check_conv(c, g, &videos[i], (golden_case){19 * i, 1300 + i, 79 + i, name},
                           product_modes[m]);
            }
        mp_device_close(c);
    }
    mp_safetensors_close(g);
}

/* Sizes about the tiles: more than 256 pixels and outputs, patches of more than 512, a depthwise
 * picture of several bands and slices, groups of several tiles. */
static const conv_case tilings[] = {
    {2, 17, 19, 61, 7, 3, 3, 1, 1, 1, true},
    {1, 18, 33, 3, 261, 3, 3, 2, 1, 1, false},
    {1, 9, 31, 5, 259, 1, 1, 1, 0, 1, true},
    {1, 33, 17, 67, 67, 3, 3, 1, 1, 67, true},
    {2, 35, 20, 34, 34, 3, 3, 2, 1, 34, false},
    {1, 17, 600, 33, 33, 5, 5, 1, 2, 33, true},
    {1, 17, 18, 12, 9, 3, 3, 1, 1, 3, true},
    {3, 7, 41, 8, 6, 2, 2, 1, 1, 2, false},
    {1, 3, 2100, 2, 2, 3, 3, 1, 1, 2, true},
    /* By rows of the picture: half a strip at the end, two slabs and two chunks of channels, a
     * batch and channels that fill no pairs, no padding. */
    {1, 9, 40, 64, 50, 3, 3, 1, 1, 1, true},
    {1, 52, 32, 320, 5, 3, 3, 1, 1, 1, false},
    {2, 6, 64, 37, 13, 5, 5, 1, 2, 1, true},
    {1, 4, 34, 32, 270, 3, 3, 1, 0, 1, true},
    /* Every other pixel, rows of more than one task, pixels that lie apart, more weights than are
     * packed at a time. */
    {1, 18, 70, 48, 40, 3, 3, 2, 1, 1, true},
    {1, 5, 530, 32, 35, 3, 3, 1, 1, 1, true},
    {1, 2, 16, 512, 33, 3, 3, 1, 1, 1, false},
    {1, 1, 1, 512, 929, 3, 3, 1, 1, 1, true},
};

/* The same in time. */
static const video_case long_tilings[] = {
    /* By bands: two of them, which new frames enter as old ones leave; fewer frames than taps, and
     * one; strides, of which the second passes frames over; padding at the borders alone. */
    {{1, 18, 32, 320, 2, 3, 3, 1, 1, 1, true}, 4, 3, 1, 1, 0},
    {{2, 6, 34, 37, 13, 3, 3, 1, 1, 1, true}, 2, 3, 1, 1, 0},
    {{1, 5, 30, 40, 300, 3, 3, 1, 1, 1, false}, 1, 3, 1, 1, 0},
    {{1, 5, 33, 32, 6, 3, 3, 1, 0, 1, true}, 8, 3, 2, 1, 0},
    {{2, 4, 31, 34, 5, 3, 3, 1, 1, 1, true}, 8, 2, 3, 0, 0},
    {{1, 3, 60, 33, 7, 1, 3, 1, 1, 1, true}, 5, 4, 1, 3, 0},
    {{1, 3, 32, 64, 5, 3, 3, 1, 1, 1, true}, 3, 1, 2, 0, 0},
    /* Taps in time alone: rows of 480, of their own width, and none that fills a strip. */
    {{1, 12, 40, 40, 50, 1, 1, 1, 0, 1, true}, 5, 3, 2, 0, 0},
    {{2, 7, 29, 48, 6, 1, 1, 1, 0, 1, true}, 3, 3, 1, 1, 0},
    {{2, 5, 3, 40, 9, 1, 1, 1, 0, 1, false}, 4, 3, 1, 1, 0},
    /* By patches: frames of padding alone, few channels, a stride, groups, and pixels as they
     * lie. */
    {{1, 3, 32, 40, 5, 1, 1, 1, 0, 1, true}, 2, 1, 1, 2, 0},
    {{1, 9, 33, 3, 35, 3, 3, 1, 1, 1, true}, 4, 3, 1, 1, 0},
    {{2, 9, 14, 16, 31, 2, 2, 2, 0, 1, true}, 3, 1, 1, 0, 0},
    {{1, 8, 9, 12, 9, 3, 3, 1, 1, 3, true}, 3, 3, 1, 1, 0},
    {{1, 6, 7, 15, 6, 2, 1, 1, 0, 3, false}, 4, 2, 2, 1, 0},
    {{2, 6, 50, 37, 70, 1, 1, 1, 0, 1, true}, 3, 1, 1, 0, 0},
    {{2, 5, 9, 32, 64, 1, 1, 1, 0, 2, true}, 3, 1, 1, 0, 0},
    /* Depthwise, in space and in time. */
    {{2, 17, 20, 67, 67, 3, 3, 2, 1, 67, true}, 3, 1, 1, 0, 0},
    {{1, 5, 6, 33, 33, 3, 3, 1, 1, 33, true}, 3, 3, 1, 1, 0},
    {{1, 5, 6, 33, 33, 3, 3, 1, 1, 33, true}, 5, 1, 2, 1, 0},
};

/* A case of both tables. */
static video_case tiling(int i)
{
    return i < COUNT(tilings) ? picture_of(&tilings[i]) : long_tilings[i - COUNT(tilings)];
}

enum { TILINGS = COUNT(tilings) + COUNT(long_tilings) };

/* Output (n, t, y, x, o), with zeros beyond the borders. */
static float exact_conv(const video_case *v, mp_tensor x, mp_tensor w, mp_tensor b, mp_tensor y,
                        int64_t at)
{
    const conv_case *p = &v->plane;
    const int64_t t = is_video(v) ? v->t : 1, kt = is_video(v) ? v->kt : 1;
    const int64_t out_t = is_video(v) ? y.dim[1] : 1, out_h = mp_dim(y, -3), out_w = mp_dim(y, -2);
    const int64_t o = at % p->o, ox = at / p->o % out_w, oy = at / p->o / out_w % out_h;
    const int64_t frame = at / p->o / out_w / out_h, per_group = p->c / p->groups;
    const int64_t first = o / (p->o / p->groups) * per_group;
    double sum = mp_given(b) ? (double)product_at(b, o) : 0;

    for (int64_t i = 0; i < kt * p->kh * p->kw; i++) {
        const int64_t pt = frame % out_t * v->time_stride + i / p->kw / p->kh - v->time_padding;
        const int64_t py = oy * p->stride + i / p->kw % p->kh - p->padding;
        const int64_t px = ox * p->stride + i % p->kw - p->padding;
        if (pt < 0 || pt >= t || py < 0 || py >= p->h || px < 0 || px >= p->w)
            continue;
        const int64_t pixel = ((frame / out_t * t + pt) * p->h + py) * p->w + px;
        for (int64_t k = 0; k < per_group; k++)
            sum += (double)product_at(x, pixel * p->c + first + k) *
                   (double)product_at(w, (o * per_group + k) * kt * p->kh * p->kw + i);
    }
    return mp_round_to(y.dtype, (float)sum);
}

static void check_tiling(mp_ctx *c, const video_case *v, product_mode mode)
{
    const conv_case *p = &v->plane;
    const mp_mark mark = mp_open(c);
    int64_t dims[5];
    const int rank = x_dims(v, dims);
    const mp_tensor x = product_integers(c, product_as(mode.dtype), 1, rank, dims);
    w_dims(v, dims);
    const mp_tensor w = product_integers(c, mode, 2, rank, dims);
    const mp_tensor b = p->bias ? product_integers(c, mode, 3, 1, MP_DIMS(p->o)) : MP_NONE;
    const mp_tensor y = run(c, v, x, w, b);

    mp_test_ok(c);
    /* A prime step meets all channels and all columns. */
    for (int64_t i = 0; i < mp_numel(y); i += 23) {
        const float expected = exact_conv(v, x, w, b, y, i);
        if (product_at(y, i) != expected)
            fail_msg("%s: %lld channels to %lld, %lld taps in time, stride %d: element %lld is %g, "
                     "not %g",
                     mode.name, (long long)p->c, (long long)p->o, (long long)v->kt, p->stride,
                     (long long)i, (double)product_at(y, i), (double)expected);
    }
    mp_drop(c, mark);
}

static void test_conv__every_tiling_is_exact_on_integers(void **state)
{
    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 3);
        for (int i = 0; i < TILINGS; i++)
            for (int m = 0; m < PRODUCT_CONV; m++) {
                const video_case v = tiling(i);
                check_tiling(c, &v, product_modes[m]);
            }
        mp_device_close(c);
    }
}

typedef struct agree_arg {
    const mp_safetensors *g;
    const video_case *v;
    product_mode mode;
} agree_arg;

static mp_tensor agree_run(mp_ctx *c, const void *arg)
{
    const agree_arg *a = arg;
    int64_t dims[5];
    const int rank = x_dims(a->v, dims);
    const mp_tensor x = product_take(c, a->g, 1, product_as(a->mode.dtype), rank, dims);

    w_dims(a->v, dims);
    const mp_tensor w = product_take(c, a->g, 2, a->mode, rank, dims);
    return run(c, a->v, x, w, product_take(c, a->g, 3, a->mode, 1, MP_DIMS(dims[0])));
}

static void test_conv__thread_counts_give_the_same_bits(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/product_conv.safetensors");

    (void)state;
    for (int i = 0; i < TILINGS; i++)
        for (int m = 0; m < PRODUCT_CONV; m++) {
            const video_case v = tiling(i);
            product_threads_agree(agree_run, &(agree_arg){g, &v, product_modes[m]});
        }
    mp_safetensors_close(g);
}

/* The depthwise kernel is no product of OpenBLAS: its bits are those of every instruction set. */
static mp_tensor depthwise_of(mp_ctx *c, mp_tensor x)
{
    const int64_t channels = mp_dim(x, -1);
    const mp_tensor flat = mp_reshape(x, 1, MP_DIMS(mp_numel(x))); /* w and b: the head of x */
    const mp_tensor w = mp_reshape(mp_batch(flat, 0, channels * 9), 4, MP_DIMS(channels, 1, 3, 3));

    return mp_conv2d(c, x, w, mp_batch(flat, 7, channels), (mp_conv2d_opts){1, 1, (int)channels});
}

static void test_conv__depthwise_gives_the_same_bits_on_every_instruction_set(void **state)
{
    static const mp_test_case cases[] = {{"depthwise", depthwise_of}};
    mp_safetensors *g = mp_test_goldens("kernels/product_conv.safetensors");
    mp_ctx *c = mp_test_ctx("base", 1);

    (void)state;
    for (int d = MP_F32; d <= MP_BF16; d++)
        mp_test_agree(cases, 1,
                      product_take(c, g, 0, product_as((mp_dtype)d), 4, MP_DIMS(1, 10, 10, 36)));
    mp_device_close(c);
    mp_safetensors_close(g);
}

/* A NaN reaches the pixels whose patch holds it, and no others; so does padding, which is 0 and not
 * what lies beside the picture. */
static void test_conv__nan_stays_within_its_patches(void **state)
{
    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 1);
        for (int groups = 1; groups <= 3; groups += 2) {
            const mp_tensor x = product_integers(c, product_modes[0], 8, 4, MP_DIMS(1, 5, 6, 3));
            const mp_tensor w =
                product_integers(c, product_modes[0], 9, 4, MP_DIMS(3, 3 / groups, 3, 3));
            ((float *)x.data)[(2 * 6 + 5) * 3 + 1] = NAN; /* row 2, last column, channel 1 */
            const mp_tensor y = mp_conv2d(c, x, w, MP_NONE, (mp_conv2d_opts){1, 1, groups});
            mp_test_ok(c);
            for (int64_t i = 0; i < mp_numel(y); i++) {
                const int64_t o = i % 3, column = i / 3 % 6, row = i / 18;
                const bool near = row >= 1 && row <= 3 && column >= 4 && (groups == 1 || o == 1);
                assert_true(isnan(((float *)y.data)[i]) == near);
            }
        }
        mp_device_close(c);
    }
}

/* In time, too: the frame that holds the NaN is read by those on both sides of it.  Both a band of
 * rows and patches. */
static void test_conv__nan_stays_within_its_patches_in_time(void **state)
{
    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 1);
        for (int64_t channels = 3; channels <= 32; channels += 29) {
            const mp_tensor x =
                product_integers(c, product_modes[0], 8, 5, MP_DIMS(1, 5, 3, 32, channels));
            const mp_tensor w =
                product_integers(c, product_modes[0], 9, 5, MP_DIMS(3, channels, 3, 3, 3));
            ((float *)x.data)[((1 * 3 + 2) * 32 + 31) * channels + 1] = NAN; /* frame 1, a corner */
            const mp_tensor y = mp_conv3d(c, x, w, MP_NONE, (mp_conv3d_opts){1, 1, 1, 1, 1});
            mp_test_ok(c);
            for (int64_t i = 0; i < mp_numel(y); i++) {
                const int64_t column = i / 3 % 32, row = i / 96 % 3, frame = i / 288;
                assert_true(isnan(((float *)y.data)[i]) ==
                            (frame <= 2 && row >= 1 && column >= 30));
            }
        }
        mp_device_close(c);
    }
}

/* Frames of zeros that a causal model puts before its own, and padding in time, are one thing; so
 * are frames with a kernel of one, and a batch of pictures. */
static void test_conv__frames_of_zeros_are_padding_and_frames_alone_are_pictures(void **state)
{
    const video_case causal = {{1, 5, 40, 36, 6, 3, 3, 1, 1, 1, true}, 4, 3, 1, 0, 2};

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        mp_tensor x = product_integers(c, product_modes[1], 1, 5, MP_DIMS(1, 4, 5, 40, 36));
        mp_tensor w = product_integers(c, product_modes[1], 2, 5, MP_DIMS(6, 36, 3, 3, 3));
        const mp_tensor y = run(c, &causal, after_zeros(c, &causal, x), w, MP_NONE);
        const mp_tensor padded = mp_conv3d(c, x, w, MP_NONE, (mp_conv3d_opts){1, 1, 2, 1, 1});
        mp_test_ok(c);
        assert_int_equal(padded.dim[1], 6);
        mp_test_same(y, mp_narrow_axis(c, padded, 1, 0, 4));

        w = mp_narrow_axis(c, w, 2, 0, 1);
        const mp_tensor video = mp_conv3d(c, x, w, MP_NONE, (mp_conv3d_opts){.padding = 1});
        x = mp_reshape(x, 4, MP_DIMS(4, 5, 40, 36));
        w = mp_reshape(w, 4, MP_DIMS(6, 36, 3, 3));
        const mp_tensor pictures = mp_conv2d(c, x, w, MP_NONE, (mp_conv2d_opts){.padding = 1});
        mp_test_ok(c);
        mp_test_same(mp_reshape(video, 4, MP_DIMS(4, 5, 40, 6)), pictures);
        mp_device_close(c);
    }
}

typedef struct extra_arg {
    mp_tensor x, w;
    mp_conv2d_opts o;
} extra_arg;

static mp_tensor extra_run(mp_ctx *c, const void *arg)
{
    const extra_arg *a = arg;

    if (a->x.rank == 4)
        return mp_conv2d(c, a->x, a->w, MP_NONE, a->o);
    return mp_conv3d(c, a->x, a->w, MP_NONE,
                     (mp_conv3d_opts){.padding = a->o.padding, .time_padding = a->o.padding});
}

/* Neither the picture (16 MiB widened) nor the patches (144 MiB) nor the weights (4.5 MiB) exist as
 * fp32: a slab of its rows does, 4 MiB, a worker's rows of weights and its sums, about (256 + 512)
 * x 256 words, and the weights in the order of patches, as they are stored. */
static void test_conv__no_operand_is_widened_as_a_whole(void **state)
{
    const product_mode modes[] = {product_modes[2], product_modes[4]};

    (void)state;
    for (int m = 0; m < COUNT(modes); m++) {
        mp_ctx *c = mp_test_ctx(NULL, 1);
        const mp_tensor x = zeros(c, product_as(modes[m].dtype), 4, MP_DIMS(1, 128, 128, 256));
        const mp_tensor w = zeros(c, modes[m], 4, MP_DIMS(512, 256, 3, 3));
        const extra_arg small = {
            zeros(c, product_as(modes[m].dtype), 4, MP_DIMS(1, 3, 3, 256)), w, {1, 1, 1}};
        assert_in_range(product_extra(c, extra_run, &small, &(extra_arg){x, w, {1, 1, 1}}), 1,
                        mp_nbytes(w) + (5 << 20) + (1 << 17));
        mp_device_close(c);
    }
}

/* The same of a video (50 MiB widened, its patches 1.3 GiB): a slab of 4 MiB holds a band of three
 * of its five frames. */
static void test_conv__no_video_is_widened_as_a_whole(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor x = zeros(c, product_modes[1], 5, MP_DIMS(1, 5, 120, 208, 96));
    const mp_tensor w = zeros(c, product_modes[1], 5, MP_DIMS(32, 96, 3, 3, 3));
    const extra_arg small = {zeros(c, product_modes[1], 5, MP_DIMS(1, 1, 1, 1, 96)), w, {1, 1, 1}};

    (void)state;
    assert_in_range(product_extra(c, extra_run, &small, &(extra_arg){x, w, {1, 1, 1}}), 1,
                    mp_nbytes(w) + (5 << 20) + (1 << 17));
    mp_device_close(c);
}

/* A band of a few rows of 32 channels, 256 KiB, and not the picture (16 MiB widened). */
static void test_conv__depthwise_holds_a_band_of_rows(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor x = zeros(c, product_modes[2], 4, MP_DIMS(1, 128, 128, 256));
    const mp_tensor w = zeros(c, product_modes[2], 4, MP_DIMS(256, 1, 3, 3));
    const extra_arg small = {zeros(c, product_modes[2], 4, MP_DIMS(1, 1, 1, 256)), w, {1, 1, 256}};

    (void)state;
    assert_in_range(product_extra(c, extra_run, &small, &(extra_arg){x, w, {1, 1, 256}}), 1,
                    (1 << 18) + (1 << 17));
    mp_device_close(c);
}

static void test_conv__empty_pictures_and_no_channels_are_fine(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 2);
    const float two[] = {2, -1};
    const mp_tensor b = mp_test_floats(c, MP_F16, 1, MP_DIMS(2), two);
    const mp_tensor none = zeros(c, product_modes[1], 4, MP_DIMS(0, 4, 4, 3));

    (void)state;
    mp_conv2d(c, none, zeros(c, product_modes[1], 4, MP_DIMS(2, 3, 3, 3)), b, (mp_conv2d_opts){0});
    mp_test_ok(c);
    const mp_tensor y = mp_conv2d(c, zeros(c, product_modes[1], 4, MP_DIMS(1, 4, 4, 0)),
                                  zeros(c, product_modes[1], 4, MP_DIMS(2, 0, 3, 3)), b,
                                  (mp_conv2d_opts){.padding = 1});
    mp_test_ok(c);
    assert_int_equal(mp_numel(y), 32);
    for (int64_t i = 0; i < 32; i++)
        assert_float_equal(product_at(y, i), two[i % 2], 0);
    mp_device_close(c);
}

static void test_conv__empty_videos_and_no_channels_are_fine(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 2);
    const float two[] = {2, -1};
    const mp_tensor b = mp_test_floats(c, MP_F16, 1, MP_DIMS(2), two);
    const mp_tensor none = zeros(c, product_modes[1], 5, MP_DIMS(0, 3, 4, 4, 3));

    (void)state;
    mp_tensor y = mp_conv3d(c, none, zeros(c, product_modes[1], 5, MP_DIMS(2, 3, 3, 3, 3)), b,
                            (mp_conv3d_opts){0});
    mp_test_ok(c);
    assert_true(mp_same_shape(y, (mp_tensor){.rank = 5, .dim = {0, 1, 2, 2, 2}}));
    y = mp_conv3d(c, zeros(c, product_modes[1], 5, MP_DIMS(1, 2, 4, 4, 0)),
                  zeros(c, product_modes[1], 5, MP_DIMS(2, 0, 3, 3, 3)), b,
                  (mp_conv3d_opts){.padding = 1, .time_padding = 1});
    mp_test_ok(c);
    assert_int_equal(mp_numel(y), 64);
    for (int64_t i = 0; i < 64; i++)
        assert_float_equal(product_at(y, i), two[i % 2], 0);
    mp_device_close(c);
}

static void test_conv__dtypes_are_refused_with_torchs_text(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor x = mp_new(c, MP_F16, 4, MP_DIMS(1, 3, 3, 2));
    mp_tensor w = mp_new(c, MP_F32, 4, MP_DIMS(4, 2, 3, 3));
    const mp_tensor b = mp_new(c, MP_F32, 1, MP_DIMS(4)), b16 = mp_new(c, MP_F16, 1, MP_DIMS(4));

    (void)state;
    w.name = "decoder.conv_in.weight";
    mp_conv2d(c, x, w, MP_NONE, (mp_conv2d_opts){0});
    assert_string_equal(mp_ctx_error(c)->op, "conv2d");
    assert_string_equal(mp_ctx_error(c)->module, "decoder.conv_in");
    mp_test_fails(c, MP_EDTYPE, "expected scalar type Half but found Float");
    mp_conv2d(c, x, w, b, (mp_conv2d_opts){0});
    mp_test_fails(c, MP_EDTYPE, "Input type (c10::Half) and bias type (float) should be the same");
    mp_conv2d(c, x, w, b16, (mp_conv2d_opts){0});
    mp_test_fails(c, MP_EDTYPE, "expected scalar type Half but found Float");
    mp_conv2d(c, mp_new(c, MP_F8_E4M3, 4, MP_DIMS(1, 3, 3, 2)),
              mp_new(c, MP_F8_E4M3, 4, MP_DIMS(4, 2, 3, 3)), MP_NONE, (mp_conv2d_opts){0});
    mp_test_fails(c, MP_EDTYPE, "\"slow_conv2d_cpu\" not implemented for 'Float8_e4m3fn'");
    mp_device_close(c);
}

static void test_conv__shapes_that_do_not_fit_are_refused(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor x = mp_new(c, MP_F32, 4, MP_DIMS(1, 3, 3, 4));
    const mp_tensor w = mp_new(c, MP_F32, 4, MP_DIMS(6, 4, 3, 3));
    const mp_tensor w2 = mp_new(c, MP_F32, 4, MP_DIMS(3, 2, 1, 1));
    const mp_tensor b = mp_new(c, MP_F32, 1, MP_DIMS(4));

    (void)state;
    mp_conv2d(c, x, w, MP_NONE, (mp_conv2d_opts){.groups = 2});
    mp_test_fails(c, MP_ESHAPE, "input [1, 3, 3, 4]");
    mp_conv2d(c, x, w, b, (mp_conv2d_opts){0});
    mp_test_fails(c, MP_ESHAPE, "bias [4]");
    mp_conv2d(c, x, w2, MP_NONE, (mp_conv2d_opts){.groups = 2}); /* 3 outputs in 2 groups */
    mp_test_fails(c, MP_ESHAPE, "2 groups");
    mp_conv2d(c, x, mp_new(c, MP_F32, 4, MP_DIMS(6, 4, 5, 5)), MP_NONE, (mp_conv2d_opts){0});
    mp_test_fails(c, MP_ESHAPE, "weight [6, 4, 5, 5]");
    mp_conv2d(c, x, w, MP_NONE, (mp_conv2d_opts){.stride = -1});
    mp_test_fails(c, MP_ESHAPE, "stride -1");
    mp_conv2d(c, mp_reshape(x, 3, MP_DIMS(3, 3, 4)), w, MP_NONE, (mp_conv2d_opts){0});
    mp_test_fails(c, MP_ESHAPE, "input [3, 3, 4]");
    mp_device_close(c);
}

static void test_conv__dtypes_of_videos_are_refused_with_torchs_text(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor x = mp_new(c, MP_BF16, 5, MP_DIMS(1, 3, 3, 3, 2));
    const mp_tensor fp8 = mp_new(c, MP_F8_E4M3, 5, MP_DIMS(1, 3, 3, 3, 2));
    mp_tensor w = mp_new(c, MP_F8_E4M3, 5, MP_DIMS(4, 2, 1, 2, 2));
    const mp_tensor one = mp_new(c, MP_F8_E4M3, 5, MP_DIMS(4, 2, 1, 1, 1));
    const mp_tensor b = mp_new(c, MP_F8_E4M3, 1, MP_DIMS(4)),
                    b16 = mp_new(c, MP_BF16, 1, MP_DIMS(4));

    (void)state;
    w.name = "transformer.vace_patch_embedding.weight";
    mp_conv3d(c, x, w, b, (mp_conv3d_opts){.stride = 2});
    mp_test_fails(
        c, MP_EDTYPE,
        "Input type (c10::BFloat16) and bias type (c10::Float8_e4m3fn) should be the same");
    mp_conv3d(c, x, w, b16, (mp_conv3d_opts){.stride = 2});
    assert_string_equal(mp_ctx_error(c)->op, "conv3d");
    assert_string_equal(mp_ctx_error(c)->module, "transformer.vace_patch_embedding");
    mp_test_fails(c, MP_EDTYPE, "expected scalar type BFloat16 but found Float8_e4m3fn");
    mp_conv3d(c, fp8, w, b, (mp_conv3d_opts){.stride = 2});
    mp_test_fails(c, MP_EDTYPE, "\"compute_columns3d\" not implemented for 'Float8_e4m3fn'");
    mp_conv3d(c, fp8, one, b, (mp_conv3d_opts){0});
    mp_test_fails(c, MP_EDTYPE, "\"slow_conv3d_cpu\" not implemented for 'Float8_e4m3fn'");
    for (int i = 0; i < 4; i++) { /* any more than that, and torch makes columns */
        const mp_conv3d_opts more[] = {
            {.time_stride = 2}, {.stride = 2}, {.time_padding = 1}, {.padding = 1}};
        mp_conv3d(c, fp8, one, MP_NONE, more[i]);
        mp_test_fails(c, MP_EDTYPE, "\"compute_columns3d\" not implemented for 'Float8_e4m3fn'");
    }
    mp_device_close(c);
}

static void test_conv__shapes_of_videos_that_do_not_fit_are_refused(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor x = mp_new(c, MP_F32, 5, MP_DIMS(1, 2, 3, 3, 4));
    const mp_tensor w = mp_new(c, MP_F32, 5, MP_DIMS(6, 4, 3, 1, 1));
    const mp_tensor b = mp_new(c, MP_F32, 1, MP_DIMS(4));

    (void)state;
    mp_conv3d(c, x, w, MP_NONE, (mp_conv3d_opts){0}); /* three taps on two frames */
    mp_test_fails(c, MP_ESHAPE,
                  "conv3d: input [1, 2, 3, 3, 4] (channels last) does not fit weight [6, 4, 3, 1, "
                  "1] with strides 1 and 1, padding 0 and 0 in time and space, 1 groups");
    mp_conv3d(c, x, w, b, (mp_conv3d_opts){.time_padding = 1});
    mp_test_fails(c, MP_ESHAPE, "conv3d: bias [4] does not fit weight [6, 4, 3, 1, 1]");
    mp_conv3d(c, x, w, MP_NONE, (mp_conv3d_opts){.time_padding = 1, .groups = 2});
    mp_test_fails(c, MP_ESHAPE, "2 groups");
    mp_conv3d(c, x, w, MP_NONE, (mp_conv3d_opts){.time_padding = 1, .time_stride = -1});
    mp_test_fails(c, MP_ESHAPE, "strides -1 and 1");
    mp_conv3d(c, x, w, MP_NONE, (mp_conv3d_opts){.time_padding = -1});
    mp_test_fails(c, MP_ESHAPE, "padding -1 and 0");
    mp_conv3d(c, mp_reshape(x, 4, MP_DIMS(2, 3, 3, 4)), w, MP_NONE, (mp_conv3d_opts){0});
    mp_test_fails(c, MP_ESHAPE, "input [2, 3, 3, 4]");
    mp_conv2d(c, x, w, MP_NONE, (mp_conv2d_opts){0});
    mp_test_fails(c, MP_ESHAPE, "conv2d: input [1, 2, 3, 3, 4]");
    mp_device_close(c);
}

static bool is_sanitized(void)
{
#ifdef __SANITIZE_ADDRESS__
    return true; /* its own memory would run out */
#else
    return false;
#endif
}

/* Neither the result, nor the weights in their order, nor the slab: the op fails with it, and after
 * that the context computes. */
static void test_conv__running_out_of_memory_fails_the_op_and_no_more(void **state)
{
    const video_case v = {{1, 40, 40, 64, 8, 3, 3, 1, 1, 1, false}, 3, 3, 1, 1, 0};
    struct rlimit before, low;
    int failures = 0;

    (void)state;
    if (is_sanitized())
        skip();
    mp_ctx *c = mp_test_ctx(NULL, 2);
    const mp_tensor x = product_integers(c, product_modes[0], 1, 5, MP_DIMS(1, 3, 40, 40, 64));
    const mp_tensor w = product_integers(c, product_modes[0], 2, 5, MP_DIMS(8, 64, 3, 3, 3));
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    for (size_t room = 0;; room += (size_t)1 << 19) {
        const mp_mark mark = mp_open(c);
        low = before;
        low.rlim_cur = product_address_space() + room;
        assert_int_equal(setrlimit(RLIMIT_AS, &low), 0);
        run(c, &v, x, w, MP_NONE);
        assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
        mp_drop(c, mark);
        if (!mp_failed(c))
            break;
        assert_string_equal(mp_ctx_error(c)->op, "conv3d");
        mp_test_fails(c, MP_ENOMEM, "");
        failures++;
    }
    assert_in_range(failures, 2, 16); /* weights of 54 KiB, a slab of 4 MiB, what workers need */
    check_tiling(c, &v, product_modes[0]);
    mp_device_close(c);
}

static void test_conv__only_the_result_stays_in_the_pool(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor x = zeros(c, product_modes[2], 4, MP_DIMS(1, 8, 8, 32));
    const mp_tensor w = zeros(c, product_modes[2], 4, MP_DIMS(32, 32, 3, 3));
    const size_t before = mp_pool_get(c).live;

    (void)state;
    const mp_tensor y = mp_conv2d(c, x, w, MP_NONE, (mp_conv2d_opts){.padding = 1});
    mp_test_ok(c);
    assert_int_equal(mp_pool_get(c).live, before + mp_nbytes(y));
    const mp_tensor z = mp_conv3d(c, mp_reshape(x, 5, MP_DIMS(1, 8, 1, 8, 32)),
                                  mp_reshape(w, 5, MP_DIMS(32, 32, 3, 1, 3)), MP_NONE,
                                  (mp_conv3d_opts){.time_padding = 1, .padding = 1});
    mp_test_ok(c);
    assert_int_equal(mp_pool_get(c).live, before + mp_nbytes(y) + mp_nbytes(z));
    mp_device_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv__every_geometry_and_storage_is_float64s_rounded),
        cmocka_unit_test(test_conv__every_tiling_is_exact_on_integers),
        cmocka_unit_test(test_conv__thread_counts_give_the_same_bits),
        cmocka_unit_test(test_conv__depthwise_gives_the_same_bits_on_every_instruction_set),
        cmocka_unit_test(test_conv__nan_stays_within_its_patches),
        cmocka_unit_test(test_conv__nan_stays_within_its_patches_in_time),
        cmocka_unit_test(test_conv__frames_of_zeros_are_padding_and_frames_alone_are_pictures),
        cmocka_unit_test(test_conv__no_operand_is_widened_as_a_whole),
        cmocka_unit_test(test_conv__no_video_is_widened_as_a_whole),
        cmocka_unit_test(test_conv__depthwise_holds_a_band_of_rows),
        cmocka_unit_test(test_conv__empty_pictures_and_no_channels_are_fine),
        cmocka_unit_test(test_conv__empty_videos_and_no_channels_are_fine),
        cmocka_unit_test(test_conv__dtypes_are_refused_with_torchs_text),
        cmocka_unit_test(test_conv__dtypes_of_videos_are_refused_with_torchs_text),
        cmocka_unit_test(test_conv__shapes_that_do_not_fit_are_refused),
        cmocka_unit_test(test_conv__shapes_of_videos_that_do_not_fit_are_refused),
        cmocka_unit_test(test_conv__running_out_of_memory_fails_the_op_and_no_more),
        cmocka_unit_test(test_conv__only_the_result_stays_in_the_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
