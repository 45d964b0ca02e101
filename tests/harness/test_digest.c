/* What tells one build of this program from another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "harness/digest.h"

/* The whole file of this program; free() it. */
static char *read_program(size_t *size)
{
    FILE *f = fopen("/proc/self/exe", "rb");
    char *text;

    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    *size = (size_t)ftell(f);
    rewind(f);
    text = malloc(*size);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, *size, f), *size);
    fclose(f);
    return text;
}

/* A note is its name's length, its content's, its type, its name, its content. */
static void test_digest__of_a_program_is_the_id_that_the_linker_wrote_into_it(void **state)
{
    static const unsigned char head[16] = {4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, 'G', 'N', 'U', 0};
    char note[36], out[65];
    size_t size;
    char *program = read_program(&size);

    (void)state;
    mp_digest_program(out);
    assert_int_equal(strlen(out), 40);
    memcpy(note, head, sizeof head);
    for (int i = 0; i < 20; i++) {
        unsigned byte;
        assert_int_equal(sscanf(out + 2 * i, "%2x", &byte), 1);
        note[16 + i] = (char)byte;
    }
    bool found = false;
    for (size_t at = 0; at + sizeof note <= size && !found; at += 4)
        found = !memcmp(program + at, note, sizeof note);
    assert_true(found);
    free(program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digest__of_a_program_is_the_id_that_the_linker_wrote_into_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
