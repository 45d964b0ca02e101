#include "harness/engines/engine.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pipelines/common/file.h"

const mp_engine_def *mp_engine_find(const char *name, mp_error *err)
{
    static const char *const names[] = {
        "native",
#define X(id) #id,
#include "harness/engines/workers.def"
#undef X
    };
    enum { COUNT = sizeof names / sizeof *names };
    mp_text list = {0};

    for (int i = 0; i < COUNT; i++)
        if (!strcmp(name, names[i]))
            return i ? &mp_worker_engine : &mp_native_engine;
    if (strchr(name, '/'))
        return &mp_worker_engine; /* whether it can be started is a result, not a mistake */
    const char *near = mp_nearest(name, names, COUNT);
    for (int i = 0; i < COUNT; i++)
        mp_text_printf(&list, "%s%s", i ? ", " : "", names[i]);
    mp_error_set(
        err, MP_EUSAGE,
        "--engine: unknown engine '%s'%s%s%s; expected one of: %s, or the path of a worker "
        "(./my_worker.py)",
        mp_plain(name).text, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "",
        list.data);
    mp_text_free(&list);
    return NULL;
}

void mp_engine_show(const mp_record *r)
{
    if (!r->steps)
        return;
    fprintf(stderr, "\r      step %d of %d, repeat %d \r", r->steps_done, r->steps, r->repeat + 1);
    fflush(stderr);
}
