/* torch's CPU generator.  Goldens: tests/fixtures/sana_scheduler.py (torch 2.15, AVX2). */
#include "tests/pipelines/scratch.h"

#include "pipelines/common/generator.h"
#include "pipelines/common/safetensors.h"

static mp_safetensors *open_goldens(void)
{
    mp_error err = {0};
    mp_safetensors *s;

    mp_safetensors_open(MP_FIXTURES "/goldens/generator.safetensors", &s, &err);
    assert_ok(&err);
    return s;
}

/* No tolerance: uniforms, polynomials and fma are torch's own, so the bits are. */
static void assert_draw(mp_generator *g, mp_tensor golden)
{
    static float values[16384];
    const int64_t n = mp_numel(golden);

    assert_in_range(n, 1, 16384);
    mp_generator_normal(g, values, n);
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&values[i], (float *)golden.data + i, sizeof *values))
            fail_msg("%s[%d] is %.9g, expected %.9g", golden.name, (int)i, values[i],
                     ((float *)golden.data)[i]);
}

static void test_generator__first_draw_has_torchs_bits_for_any_size_and_seed(void **state)
{
    mp_safetensors *s = open_goldens();
    int draws = 0;

    (void)state;
    for (int64_t i = 0; i < mp_safetensors_count(s); i++) {
        const mp_tensor golden = mp_safetensors_at(s, i);
        unsigned long long seed;
        int n;
        mp_generator g;
        if (sscanf(golden.name, "seed%llu.n%d", &seed, &n) != 2)
            continue;
        assert_int_equal(mp_numel(golden), n);
        mp_generator_seed(&g, seed);
        assert_draw(&g, golden);
        draws++;
    }
    assert_in_range(draws, 80, 200);
    mp_safetensors_close(s);
}

/* Draws of fewer than 16 values leave half a pair behind, longer ones do not touch it. */
static void test_generator__consecutive_draws_have_torchs_bits(void **state)
{
    mp_safetensors *s = open_goldens();
    mp_generator g;
    mp_tensor golden;
    char name[64];
    int i = 0;

    (void)state;
    mp_generator_seed(&g, 7);
    for (;
         snprintf(name, sizeof name, "seed7.sequence.%d", i), mp_safetensors_find(s, name, &golden);
         i++)
        assert_draw(&g, golden);
    assert_int_equal(i, 15);
    mp_safetensors_close(s);
}

static void test_generator__takes_the_lower_32_bits_of_a_seed(void **state)
{
    mp_generator a, b;
    float x[20], y[20];

    (void)state;
    mp_generator_seed(&a, 7);
    mp_generator_seed(&b, (1ull << 40) + 7);
    mp_generator_normal(&a, x, 20);
    mp_generator_normal(&b, y, 20);
    assert_memory_equal(x, y, sizeof x);
}

static void test_generator__seeding_forgets_half_a_pair(void **state)
{
    mp_generator a, b;
    float x, y;

    (void)state;
    mp_generator_seed(&a, 7);
    mp_generator_normal(&a, &x, 1);
    mp_generator_seed(&a, 8);
    mp_generator_seed(&b, 8);
    mp_generator_normal(&a, &x, 1);
    mp_generator_normal(&b, &y, 1);
    assert_true(x == y);
    mp_generator_normal(&a, &x, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_generator__first_draw_has_torchs_bits_for_any_size_and_seed),
        cmocka_unit_test(test_generator__consecutive_draws_have_torchs_bits),
        cmocka_unit_test(test_generator__takes_the_lower_32_bits_of_a_seed),
        cmocka_unit_test(test_generator__seeding_forgets_half_a_pair),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
