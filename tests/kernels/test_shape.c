/* Movement, gathering and resampling against torch (make_kernels_vector.py), on every instruction
 * set.  Ops that only move values are checked for every dtype by torch's map of indices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "tests/support/mp_test.h"

static const char *const dtypes[] = {"fp32", "fp16", "bf16"};

enum { DTYPES = 3 };

static mp_tensor permute(mp_ctx *c, mp_tensor x)
{
    return mp_permute(c, x, (const int[]){0, 3, 1, 2});
}

static mp_tensor permute_reverse(mp_ctx *c, mp_tensor x)
{
    return mp_permute(c, x, (const int[]){3, 2, 1, 0});
}

static mp_tensor narrow(mp_ctx *c, mp_tensor x)
{
    return mp_narrow_axis(c, x, 2, 1, 3);
}

static mp_tensor narrow_last(mp_ctx *c, mp_tensor x)
{
    return mp_narrow_axis(c, x, -1, 7, 5);
}

static mp_tensor narrow_first(mp_ctx *c, mp_tensor x)
{
    return mp_narrow_axis(c, x, 0, 1, 1);
}

static mp_tensor pad(mp_ctx *c, mp_tensor x)
{
    return mp_pad_hw(c, x, 4, 2);
}

static mp_tensor pixel_shuffle(mp_ctx *c, mp_tensor x)
{
    return mp_pixel_shuffle(c, x, 2);
}

static mp_tensor pixel_unshuffle(mp_ctx *c, mp_tensor x)
{
    return mp_pixel_unshuffle(c, x, 2);
}

static mp_tensor pixel_unshuffle3(mp_ctx *c, mp_tensor x)
{
    return mp_pixel_unshuffle(c, x, 3);
}

static mp_tensor repeat_channels(mp_ctx *c, mp_tensor x)
{
    return mp_repeat_channels(c, x, 3);
}

/* Ops that move values, and the shape of their input in the script. */
static const struct movement {
    mp_test_case op;
    int64_t dims[4];
    bool no_fp8; /* torch has no kernel */
} movements[] = {
    {{"permute", permute}, {2, 3, 5, 12}, false},
    {{"permute_reverse", permute_reverse}, {2, 3, 5, 12}, false},
    {{"narrow", narrow}, {2, 3, 5, 12}, false},
    {{"narrow_last", narrow_last}, {2, 3, 5, 12}, false},
    {{"narrow_first", narrow_first}, {2, 3, 5, 12}, false},
    {{"pad", pad}, {2, 3, 5, 12}, false},
    {{"pixel_shuffle", pixel_shuffle}, {2, 3, 5, 12}, false},
    {{"pixel_unshuffle", pixel_unshuffle}, {2, 4, 6, 5}, false},
    {{"pixel_unshuffle3", pixel_unshuffle3}, {1, 3, 6, 2}, false},
    {{"repeat_channels", repeat_channels}, {2, 3, 5, 12}, false},
    {{"upsample", mp_upsample_nearest2}, {2, 3, 5, 12}, true},
};

/* A tensor whose elements are told apart by their codes: any bits move as they are. */
static mp_tensor coded(mp_ctx *c, mp_dtype d, const int64_t *dims, uint32_t seed)
{
    const mp_tensor x = mp_new(c, d, 4, dims);
    uint8_t *bytes = x.data;

    mp_test_ok(c);
    for (size_t i = 0; i < mp_nbytes(x); i++)
        bytes[i] = (uint8_t)(((uint32_t)i + seed) * 2654435761u >> 13);
    return x;
}

