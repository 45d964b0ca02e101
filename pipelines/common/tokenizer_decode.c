#include "pipelines/common/tokenizer_decode.h"

#include <string.h>

#include "kernels/core/memory.h"

enum { METASPACE = 0x2581 };

/* The token of an id as the file has it; nothing for an id that none has. */
static mp_piece token_of(const mp_tokenizer_parts *p, int32_t id)
{
    const mp_pieces *const pieces = p->bpe       ? mp_bpe_pieces(p->bpe)
                                    : p->unigram ? mp_unigram_pieces(p->unigram)
                                                 : NULL;

    for (size_t i = 0; i < p->added.count; i++)
        if (p->added.items[i].id == id)
            return (mp_piece){p->added.items[i].content, strlen(p->added.items[i].content), id};
    for (size_t i = 0; pieces && i < pieces->count; i++)
        if (pieces->items[i].id == id)
            return pieces->items[i];
    return (mp_piece){"", 0, id};
}

/* A token with a character that stands for no byte is text itself. */
static void append_bytes(mp_text *out, mp_piece token)
{
    const size_t start = out->n;

    for (size_t i = 0; i < token.n; i += (size_t)mp_utf8_length(token.bytes[i])) {
        const int byte = mp_byte_of_character(mp_utf8_decode(token.bytes + i));
        if (byte < 0) {
            out->n = start;
            mp_text_append(out, token.bytes, token.n);
            return;
        }
        mp_text_append(out, (char[]){(char)byte}, 1);
    }
}

/* The first token's spaces are what the pre-tokenizer put in front of the text. */
static void append_words(mp_text *out, mp_piece token, bool first)
{
    for (size_t i = 0; i < token.n; i += (size_t)mp_utf8_length(token.bytes[i])) {
        const int32_t c = mp_utf8_decode(token.bytes + i);
        if (c != METASPACE)
            mp_text_append_char(out, c);
        else if (!first)
            mp_text_append(out, " ", 1);
    }
}

/* text.replace("</w>", " ").strip(" "), in place */
static void end_words(char *text)
{
    char *to = text;

    for (const char *from = text; *from;) {
        const bool end = !strncmp(from, "</w>", 4);
        if (!end || to > text)
            *to++ = end ? ' ' : *from;
        from += end ? 4 : 1;
    }
    while (to > text && to[-1] == ' ')
        to--;
    *to = '\0';
}

char *mp_tokenizer_parts_decode(const mp_tokenizer_parts *p, const int32_t *ids, int64_t n)
{
    mp_text raw = {0};
    size_t size;
    char *text = NULL;

    mp_text_append(&raw, "", 0);
    for (int64_t i = 0; i < n; i++)
        if (p->bpe)
            append_bytes(&raw, token_of(p, ids[i]));
        else
            append_words(&raw, token_of(p, ids[i]), i == 0);
    mp_text_append(&raw, "", 1);
    if (!raw.failed)
        text = mp_utf8_repair(raw.bytes, raw.n, &size);
    if (text && p->bpe)
        end_words(text);
    mp_free(raw.bytes);
    return text;
}
