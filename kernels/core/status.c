#include "kernels/core/status.h"

#include <assert.h>
#include <stdio.h>

const char *mp_code_name(mp_code code)
{
    static const char *const names[] = {
        [MP_OK] = "ok",
        [MP_EDTYPE] = "dtype",
        [MP_ESHAPE] = "shape",
        [MP_ENOMEM] = "memory",
        [MP_EIO] = "io",
        [MP_EFORMAT] = "format",
        [MP_EMISSING] = "missing",
        [MP_EUNSUPPORTED] = "unsupported",
        [MP_EDEVICE] = "device",
        [MP_ENUMERIC] = "numeric",
        [MP_EDB] = "database",
        [MP_EUSAGE] = "usage",
        [MP_EENGINE] = "engine",
        [MP_EEXCEPTION] = "exception",
    };
    static_assert(sizeof names / sizeof *names == MP_CODE_COUNT, "one name for each code");

    return code >= 0 && code < MP_CODE_COUNT ? names[code] : "unknown";
}

mp_code mp_error_setv(mp_error *err, mp_code code, const char *format, va_list args)
{
    assert(code != MP_OK);
    if (!err)
        return code;
    if (err->code)
        return err->code;
    err->code = code;
    vsnprintf(err->text, sizeof err->text, format, args);
    return code;
}

mp_code mp_error_set(mp_error *err, mp_code code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    code = mp_error_setv(err, code, format, args);
    va_end(args);
    return code;
}
