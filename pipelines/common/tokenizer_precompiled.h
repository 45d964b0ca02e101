/* sentencepiece's precompiled_charsmap: a double array of prefixes and their replacements. */
#ifndef MP_PIPELINES_COMMON_TOKENIZER_PRECOMPILED_H
#define MP_PIPELINES_COMMON_TOKENIZER_PRECOMPILED_H

#include "pipelines/common/tokenizer_parts.h"

typedef struct mp_charsmap {
    unsigned char *bytes; /* the decoded file */
    size_t units;         /* of the double array, 4 bytes each, from bytes + 4 */
    const char *texts;    /* NUL-terminated replacements */
    size_t texts_n;
} mp_charsmap;

mp_code mp_charsmap_read(const mp_place *at, const char *base64, mp_charsmap *out, mp_error *err);
void mp_charsmap_free(mp_charsmap *m);
/* Appends the text with all replacements made. */
void mp_charsmap_run(const mp_charsmap *m, const char *text, size_t n, mp_text *out);

#endif
