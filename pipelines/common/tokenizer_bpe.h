/* Byte-pair encoding as the `tokenizers` package does it: characters, then merges by rank. */
#ifndef MP_PIPELINES_COMMON_TOKENIZER_BPE_H
#define MP_PIPELINES_COMMON_TOKENIZER_BPE_H

#include "pipelines/common/tokenizer_parts.h"
#include "pipelines/common/tokenizer_pieces.h"

typedef struct mp_bpe mp_bpe;

mp_code mp_bpe_read(const mp_place *at, const json_t *model, mp_bpe **out, mp_error *err);
void mp_bpe_free(mp_bpe *b);
/* Appends the ids of one piece of text; n log n in its length. */
mp_code mp_bpe_encode(const mp_bpe *b, const char *text, size_t n, mp_ids *ids, mp_error *err);
int32_t mp_bpe_find(const mp_bpe *b, const char *token); /* -1: not in the vocabulary */
int64_t mp_bpe_size(const mp_bpe *b);
const mp_pieces *mp_bpe_pieces(const mp_bpe *b);

#endif
