/* tokenizer.json and the model in it, or tokenizer.model in its place. */
#ifndef MP_PIPELINES_COMMON_TOKENIZER_JSON_H
#define MP_PIPELINES_COMMON_TOKENIZER_JSON_H

#include "pipelines/common/tokenizer_added.h"
#include "pipelines/common/tokenizer_bpe.h"
#include "pipelines/common/tokenizer_normalizer.h"
#include "pipelines/common/tokenizer_post.h"
#include "pipelines/common/tokenizer_pretokenizer.h"
#include "pipelines/common/tokenizer_sentencepiece.h"
#include "pipelines/common/tokenizer_unigram.h"

/* One of the three models is there. */
typedef struct mp_tokenizer_parts {
    mp_bpe *bpe;
    mp_unigram *unigram;
    mp_sentencepiece *sentencepiece;
    mp_normalizer *normalizer;
    mp_pretokenizer *pretokenizer;
    mp_post post;
    mp_added added;
    bool ends_by_config; /* bos_token and eos_token of the config stand at the ends of a text */
    int64_t max_length;  /* model_max_length of the config; INT64_MAX: none */
    char *pad; /* of "padding", or NULL; "truncation" and the rest of it are the caller's to say */
} mp_tokenizer_parts;

mp_code mp_tokenizer_json_read(const char *path, mp_tokenizer_parts *out, mp_error *err);
/* The same of an object at hand; root names its file in messages.  *out is empty after an error. */
mp_code mp_tokenizer_json_parse(const mp_place *root, const json_t *file, mp_tokenizer_parts *out,
                                mp_error *err);
void mp_tokenizer_parts_free(mp_tokenizer_parts *p);

/* The id that the model itself has for a token, -1: none. */
int32_t mp_tokenizer_parts_find(const mp_tokenizer_parts *p, const char *token);
int64_t mp_tokenizer_parts_size(const mp_tokenizer_parts *p); /* of the model's vocabulary */

#endif
