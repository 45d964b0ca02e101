/* transformers' T5Tokenizer (5.23, also called T5TokenizerFast), which makes itself anew whatever
 * file it reads: unigram without bytes for the unknown, <unk> is 2, the file's table of characters
 * for a normalizer, words cut at white space and begun with U+2581. */
#ifndef MP_PIPELINES_COMMON_TOKENIZER_T5_H
#define MP_PIPELINES_COMMON_TOKENIZER_T5_H

#include "pipelines/common/tokenizer_json.h"

/* tokenizer.json: its vocabulary, table, post-processor and added tokens count, the rest does not.
 */
mp_code mp_tokenizer_t5_json(const char *path, mp_tokenizer_parts *out, mp_error *err);
/* spiece.model (sentencepiece, unigram), behind whose pieces come <extra_id_N-1> .. <extra_id_0>;
 * </s> ends a text. */
mp_code mp_tokenizer_t5_spiece(const char *path, int extra_ids, mp_tokenizer_parts *out,
                               mp_error *err);

#endif
