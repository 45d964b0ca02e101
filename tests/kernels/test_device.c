/* Opening a device: every instruction set of this machine, and what is refused with which words. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/core/memory.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "tests/support/mp_test.h"

static bool runs_here(const char *name)
{
    for (const char *const *isa = mp_test_isas(); *isa; isa++)
        if (!strcmp(*isa, name))
            return true;
    return false;
}

/* On a machine that lacks one of these, its name is refused like an unknown one. */
static void test_device__an_instruction_set_opens_by_name_where_the_machine_has_it(void **state)
{
    static const char *const names[] = {"amx", "avx512bf16", "avx512", "avx2", "base"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const mp_device_options o = {.isa = names[i], .threads = 1};
        mp_error err = {0};
        mp_ctx *c = NULL;
        mp_device_info info;
        const mp_code code = mp_device_open(&o, &c, &err);
        assert_int_equal(code, runs_here(names[i]) ? MP_OK : MP_EDEVICE);
        if (code) {
            assert_non_null(strstr(err.text, names[i]));
            continue;
        }
        mp_device_describe(c, &info);
        assert_string_equal(info.isa, names[i]);
        mp_device_close(c);
    }
}

static void test_device__an_unknown_instruction_set_is_refused_with_the_choices(void **state)
{
    static const char *const names[] = {"sse9", "", "AVX2", "avx51"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const mp_device_options o = {.isa = names[i], .threads = 1};
        mp_error err = {0};
        mp_ctx *c = NULL;
        mp_device_info info;
        assert_int_equal(mp_device_open(&o, &c, &err), MP_EDEVICE);
        assert_null(c);
        assert_non_null(strstr(err.text, names[i]));
        assert_non_null(strstr(err.text, "choose from: "));
        assert_non_null(strstr(err.text, "base"));
        err = (mp_error){0};
        assert_int_equal(mp_device_probe(names[i], &info, &err), MP_EDEVICE);
    }
}

static void test_device__without_a_name_the_best_instruction_set_is_taken(void **state)
{
    mp_ctx *c = mp_test_ctx(NULL, 1);
    mp_device_info info;

    (void)state;
    mp_device_describe(c, &info);
    assert_string_equal(info.isa, mp_test_isas()[0]);
    assert_memory_equal(info.isas, info.isa, strlen(info.isa));
    mp_device_close(c);
}

static void test_device__another_device_is_refused_with_what_the_build_has(void **state)
{
    const mp_device_options o = {.device = "tpu"}, cpu = {.device = "cpu", .threads = 1};
    mp_error err = {0};
    mp_ctx *c = NULL;

    (void)state;
    assert_int_equal(mp_device_open(&o, &c, &err), MP_EDEVICE);
    assert_null(c);
    assert_non_null(strstr(err.text, "\"tpu\""));
    assert_non_null(strstr(err.text, "cpu"));
    err = (mp_error){0};
    assert_int_equal(mp_device_open(&cpu, &c, &err), MP_OK);
    mp_device_close(c);
    mp_device_close(NULL);
}

static int threads_now(void)
{
    DIR *d = opendir("/proc/self/task");
    int n = 0;

    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

/* A joined thread stays listed for a moment. */
static bool threads_become(int n)
{
    for (int i = 0; i < 1000; i++) {
        if (threads_now() == n)
            return true;
        usleep(1000);
    }
    return false;
}

static void test_device__probing_starts_no_threads_and_closing_joins_them(void **state)
{
    mp_error err = {0};
    mp_device_info probed, opened;

    (void)state;
    mp_device_close(mp_test_ctx(NULL, 1)); /* OpenBLAS folds its own threads on the first call */
    usleep(20000);
    const int before = threads_now();
    assert_int_equal(mp_device_probe(NULL, &probed, &err), MP_OK);
    assert_int_equal(threads_now(), before);
    mp_ctx *c = mp_test_ctx(NULL, 4);
    assert_int_equal(threads_now(), before + 3);
    mp_device_describe(c, &opened);
    mp_device_close(c);
    assert_true(threads_become(before));
    assert_int_equal(opened.threads, 4);
    opened.threads = probed.threads;
    assert_memory_equal(&opened, &probed, sizeof probed);
}

static void test_device__describes_the_machine(void **state)
{
    mp_error err = {0};
    mp_device_info info;

    (void)state;
    assert_int_equal(mp_device_probe("base", &info, &err), MP_OK);
    assert_string_equal(info.isa, "base");
    assert_true(strlen(info.cpu) > 0);
    assert_non_null(strstr(info.blas, "OpenBLAS"));
    assert_non_null(strstr(info.blas, "core "));
    assert_in_range(info.threads, 1, 4096);
    assert_in_range(info.cores, 1, (uintmax_t)info.threads);
    assert_true(info.memory > (size_t)1 << 28);
}

/* Operands fill the limit to the last byte; the result of the next op is what no longer fits. */
static void test_device__an_op_over_the_memory_limit_fails_and_the_context_lives_on(void **state)
{
    const mp_device_options o = {.threads = 1, .memory_limit = (size_t)1 << 20};
    mp_error err = {0};
    mp_ctx *c = NULL;

    (void)state;
    assert_int_equal(mp_device_open(&o, &c, &err), MP_OK);
    const mp_tensor x = mp_new(c, MP_F32, 1, MP_DIMS(1 << 17));
    const mp_mark mark = mp_open(c);
    memset(x.data, 0, mp_nbytes(x));
    const mp_tensor y = mp_activate(c, x, MP_ACT_SILU);
    mp_test_ok(c);
    assert_false(mp_given(mp_activate(c, y, MP_ACT_SILU)));
    assert_string_equal(mp_ctx_error(c)->op, "silu");
    mp_test_fails(c, MP_ENOMEM, "limit 1.0 MiB");
    mp_activate_(c, y, MP_ACT_SILU);
    mp_test_ok(c);
    mp_drop(c, mark);
    mp_softmax(c, x);
    mp_test_ok(c);
    assert_int_equal(mp_pool_get(c).peak, 1 << 20);
    mp_device_close(c);
}

/* Whichever request fails, the error is one of memory and nothing is left behind (LeakSanitizer).
 */
static void test_device__running_out_of_host_memory_while_opening_leaves_nothing(void **state)
{
    const mp_device_options o = {.threads = 2};
    mp_error err = {0};
    mp_ctx *c = NULL;
    int failures = 0;

    (void)state;
    for (uint64_t n = 1; n < 20; n++) {
        mp_memory_fail_at(n);
        const mp_code code = mp_device_open(&o, &c, &err);
        mp_memory_fail_at(0);
        if (!code)
            break;
        assert_int_equal(code, MP_ENOMEM);
        assert_null(c);
        err = (mp_error){0};
        failures++;
    }
    assert_true(failures >= 3); /* context, pool, workers */
    assert_non_null(c);
    mp_device_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_device__an_instruction_set_opens_by_name_where_the_machine_has_it),
        cmocka_unit_test(test_device__an_unknown_instruction_set_is_refused_with_the_choices),
        cmocka_unit_test(test_device__without_a_name_the_best_instruction_set_is_taken),
        cmocka_unit_test(test_device__another_device_is_refused_with_what_the_build_has),
        cmocka_unit_test(test_device__probing_starts_no_threads_and_closing_joins_them),
        cmocka_unit_test(test_device__describes_the_machine),
        cmocka_unit_test(test_device__an_op_over_the_memory_limit_fails_and_the_context_lives_on),
        cmocka_unit_test(test_device__running_out_of_host_memory_while_opening_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
