/* Text into a page: everything that comes from a database passes through here. */
#ifndef MP_PLOTS_HTML_H
#define MP_PLOTS_HTML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct json_t;

/* As printf with %s, %d, %jd and %%, nothing else.  %s is escaped for elements and for quoted
 * attributes; control characters, bad UTF-8 and the characters that reorder or hide text become
 * \xNN; newlines stay. */
void mp_html(FILE *to, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A JSON value for a <script> of a page: nothing in it can end the script or begin a comment.
 * False: no memory. */
bool mp_html_json(FILE *to, const struct json_t *value);

/* The bytes in base64 (mp_free); NULL: no memory. */
char *mp_base64(const void *bytes, size_t n);
/* SHA-256 of an inline block, in base64, as Content-Security-Policy wants it (mp_free). */
char *mp_html_hash(const char *text);

#endif
