/* Ids back to text, for messages: what transformers' batch_decode gives for CLIPTokenizer (bytes as
 * characters, </w> behind a word) and for T5Tokenizer (U+2581 for a space), but for the latter's
 * clean_up_tokenization_spaces. */
#ifndef MP_PIPELINES_COMMON_TOKENIZER_DECODE_H
#define MP_PIPELINES_COMMON_TOKENIZER_DECODE_H

#include "pipelines/common/tokenizer_json.h"

/* A new string (mp_free) of valid UTF-8, NULL when memory is short.  Each id is looked for through
 * the whole vocabulary.  A sentencepiece model's ids give "". */
char *mp_tokenizer_parts_decode(const mp_tokenizer_parts *p, const int32_t *ids, int64_t n);

#endif
