/* Python's str methods that pipelines apply to prompts. */
#ifndef MP_PIPELINES_COMMON_PYTHON_TEXT_H
#define MP_PIPELINES_COMMON_PYTHON_TEXT_H

/* text.lower().strip() of UTF-8 text, as a new string (mp_free); NULL when memory is short.
 *
 * Lower case is Unicode's full mapping without a locale, as CPython does it: U+0130 becomes two
 * code points, a capital sigma at the end of a word becomes the final one.  Unicode's version is
 * utf8proc's, which may know letters that an older Python does not.  Invalid UTF-8 becomes U+FFFD.
 */
char *mp_python_lower_strip(const char *text);

#endif
