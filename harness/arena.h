/* Text and small structs that live and die together: one arena for the scenarios of a run, one for
 * each cell.  The harness has no use for a half-built plan, so a failed request ends the program
 * with a message and exit status 3; nothing that was recorded is touched by that. */
#ifndef MP_HARNESS_ARENA_H
#define MP_HARNESS_ARENA_H

#include <stdarg.h>
#include <stddef.h>

typedef struct mp_arena mp_arena;

mp_arena *mp_arena_create(void);
void mp_arena_free(mp_arena *a);                              /* NULL is fine */
void *mp_arena_alloc(mp_arena *a, size_t count, size_t size); /* zeroed */
char *mp_arena_strdup(mp_arena *a, const char *text);
char *mp_arena_strndup(mp_arena *a, const char *text, size_t n);
char *mp_arena_printf(mp_arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Growing text. */
typedef struct mp_text {
    char *data; /* never NULL after the first append, NUL-terminated */
    size_t length, room;
} mp_text;
void mp_text_add(mp_text *t, const char *text);
void mp_text_add_n(mp_text *t, const char *text, size_t n);
void mp_text_printf(mp_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* text as one word of a POSIX shell: quoted where it must be. */
void mp_text_shell(mp_text *t, const char *text);
void mp_text_free(mp_text *t);
char *mp_text_take(mp_text *t, mp_arena *a); /* into the arena; t is empty again */

/* realloc and calloc that end the program instead of failing. */
void *mp_grow(void *block, size_t count, size_t size);
void *mp_zeroed(size_t count, size_t size);

#endif