/* y[i] is element map[i] of the inputs laid end to end; 0 where map[i] is -1. */
static void check_map(const mp_safetensors *g, const char *name, mp_tensor y, mp_tensor a,
                      mp_tensor b)
{
    const mp_safetensors_entry map = mp_safetensors_entry_at(g, mp_safetensors_index(g, name));
    const size_t size = mp_dtype_size(y.store);
    const int64_t n = mp_numel(y), first = mp_numel(a);

    assert_string_equal(map.dtype, "I32");
    assert_int_equal(y.rank, map.rank);
    assert_memory_equal(y.dim, map.dims, (size_t)map.rank * sizeof *map.dims);
    for (int64_t i = 0; i < n; i++) {
        static const char zero[4] = {0};
        int32_t at;
        memcpy(&at, (const char *)map.data + i * 4, sizeof at);
        const char *from = at < 0       ? zero
                           : at < first ? (const char *)a.data + (size_t)at * size
                                        : (const char *)b.data + (size_t)(at - first) * size;
        if (memcmp((const char *)y.data + (size_t)i * size, from, size))
            fail_msg("%s of %s: element %lld is not element %d of the input", name,
                     mp_dtype_name(y.dtype), (long long)i, at);
    }
}

static void check_movement(mp_ctx *c, const mp_safetensors *g, const struct movement *m, mp_dtype d)
{
    const mp_mark mark = mp_open(c);
    const mp_tensor x = coded(c, d, m->dims, 0);
    char name[64] = "map.";

    const mp_tensor y = m->op.run(c, x);
    mp_test_ok(c);
    assert_int_equal(y.dtype, d);
    check_map(g, strcat(name, m->op.name), y, x, x);
    mp_drop(c, mark);
}

static void test_shape__every_movement_takes_torchs_elements_in_every_dtype(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/shape.safetensors");

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        for (size_t i = 0; i < sizeof movements / sizeof *movements; i++)
            for (int d = 0; d < MP_DTYPE_COUNT; d++)
                if (d < MP_F8_E4M3 || !movements[i].no_fp8)
                    check_movement(c, g, &movements[i], (mp_dtype)d);
        mp_device_close(c);
    }
    mp_safetensors_close(g);
}

static void test_shape__cat_joins_along_any_axis_in_every_dtype(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/shape.safetensors");
    mp_ctx *c = mp_test_ctx(NULL, 2);

    (void)state;
    for (int d = 0; d < MP_DTYPE_COUNT; d++)
        for (int axis = -1; axis < 2; axis++) {
            int64_t dims[] = {2, 3, 5, 12};
            const mp_tensor a = coded(c, (mp_dtype)d, dims, 0);
            dims[axis < 0 ? 3 : axis]++;
            const mp_tensor b = coded(c, (mp_dtype)d, dims, 77);
            char name[16] = "map.cat.";
            strcpy(name + 8, axis < 0 ? "-1" : axis ? "1" : "0");
            check_map(g, name, mp_cat(c, 2, (mp_tensor[]){a, b}, axis), a, b);
        }
    mp_device_close(c);
    mp_safetensors_close(g);
}

static void test_shape__cat_of_two_dtypes_promotes_as_torch(void **state)
{
    mp_safetensors *g = mp_test_goldens("kernels/shape.safetensors");
    mp_ctx *c = mp_test_ctx(NULL, 1);

    (void)state;
    for (int i = 0; i < 5; i++) {
        const mp_tensor xs[] = {mp_test_tensor(c, g, "cat.%d.a", i),
                                mp_test_tensor(c, g, "cat.%d.b", i)};
        const size_t before = mp_pool_get(c).live;
        const mp_tensor y = mp_cat(c, 2, xs, 0);
        mp_test_same(y, mp_test_golden(g, "cat.%d", i));
        assert_int_equal(mp_pool_get(c).live, before + (mp_nbytes(y) + 63) / 64 * 64);
    }
    mp_device_close(c);
    mp_safetensors_close(g);
}

