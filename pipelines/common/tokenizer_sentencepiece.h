/* tokenizer.model: sentencepiece's own library behind functions that C can call. */
#ifndef MP_PIPELINES_COMMON_TOKENIZER_SENTENCEPIECE_H
#define MP_PIPELINES_COMMON_TOKENIZER_SENTENCEPIECE_H

#include "pipelines/common/tokenizer_parts.h"

typedef struct mp_sentencepiece mp_sentencepiece;

mp_code mp_sentencepiece_open(const char *path, mp_sentencepiece **out, mp_error *err);
void mp_sentencepiece_close(mp_sentencepiece *s); /* NULL is fine */
/* Appends the ids of the text, without bos and eos. */
mp_code mp_sentencepiece_encode(const mp_sentencepiece *s, const char *text, size_t n, mp_ids *ids,
                                mp_error *err);
int32_t mp_sentencepiece_find(const mp_sentencepiece *s, const char *token); /* -1: no such piece */
int64_t mp_sentencepiece_size(const mp_sentencepiece *s);
/* -1: the model has none */
int32_t mp_sentencepiece_bos(const mp_sentencepiece *s);
int32_t mp_sentencepiece_eos(const mp_sentencepiece *s);
int32_t mp_sentencepiece_pad(const mp_sentencepiece *s);

#endif
