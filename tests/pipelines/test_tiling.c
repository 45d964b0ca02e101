/* Tiles on a model whose every value is known: no golden needed but the formula itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "pipelines/common/tiling.h"
#include "tests/support/mp_blocks.h"

static mp_tensor ramp(mp_ctx *c, mp_dtype dtype, int64_t b, int64_t h, int64_t w, int64_t ch)
{
    mp_tensor x = mp_new(c, MP_F32, 4, MP_DIMS(b, h, w, ch));

    assert_false(mp_failed(c));
    for (int64_t i = 0; i < mp_numel(x); i++)
        ((float *)x.data)[i] = (float)((i * 37 % 101) - 50) / 16.0f;
    return mp_cast(c, x, dtype);
}

/* "Decodes" by repeating each pixel twice in both directions. */
static mp_tensor twice(mp_ctx *c, const void *model, mp_tensor tile)
{
    int *const calls = (int *)(uintptr_t)model;

    (*calls)++;
    return mp_upsample_nearest2(c, tile);
}

/* Adds the number of the tile, so that tiles disagree and blending shows. */
static mp_tensor numbered(mp_ctx *c, const void *model, mp_tensor tile)
{
    int *const calls = (int *)(uintptr_t)model;

    return mp_add_scalar(c, mp_upsample_nearest2(c, tile), (float)(*calls)++);
}

static const mp_tiling tiling = {true, 8, 8, 6, 6}; /* pixels; 2 a latent pixel */

static float value(mp_tensor t, int64_t y, int64_t x, int64_t c)
{
    float v;

    mp_widen(t.store,
             (const char *)t.data +
                 (size_t)((y * t.dim[2] + x) * t.dim[3] + c) * mp_dtype_size(t.store),
             &v, 1);
    return v;
}

static void test_tiling__of_a_local_model_equals_the_whole(void **state)
{
    mp_ctx *const c = mp_blocks_ctx();
    const mp_tile_plan plan = mp_tile_plan_decode(&tiling, 2);
    const mp_tensor x = ramp(c, MP_F32, 2, 7, 11, 3);
    int calls = 0, whole_calls = 0;
    (void)state;

    const mp_tensor y = mp_tiled_forward(c, &plan, x, twice, &calls);
    const mp_tensor whole = twice(c, &whole_calls, x);
    assert_false(mp_failed(c));
    assert_true(mp_same_shape(y, whole));
    assert_int_equal(calls, 3 * 4); /* steps of 3 latent pixels over 7 and 11 */
    /* Blending equal values a*(1-t) + a*t rounds three times: 2 ulp of fp32. */
    assert_true(mp_rel_l2(y.data, whole.data, mp_numel(y)) < 2e-7);
    mp_device_close(c);
}

/* Diffusers' own order, with all tiles held at once: rows above, then the tile on the left; the
 * weights are doubles, products and sum round to the dtype. */
enum { H = 7, W = 11, STEP = 3, TILE = 4, ROWS = 3, COLS = 4, BLEND = 2, STRIDE = 6 };

typedef struct held {
    int64_t h, w;
    float v[2 * TILE][2 * TILE];
} held;

static float mix(mp_dtype d, float a, float b, int i, int n)
{
    const double t = (double)i / n;

    return mp_round_to(d, mp_round_to(d, a * (float)(1 - t)) + mp_round_to(d, b * (float)t));
}

static void blend_rows(mp_dtype d, const held *a, held *b)
{
    const int n = BLEND < a->h ? (BLEND < b->h ? BLEND : (int)b->h) : (int)a->h;

    for (int y = 0; y < n; y++)
        for (int x = 0; x < b->w; x++)
            b->v[y][x] = mix(d, a->v[a->h - n + y][x], b->v[y][x], y, n);
}

static void blend_columns(mp_dtype d, const held *a, held *b)
{
    const int n = BLEND < a->w ? (BLEND < b->w ? BLEND : (int)b->w) : (int)a->w;

    for (int y = 0; y < b->h; y++)
        for (int x = 0; x < n; x++)
            b->v[y][x] = mix(d, a->v[y][a->w - n + x], b->v[y][x], x, n);
}

static void hold_all(mp_tensor x, held all[ROWS][COLS])
{
    int number = 0;

    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLS; j++, number++) {
            held *const t = &all[i][j];
            t->h = 2 * (H - i * STEP < TILE ? H - i * STEP : TILE);
            t->w = 2 * (W - j * STEP < TILE ? W - j * STEP : TILE);
            for (int64_t y = 0; y < t->h; y++)
                for (int64_t k = 0; k < t->w; k++)
                    t->v[y][k] = mp_round_to(
                        x.dtype, value(x, i * STEP + y / 2, j * STEP + k / 2, 0) + (float)number);
        }
}

static void test_tiling__blends_to_the_same_bits_as_holding_all_tiles(void **state)
{
    static const mp_dtype dtypes[] = {MP_F32, MP_BF16, MP_F16};
    static held all[ROWS][COLS];
    const mp_tile_plan plan = mp_tile_plan_decode(&tiling, 2);
    (void)state;

    for (size_t d = 0; d < 3; d++) {
        mp_ctx *const c = mp_blocks_ctx();
        const mp_tensor x = ramp(c, dtypes[d], 1, H, W, 1);
        int calls = 0;
        const mp_tensor y = mp_tiled_forward(c, &plan, x, numbered, &calls);
        assert_false(mp_failed(c));
        assert_int_equal(y.dim[1], 2 * H);
        assert_int_equal(y.dim[2], 2 * W);
        hold_all(x, all);
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < COLS; j++) {
                held *const t = &all[i][j];
                if (i)
                    blend_rows(dtypes[d], &all[i - 1][j], t);
                if (j)
                    blend_columns(dtypes[d], &all[i][j - 1], t);
                for (int64_t a = 0; a < t->h && a < STRIDE; a++)
                    for (int64_t b = 0; b < t->w && b < STRIDE; b++)
                        assert_true(value(y, i * STRIDE + a, j * STRIDE + b, 0) == t->v[a][b]);
            }
        mp_device_close(c);
    }
}

static void test_tiling__refuses_numbers_that_cannot_work(void **state)
{
    static const struct {
        mp_tiling tiling;
        const char *text;
    } cases[] = {
        {{true, 16, 512, 16, 448}, "tile height of 16 pixels is smaller"},
        {{true, 512, 16, 448, 16}, "tile width of 16 pixels is smaller"},
        {{true, 512, 512, 0, 448}, "a stride of 0 pixels in height"},
        {{true, 512, 512, 448, 31}, "a stride of 31 pixels in width"},
        {{true, 512, 512, 448, 544}, "leaves gaps"},
    };
    (void)state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mp_error err = {0};
        assert_int_equal(mp_tiling_check(&cases[i].tiling, 32, &err), MP_EUSAGE);
        if (!strstr(err.text, cases[i].text))
            fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].text);
    }
    mp_error err = {0};
    assert_int_equal(mp_tiling_check(&(mp_tiling){true, 512, 512, 512, 448}, 32, &err), MP_OK);
    assert_int_equal(mp_tiling_check(&(mp_tiling){false, 0, 0, 0, 0}, 32, &err), MP_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiling__of_a_local_model_equals_the_whole),
        cmocka_unit_test(test_tiling__blends_to_the_same_bits_as_holding_all_tiles),
        cmocka_unit_test(test_tiling__refuses_numbers_that_cannot_work),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
