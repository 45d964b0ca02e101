/* The pool and the context's scopes: what lives, what is given back, and the exact limit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/core/ctx_internal.h"
#include "kernels/core/memory.h"

static mp_ctx *context(size_t limit)
{
    mp_error err = {0};
    mp_ctx *c = NULL;

    assert_int_equal(mp_ctx_create(limit, &c, &err), MP_OK);
    return c;
}

static mp_tensor floats(mp_ctx *c, int64_t n)
{
    return mp_new(c, MP_F32, 1, MP_DIMS(n));
}

static void test_pool__keeps_one_tensor_in_place_and_frees_the_rest(void **state)
{
    (void)state;
    mp_ctx *c = context(0);
    const mp_tensor before = floats(c, 1000);
    const mp_mark mark = mp_open(c);

    floats(c, 5000);
    mp_tensor y = floats(c, 2000);
    floats(c, 3000);
    ((float *)y.data)[1999] = 7.0f;
    void *where = y.data;
    y = mp_keep(c, mark, y);
    assert_ptr_equal(y.data, where);
    assert_true(((float *)y.data)[1999] == 7.0f);
    assert_int_equal(mp_pool_get(c).live, 4032 + 8000);
    ((float *)before.data)[999] = 1.0f; /* still ours: AddressSanitizer watches */
    mp_ctx_free(c);
}

static void test_pool__a_view_keeps_the_block_it_lies_in(void **state)
{
    (void)state;
    mp_ctx *c = context(0);
    const mp_mark mark = mp_open(c);
    const mp_tensor x = mp_new(c, MP_BF16, 2, MP_DIMS(4, 64));
    const mp_tensor last = mp_keep(c, mark, mp_batch(x, 3, 1));

    memset(last.data, 1, mp_nbytes(last));
    assert_int_equal(mp_pool_get(c).live, 4 * 64 * 2);
    mp_ctx_free(c);
}

static void test_pool__keeping_an_older_tensor_frees_all_since_the_mark(void **state)
{
    (void)state;
    mp_ctx *c = context(0);
    const mp_tensor x = floats(c, 16);
    const mp_mark mark = mp_open(c);

    floats(c, 100);
    floats(c, 100);
    mp_keep(c, mark, x);
    assert_int_equal(mp_pool_get(c).live, 64);
    mp_ctx_free(c);
}

static void test_pool__reuses_freed_space_of_any_neighbours(void **state)
{
    (void)state;
    mp_ctx *c = context(0);
    const mp_mark all = mp_open(c);
    const mp_tensor a = floats(c, 256);
    const mp_mark inner = mp_open(c);

    floats(c, 256);
    floats(c, 256);
    mp_drop(c, inner);
    const mp_tensor b = floats(c, 512); /* exactly the joined hole */
    assert_ptr_equal(b.data, (char *)a.data + 1024);
    mp_drop(c, all);
    assert_ptr_equal(floats(c, 1).data, a.data);
    mp_ctx_free(c);
}

static void test_pool__the_limit_is_exact_and_says_what_was_wanted(void **state)
{
    (void)state;
    mp_ctx *c = context(1 << 20);
    const mp_mark mark = mp_open(c);

    assert_true(mp_given(floats(c, (1 << 20) / 4)));
    assert_false(mp_given(floats(c, 1)));
    assert_int_equal(mp_ctx_error(c)->code, MP_ENOMEM);
    assert_non_null(strstr(mp_ctx_error(c)->text, "limit 1.0 MiB"));
    mp_ctx_clear(c);
    mp_drop(c, mark);
    assert_true(mp_given(floats(c, (1 << 20) / 4)));
    assert_int_equal(mp_pool_get(c).peak, 1 << 20);
    mp_ctx_free(c);
}

