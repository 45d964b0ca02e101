/* tokenizer_config.json and special_tokens_map.json beside a tokenizer, as transformers reads them:
 * which tokens are special, and which stand in front of a text or behind it. */
#ifndef MP_PIPELINES_COMMON_TOKENIZER_CONFIG_H
#define MP_PIPELINES_COMMON_TOKENIZER_CONFIG_H

#include "pipelines/common/tokenizer_json.h"

/* tokenizer_config.json, with special_tokens_map.json laid over it where it has no
 * added_tokens_decoder.  Missing files are fine: an empty object.  *out is released by
 * json_decref. */
mp_code mp_tokenizer_config_load(const char *dir, json_t **out, mp_error *err);

/* What must be known before the model is read. */
typedef struct mp_tokenizer_class {
    bool named; /* "tokenizer_class" is there */
    bool t5;    /* ... and it is T5Tokenizer or T5TokenizerFast */
    int extra_ids;
} mp_tokenizer_class;
/* path names the file in messages. */
mp_code mp_tokenizer_config_class(const char *path, const json_t *config, mp_tokenizer_class *out,
                                  mp_error *err);

/* Adds the special tokens to parts->added.  For tokenizer.model, sets parts->post by add_bos_token
 * and add_eos_token; beside tokenizer.json these are ignored, as transformers does.  *pad: the
 * padding token's id, or -1. */
mp_code mp_tokenizer_config_apply(const char *dir, json_t *config, mp_tokenizer_parts *parts,
                                  int32_t *pad, mp_error *err);

#endif
