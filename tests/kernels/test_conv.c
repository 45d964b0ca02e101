/* Convolutions against float64 (make_kernels_product.py), and exactly on integers, on every
 * instruction set. */
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

static mp_conv2d_opts opts_of(const conv_case *v)
{
    return (mp_conv2d_opts){v->stride, v->padding, v->groups};
}

static void check_conv(mp_ctx *c, const mp_safetensors *g, int i, product_mode mode)
{
    const conv_case *v = &convs[i];
    const mp_mark mark = mp_open(c);
    const int64_t per_group = v->c / v->groups;
    const mp_tensor x =
        product_take(c, g, 17 * i, product_as(mode.dtype), 4, MP_DIMS(v->b, v->h, v->w, v->c));
    const mp_tensor w =
        product_take(c, g, 900 + i, mode, 4, MP_DIMS(v->o, per_group, v->kh, v->kw));
    const mp_tensor b = v->bias ? product_take(c, g, 77 + i, mode, 1, MP_DIMS(v->o)) : MP_NONE;
    const mp_tensor norm = mp_test_golden(g, "norm.conv.%d.%s", i, mode.name);
    const mp_tensor golden = mp_test_golden(g, "conv.%d.%s", i, mode.name);
    const mp_tensor y = mp_conv2d(c, x, w, b, opts_of(v));

    mp_test_ok(c);
    mp_test_close(y, golden,
                  product_bound(golden, *(const float *)norm.data, per_group * v->kh * v->kw));
    mp_drop(c, mark);
}

static void test_conv__every_geometry_and_storage_is_float64s_rounded(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/product_conv.safetensors");

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        for (int i = 0; i < COUNT(convs); i++)
            for (int m = 0; m < PRODUCT_CONV; m++)
                check_conv(c, g, i, product_modes[m]);
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
    {1, 1, 2, 512, 929, 3, 3, 1, 1, 1, true},
};

/* Output (n, y, x, o), with zeros beyond the borders. */
static float exact_conv(const conv_case *v, mp_tensor x, mp_tensor w, mp_tensor b, mp_tensor y,
                        int64_t at)
{
    const int64_t o = at % v->o, ox = at / v->o % y.dim[2], oy = at / v->o / y.dim[2] % y.dim[1];
    const int64_t n = at / v->o / y.dim[2] / y.dim[1], per_group = v->c / v->groups;
    const int64_t first = o / (v->o / v->groups) * per_group;
    double sum = mp_given(b) ? (double)product_at(b, o) : 0;

    for (int64_t i = 0; i < v->kh; i++)
        for (int64_t j = 0; j < v->kw; j++) {
            const int64_t py = oy * v->stride + i - v->padding,
                          px = ox * v->stride + j - v->padding;
            if (py < 0 || py >= v->h || px < 0 || px >= v->w)
                continue;
            for (int64_t k = 0; k < per_group; k++)
                sum += (double)product_at(x, ((n * v->h + py) * v->w + px) * v->c + first + k) *
                       (double)product_at(w, ((o * per_group + k) * v->kh + i) * v->kw + j);
        }
    return mp_round_to(y.dtype, (float)sum);
}

static void check_tiling(mp_ctx *c, const conv_case *v, product_mode mode)
{
    const mp_mark mark = mp_open(c);
    const mp_tensor x =
        product_integers(c, product_as(mode.dtype), 1, 4, MP_DIMS(v->b, v->h, v->w, v->c));
    const mp_tensor w =
        product_integers(c, mode, 2, 4, MP_DIMS(v->o, v->c / v->groups, v->kh, v->kw));
    const mp_tensor b = v->bias ? product_integers(c, mode, 3, 1, MP_DIMS(v->o)) : MP_NONE;
    const mp_tensor y = mp_conv2d(c, x, w, b, opts_of(v));

    mp_test_ok(c);
    /* A prime step meets all channels and all columns. */
    for (int64_t i = 0; i < mp_numel(y); i += 23) {
        const float expected = exact_conv(v, x, w, b, y, i);
        if (product_at(y, i) != expected)
            fail_msg("%s: %lld channels to %lld, stride %d: element %lld is %g, not %g", mode.name,
                     (long long)v->c, (long long)v->o, v->stride, (long long)i,
                     (double)product_at(y, i), (double)expected);
    }
    mp_drop(c, mark);
}

static void test_conv__every_tiling_is_exact_on_integers(void **state)
{
    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 3);
        for (int i = 0; i < COUNT(tilings); i++)
            for (int m = 0; m < PRODUCT_CONV; m++)
                check_tiling(c, &tilings[i], product_modes[m]);
        mp_device_close(c);
    }
}