/* A weight whose memory is narrower than its dtype moves as what it stands for. */
static void test_shape__weights_stored_narrower_move_as_their_dtype(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    float values[2 * 2 * 2 * 4];

    (void)state;
    for (int i = 0; i < 32; i++)
        values[i] = (float)(i - 16) / 4;
    const mp_tensor wide = mp_test_floats(c, MP_BF16, 4, MP_DIMS(2, 2, 2, 4), values);
    mp_tensor x = mp_test_floats(c, MP_F8_E4M3, 4, MP_DIMS(2, 2, 2, 4), values);
    x.dtype = MP_BF16;
    mp_test_same(permute(c, x), permute(c, wide));
    mp_test_same(mp_narrow_axis(c, x, 1, 1, 1), mp_narrow_axis(c, wide, 1, 1, 1));
    mp_test_same(pad(c, x), pad(c, wide));
    mp_test_same(pixel_shuffle(c, x), pixel_shuffle(c, wide));
    mp_test_same(mp_upsample_nearest2(c, x), mp_upsample_nearest2(c, wide));
    mp_test_same(mp_cat(c, 2, (mp_tensor[]){x, wide}, 1),
                 mp_cat(c, 2, (mp_tensor[]){wide, wide}, 1));
    mp_test_same(mp_mean_channels(c, x, 2), mp_mean_channels(c, wide, 2));
    mp_test_same(mp_resize_bilinear(c, x, 3, 3), mp_resize_bilinear(c, wide, 3, 3));
    const mp_tensor table = mp_reshape(x, 2, MP_DIMS(4, 8));
    const int32_t ids[] = {3, 0, 3};
    mp_test_same(mp_embedding(c, ids, 3, table),
                 mp_embedding(c, ids, 3, mp_reshape(wide, 2, MP_DIMS(4, 8))));
    mp_device_close(c);
}

/* Rows longer than a chunk, in every dtype; the rows are copies, bit for bit. */
static void test_shape__embedding_copies_rows_by_id(void **state)
{
    static const int32_t ids[] = {2, 0, 2, 1};
    enum { V = 3, D = 600, N = 4 };

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 1);
        for (int d = 0; d < MP_DTYPE_COUNT; d++) {
            float values[V * D];
            for (int i = 0; i < V * D; i++)
                values[i] = (float)(i % 61 - 30) / 8;
            const mp_tensor w = mp_test_floats(c, (mp_dtype)d, 2, MP_DIMS(V, D), values);
            const mp_tensor y = mp_embedding(c, ids, N, w);
            assert_int_equal(y.dim[0], N);
            for (int i = 0; i < N; i++)
                mp_test_same(mp_batch(y, i, 1), mp_batch(w, ids[i], 1));
        }
        mp_device_close(c);
    }
}

static void test_shape__an_id_outside_the_table_says_which_and_where(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    mp_tensor w = mp_new(c, MP_BF16, 2, MP_DIMS(8, 4));

    (void)state;
    w.name = "text_encoder.embed_tokens.weight";
    mp_embedding(c, (const int32_t[]){1, 8}, 2, w);
    assert_string_equal(mp_ctx_error(c)->module, "text_encoder.embed_tokens");
    mp_test_fails(c, MP_ESHAPE, "token id 8 at position 1 is outside the table of 8");
    mp_embedding(c, (const int32_t[]){-1}, 1, w);
    mp_test_fails(c, MP_ESHAPE, "token id -1");
    mp_device_close(c);
}

/* Bit for bit: coordinates and the sum of four products are fused as torch's compiler does. */
static void test_shape__bilinear_resizing_is_torchs_bit_for_bit(void **state)
{
    static const char *const names[] = {"smaller", "larger", "double", "one", "same"};
    mp_safetensors *g = mp_test_goldens("kernels/shape.safetensors");

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        for (int d = 0; d < DTYPES; d++)
            for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
                const mp_tensor golden = mp_test_golden(g, "resize_%s.%s", names[i], dtypes[d]);
                const mp_tensor x = mp_test_tensor(c, g, "picture.%s", dtypes[d]);
                mp_test_same(mp_resize_bilinear(c, x, golden.dim[1], golden.dim[2]), golden);
            }
        mp_device_close(c);
    }
    mp_safetensors_close(g);
}

