/* Linear layers and matrix products against float64 (make_kernels_product.py), and exactly on
 * integers, on every instruction set. */
#include "tests/kernels/product.h"

typedef struct linear_case {
    int lead_rank;
    int64_t lead[3], k, n;
    bool bias;
} linear_case;

/* LINEAR of the script. */
static const linear_case linears[] = {
    {1, {1}, 1, 1, false},       {1, {1}, 515, 9, true},  {1, {2}, 16, 5, false},
    {2, {1, 3}, 31, 7, true},    {1, {4}, 512, 17, true}, {1, {5}, 513, 9, true},
    {2, {2, 3}, 1030, 5, false}, {1, {7}, 64, 3, true},   {3, {3, 1, 11}, 5, 13, false},
    {1, {9}, 1, 3, true},
};

/* MATMUL of the script: leading dimensions, m, k, n. */
static const struct matmul_case {
    int lead_rank;
    int64_t lead[2], m, k, n;
} matmuls[] = {
    {0, {0}, 5, 7, 3},    {0, {0}, 1, 515, 2}, {2, {2, 3}, 4, 17, 9},
    {1, {3}, 3, 1030, 4}, {1, {2}, 1, 1, 1},
};

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

static void with_last(int64_t *dims, const int64_t *lead, int rank, int64_t last)
{
    for (int i = 0; i < rank; i++)
        dims[i] = lead[i];
    dims[rank] = last;
}

static void check_linear(mp_ctx *c, const mp_safetensors *g, int i, product_mode mode)
{
    const linear_case *l = &linears[i];
    const mp_mark mark = mp_open(c);
    int64_t dims[MP_MAX_RANK];

    with_last(dims, l->lead, l->lead_rank, l->k);
    const mp_tensor x = product_take(c, g, 11 * i, product_as(mode.dtype), l->lead_rank + 1, dims);
    const mp_tensor w = product_take(c, g, 1000 + 7 * i, mode, 2, MP_DIMS(l->n, l->k));
    const mp_tensor b = l->bias ? product_take(c, g, 3000 + i, mode, 1, MP_DIMS(l->n)) : MP_NONE;
    const mp_tensor norm = mp_test_golden(g, "norm.linear.%d.%s", i, mode.name);
    const mp_tensor y = mp_linear(c, x, w, b);
    mp_test_ok(c);
    const mp_tensor golden = mp_test_golden(g, "linear.%d.%s", i, mode.name);
    mp_test_close(y, golden, product_bound(golden, *(const float *)norm.data, l->k));
    mp_drop(c, mark);
}

static void test_linear__every_shape_and_storage_is_float64s_rounded(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/product_linear.safetensors");

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        for (int i = 0; i < COUNT(linears); i++)
            for (int m = 0; m < PRODUCT_MODES; m++)
                check_linear(c, g, i, product_modes[m]);
        mp_device_close(c);
    }
    mp_safetensors_close(g);
}

/* Weights pass through the vectorized widening; so does a cast, which shows each code alone. */
static void test_linear__every_fp8_code_widens_exactly(void **state)
{
    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 1);
        for (int d = MP_F8_E4M3; d <= MP_F8_E5M2; d++) {
            const mp_tensor x = mp_new(c, (mp_dtype)d, 1, MP_DIMS(256));
            const mp_tensor golden = mp_new(c, MP_F32, 1, MP_DIMS(256));
            mp_test_ok(c);
            for (int i = 0; i < 256; i++)
                ((uint8_t *)x.data)[i] = (uint8_t)i;
            mp_widen(x.dtype, x.data, golden.data, 256);
            mp_test_same(mp_cast(c, x, MP_F32), golden);
        }
        mp_device_close(c);
    }
}

/* torch multiplies fp8 matrices, too: fp32 inside, one rounding. */
static void test_linear__fp8_throughout_is_torchs(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/product_linear.safetensors");

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 1);
        for (int d = MP_F8_E4M3; d <= MP_F8_E5M2; d++) {
            const product_mode mode = product_as((mp_dtype)d);
            const mp_tensor y =
                mp_linear(c, product_take(c, g, 5, mode, 2, MP_DIMS(6, 515)),
                          product_take(c, g, 1007, mode, 2, MP_DIMS(9, 515)), MP_NONE);
            mp_test_ok(c);
            mp_test_same(y, mp_test_golden(g, "linear.%s", mp_dtype_torch(mode.dtype)));
        }
        mp_device_close(c);
    }
    mp_safetensors_close(g);
}