typedef struct agree_arg {
    const mp_safetensors *g;
    const conv_case *v;
    product_mode mode;
} agree_arg;

static mp_tensor agree_run(mp_ctx *c, const void *arg)
{
    const agree_arg *a = arg;
    const conv_case *v = a->v;
    const mp_tensor x =
        product_take(c, a->g, 1, product_as(a->mode.dtype), 4, MP_DIMS(v->b, v->h, v->w, v->c));
    const mp_tensor w =
        product_take(c, a->g, 2, a->mode, 4, MP_DIMS(v->o, v->c / v->groups, v->kh, v->kw));

    return mp_conv2d(c, x, w, product_take(c, a->g, 3, a->mode, 1, MP_DIMS(v->o)), opts_of(v));
}

static void test_conv__thread_counts_give_the_same_bits(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/product_conv.safetensors");

    (void)state;
    for (int i = 0; i < COUNT(tilings); i++)
        for (int m = 0; m < PRODUCT_CONV; m++)
            product_threads_agree(agree_run, &(agree_arg){g, &tilings[i], product_modes[m]});
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

typedef struct extra_arg {
    mp_tensor x, w;
    mp_conv2d_opts o;
} extra_arg;

static mp_tensor extra_run(mp_ctx *c, const void *arg)
{
    const extra_arg *a = arg;

    return mp_conv2d(c, a->x, a->w, MP_NONE, a->o);
}

static mp_tensor zeros(mp_ctx *c, product_mode mode, const int64_t *dims)
{
    mp_tensor t = mp_new(c, mode.store, 4, dims);

    mp_test_ok(c);
    t.dtype = mode.dtype;
    memset(t.data, 0, mp_nbytes(t));
    return t;
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
        const mp_tensor x = zeros(c, product_as(modes[m].dtype), MP_DIMS(1, 128, 128, 256));
        const mp_tensor w = zeros(c, modes[m], MP_DIMS(512, 256, 3, 3));
        const extra_arg small = {
            zeros(c, product_as(modes[m].dtype), MP_DIMS(1, 3, 3, 256)), w, {1, 1, 1}};
        assert_in_range(product_extra(c, extra_run, &small, &(extra_arg){x, w, {1, 1, 1}}), 1,
                        mp_nbytes(w) + (5 << 20) + (1 << 17));
        mp_device_close(c);
    }
}

/* A band of a few rows of 32 channels, 256 KiB, and not the picture (16 MiB widened). */
static void test_conv__depthwise_holds_a_band_of_rows(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor x = zeros(c, product_modes[2], MP_DIMS(1, 128, 128, 256));
    const mp_tensor w = zeros(c, product_modes[2], MP_DIMS(256, 1, 3, 3));
    const extra_arg small = {zeros(c, product_modes[2], MP_DIMS(1, 1, 1, 256)), w, {1, 1, 256}};

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
    const mp_tensor none = zeros(c, product_modes[1], MP_DIMS(0, 4, 4, 3));

    (void)state;
    mp_conv2d(c, none, zeros(c, product_modes[1], MP_DIMS(2, 3, 3, 3)), b, (mp_conv2d_opts){0});
    mp_test_ok(c);
    const mp_tensor y = mp_conv2d(c, zeros(c, product_modes[1], MP_DIMS(1, 4, 4, 0)),
                                  zeros(c, product_modes[1], MP_DIMS(2, 0, 3, 3)), b,
                                  (mp_conv2d_opts){.padding = 1});
    mp_test_ok(c);
    assert_int_equal(mp_numel(y), 32);
    for (int64_t i = 0; i < 32; i++)
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

static void test_conv__only_the_result_stays_in_the_pool(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor x = zeros(c, product_modes[2], MP_DIMS(1, 8, 8, 32));
    const mp_tensor w = zeros(c, product_modes[2], MP_DIMS(32, 32, 3, 3));
    const size_t before = mp_pool_get(c).live;

    (void)state;
    const mp_tensor y = mp_conv2d(c, x, w, MP_NONE, (mp_conv2d_opts){.padding = 1});
    mp_test_ok(c);
    assert_int_equal(mp_pool_get(c).live, before + mp_nbytes(y));
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
        cmocka_unit_test(test_conv__no_operand_is_widened_as_a_whole),
        cmocka_unit_test(test_conv__depthwise_holds_a_band_of_rows),
        cmocka_unit_test(test_conv__empty_pictures_and_no_channels_are_fine),
        cmocka_unit_test(test_conv__dtypes_are_refused_with_torchs_text),
        cmocka_unit_test(test_conv__shapes_that_do_not_fit_are_refused),
        cmocka_unit_test(test_conv__only_the_result_stays_in_the_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
