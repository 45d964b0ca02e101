/* Added tokens: texts that are one token wherever they occur, found before the model sees the rest.
 * Those that are not `normalized` are searched in the text as it came, the others after the
 * normalizer.  Of several at one place the longest is taken. */
#ifndef MP_PIPELINES_COMMON_TOKENIZER_ADDED_H
#define MP_PIPELINES_COMMON_TOKENIZER_ADDED_H

#include "pipelines/common/tokenizer_normalizer.h"
#include "pipelines/common/tokenizer_parts.h"
#include "pipelines/common/tokenizer_pieces.h"

typedef struct mp_added_token {
    char *content;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
    bool ever_special; /* this one or an earlier one of the same content */
    bool searched;     /* false: an earlier special one is, and this one has its say only on
                          single_word, lstrip and rstrip */
} mp_added_token;

typedef struct mp_added {
    mp_added_token *items;
    size_t count, room;
    json_t *last;              /* content -> index of the last token of it */
    int64_t own;               /* how many contents the model's vocabulary lacks */
    int32_t max_id;            /* -1: none */
    mp_pieces raw, normalized; /* contents; their ids are indices of items */
} mp_added;

void mp_added_free(mp_added *a);
/* The fields of a token as JSON has them; content is borrowed.  fallback: "special" when absent. */
mp_added_token mp_added_token_read(const mp_place *at, const json_t *node, bool fallback,
                                   mp_error *err);
/* Adds a token as the `tokenizers` package does: it has the id that the model knows it by
 * (model_id, -1: none), or the next free one behind the model's `size`.  id >= 0: what the file
 * says it is, else MP_EFORMAT. */
mp_code mp_added_add(mp_added *a, const mp_place *at, const mp_added_token *token, int64_t id,
                     int32_t model_id, int64_t size, mp_error *err);
/* After the last mp_added_add. */
mp_code mp_added_build(mp_added *a, const mp_place *at, const mp_normalizer *n, mp_error *err);

int32_t mp_added_find(const mp_added *a, const char *content); /* -1: none */
/* Cuts the tokens of one kind out of every span that is not a token yet. */
mp_code mp_added_split(const mp_added *a, bool normalized, mp_spans *spans, mp_error *err);

#endif
