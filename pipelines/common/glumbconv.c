#include "pipelines/common/glumbconv.h"

#include "pipelines/common/layers.h"

/* Fixed in the model's code, not in its configuration. */
static const float norm_eps = 1e-5f;

void mp_glumbconv_bind(mp_weights *w, mp_glumbconv *p, int64_t channels, int64_t hidden, bool norm,
                       const char *path)
{
    mp_weights_bind_conv2d(w, &p->inverted, 2 * hidden, channels, 1, true, "%s.conv_inverted",
                           path);
    mp_weights_bind_conv2d(w, &p->depth, 2 * hidden, 1, 3, true, "%s.conv_depth", path);
    mp_weights_bind_conv2d(w, &p->point, channels, hidden, 1, false, "%s.conv_point", path);
    if (norm) {
        mp_weights_bind(w, &p->norm.weight, 1, MP_DIMS(channels), "%s.norm.weight", path);
        mp_weights_bind(w, &p->norm.bias, 1, MP_DIMS(channels), "%s.norm.bias", path);
    }
}

mp_tensor mp_glumbconv_forward(mp_ctx *c, const mp_glumbconv *p, mp_tensor x)
{
    const mp_mark mark = mp_open(c);

    /* (a, g) = depthwise(silu(W1 x));  y = W2 (a * silu(g)) */
    mp_tensor u =
        mp_activate_(c, mp_apply_conv2d(c, &p->inverted, x, (mp_conv2d_opts){0}), MP_ACT_SILU);
    const mp_conv2d_opts depthwise = {.padding = 1, .groups = (int)p->depth.weight.dim[0]};
    u = mp_keep(c, mark, mp_apply_conv2d(c, &p->depth, u, depthwise));
    u = mp_keep(c, mark, mp_glu(c, u, MP_ACT_SILU));
    u = mp_keep(c, mark, mp_apply_conv2d(c, &p->point, u, (mp_conv2d_opts){0}));
    if (!mp_given(p->norm.weight))
        return u;
    return mp_keep(c, mark,
                   mp_rms_norm(c, u, p->norm.weight, p->norm.bias, norm_eps, MP_RMS_DIFFUSERS));
}