static void test_pool__peak_restarts_at_what_is_alive(void **state)
{
    (void)state;
    mp_ctx *c = context(0);
    const mp_mark mark = mp_open(c);

    floats(c, 1 << 20);
    mp_drop(c, mark);
    assert_int_equal(mp_pool_get(c).peak, 4 << 20);
    mp_trim(c);
    mp_pool_reset_peak(c);
    assert_int_equal(mp_pool_get(c).peak, 0);
    memset(floats(c, 1 << 20).data, 1, 4 << 20); /* pages come back after a trim */
    mp_ctx_free(c);
}

static void test_pool__a_shape_that_overflows_is_refused(void **state)
{
    (void)state;
    mp_ctx *c = context(0);

    mp_new(c, MP_F32, 3, MP_DIMS(INT64_MAX / 2, 8, 8));
    assert_int_equal(mp_ctx_error(c)->code, MP_ESHAPE);
    mp_ctx_clear(c);
    mp_new(c, MP_F32, 1, MP_DIMS(-1));
    assert_int_equal(mp_ctx_error(c)->code, MP_ESHAPE);
    mp_ctx_free(c);
}

static void test_ctx__the_first_failure_stays_with_its_module(void **state)
{
    (void)state;
    mp_ctx *c = context(0);
    mp_tensor w = {.name = "transformer.proj_out.weight", .dtype = MP_F32};

    mp_push(c, "transformer");
    mp_push(c, "transformer_blocks.%d", 3);
    mp_fail(c, MP_EDTYPE, NULL, "first");
    mp_fail(c, MP_ESHAPE, &w, "second");
    assert_int_equal(mp_ctx_error(c)->code, MP_EDTYPE);
    assert_string_equal(mp_ctx_error(c)->text, "first");
    assert_string_equal(mp_ctx_error(c)->module, "transformer.transformer_blocks.3");
    mp_ctx_clear(c);
    mp_fail(c, MP_ESHAPE, &w, "a named parameter is exact");
    assert_string_equal(mp_ctx_error(c)->module, "transformer.proj_out");
    mp_ctx_free(c);
}

static void test_ctx__scopes_nest_and_unwind(void **state)
{
    (void)state;
    mp_ctx *c = context(0);

    mp_push(c, "vae");
    mp_push(c, "decoder.up_blocks.%d.%d", 2, 1);
    assert_string_equal(mp_module(c), "vae.decoder.up_blocks.2.1");
    mp_pop(c);
    assert_string_equal(mp_module(c), "vae");
    mp_pop(c);
    assert_string_equal(mp_module(c), "");
    mp_ctx_free(c);
}

static void count_output(void *user, const mp_op_event *event)
{
    assert_string_equal(event->op, "silu");
    assert_string_equal(event->module, "vae");
    ++*(int *)user;
}

static void test_ctx__observers_see_outputs_until_they_leave(void **state)
{
    (void)state;
    mp_ctx *c = context(0);
    int seen = 0;
    const mp_observer o = {.output = count_output, .user = &seen};

    mp_push(c, "vae");
    assert_true(mp_observe(c, o));
    mp_op op = mp_op_begin(c, "silu", NULL);
    mp_op_end(c, &op, floats(c, 4));
    mp_unobserve(c, o);
    op = mp_op_begin(c, "silu", NULL);
    mp_op_end(c, &op, floats(c, 4));
    assert_int_equal(seen, 1);
    mp_ctx_free(c);
}

static void test_memory__the_nth_request_can_be_told_to_fail(void **state)
{
    (void)state;
    mp_error err = {0};
    mp_ctx *c = NULL;

    for (uint64_t n = 1; n <= 2; n++) { /* a context is two requests */
        mp_memory_fail_at(n);
        assert_int_equal(mp_ctx_create(0, &c, &err), MP_ENOMEM);
        err.code = MP_OK;
    }
    mp_memory_fail_at(0);
    assert_null(mp_alloc(SIZE_MAX / 2, 4));
    assert_null(mp_realloc(NULL, SIZE_MAX / 2, 4));
}

