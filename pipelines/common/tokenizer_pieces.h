/* Strings with ids, sorted: exact look-up, and every prefix of a text that is one of them. */
#ifndef MP_PIPELINES_COMMON_TOKENIZER_PIECES_H
#define MP_PIPELINES_COMMON_TOKENIZER_PIECES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mp_piece {
    const char *bytes; /* in mp_pieces.bytes once sorted; not NUL-terminated */
    size_t n;
    int32_t id;
} mp_piece;

typedef struct mp_pieces {
    mp_piece *items;
    char *bytes; /* of all items */
    size_t count;
    size_t first[257]; /* items that start with byte b are first[b] .. first[b + 1] - 1 */
} mp_pieces;

/* Copies, sorts and indexes items[count]; of equal strings the first one given wins unless
 * last_wins.  Empty strings are left out.  False: no memory, and *out is empty. */
bool mp_pieces_build(const mp_piece *items, size_t count, bool last_wins, mp_pieces *out);
void mp_pieces_free(mp_pieces *p);
/* id, or -1 */
int32_t mp_pieces_find(const mp_pieces *p, const char *bytes, size_t n);

/* Walks the prefixes of text, shortest first:
 *     mp_prefix walk = mp_prefix_start(p, text, n);
 *     for (const mp_piece *piece; (piece = mp_prefix_next(&walk));) ...
 */
typedef struct mp_prefix {
    const mp_pieces *pieces;
    const char *text;
    size_t n, length; /* length: bytes that low .. high - 1 all start with */
    size_t low, high;
} mp_prefix;

mp_prefix mp_prefix_start(const mp_pieces *p, const char *text, size_t n);
const mp_piece *mp_prefix_next(mp_prefix *walk);

#endif
