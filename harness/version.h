/* Versions of libraries, and conditions on an engine: "native", "diffusers < 0.33.0". */
#ifndef MP_HARNESS_VERSION_H
#define MP_HARNESS_VERSION_H

#include <stdbool.h>

/* <0, 0, >0.  Numbers between dots, a missing one is 0; what begins with a letter after them (dev0,
 * rc1, a2) comes before the release, but for post and a local part (+cu126), which count as it. */
int mp_version_compare(const char *a, const char *b);

/* NAME, or NAME and one of < <= > >= == with a version.  False: the text is none of these. */
bool mp_engine_condition_valid(const char *text);
bool mp_engine_condition_holds(const char *text, const char *name, const char *version);

#endif
