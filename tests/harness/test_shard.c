/* `--shard I/N`: what is one, and who gets which cell. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "harness/plan.h"

static void test_shard__is_read_strictly(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "1",
                                      "/",
                                      "1/",
                                      "/2",
                                      "0/2",
                                      "3/2",
                                      "1/0",
                                      "-1/2",
                                      "1/-2",
                                      " 1/2",
                                      "1/2 ",
                                      "1/2/3",
                                      "a/b",
                                      "1.0/2",
                                      "+1/2",
                                      "1/10001",
                                      "1 / 2",
                                      "1/99999999999999999999"};
    mp_shard s;
    mp_error ok = {0};

    assert_int_equal(mp_shard_parse("2/3", &s, &ok), MP_OK);
    assert_int_equal(s.index, 2);
    assert_int_equal(s.count, 3);
    assert_int_equal(mp_shard_parse("10000/10000", &s, &ok), MP_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        mp_error err = {0};
        if (mp_shard_parse(bad[i], &s, &err) != MP_EUSAGE)
            fail_msg("'%s' was taken as %d/%d", bad[i], s.index, s.count);
        assert_non_null(strstr(err.text, "expected I/N with I from 1 to N"));
    }
}

enum { CELLS = 60 };

/* The keys of a matrix of dtypes, tilings and seeds, with its first cells last when `turned`. */
static mp_plan make_plan(mp_arena *a, int turned)
{
    static const char *const dtypes[] = {"bf16", "fp16", "fp32"};
    mp_plan p = {.cells = mp_arena_alloc(a, CELLS, sizeof *p.cells), .count = CELLS};

    for (int i = 0; i < CELLS; i++) {
        const int k = (i + turned) % CELLS;
        p.cells[i].key = mp_arena_printf(a, "sana/precision.default=%s,seed=%d", dtypes[k % 3], k);
    }
    return p;
}

static bool has(const mp_plan *p, const char *key)
{
    for (int i = 0; i < p->count; i++)
        if (!strcmp(p->cells[i].key, key))
            return true;
    return false;
}

static void test_shard__gives_each_cell_to_one_and_all_about_as_many(void **state)
{
    (void)state;
    mp_arena *a = mp_arena_create();
    const mp_plan all = make_plan(a, 0);

    for (int n = 1; n <= CELLS + 2; n++) {
        int seen = 0;
        for (int i = 1; i <= n; i++) {
            mp_plan p = make_plan(a, 0);
            mp_shard_take(a, &(mp_shard){i, n}, &p);
            assert_true(p.count == CELLS / n || p.count == CELLS / n + 1);
            for (int k = 0; k < p.count; k++)
                assert_true(has(&all, p.cells[k].key));
            seen += p.count;
            for (int k = i + 1; n <= 4 && k <= n; k++) {
                mp_plan other = make_plan(a, 0);
                mp_shard_take(a, &(mp_shard){k, n}, &other);
                for (int m = 0; m < p.count; m++)
                    assert_false(has(&other, p.cells[m].key));
            }
        }
        assert_int_equal(seen, CELLS);
    }
    mp_arena_free(a);
}

static void test_shard__depends_on_keys_and_not_on_their_order(void **state)
{
    (void)state;
    mp_arena *a = mp_arena_create();
    mp_plan p = make_plan(a, 0), q = make_plan(a, 17);

    mp_shard_take(a, &(mp_shard){2, 3}, &p);
    mp_shard_take(a, &(mp_shard){2, 3}, &q);
    assert_int_equal(p.count, q.count);
    for (int i = 0; i < p.count; i++)
        assert_true(has(&q, p.cells[i].key));
    mp_arena_free(a);
}

/* Dealt out one by one, a matrix of three dtypes would give each of three machines one of them. */
static void test_shard__spreads_what_a_matrix_repeats(void **state)
{
    (void)state;
    mp_arena *a = mp_arena_create();

    for (int i = 1; i <= 3; i++) {
        mp_plan p = make_plan(a, 0);
        int bf16 = 0;
        mp_shard_take(a, &(mp_shard){i, 3}, &p);
        for (int k = 0; k < p.count; k++)
            bf16 += strstr(p.cells[k].key, "bf16") != NULL;
        assert_in_range(bf16, 2, 14); /* of 20, 6 or 7 in the mean */
    }
    mp_arena_free(a);
}

static void test_shard__keeps_order_and_everything_without_one(void **state)
{
    (void)state;
    mp_arena *a = mp_arena_create();
    const mp_plan all = make_plan(a, 0);
    mp_plan p = make_plan(a, 0), half = make_plan(a, 0);
    int at = 0;

    mp_shard_take(a, &(mp_shard){0}, &p);
    assert_int_equal(p.count, CELLS);
    mp_shard_take(a, &(mp_shard){1, 2}, &half);
    for (int i = 0; i < CELLS && at < half.count; i++)
        at += !strcmp(all.cells[i].key, half.cells[at].key);
    assert_int_equal(at, half.count);
    mp_arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shard__is_read_strictly),
        cmocka_unit_test(test_shard__gives_each_cell_to_one_and_all_about_as_many),
        cmocka_unit_test(test_shard__depends_on_keys_and_not_on_their_order),
        cmocka_unit_test(test_shard__spreads_what_a_matrix_repeats),
        cmocka_unit_test(test_shard__keeps_order_and_everything_without_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
