/* The "post_processor" of tokenizer.json: tokens in front of the text and behind it.  Known are
 * TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel (ids unchanged) and Sequence. */
#ifndef MP_PIPELINES_COMMON_TOKENIZER_POST_H
#define MP_PIPELINES_COMMON_TOKENIZER_POST_H

#include "pipelines/common/tokenizer_parts.h"

typedef struct mp_post {
    mp_ids before, after;
} mp_post;

/* node null or absent: nothing is added. */
mp_code mp_post_read(const mp_place *at, const json_t *node, mp_post *out, mp_error *err);
void mp_post_free(mp_post *p);

#endif
