/* Profiles: what is added up under one name, what gets a row of its own, and that nothing is lost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "harness/engines/profile.h"
#include "kernels/core/memory.h"

enum { ROOM = 8192 };

typedef struct heard {
    mp_op_row rows[ROOM];
    char texts[ROOM][3][64]; /* stage, module, op: a row is valid during its call only */
    int count;
    int64_t calls, bytes, flops;
    double seconds;
} heard;

static char stage[24];
static heard told;

static void hear(void *user, const mp_op_row *row)
{
    heard *h = user;
    char(*text)[64] = h->texts[h->count];

    assert_true(h->count < ROOM);
    snprintf(text[0], sizeof text[0], "%s", row->stage);
    snprintf(text[1], sizeof text[1], "%s", row->module);
    snprintf(text[2], sizeof text[2], "%s", row->op);
    h->rows[h->count] = *row;
    h->rows[h->count].stage = text[0];
    h->rows[h->count].module = text[1];
    h->rows[h->count++].op = text[2];
    h->calls += row->calls;
    h->bytes += row->bytes;
    h->flops += row->flops;
    h->seconds += row->seconds;
}

static mp_profile *open_profile(const char *name)
{
    mp_profile *p = mp_profile_create(stage);

    assert_non_null(p);
    strcpy(stage, name);
    memset(&told, 0, sizeof told);
    return p;
}

/* An op of `ns` nanoseconds, twice as many bytes and three times as many FLOPs. */
static void see(mp_profile *p, const char *module, const char *op, mp_dtype dtype, uint64_t ns)
{
    const mp_observer o = mp_profile_observer(p);
    const mp_tensor y = {.dtype = dtype};

    o.output(o.user,
             &(mp_op_event){
                 .op = op, .module = module, .y = &y, .ns = ns, .bytes = 2 * ns, .flops = 3 * ns});
}

static const mp_op_row *find(const char *in, const char *module, const char *op)
{
    for (int i = 0; i < told.count; i++)
        if (!strcmp(told.rows[i].stage, in) && !strcmp(told.rows[i].module, module) &&
            !strcmp(told.rows[i].op, op))
            return &told.rows[i];
    fail_msg("no row of %s %s %s", in, module, op);
    return NULL;
}

static void test_profile__blocks_of_a_model_are_one_row(void **state)
{
    static const struct {
        const char *module, *collapsed;
    } modules[] = {{"transformer.blocks.0.attn1.to_q", "transformer.blocks.*.attn1.to_q"},
                   {"transformer.blocks.27.attn1.to_q", "transformer.blocks.*.attn1.to_q"},
                   {"vae.decoder.up_blocks.2.0.conv1", "vae.decoder.up_blocks.*.*.conv1"},
                   {"vae.decoder.up_blocks.2.1.conv1", "vae.decoder.up_blocks.*.*.conv1"},
                   {"text_encoder_2.linear_1", "text_encoder_2.linear_1"},
                   {"transformer.2d.x3", "transformer.2d.x3"},
                   {"7", "*"},
                   {"", ""}};
    mp_profile *p = open_profile("denoise");

    (void)state;
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++)
        see(p, modules[i].module, "linear", MP_BF16, 1000);
    mp_profile_each(p, 0, hear, &told);
    assert_int_equal(told.count, 6);
    for (size_t i = 0; i < sizeof modules / sizeof *modules; i++)
        assert_int_equal(find("denoise", modules[i].collapsed, "linear")->calls, 1 + (i < 4));
    const mp_op_row *q = find("denoise", "transformer.blocks.*.attn1.to_q", "linear");
    assert_string_equal(q->dtype, "bf16");
    assert_true(q->seconds == 1e-9 * 2000);
    assert_int_equal(q->bytes, 4000);
    assert_int_equal(q->flops, 6000);
    mp_profile_free(p);
}

static void test_profile__stage_op_and_dtype_tell_rows_apart(void **state)
{
    mp_profile *p = open_profile("text_encode");

    (void)state;
    see(p, "m", "linear", MP_BF16, 10);
    see(p, "m", "linear", MP_F32, 20);
    see(p, "m", "add", MP_F32, 40);
    strcpy(stage, "decode");
    see(p, "m", "linear", MP_F32, 80);
    mp_profile_each(p, 0, hear, &told);
    assert_int_equal(told.count, 4);
    assert_true(find("decode", "m", "linear")->seconds == 1e-9 * 80);
    mp_profile_free(p);
}

static void test_profile__small_rows_are_summed_by_stage(void **state)
{
    mp_profile *p = open_profile("denoise");

    (void)state;
    see(p, "big", "linear", MP_BF16, 500);
    see(p, "small", "add", MP_BF16, 499);
    see(p, "small", "mul", MP_F32, 300);
    strcpy(stage, "decode");
    see(p, "small", "mul", MP_F32, 7);
    mp_profile_each(p, 500e-9, hear, &told);
    assert_int_equal(told.count, 3);
    assert_int_equal(find("denoise", "big", "linear")->calls, 1);
    const mp_op_row *rest = find("denoise", "", "");
    assert_string_equal(rest->dtype, "");
    assert_int_equal(rest->calls, 2);
    assert_int_equal(rest->bytes, 2 * 799);
    assert_int_equal(rest->flops, 3 * 799);
    assert_int_equal(find("decode", "", "")->calls, 1);
    mp_profile_free(p);
}

/* Whatever a checkpoint calls its modules, a profile stays bounded and adds up. */
static void test_profile__loses_nothing_of_more_places_than_it_has_rows(void **state)
{
    enum { PLACES = 6000 };
    mp_profile *p = open_profile("denoise");
    char module[64];

    (void)state;
    for (int i = 0; i < PLACES; i++) {
        snprintf(module, sizeof module, "m%d", i);
        see(p, module, "linear", MP_F32, 1);
        see(p, module, "linear", MP_F32, 1);
    }
    mp_profile_each(p, 0, hear, &told);
    assert_true(told.count < PLACES);
    assert_int_equal(told.calls, 2 * PLACES);
    assert_int_equal(told.bytes, 4 * PLACES);
    mp_profile_free(p);
}

/* Without memory for its row, an op goes into the sum of its stage, and stays there. */
static void test_profile__goes_on_without_memory(void **state)
{
    (void)state;
    mp_memory_fail_at(1);
    assert_null(mp_profile_create(stage));
    for (uint64_t n = 1; n <= 4; n++) { /* a row takes two texts */
        mp_profile *p = open_profile("denoise");
        mp_memory_fail_at(n);
        for (int i = 0; i < 3; i++)
            see(p, i ? "a" : "b", "linear", MP_F32, 10);
        mp_memory_fail_at(0);
        mp_profile_each(p, 0, hear, &told);
        assert_int_equal(told.count, 2);
        assert_int_equal(find("denoise", "", "")->calls, n > 2 ? 2 : 1);
        assert_int_equal(told.calls, 3);
        mp_profile_free(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_profile__blocks_of_a_model_are_one_row),
        cmocka_unit_test(test_profile__stage_op_and_dtype_tell_rows_apart),
        cmocka_unit_test(test_profile__small_rows_are_summed_by_stage),
        cmocka_unit_test(test_profile__loses_nothing_of_more_places_than_it_has_rows),
        cmocka_unit_test(test_profile__goes_on_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
