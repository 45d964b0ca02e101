/* What went wrong, once.
 *
 * Every function outside tensor code returns an mp_code and, where it can fail, takes an mp_error.
 * The first failure stays: a later mp_error_set on the same mp_error changes nothing, so the text
 * a user reads is the cause and not its echo.
 *
 *     mp_error err = {0};
 *     if (mp_weights_open(dir, &opts, &w, &err))
 *         return mp_error_set(&err, MP_EIO, "...");   // keeps the first text, returns the first
 * code
 */
#ifndef MP_KERNELS_CORE_STATUS_H
#define MP_KERNELS_CORE_STATUS_H

#include <stdarg.h>
#include <stdbool.h>

typedef enum mp_code {
    MP_OK = 0,
    MP_EDTYPE,       /* torch's dtype rules refuse the operands */
    MP_ESHAPE,       /* operands do not fit each other */
    MP_ENOMEM,       /* the memory limit of the context, or of the machine */
    MP_EIO,          /* a file cannot be opened, read, mapped or written */
    MP_EFORMAT,      /* a file's content is not what its format demands */
    MP_EMISSING,     /* a file, parameter or key that must be there is not */
    MP_EUNSUPPORTED, /* well formed, and beyond what this build or engine does */
    MP_EDEVICE,      /* no such device or instruction set */
    MP_ENUMERIC,     /* a result is not finite where it must be */
    MP_EDB,          /* the results database */
    MP_EUSAGE,       /* the command line or a scenario file */
    MP_EENGINE,      /* the worker of an engine: missing, too old, or out of its protocol */
    MP_EEXCEPTION,   /* an exception of a library that no other code fits */
    MP_CODE_COUNT
} mp_code;

enum { MP_ERROR_TEXT = 2048, MP_ERROR_MODULE = 256, MP_ERROR_OP = 48 };

typedef struct mp_error {
    mp_code code;
    char text[MP_ERROR_TEXT];     /* one message; several lines only where a list is the message */
    char module[MP_ERROR_MODULE]; /* dotted module path, "" outside a model */
    char op[MP_ERROR_OP];         /* the op that failed, "" outside tensor code */
} mp_error;

/* "ok", "dtype", "shape", ...: the stable name that results and JSON carry. */
const char *mp_code_name(mp_code code);

/* Records code and text unless err already holds a failure; returns the code that err now holds.
 * err may be NULL: the code is returned and the text is lost. */
mp_code mp_error_set(mp_error *err, mp_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
mp_code mp_error_setv(mp_error *err, mp_code code, const char *format, va_list args);

#endif