static void check_matmul(mp_ctx *c, const mp_safetensors *g, int i, mp_dtype d)
{
    const struct matmul_case *m = &matmuls[i];
    const int rank = m->lead_rank + 2;
    const mp_mark mark = mp_open(c);
    int64_t a[MP_MAX_RANK], b[MP_MAX_RANK];

    with_last(a, m->lead, m->lead_rank, m->m);
    with_last(b, m->lead, m->lead_rank, m->k);
    a[rank - 1] = m->k;
    b[rank - 1] = m->n;
    const mp_tensor norm = mp_test_golden(g, "norm.matmul.%d.%s", i, mp_dtype_name(d));
    const mp_tensor y = mp_matmul(c, product_take(c, g, 13 * i, product_as(d), rank, a),
                                  product_take(c, g, 2000 + i, product_as(d), rank, b));
    mp_test_ok(c);
    const mp_tensor golden = mp_test_golden(g, "matmul.%d.%s", i, mp_dtype_name(d));
    mp_test_close(y, golden, product_bound(golden, *(const float *)norm.data, m->k));
    mp_drop(c, mark);
}

static void test_linear__matmul_of_every_shape_is_float64s_rounded(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/product_linear.safetensors");

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        for (int i = 0; i < COUNT(matmuls); i++)
            for (int d = MP_F32; d <= MP_BF16; d++)
                check_matmul(c, g, i, (mp_dtype)d);
        mp_device_close(c);
    }
    mp_safetensors_close(g);
}

/* Sizes about the tiles (256 or 512 x 256, chunks of 256 or 512): rows, k, columns. */
static const int64_t tilings[][3] = {
    {1, 1027, 67},  {4, 513, 33},  {5, 513, 257},   {257, 7, 259},
    {261, 1025, 3}, {513, 513, 1}, {600, 19, 1030},
};

/* Element (i, j) of x w^T + b, rounded to y's dtype. */
static float exact_linear(mp_tensor x, mp_tensor w, mp_tensor b, int64_t i, int64_t j, mp_dtype d)
{
    const int64_t k = mp_dim(x, -1);
    double sum = mp_given(b) ? (double)product_at(b, j) : 0;

    for (int64_t t = 0; t < k; t++)
        sum += (double)product_at(x, i * k + t) * (double)product_at(w, j * k + t);
    return mp_round_to(d, (float)sum);
}

static void check_tiling(mp_ctx *c, const int64_t *size, product_mode mode, bool bias, int64_t step)
{
    const mp_mark mark = mp_open(c);
    const mp_tensor x =
        product_integers(c, product_as(mode.dtype), 1, 2, MP_DIMS(size[0], size[1]));
    const mp_tensor w = product_integers(c, mode, 2, 2, MP_DIMS(size[2], size[1]));
    const mp_tensor b = bias ? product_integers(c, mode, 3, 1, MP_DIMS(size[2])) : MP_NONE;
    const mp_tensor y = mp_linear(c, x, w, b);

    mp_test_ok(c);
    /* Not every element, but all residues of rows and columns: the whole would cost seconds. */
    for (int64_t i = 0; i < mp_numel(y); i += i % 64 < 57 ? step : 1) {
        const float expected = exact_linear(x, w, b, i / size[2], i % size[2], mode.dtype);
        if (product_at(y, i) != expected)
            fail_msg("%lld x %lld x %lld %s: element %lld is %g, not %g", (long long)size[0],
                     (long long)size[1], (long long)size[2], mode.name, (long long)i,
                     (double)product_at(y, i), (double)expected);
    }
    mp_drop(c, mark);
}

static void test_linear__every_tiling_is_exact_on_integers(void **state)
{
    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 3);
        for (int i = 0; i < COUNT(tilings); i++)
            for (int m = 0; m < PRODUCT_MODES; m++)
                check_tiling(c, tilings[i], product_modes[m], (i + m) % 2, 7);
        mp_device_close(c);
    }
}

