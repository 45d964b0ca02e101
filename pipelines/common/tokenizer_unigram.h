/* Unigram: the cut into pieces whose scores have the greatest sum, as the `tokenizers` package
 * finds it. */
#ifndef MP_PIPELINES_COMMON_TOKENIZER_UNIGRAM_H
#define MP_PIPELINES_COMMON_TOKENIZER_UNIGRAM_H

#include "pipelines/common/tokenizer_parts.h"
#include "pipelines/common/tokenizer_pieces.h"

typedef struct mp_unigram mp_unigram;

mp_code mp_unigram_read(const mp_place *at, const json_t *model, mp_unigram **out, mp_error *err);
void mp_unigram_free(mp_unigram *u);
/* Appends the ids of one piece of text. */
mp_code mp_unigram_encode(const mp_unigram *u, const char *text, size_t n, mp_ids *ids,
                          mp_error *err);
int32_t mp_unigram_find(const mp_unigram *u, const char *token); /* -1: not in the vocabulary */
int64_t mp_unigram_size(const mp_unigram *u);
const mp_pieces *mp_unigram_pieces(const mp_unigram *u);

#endif
