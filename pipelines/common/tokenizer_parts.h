/* What the parts of a tokenizer share: fields of tokenizer.json and what is said of wrong ones,
 * UTF-8, and a text cut into spans that every step rewrites.
 *
 * Readers are sticky: after the first failure in *err they return their fallback, so a part reads
 * all its fields and looks at err->code once.  err is never NULL below mp_tokenizer_open. */
#ifndef MP_PIPELINES_COMMON_TOKENIZER_PARTS_H
#define MP_PIPELINES_COMMON_TOKENIZER_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/core/status.h"
#include "pipelines/common/json.h"

/* Where in which file: "normalizer.normalizers[2]". */
typedef struct mp_place {
    const char *path;
    char text[128];
    int depth;
} mp_place;

/* Parts nest (Sequence in Sequence); a real file has two levels. */
enum { MP_PLACE_DEPTH = 8 };

mp_place mp_place_in(const mp_place *at, const char *key, int64_t item); /* item < 0: no index */
mp_code mp_place_wrong(const mp_place *at, const char *key, const char *expected,
                       const json_t *found, mp_error *err);
/* A part of tokenizer.json that is not known here. */
mp_code mp_place_unknown(const mp_place *at, const char *kind, const char *name, mp_error *err);
mp_code mp_place_no_memory(const mp_place *at, mp_error *err);
/* Sequences in sequences: MP_EFORMAT when `at` is deeper than MP_PLACE_DEPTH. */
mp_code mp_place_depth(const mp_place *at, mp_error *err);

/* fallback: when the key is absent or null.  fallback NULL of text, and every list and object:
 * the key must be there. */
const char *mp_field_text(const mp_place *at, const json_t *object, const char *key,
                          const char *fallback, mp_error *err);
bool mp_field_bool(const mp_place *at, const json_t *object, const char *key, bool fallback,
                   mp_error *err);
int64_t mp_field_int(const mp_place *at, const json_t *object, const char *key, int64_t min,
                     int64_t max, mp_error *err); /* must be there; min after a failure */
const json_t *mp_field_list(const mp_place *at, const json_t *object, const char *key,
                            mp_error *err);
const json_t *mp_field_object(const mp_place *at, const json_t *object, const char *key,
                              mp_error *err);

bool mp_utf8_valid(const char *text, size_t n);
/* Characters of valid UTF-8. */
int mp_utf8_length(char lead);
int32_t mp_utf8_decode(const char *at);
int mp_utf8_encode(int32_t c, char *to);             /* bytes written, at most 4 */
size_t mp_utf8_before(const char *text, size_t end); /* where the character before `end` starts */
bool mp_utf8_space(int32_t c);                       /* White_Space */
bool mp_utf8_word(int32_t c);                        /* \w: Alphabetic, M, Nd, Pc and the joiners */
/* text with each maximal invalid part replaced by U+FFFD, as Python's errors="replace" (mp_free).
 * NULL: no memory. */
char *mp_utf8_repair(const char *text, size_t n, size_t *out_n);

/* Bytes to encode at once, and what they may grow to, so that a file with absurd replacements
 * cannot take all memory: beyond it, an append fails as if there were no more. */
enum { MP_INPUT_LIMIT = 16 << 20, MP_TEXT_LIMIT = 64 << 20 };

/* A growing string.  After a failed request `failed` is set and appends do nothing. */
typedef struct mp_text {
    char *bytes;
    size_t n, room;
    bool failed;
} mp_text;

void mp_text_append(mp_text *t, const char *bytes, size_t n);
void mp_text_append_char(mp_text *t, int32_t c);

typedef struct mp_ids {
    int32_t *values;
    size_t n, room;
    bool failed;
} mp_ids;

void mp_ids_append(mp_ids *ids, int32_t id);

/* A part of the text.  token >= 0: an added token, which no later step touches.  `origin`: how many
 * of its leading bytes stem from the first character of the whole text (Metaspace's "first"). */
typedef struct mp_span {
    size_t start, n, origin;
    int32_t token;
} mp_span;

typedef struct mp_spans {
    mp_text text;
    mp_span *items;
    size_t count, room;
    bool failed; /* or text.failed */
} mp_spans;

void mp_spans_free(mp_spans *s);
/* Adds a span over the text from `start` to its present end, unless that is empty. */
void mp_spans_close(mp_spans *s, size_t start, size_t origin);
/* Copies bytes as one span, unless there are none. */
void mp_spans_add(mp_spans *s, const char *bytes, size_t n, size_t origin);
void mp_spans_add_token(mp_spans *s, int32_t token);
bool mp_spans_failed(const mp_spans *s);

#endif