/* Sums of up to 24 values below 4 in another order: 23 roundings of 2^-24 * 40, divided by 24. */
static void test_shape__channel_means_are_torchs_with_one_rounding(void **state)
{
    static const int groups[] = {1, 2, 3, 8, 24};
    mp_safetensors *g = mp_test_goldens("kernels/shape.safetensors");

    (void)state;
    for (const char *const *isa = mp_test_isas(); *isa; isa++) {
        mp_ctx *c = mp_test_ctx(*isa, 2);
        for (int d = 0; d < DTYPES; d++)
            for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
                mp_test_close(
                    mp_mean_channels(c, mp_test_tensor(c, g, "channels.%s", dtypes[d]), groups[i]),
                    mp_test_golden(g, "mean_channels_%d.%s", groups[i], dtypes[d]),
                    (mp_tolerance){"order of the sum", .ulps = d ? 1 : 0, .abs = d ? 0 : 2.4e-6});
        mp_device_close(c);
    }
    mp_safetensors_close(g);
}

enum { H = 37, W = 41, C = 48 };

static mp_tensor as_picture(mp_tensor x)
{
    return mp_reshape(x, 4, MP_DIMS(1, H, W, C));
}

static mp_tensor agree_permute(mp_ctx *c, mp_tensor x)
{
    return mp_permute(c, as_picture(x), (const int[]){2, 0, 3, 1});
}

static mp_tensor agree_shuffle(mp_ctx *c, mp_tensor x)
{
    return mp_upsample_nearest2(c, mp_pixel_shuffle(c, as_picture(x), 2));
}

static mp_tensor agree_resize(mp_ctx *c, mp_tensor x)
{
    return mp_resize_bilinear(c, as_picture(x), 23, 51);
}

static mp_tensor agree_mean(mp_ctx *c, mp_tensor x)
{
    return mp_mean_channels(c, mp_repeat_channels(c, as_picture(x), 3), 4);
}

static mp_tensor agree_cat(mp_ctx *c, mp_tensor x)
{
    const mp_tensor p = as_picture(x), half = mp_cast(c, mp_narrow_axis(c, p, 3, 0, 7), MP_F16);

    return mp_cat(c, 3, (mp_tensor[]){p, half, p}, 3);
}

static void test_shape__long_rows_move_to_their_end(void **state)
{
    enum { N = 98014 };

    (void)state;
    for (int d = 0; d < MP_DTYPE_COUNT; d++) {
        mp_ctx *c = mp_test_ctx(NULL, 3);
        const mp_tensor a = coded(c, (mp_dtype)d, MP_DIMS(1, 1, 1, N), 0);
        const mp_tensor b = coded(c, (mp_dtype)d, MP_DIMS(1, 1, 1, N), 5);
        const mp_tensor y = mp_cat(c, 2, (mp_tensor[]){a, b}, 3);
        assert_memory_equal(y.data, a.data, mp_nbytes(a));
        assert_memory_equal((char *)y.data + mp_nbytes(a), b.data, mp_nbytes(b));
        const mp_tensor last = mp_narrow_axis(c, y, 3, N, N);
        assert_memory_equal(last.data, b.data, mp_nbytes(b));
        const mp_tensor table = mp_reshape(y, 4, MP_DIMS(1, 1, 2, N));
        const mp_tensor turned = mp_permute(c, table, (const int[]){0, 1, 3, 2});
        mp_test_same(mp_permute(c, turned, (const int[]){0, 1, 3, 2}), table);
        mp_test_ok(c);
        mp_device_close(c);
    }
}

/* Planes of more than a tile of 32 x 32, whole tiles and what is left, two dimensions apart. */
static void check_turned(mp_dtype d, int64_t h, int64_t w)
{
    mp_ctx *c = mp_test_ctx(NULL, 3);
    const mp_tensor x = coded(c, d, MP_DIMS(2, h, 3, w), 0);
    const mp_tensor y = mp_permute(c, x, (const int[]){0, 3, 2, 1});
    const size_t size = mp_dtype_size(d);
    const char *from = x.data, *to = y.data;

    mp_test_ok(c);
    for (int64_t i = 0; i < mp_numel(y); i++) {
        const int64_t row = i % h, mid = i / h % 3, column = i / (h * 3) % w, b = i / (h * 3 * w);
        const int64_t at = ((b * h + row) * 3 + mid) * w + column;
        assert_memory_equal(to + (size_t)i * size, from + (size_t)at * size, size);
    }
    mp_device_close(c);
}