static void test_dtype__names_of_every_kind_parse(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        mp_dtype dtype;
    } cases[] = {
        {"fp32", MP_F32},          {"float32", MP_F32},
        {"torch.float16", MP_F16}, {"half", MP_F16},
        {"bf16", MP_BF16},         {"torch.bfloat16", MP_BF16},
        {"BF16", MP_BF16},         {"float8_e4m3fn", MP_F8_E4M3},
        {"fp8_e5m2", MP_F8_E5M2},
    };
    mp_dtype d;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_true(mp_dtype_parse(cases[i].text, &d));
        assert_int_equal(d, cases[i].dtype);
    }
    assert_false(mp_dtype_parse("fp33", &d));
    assert_false(mp_dtype_parse("", &d));
}

static void test_dtype__widens_exactly_where_every_value_survives(void **state)
{
    (void)state;
    uint8_t code[2] = {0};

    for (int from = 0; from < MP_DTYPE_COUNT; from++)
        for (int to = 0; to < MP_DTYPE_COUNT; to++) {
            if (mp_dtype_size((mp_dtype)from) > 2)
                continue; /* fp32 widens to itself alone; 2^32 codes say nothing more */
            bool all = true;
            for (int v = 0; v < 1 << (8 * mp_dtype_size((mp_dtype)from)); v++) {
                float x;
                memcpy(code, &v, 2);
                mp_widen((mp_dtype)from, code, &x, 1);
                if (x == x && mp_round_to((mp_dtype)to, x) != x)
                    all = false;
            }
            /* e5m2's infinities are no values of e4m3, nor is bf16's range one of fp16. */
            assert_int_equal(mp_dtype_widens((mp_dtype)from, (mp_dtype)to), all);
        }
}

static size_t resident_pages(const void *at, size_t bytes)
{
    static unsigned char there[1 << 16];
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const uintptr_t first = ((uintptr_t)at + page - 1) / page * page;
    const size_t n = ((uintptr_t)at + bytes - first) / page;
    size_t found = 0;

    assert_true(n <= sizeof there);
    assert_int_equal(mincore((void *)first, n * page, there), 0);
    for (size_t i = 0; i < n; i++)
        found += there[i] & 1;
    return found;
}

/* A free block is kept, pages and all, as long as that costs little beside the peak. */
static void test_pool__pages_beyond_the_peak_go_back(void **state)
{
    enum { MIB = (1 << 20) / sizeof(float) };
    (void)state;
    mp_ctx *c = context(0);

    mp_mark mark = mp_open(c);
    const mp_tensor small = floats(c, 3 * MIB);
    memset(small.data, 1, mp_nbytes(small));
    mp_keep(c, mark, floats(c, MIB)); /* behind it */
    floats(c, 4 * MIB);
    assert_true(resident_pages(small.data, mp_nbytes(small)) > 0);

    mark = mp_open(c);
    const mp_tensor large = floats(c, 64 * MIB);
    memset(large.data, 1, mp_nbytes(large));
    mp_keep(c, mark, floats(c, 4 * MIB));
    assert_true(resident_pages(large.data, mp_nbytes(large)) > 0); /* 64 of 73 MiB, the peak */
    floats(c, 65 * MIB); /* as much again, which does not fit there */
    assert_int_equal(resident_pages(large.data, mp_nbytes(large)), 0);
    mp_ctx_free(c);
}