/* More rows of x, then of W, than a slab holds. */
static void test_linear__several_slabs_are_exact_on_integers(void **state)
{
    static const int64_t sizes[][3] = {{300, 4100, 340}, {400, 4100, 300}};
    const product_mode modes[] = {product_modes[0], product_modes[5]};

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        for (int i = 0; i < 2 * COUNT(modes); i++)
            check_tiling(c, sizes[i % 2], modes[i / 2], true, 997);
        mp_device_close(c);
    }
}

/* Batches, more rows than a tile, more columns than a tile, more than one chunk of k. */
static void test_linear__matmul_of_every_tiling_is_exact_on_integers(void **state)
{
    enum { B = 2, M = 259, K = 515, N = 263 };

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        for (int d = 0; d < PRODUCT_PLAIN; d++) {
            const mp_tensor a = product_integers(c, product_modes[d], 4, 3, MP_DIMS(B, M, K));
            const mp_tensor b = product_integers(c, product_modes[d], 5, 3, MP_DIMS(B, K, N));
            const mp_tensor y = mp_matmul(c, a, b);
            mp_test_ok(c);
            for (int64_t i = 0; i < mp_numel(y); i += 13) {
                const int64_t row = i / N, from = row / M * K * N + i % N;
                double sum = 0;
                for (int64_t t = 0; t < K; t++)
                    sum += (double)product_at(a, row * K + t) * (double)product_at(b, from + t * N);
                assert_float_equal(product_at(y, i), mp_round_to(y.dtype, (float)sum), 0);
            }
        }
        mp_device_close(c);
    }
}

typedef struct agree_arg {
    const mp_safetensors *g;
    int64_t rows;
    product_mode mode;
    bool matmul;
} agree_arg;

static mp_tensor agree_run(mp_ctx *c, const void *arg)
{
    const agree_arg *a = arg;
    const product_mode plain = product_as(a->mode.dtype);
    const mp_tensor x = product_take(c, a->g, 3, plain, 2, MP_DIMS(a->rows, 700));

    if (a->matmul)
        return mp_matmul(c, x, product_take(c, a->g, 4, plain, 2, MP_DIMS(700, 301)));
    return mp_linear(c, x, product_take(c, a->g, 4, a->mode, 2, MP_DIMS(301, 700)),
                     product_take(c, a->g, 5, a->mode, 1, MP_DIMS(301)));
}

static void test_linear__thread_counts_give_the_same_bits(void **state)
{
    static const int64_t rows[] = {1, 4, 5, 300};
    mp_safetensors *g = mp_test_goldens("kernels/product_linear.safetensors");

    (void)state;
    for (int i = 0; i < COUNT(rows); i++)
        for (int m = 0; m < PRODUCT_MODES; m++)
            for (int matmul = 0; matmul < 2; matmul++)
                product_threads_agree(agree_run,
                                      &(agree_arg){g, rows[i], product_modes[m], matmul == 1});
    mp_safetensors_close(g);
}

/* A NaN or an infinity reaches its row or its column, and no other. */
static void test_linear__nan_and_infinity_stay_in_their_row(void **state)
{
    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 1);
        for (int64_t rows = 2; rows <= 6; rows += 4) {
            const mp_tensor x = product_integers(c, product_modes[0], 6, 2, MP_DIMS(rows, 19));
            const mp_tensor w = product_integers(c, product_modes[0], 7, 2, MP_DIMS(5, 19));
            ((float *)x.data)[19 + 3] = NAN;
            ((float *)w.data)[2 * 19 + 18] = INFINITY;
            const mp_tensor y = mp_linear(c, x, w, MP_NONE);
            mp_test_ok(c);
            for (int64_t i = 0; i < rows * 5; i++)
                if (i / 5 == 1)
                    assert_true(isnan(((float *)y.data)[i]));
                else
                    assert_true(isfinite(((float *)y.data)[i]) == (i % 5 != 2));
        }
        mp_device_close(c);
    }
}

typedef struct extra_arg {
    mp_tensor x, w;
} extra_arg;