static void test_shape__large_planes_turn_tile_by_tile(void **state)
{
    (void)state;
    for (int d = 0; d < MP_DTYPE_COUNT; d++) {
        check_turned((mp_dtype)d, 64, 32);
        check_turned((mp_dtype)d, 33, 95);
    }
}

/* One long row in several tasks: a join along the first axis. */
static mp_tensor agree_join(mp_ctx *c, mp_tensor x)
{
    return mp_cat(c, 2, (mp_tensor[]){x, x}, 0);
}

/* Results of more than a MiB, which go around the caches where rows are whole lines of them: 1088
 * values are lines of every dtype, 1090 are not, and 700 rows are no whole number of tiles. */
static void test_shape__large_planes_turn_to_their_last_element(void **state)
{
    enum { ROWS = 700 };
    static const int64_t heights[] = {1088, 1090};
    static const mp_dtype sizes[] = {MP_F32, MP_F16, MP_F8_E5M2};
    static char bytes[4 * 2 * 1090 * ROWS];

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)((uint32_t)i * 2654435761u >> 24);
    for (const char *const *isa = mp_test_isas(); *isa; isa++)
        for (size_t k = 0; k < 6; k++) {
            mp_ctx *c = mp_test_ctx(*isa, 2);
            const int64_t h = heights[k % 2];
            const mp_dtype d = sizes[k / 2];
            const size_t size = mp_dtype_size(d);
            const mp_tensor y =
                mp_permute(c, mp_view(bytes, d, 3, MP_DIMS(2, h, ROWS)), (const int[]){0, 2, 1});
            mp_test_ok(c);
            for (int64_t b = 0; b < 2; b++)
                for (int64_t i = 0; i < ROWS; i++)
                    for (int64_t j = 0; j < h; j++)
                        if (memcmp((char *)y.data + (size_t)((b * ROWS + i) * h + j) * size,
                                   bytes + (size_t)((b * h + j) * ROWS + i) * size, size))
                            fail_msg("%s, %zu bytes: [%d, %d, %d] is wrong", *isa, size, (int)b,
                                     (int)i, (int)j);
            mp_device_close(c);
        }
}

static void test_shape__instruction_sets_and_thread_counts_give_the_same_bits(void **state)
{
    static const mp_test_case cases[] = {
        {"permute", agree_permute}, {"shuffle", agree_shuffle}, {"resize", agree_resize},
        {"mean", agree_mean},       {"cat", agree_cat},         {"join", agree_join},
    };
    static float values[H * W * C];
    mp_ctx *c = mp_test_ctx("base", 1);

    (void)state;
    for (uint32_t i = 0; i < H * W * C; i++)
        values[i] = (float)(int32_t)(i * 2654435761u) / 1e9f;
    for (int d = MP_F32; d <= MP_BF16; d++)
        mp_test_agree(cases, sizeof cases / sizeof *cases,
                      mp_test_floats(c, (mp_dtype)d, 1, MP_DIMS(H * W * C), values));
    mp_device_close(c);
}

