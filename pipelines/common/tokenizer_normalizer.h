/* The "normalizer" of tokenizer.json: Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, Replace,
 * Prepend and Precompiled (sentencepiece's table of replacements).
 *
 * Characters are those of utf8proc's Unicode version.  The `tokenizers` package has Unicode 12 for
 * the forms (it leaves U+32FF and U+A7F2 as they are, and so on) and a newer one for the rest. */
#ifndef MP_PIPELINES_COMMON_TOKENIZER_NORMALIZER_H
#define MP_PIPELINES_COMMON_TOKENIZER_NORMALIZER_H

#include "pipelines/common/tokenizer_parts.h"

typedef struct mp_normalizer mp_normalizer;

/* node null or absent: *out is NULL, and nothing is changed. */
mp_code mp_normalizer_read(const mp_place *at, const json_t *node, mp_normalizer **out,
                           mp_error *err);
void mp_normalizer_free(mp_normalizer *n);
/* Rewrites *text; *origin as in mp_span. */
mp_code mp_normalizer_run(const mp_normalizer *n, mp_text *text, size_t *origin, mp_error *err);

#endif
