/* A folder of its own for each test program, and files in it: for tests of readers and writers. */
#ifndef MP_TESTS_PIPELINES_SCRATCH_H
#define MP_TESTS_PIPELINES_SCRATCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <ftw.h>

#include "kernels/core/memory.h"
#include "kernels/core/status.h"

static char scratch_dir[64];

static inline int scratch_setup(void **state)
{
    (void)state;
    snprintf(scratch_dir, sizeof scratch_dir, "/tmp/mpbench-test-XXXXXX");
    return mkdtemp(scratch_dir) ? 0 : -1;
}

static inline int scratch_remove_one(const char *path, const struct stat *st, int kind,
                                     struct FTW *walk)
{
    (void)st;
    (void)kind;
    (void)walk;
    return remove(path);
}

static inline int scratch_teardown(void **state)
{
    (void)state;
    return nftw(scratch_dir, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* The path of a file in the folder; valid until eight calls later. */
static inline const char *scratch(const char *name)
{
    static char paths[8][512];
    static int next;

    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", scratch_dir, name);
    return path;
}

static inline const char *scratch_write(const char *name, const void *data, size_t n)
{
    const char *path = scratch(name);
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return path;
}

static inline const char *scratch_text(const char *name, const char *text)
{
    return scratch_write(name, text, strlen(text));
}

/* A safetensors file with this header and n bytes 0, 1, 2, ... of data. */
static inline const char *scratch_safetensors(const char *name, const char *header, size_t n)
{
    const size_t length = strlen(header), size = 8 + length + n;
    unsigned char *bytes = calloc(1, size);

    assert_non_null(bytes);
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)((uint64_t)length >> (8 * i));
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < n; i++)
        bytes[8 + length + i] = (unsigned char)i;
    const char *path = scratch_write(name, bytes, size);
    free(bytes);
    return path;
}

/* The failure is of this kind and its text contains each of the parts (NULL-terminated). */
static inline void assert_failure(const mp_error *err, mp_code code, const char *const *parts)
{
    if (err->code != code)
        fail_msg("%s error, expected %s: %s", mp_code_name(err->code), mp_code_name(code),
                 err->text);
    for (; *parts; parts++)
        if (!strstr(err->text, *parts))
            fail_msg("\"%s\" is not in: %s", *parts, err->text);
}
#define assert_error(err, code, ...) \
    assert_failure(err, code, (const char *const[]){__VA_ARGS__, NULL})

static inline void assert_ok(const mp_error *err)
{
    if (err->code)
        fail_msg("%s error: %s", mp_code_name(err->code), err->text);
}

#endif
