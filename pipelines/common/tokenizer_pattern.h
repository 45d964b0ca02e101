/* {"String": "..."} or {"Regex": "..."} of tokenizer.json.
 *
 * The expressions are written for Oniguruma with Ruby's syntax.  PCRE2 runs them after a
 * translation of what differs: \s \w \h \v \b, {,n}, names of scripts, (?m).  What has no
 * counterpart is refused by name. */
#ifndef MP_PIPELINES_COMMON_TOKENIZER_PATTERN_H
#define MP_PIPELINES_COMMON_TOKENIZER_PATTERN_H

#include "pipelines/common/tokenizer_parts.h"

typedef struct mp_pattern mp_pattern;

/* The value of object[key]. */
mp_code mp_pattern_read(const mp_place *at, const json_t *object, const char *key, mp_pattern **out,
                        mp_error *err);
/* A text that is not empty, to be found as it is. */
mp_code mp_pattern_literal(const mp_place *at, const char *literal, mp_pattern **out,
                           mp_error *err);
/* An expression that is part of an algorithm, not of a file. */
mp_code mp_pattern_regex(const mp_place *at, const char *regex, mp_pattern **out, mp_error *err);
void mp_pattern_free(mp_pattern *p);

/* Matches from left to right, without overlap; an empty one right behind another is skipped. */
typedef struct mp_matches {
    const mp_pattern *pattern;
    const char *text;
    size_t n, at;
    ptrdiff_t last_end;
    void *data; /* PCRE2's, reused from text to text */
} mp_matches;

mp_code mp_matches_open(const mp_pattern *p, mp_matches *m, mp_error *err);
void mp_matches_start(mp_matches *m, const char *text, size_t n); /* valid UTF-8 */
/* False at the end, and after an error. */
bool mp_matches_next(mp_matches *m, size_t *start, size_t *end, mp_error *err);
void mp_matches_close(mp_matches *m);

#endif
