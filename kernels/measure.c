#include "kernels/backend.h"
#include "kernels/core/ctx_internal.h"
#include "kernels/ops.h"

mp_range mp_measure(mp_ctx *c, mp_tensor x)
{
    mp_range r = {0};

    if (mp_given(x))
        c->backend->vector.measure(c, x, &r);
    return r;
}
