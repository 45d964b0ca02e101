/* Text to token ids, from tokenizer.json (the `tokenizers` package's format), tokenizer.model
 * (sentencepiece), spiece.model (T5's) or vocab.json with merges.txt (CLIPTokenizer's), with
 * tokenizer_config.json and special_tokens_map.json beside them.
 *
 * tokenizer.json is read as the data it is: model, normalizer, pre-tokenizer, post-processor and
 * added tokens are whatever the file says; a part that this code does not know is MP_EUNSUPPORTED
 * with its name.  Ids equal those of the `tokenizers` package.  Where tokenizer_config.json says
 * T5Tokenizer, its normalizer and pre-tokenizer are that class's own, as in transformers 5
 * (tokenizer_t5.h). */
#ifndef MP_PIPELINES_COMMON_TOKENIZER_H
#define MP_PIPELINES_COMMON_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/core/status.h"

typedef struct mp_tokenizer mp_tokenizer;

/* dir/tokenizer.json if there is one, else dir/spiece.model, else dir/tokenizer.model, else
 * dir/vocab.json and dir/merges.txt, else MP_EMISSING. */
mp_code mp_tokenizer_open(const char *dir, mp_tokenizer **out, mp_error *err);
void mp_tokenizer_close(mp_tokenizer *t); /* NULL is fine */
/* MP_EMISSING where mp_tokenizer_open would find nothing to read; opens no file. */
mp_code mp_tokenizer_check(const char *dir, mp_error *err);

/* ids of UTF-8 text (invalid sequences are replaced by U+FFFD, as Python would have it before).
 * *ids is owned by the caller (mp_free).  Thread-safe. */
mp_code mp_tokenizer_encode(const mp_tokenizer *t, const char *text, size_t length,
                            bool add_special_tokens, int32_t **ids, int64_t *count, mp_error *err);

/* tokenizer(text, padding="max_length", max_length=n, truncation=True, padding_side="right"):
 * fills ids[n] and mask[n] (1 for tokens, 0 for padding); *truncated counts tokens cut off. */
mp_code mp_tokenizer_encode_padded(const mp_tokenizer *t, const char *text, int64_t n, int32_t *ids,
                                   uint8_t *mask, int64_t *truncated, mp_error *err);

/* A new string (mp_free) of what ids mean, for messages (tokenizer_decode.h). */
mp_code mp_tokenizer_decode(const mp_tokenizer *t, const int32_t *ids, int64_t n, char **text,
                            mp_error *err);

int32_t mp_tokenizer_pad_id(const mp_tokenizer *t);     /* -1: none */
int64_t mp_tokenizer_max_length(const mp_tokenizer *t); /* model_max_length, INT64_MAX: none */
int64_t mp_tokenizer_vocab_size(const mp_tokenizer *t);

#endif
