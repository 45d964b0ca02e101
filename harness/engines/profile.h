/* Where the time of a generation goes: an observer that adds up ops by stage, module, op and dtype.
 *
 *     mp_profile *p = mp_profile_create(progress->stage);
 *     mp_observe(c, mp_profile_observer(p));
 *     ... a generation ...
 *     mp_profile_each(p, 0.005 * seconds, send, user);
 *
 * The blocks of a model count as one: transformer.blocks.*.attn1.to_q. */
#ifndef MP_HARNESS_ENGINES_PROFILE_H
#define MP_HARNESS_ENGINES_PROFILE_H

#include "kernels/core/ctx.h"
#include "results/store.h"

typedef struct mp_profile mp_profile;

/* stage: a text that says, whenever an op ends, the stage that it belongs to; it must live as long
 * as the profile.  NULL: no memory. */
mp_profile *mp_profile_create(const char *stage);
void mp_profile_free(mp_profile *p); /* NULL is fine */
mp_observer mp_profile_observer(mp_profile *p);
/* The rows that take `least` seconds or more; and for each stage one, of op "", module "" and
 * dtype "", that sums the others.  A row is valid during the call only. */
void mp_profile_each(mp_profile *p, double least, void (*row)(void *user, const mp_op_row *row),
                     void *user);

#endif