static mp_tensor extra_linear(mp_ctx *c, const void *arg)
{
    const extra_arg *a = arg;

    return mp_linear(c, a->x, a->w, MP_NONE);
}

static mp_tensor extra_matmul(mp_ctx *c, const void *arg)
{
    const extra_arg *a = arg;

    return mp_matmul(c, a->x, a->w);
}

static mp_tensor zeros(mp_ctx *c, product_mode mode, int64_t rows, int64_t columns)
{
    mp_tensor t = mp_new(c, mode.store, 2, MP_DIMS(rows, columns));

    mp_test_ok(c);
    t.dtype = mode.dtype;
    memset(t.data, 0, mp_nbytes(t));
    return t;
}

/* A slab of the smaller operand, 1024 x 1024 words, a worker's rows and its sums, about (256 + 512)
 * x 256 words. */
enum { PANELS = 5 << 20 };

/* Widened, w would be 16 MiB and x 4 MiB. */
static void test_linear__no_operand_is_widened_as_a_whole(void **state)
{
    const product_mode modes[] = {product_modes[2], product_modes[4]};

    (void)state;
    for (int m = 0; m < COUNT(modes); m++) {
        mp_ctx *c = mp_test_ctx(NULL, 1);
        const mp_tensor x = zeros(c, product_as(modes[m].dtype), 1024, 1024);
        const mp_tensor w = zeros(c, modes[m], 4096, 1024);
        const extra_arg all = {x, w}, small = {mp_batch(x, 0, 8), mp_batch(w, 0, 8)};
        const extra_arg few = {mp_batch(x, 0, 4), w};
        /* Few rows: those rows alone, widened. */
        assert_in_range(product_extra(c, extra_linear, &small, &few), 1, 4 * 1024 * 4);
        assert_in_range(product_extra(c, extra_linear, &small, &all), 1, PANELS + (1 << 17));
        mp_device_close(c);
    }
}

/* Widened, the second operand would be 16 MiB. */
static void test_linear__matmul_widens_no_operand_as_a_whole(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor a = zeros(c, product_modes[2], 64, 512);
    const mp_tensor b = zeros(c, product_modes[2], 512, 8192);
    const extra_arg all = {a, b}, small = {a, mp_reshape(mp_batch(b, 0, 1), 2, MP_DIMS(512, 16))};

    (void)state;
    assert_in_range(product_extra(c, extra_matmul, &small, &all), 1, PANELS + (1 << 17));
    mp_device_close(c);
}

static void test_linear__empty_sums_and_no_rows_are_fine(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 2);
    const float bias[] = {1, -2, 3};
    const mp_tensor b = mp_test_floats(c, MP_BF16, 1, MP_DIMS(3), bias);

    (void)state;
    for (int64_t rows = 0; rows <= 300; rows += 150) {
        const mp_tensor y = mp_linear(c, mp_new(c, MP_BF16, 2, MP_DIMS(rows, 0)),
                                      mp_new(c, MP_BF16, 2, MP_DIMS(3, 0)), b);
        mp_test_ok(c);
        for (int64_t i = 0; i < mp_numel(y); i++)
            assert_float_equal(product_at(y, i), bias[i % 3], 0);
        const mp_tensor z = mp_matmul(c, mp_new(c, MP_F32, 2, MP_DIMS(rows, 0)),
                                      mp_new(c, MP_F32, 2, MP_DIMS(0, 3)));
        mp_test_ok(c);
        for (int64_t i = 0; i < mp_numel(z); i++)
            assert_float_equal(product_at(z, i), 0, 0);
    }
    mp_linear(c, mp_new(c, MP_BF16, 2, MP_DIMS(0, 4)), mp_new(c, MP_BF16, 2, MP_DIMS(3, 4)), b);
    mp_test_ok(c);
    mp_device_close(c);
}

