#include "pipelines/common/python_text.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <utf8proc.h>

#include "kernels/core/memory.h"

enum { SIGMA = 0x3A3, SMALL_SIGMA = 0x3C3, FINAL_SIGMA = 0x3C2, DOTTED_I = 0x130, DOT = 0x307 };

typedef struct range {
    int32_t first, last;
} range;

static bool in_ranges(int32_t cp, const range *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (cp >= r[i].first && cp <= r[i].last)
            return true;
    return false;
}
#define IN_RANGES(cp, r) in_ranges(cp, r, sizeof(r) / sizeof *(r))

/* str.isspace: category Zs, or a bidirectional class of WS, B or S. */
static bool is_space(int32_t cp)
{
    static const range spaces[] = {
        {0x09, 0x0D},     {0x1C, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},     {0x1680, 0x1680},
        {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}};

    return IN_RANGES(cp, spaces);
}

/* Unicode's Cased: the letters with case, and Other_Lowercase and Other_Uppercase. */
static bool is_cased(int32_t cp)
{
    static const range others[] = {
        {0xAA, 0xAA},       {0xBA, 0xBA},       {0x2B0, 0x2B8},     {0x2C0, 0x2C1},
        {0x2E0, 0x2E4},     {0x345, 0x345},     {0x37A, 0x37A},     {0x10FC, 0x10FC},
        {0x1D2C, 0x1D6A},   {0x1D78, 0x1D78},   {0x1D9B, 0x1DBF},   {0x2071, 0x2071},
        {0x207F, 0x207F},   {0x2090, 0x209C},   {0x2160, 0x217F},   {0x24B6, 0x24E9},
        {0x2C7C, 0x2C7D},   {0xA69C, 0xA69D},   {0xA770, 0xA770},   {0xA7F2, 0xA7F4},
        {0xA7F8, 0xA7F9},   {0xAB5C, 0xAB5F},   {0xAB69, 0xAB69},   {0x10780, 0x10780},
        {0x10783, 0x10785}, {0x10787, 0x107B0}, {0x107B2, 0x107BA}, {0x1E030, 0x1E06D},
        {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
    const utf8proc_category_t category = utf8proc_category(cp);

    return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
           category == UTF8PROC_CATEGORY_LT || IN_RANGES(cp, others);
}

/* Unicode's Case_Ignorable: marks, formats, modifiers, and what stands inside a word. */
static bool is_case_ignorable(int32_t cp)
{
    static const range inner[] = {
        {0x27, 0x27},     {0x2E, 0x2E},     {0x3A, 0x3A},     {0xB7, 0xB7},
        {0x387, 0x387},   {0x55F, 0x55F},   {0x5F4, 0x5F4},   {0x2018, 0x2019},
        {0x2024, 0x2024}, {0x2027, 0x2027}, {0xFE13, 0xFE13}, {0xFE52, 0xFE52},
        {0xFE55, 0xFE55}, {0xFF07, 0xFF07}, {0xFF0E, 0xFF0E}, {0xFF1A, 0xFF1A}};

    switch (utf8proc_category(cp)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
        return true;
    default:
        return IN_RANGES(cp, inner);
    }
}

/* A sigma is final when a cased letter stands before it and none after it, whatever can be ignored
 * in between. */
static bool ends_word(const int32_t *cps, int64_t n, int64_t i)
{
    int64_t before = i - 1, after = i + 1;

    while (before >= 0 && is_case_ignorable(cps[before]))
        before--;
    while (after < n && is_case_ignorable(cps[after]))
        after++;
    return before >= 0 && is_cased(cps[before]) && (after == n || !is_cased(cps[after]));
}

static int64_t decode(const char *text, size_t length, int32_t *cps)
{
    int64_t n = 0;

    for (size_t at = 0; at < length;) {
        utf8proc_int32_t cp;
        const utf8proc_ssize_t size = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                                       (utf8proc_ssize_t)(length - at), &cp);
        cps[n++] = size > 0 ? cp : 0xFFFD;
        at += size > 0 ? (size_t)size : 1;
    }
    return n;
}

static char *put(char *out, int32_t cp)
{
    return out + utf8proc_encode_char(cp, (utf8proc_uint8_t *)out);
}

static char *put_lower(char *out, const int32_t *cps, int64_t n, int64_t i)
{
    switch (cps[i]) {
    case SIGMA:
        return put(out, ends_word(cps, n, i) ? FINAL_SIGMA : SMALL_SIGMA);
    case DOTTED_I:
        return put(put(out, 'i'), DOT);
    default:
        return put(out, utf8proc_tolower(cps[i]));
    }
}

char *mp_python_lower_strip(const char *text)
{
    const size_t length = strlen(text);
    int32_t *const cps = mp_alloc(length + 1, sizeof *cps);
    /* A code point takes at most four bytes, and none becomes more than two of them. */
    char *const lower = mp_alloc(length + 1, 8);

    if (cps && lower) {
        const int64_t n = decode(text, length, cps);
        int64_t first = 0, last = n;
        char *end = lower;
        while (first < n && is_space(cps[first]))
            first++;
        while (last > first && is_space(cps[last - 1]))
            last--;
        for (int64_t i = first; i < last; i++)
            end = put_lower(end, cps, n, i);
        *end = '\0';
    }
    mp_free(cps);
    if (!cps) {
        mp_free(lower);
        return NULL;
    }
    return lower;
}
