/* vocab.json and merges.txt, as Stable Diffusion's checkpoints hold CLIP's tokenizer: what
 * transformers' CLIPTokenizer makes of the two files and of tokenizer_config.json.
 *
 * The rest of a tokenizer.json is fixed by that class: NFC, white space to one space, lower case;
 * CLIP's expression; bytes as characters; </w> behind the last of a word; <|startoftext|> in front
 * and <|endoftext|> behind.  transformers 5 does not repair text with ftfy. */
#ifndef MP_PIPELINES_COMMON_TOKENIZER_CLIP_H
#define MP_PIPELINES_COMMON_TOKENIZER_CLIP_H

#include "pipelines/common/tokenizer_json.h"

typedef struct mp_clip_files {
    const char *vocab, *merges, *config; /* paths */
} mp_clip_files;

/* Gives config the class's special tokens where it names none.  A config of another class is
 * MP_EUNSUPPORTED: the same two files mean something else to it. */
mp_code mp_tokenizer_clip_read(const mp_clip_files *files, json_t *config, mp_tokenizer_parts *out,
                               mp_error *err);

#endif
