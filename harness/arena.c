#include "harness/arena.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct block {
    struct block *next;
    max_align_t data[];
} block;

struct mp_arena {
    block *blocks;
};

static void out_of_memory(void)
{
    fputs("mpbench: out of memory in the harness itself; what was recorded is safe\n", stderr);
    exit(3);
}

void *mp_grow(void *old, size_t count, size_t size)
{
    if (size && count > SIZE_MAX / size)
        out_of_memory();
    const size_t bytes = count * size;
    void *p = realloc(old, bytes > 0 ? bytes : 1);
    if (!p)
        out_of_memory();
    return p;
}

void *mp_zeroed(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size ? size : 1);
    if (!p)
        out_of_memory();
    return p;
}

mp_arena *mp_arena_create(void)
{
    return mp_zeroed(1, sizeof(mp_arena));
}

void mp_arena_free(mp_arena *a)
{
    if (!a)
        return;
    for (block *b = a->blocks; b;) {
        block *next = b->next;
        free(b);
        b = next;
    }
    free(a);
}

void *mp_arena_alloc(mp_arena *a, size_t count, size_t size)
{
    if (size && count > (SIZE_MAX - sizeof(block)) / size)
        out_of_memory();
    block *b = mp_zeroed(1, sizeof(block) + count * size);
    b->next = a->blocks;
    a->blocks = b;
    return b->data;
}

char *mp_arena_strndup(mp_arena *a, const char *text, size_t n)
{
    char *copy = mp_arena_alloc(a, n + 1, 1);
    memcpy(copy, text, n);
    return copy;
}

char *mp_arena_strdup(mp_arena *a, const char *text)
{
    return mp_arena_strndup(a, text, strlen(text));
}

char *mp_arena_printf(mp_arena *a, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = mp_arena_alloc(a, (size_t)(n < 0 ? 0 : n) + 1, 1);
    if (n >= 0)
        vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    return text;
}

static void text_reserve(mp_text *t, size_t more)
{
    if (t->length + more + 1 <= t->room)
        return;
    t->room = (t->length + more + 1) * 2;
    t->data = mp_grow(t->data, t->room, 1);
}

void mp_text_add_n(mp_text *t, const char *text, size_t n)
{
    text_reserve(t, n);
    memcpy(t->data + t->length, text, n);
    t->length += n;
    t->data[t->length] = '\0';
}

void mp_text_add(mp_text *t, const char *text)
{
    mp_text_add_n(t, text, strlen(text));
}

void mp_text_printf(mp_text *t, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n > 0) {
        text_reserve(t, (size_t)n);
        vsnprintf(t->data + t->length, (size_t)n + 1, format, again);
        t->length += (size_t)n;
    }
    va_end(again);
}

/* Control characters in POSIX's $'...' form, so that the line can be shown and typed. */
static void shell_escaped(mp_text *t, const char *text)
{
    mp_text_add(t, "$'");
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            mp_text_printf(t, "\\%03o", (unsigned)(unsigned char)*p);
        else if (*p == '\'' || *p == '\\')
            mp_text_printf(t, "\\%c", *p);
        else
            mp_text_add_n(t, p, 1);
    mp_text_add(t, "'");
}

static void shell_quoted(mp_text *t, const char *text)
{
    mp_text_add(t, "'");
    for (const char *p = text; *p; p++)
        if (*p == '\'')
            mp_text_add(t, "'\\''");
        else
            mp_text_add_n(t, p, 1);
    mp_text_add(t, "'");
}

void mp_text_shell(mp_text *t, const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-+=.,:/@%";
    bool control = false;

    for (const char *p = text; *p; p++)
        control |= (unsigned char)*p < 0x20 || *p == 0x7f;
    if (control)
        shell_escaped(t, text);
    else if (*text && strspn(text, plain) == strlen(text))
        mp_text_add(t, text);
    else
        shell_quoted(t, text);
}

void mp_text_free(mp_text *t)
{
    free(t->data);
    *t = (mp_text){0};
}

char *mp_text_take(mp_text *t, mp_arena *a)
{
    char *copy = mp_arena_strndup(a, t->data ? t->data : "", t->length);
    mp_text_free(t);
    return copy;
}
