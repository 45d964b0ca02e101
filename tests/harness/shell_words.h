/* A line cut into words as a POSIX shell cuts it: what a repro line is for who pastes it. */
#ifndef MP_TESTS_HARNESS_SHELL_WORDS_H
#define MP_TESTS_HARNESS_SHELL_WORDS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "harness/options.h"

/* The shell itself does it: printf ends each word with a zero byte. */
static inline mp_words shell_words(mp_arena *a, const char *line)
{
    const size_t room = 1 << 16;
    char *text = mp_arena_alloc(a, room, 1);
    mp_words out = {.items = mp_arena_alloc(a, 256, sizeof *out.items)};
    FILE *p = popen(mp_arena_printf(a, "set -f; printf '%%s\\0' %s", line), "r");

    assert_non_null(p);
    const size_t n = fread(text, 1, room - 1, p);
    assert_int_equal(pclose(p), 0);
    for (size_t at = 0; at < n && out.count < 256; at += strlen(text + at) + 1)
        out.items[out.count++] = text + at;
    return out;
}

#endif
