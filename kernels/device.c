#include "kernels/device.h"

#include <stdio.h>
#include <string.h>

#include "kernels/core/ctx_internal.h"
#include "kernels/cpu/cpu_info.h"
#include "kernels/cpu/cpu_select.h"
#include "kernels/cpu/threads.h"
#include "kernels/meta.h"

static mp_code select_backend(const mp_device_options *o, const mp_backend **out, mp_error *err)
{
    const char *const device = o->device ? o->device : "cpu";

    if (!strcmp(device, "cpu"))
        return mp_cpu_select(o->isa, out, err);
    *out = &mp_meta_backend;
    if (!strcmp(device, "meta"))
        return MP_OK;
    return mp_error_set(err, MP_EDEVICE, "device \"%s\" is not in this build; it has: cpu, meta",
                        device);
}

mp_code mp_device_open(const mp_device_options *o, mp_ctx **out, mp_error *err)
{
    const mp_backend *backend;
    mp_threads *threads = NULL;
    mp_ctx *c = NULL;
    mp_code code;

    if ((code = select_backend(o, &backend, err)) ||
        (code = mp_ctx_create(o->memory_limit, &c, err)))
        return code;
    if (backend != &mp_meta_backend) {
        if (!strcmp(backend->name, "base"))
            mp_cpu_single_blas();
        code = mp_threads_start(o->threads, o->alone, &threads, err);
    }
    if (code) {
        mp_ctx_free(c);
        return code;
    }
    c->backend = backend;
    c->device = threads;
    c->policy = o->policy;
    c->e4m3 = o->e4m3;
    *out = c;
    return MP_OK;
}

void mp_device_quiet(void)
{
    mp_cpu_quiet_blas();
}

void mp_device_close(mp_ctx *c)
{
    if (!c)
        return;
    mp_threads_stop(c->device);
    mp_ctx_free(c);
}

static void describe(const mp_backend *backend, mp_device_info *out)
{
    memset(out, 0, sizeof *out);
    snprintf(out->isa, sizeof out->isa, "%s", backend->name);
    mp_cpu_list(out->isas, sizeof out->isas);
    mp_cpu_describe(out);
}

void mp_device_describe(const mp_ctx *c, mp_device_info *out)
{
    describe(c->backend, out);
    out->threads = c->device ? mp_threads_count(c->device) : 0;
}

size_t mp_device_scratch(const mp_ctx *c)
{
    return c->device ? mp_threads_scratch(c->device) : 0;
}

mp_code mp_device_probe(const char *isa, mp_device_info *out, mp_error *err)
{
    const mp_backend *backend;
    const mp_code code = mp_cpu_select(isa, &backend, err);

    if (!code)
        describe(backend, out);
    return code;
}
