/* The "pre_tokenizer" of tokenizer.json: Sequence, ByteLevel, Split, Metaspace, WhitespaceSplit and
 * Digits cut a text into the pieces that the model encodes one by one. */
#ifndef MP_PIPELINES_COMMON_TOKENIZER_PRETOKENIZER_H
#define MP_PIPELINES_COMMON_TOKENIZER_PRETOKENIZER_H

#include "pipelines/common/tokenizer_parts.h"

typedef struct mp_pretokenizer mp_pretokenizer;

/* node null or absent: *out is NULL, and nothing is cut. */
mp_code mp_pretokenizer_read(const mp_place *at, const json_t *node, mp_pretokenizer **out,
                             mp_error *err);
void mp_pretokenizer_free(mp_pretokenizer *p);
/* Cuts every span that is not an added token. */
mp_code mp_pretokenizer_run(const mp_pretokenizer *p, mp_spans *spans, mp_error *err);
/* The byte that ByteLevel writes as this character, -1: none. */
int mp_byte_of_character(int32_t c);

#endif