static void test_shape__impossible_shapes_are_refused_with_the_op_named(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor x = mp_new(c, MP_F32, 4, MP_DIMS(1, 3, 5, 6));
    const mp_tensor y = mp_new(c, MP_F32, 4, MP_DIMS(1, 3, 4, 6));
    const mp_tensor row = mp_new(c, MP_F32, 1, MP_DIMS(6)), number = mp_new(c, MP_F32, 0, NULL);

    (void)state;
    mp_pixel_shuffle(c, x, 2);
    assert_string_equal(mp_ctx_error(c)->op, "pixel_shuffle");
    mp_test_fails(c, MP_ESHAPE, "[1, 3, 5, 6] does not go with 2");
    mp_pixel_shuffle(c, x, 65536); /* its square is no int */
    mp_test_fails(c, MP_ESHAPE, "65536");
    mp_pixel_unshuffle(c, x, 3);
    mp_test_fails(c, MP_ESHAPE, "pixel_unshuffle");
    mp_narrow_axis(c, x, 1, 2, 2);
    mp_test_fails(c, MP_ESHAPE, "narrow");
    mp_narrow_axis(c, x, 4, 0, 1);
    mp_test_fails(c, MP_ESHAPE, "narrow");
    mp_narrow_axis(c, x, -5, 0, 1);
    mp_test_fails(c, MP_ESHAPE, "narrow");
    mp_narrow_axis(c, x, 1, INT64_MAX, 1);
    mp_test_fails(c, MP_ESHAPE, "narrow");
    mp_cat(c, 2, (mp_tensor[]){x, y}, 1);
    mp_test_fails(c, MP_ESHAPE, "cat: [1, 3, 4, 6]");
    mp_cat(c, 2, (mp_tensor[]){x, row}, 1);
    mp_test_fails(c, MP_ESHAPE, "cat: [6]");
    mp_cat(c, 2, (mp_tensor[]){x, x}, 4);
    mp_test_fails(c, MP_ESHAPE, "does not go with 4");
    mp_cat(c, 2, (mp_tensor[]){x, x}, -5);
    mp_test_fails(c, MP_ESHAPE, "cat");
    mp_cat(c, 1, &number, 0);
    mp_test_fails(c, MP_ESHAPE, "cat");
    mp_pad_hw(c, x, -1, 0);
    mp_test_fails(c, MP_ESHAPE, "pad");
    mp_repeat_channels(c, x, 0);
    mp_test_fails(c, MP_ESHAPE, "repeat_channels");
    mp_mean_channels(c, x, 4);
    mp_test_fails(c, MP_ESHAPE, "mean_channels");
    mp_upsample_nearest2(c, row);
    assert_string_equal(mp_ctx_error(c)->op, "upsample_nearest");
    mp_test_fails(c, MP_ESHAPE, "upsample_nearest");
    mp_resize_bilinear(c, x, 0, 4);
    mp_test_fails(c, MP_ESHAPE, "resize_bilinear");
    mp_embedding(c, (const int32_t[]){0}, 1, row);
    mp_test_fails(c, MP_ESHAPE, "embedding");
    mp_device_close(c);
}

static void test_shape__empty_and_zero_dimensional_tensors_pass_through(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 2);
    const mp_tensor none = mp_new(c, MP_F16, 4, MP_DIMS(0, 2, 2, 4));
    const mp_tensor number = mp_test_floats(c, MP_F16, 0, NULL, (const float[]){3.0f});

    (void)state;
    assert_int_equal(mp_numel(permute(c, none)), 0);
    assert_int_equal(mp_numel(pixel_shuffle(c, none)), 0);
    assert_int_equal(mp_numel(mp_cat(c, 2, (mp_tensor[]){none, none}, 0)), 0);
    assert_int_equal(mp_numel(mp_mean_channels(c, none, 2)), 0);
    assert_int_equal(mp_numel(mp_narrow_axis(c, none, 1, 1, 0)), 0);
    mp_test_same(mp_permute(c, number, NULL), number);
    mp_test_ok(c);
    mp_device_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shape__every_movement_takes_torchs_elements_in_every_dtype),
        cmocka_unit_test(test_shape__cat_joins_along_any_axis_in_every_dtype),
        cmocka_unit_test(test_shape__cat_of_two_dtypes_promotes_as_torch),
        cmocka_unit_test(test_shape__weights_stored_narrower_move_as_their_dtype),
        cmocka_unit_test(test_shape__embedding_copies_rows_by_id),
        cmocka_unit_test(test_shape__an_id_outside_the_table_says_which_and_where),
        cmocka_unit_test(test_shape__bilinear_resizing_is_torchs_bit_for_bit),
        cmocka_unit_test(test_shape__channel_means_are_torchs_with_one_rounding),
        cmocka_unit_test(test_shape__long_rows_move_to_their_end),
        cmocka_unit_test(test_shape__large_planes_turn_tile_by_tile),
        cmocka_unit_test(test_shape__large_planes_turn_to_their_last_element),
        cmocka_unit_test(test_shape__instruction_sets_and_thread_counts_give_the_same_bits),
        cmocka_unit_test(test_shape__impossible_shapes_are_refused_with_the_op_named),
        cmocka_unit_test(test_shape__empty_and_zero_dimensional_tensors_pass_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