/* Blocks of two modules and of none; the peak is the moment before the largest is dropped. */
static void test_pool__tells_whose_blocks_made_the_peak(void **state)
{
    mp_share shares[4];
    (void)state;
    mp_ctx *c = context(0);

    floats(c, 16); /* of before: nobody's */
    assert_true(mp_account(c, true));
    mp_push(c, "decoder");
    floats(c, 32);
    mp_push(c, "conv_in");
    const mp_mark mark = mp_open(c);
    floats(c, 1024);
    floats(c, 64);
    mp_drop(c, mark);
    mp_pop(c);
    floats(c, 48);
    mp_pop(c);
    assert_int_equal(mp_peak_shares(c, shares, 4), 3);
    assert_string_equal(shares[0].module, "decoder.conv_in");
    assert_int_equal(shares[0].bytes, (1024 + 64) * sizeof(float));
    assert_string_equal(shares[1].module, "decoder");
    assert_int_equal(shares[1].bytes, 32 * sizeof(float));
    assert_string_equal(shares[2].module, "");
    assert_int_equal(shares[2].bytes, 16 * sizeof(float));
    assert_int_equal(mp_peak_shares(c, shares, 1), 1);

    mp_pool_reset_peak(c); /* what is in use now */
    assert_int_equal(mp_peak_shares(c, shares, 4), 2);
    assert_string_equal(shares[0].module, "decoder");
    assert_int_equal(shares[0].bytes, (32 + 48) * sizeof(float));
    mp_account(c, false);
    floats(c, 1024);
    assert_int_equal(mp_peak_shares(c, shares, 4), 2);
    assert_string_equal(shares[0].module, "");
    mp_ctx_free(c);
}

static void test_pool__accounts_for_many_modules(void **state)
{
    enum { MODULES = 1000 };
    static mp_share shares[MODULES + 1];
    (void)state;
    mp_ctx *c = context(0);

    assert_true(mp_account(c, true));
    for (int times = 0; times < 2; times++)
        for (int i = 0; i < MODULES; i++) {
            mp_push(c, "transformer_blocks.%d", i);
            floats(c, 16);
            mp_pop(c);
        }
    assert_int_equal(mp_peak_shares(c, shares, MODULES + 1), MODULES);
    for (int i = 0; i < MODULES; i++)
        assert_int_equal(shares[i].bytes, 2 * 16 * sizeof(float));
    mp_ctx_free(c);
}

/* Without memory for the names, blocks are nobody's and nothing fails. */
static void test_pool__accounting_needs_no_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 6; n++) {
        mp_share share = {"", 0};
        mp_ctx *c = context(0);
        floats(c, 16);
        mp_memory_fail_at(n);
        const bool on = mp_account(c, true);
        mp_push(c, "decoder");
        floats(c, 16);
        mp_memory_fail_at(0);
        assert_false(mp_failed(c));
        assert_int_equal(on, n > 1);
        if (on && mp_peak_shares(c, &share, 1))
            assert_true(share.bytes == (n < 5 ? 32 : 16) * sizeof(float));
        mp_ctx_free(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool__keeps_one_tensor_in_place_and_frees_the_rest),
        cmocka_unit_test(test_pool__a_view_keeps_the_block_it_lies_in),
        cmocka_unit_test(test_pool__keeping_an_older_tensor_frees_all_since_the_mark),
        cmocka_unit_test(test_pool__reuses_freed_space_of_any_neighbours),
        cmocka_unit_test(test_pool__the_limit_is_exact_and_says_what_was_wanted),
        cmocka_unit_test(test_pool__peak_restarts_at_what_is_alive),
        cmocka_unit_test(test_pool__a_shape_that_overflows_is_refused),
        cmocka_unit_test(test_ctx__the_first_failure_stays_with_its_module),
        cmocka_unit_test(test_ctx__scopes_nest_and_unwind),
        cmocka_unit_test(test_ctx__observers_see_outputs_until_they_leave),
        cmocka_unit_test(test_memory__the_nth_request_can_be_told_to_fail),
        cmocka_unit_test(test_dtype__names_of_every_kind_parse),
        cmocka_unit_test(test_dtype__widens_exactly_where_every_value_survives),
        cmocka_unit_test(test_pool__pages_beyond_the_peak_go_back),
        cmocka_unit_test(test_pool__tells_whose_blocks_made_the_peak),
        cmocka_unit_test(test_pool__accounts_for_many_modules),
        cmocka_unit_test(test_pool__accounting_needs_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