static void test_linear__dtypes_are_refused_with_torchs_text(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor x = mp_new(c, MP_BF16, 2, MP_DIMS(2, 4)),
                    w = mp_new(c, MP_F16, 2, MP_DIMS(3, 4));
    const mp_tensor b16 = mp_new(c, MP_BF16, 1, MP_DIMS(3)), b32 = mp_new(c, MP_F32, 1, MP_DIMS(3));
    const mp_tensor same = mp_new(c, MP_BF16, 2, MP_DIMS(3, 4));

    (void)state;
    mp_push(c, "transformer.%s", "proj_out");
    mp_linear(c, x, w, MP_NONE);
    assert_string_equal(mp_ctx_error(c)->op, "linear");
    assert_string_equal(mp_ctx_error(c)->module, "transformer.proj_out");
    mp_test_fails(c, MP_EDTYPE,
                  "expected m1 and m2 to have the same dtype, but got: c10::BFloat16 != c10::Half");
    mp_linear(c, x, same, b32);
    mp_test_fails(c, MP_EDTYPE,
                  "self and mat2 must have the same dtype, but got Float and BFloat16");
    mp_linear(c, x, w, mp_new(c, MP_F16, 1, MP_DIMS(3)));
    mp_test_fails(c, MP_EDTYPE,
                  "mat1 and mat2 must have the same dtype, but got BFloat16 and Half");
    mp_linear(c, x, w, b16); /* torch compares the bias first */
    mp_test_fails(c, MP_EDTYPE,
                  "self and mat2 must have the same dtype, but got BFloat16 and Half");
    mp_matmul(c, x, mp_reshape(w, 2, MP_DIMS(4, 3)));
    mp_test_fails(c, MP_EDTYPE,
                  "expected m1 and m2 to have the same dtype, but got: c10::BFloat16 != c10::Half");
    mp_matmul(c, mp_reshape(x, 3, MP_DIMS(1, 2, 4)), mp_reshape(w, 3, MP_DIMS(1, 4, 3)));
    mp_test_fails(c, MP_EDTYPE, "expected scalar type BFloat16 but found Half");
    mp_device_close(c);
}

static void test_linear__shapes_that_do_not_fit_are_refused(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor x = mp_new(c, MP_F32, 2, MP_DIMS(2, 4)),
                    w = mp_new(c, MP_F32, 2, MP_DIMS(3, 5));
    const mp_tensor fits = mp_new(c, MP_F32, 2, MP_DIMS(3, 4)),
                    b = mp_new(c, MP_F32, 1, MP_DIMS(4));

    (void)state;
    mp_linear(c, x, w, MP_NONE);
    mp_test_fails(c, MP_ESHAPE, "input [2, 4] does not fit weight [3, 5]");
    mp_linear(c, x, fits, b);
    mp_test_fails(c, MP_ESHAPE, "bias [4] does not fit weight [3, 4]");
    mp_linear(c, x, b, MP_NONE);
    mp_test_fails(c, MP_ESHAPE, "does not fit weight [4]");
    mp_matmul(c, x, fits);
    mp_test_fails(c, MP_ESHAPE, "[2, 4] times [3, 4]");
    mp_matmul(c, mp_new(c, MP_F32, 3, MP_DIMS(2, 3, 4)), mp_new(c, MP_F32, 3, MP_DIMS(1, 4, 3)));
    mp_test_fails(c, MP_ESHAPE, "[2, 3, 4] times [1, 4, 3]");
    mp_device_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear__every_shape_and_storage_is_float64s_rounded),
        cmocka_unit_test(test_linear__every_fp8_code_widens_exactly),
        cmocka_unit_test(test_linear__fp8_throughout_is_torchs),
        cmocka_unit_test(test_linear__matmul_of_every_shape_is_float64s_rounded),
        cmocka_unit_test(test_linear__every_tiling_is_exact_on_integers),
        cmocka_unit_test(test_linear__several_slabs_are_exact_on_integers),
        cmocka_unit_test(test_linear__matmul_of_every_tiling_is_exact_on_integers),
        cmocka_unit_test(test_linear__thread_counts_give_the_same_bits),
        cmocka_unit_test(test_linear__nan_and_infinity_stay_in_their_row),
        cmocka_unit_test(test_linear__no_operand_is_widened_as_a_whole),
        cmocka_unit_test(test_linear__matmul_widens_no_operand_as_a_whole),
        cmocka_unit_test(test_linear__empty_sums_and_no_rows_are_fine),
        cmocka_unit_test(test_linear__dtypes_are_refused_with_torchs_text),
        cmocka_unit_test(test_linear__shapes_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
