#include "harness/engines/native_memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/device.h"

/* ---- the process ---------------------------------------------------------------------------- */

void mp_rss_open(mp_rss_meter *m)
{
    *m = (mp_rss_meter){.status = open("/proc/self/status", O_RDONLY | O_CLOEXEC),
                        .clear = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC)};
}

void mp_rss_close(mp_rss_meter *m)
{
    if (m->status >= 0)
        close(m->status);
    if (m->clear >= 0)
        close(m->clear);
}

/* "VmHWM:" or "VmRSS:" of /proc/self/status, in bytes; 0: not told. */
static size_t field(const mp_rss_meter *m, const char *name)
{
    char text[4096];
    const ssize_t n = m->status < 0 ? -1 : pread(m->status, text, sizeof text - 1, 0);
    unsigned long long kib = 0;

    if (n <= 0)
        return 0;
    text[n] = '\0';
    const char *at = strstr(text, name);
    return at && sscanf(at + strlen(name), " %llu", &kib) == 1 ? (size_t)kib << 10 : 0;
}

void mp_rss_begin(mp_rss_meter *m)
{
    static const char set_mark_back[] = "5";

    mp_rss_highest(m);
    if (m->clear >= 0 && write(m->clear, set_mark_back, 1) != 1) {
        close(m->clear);
        m->clear = -1;
    }
    m->before = field(m, "VmHWM:");
}

size_t mp_rss_peak(mp_rss_meter *m)
{
    const size_t mark = field(m, "VmHWM:");

    return m->clear >= 0 || mark > m->before ? mark : field(m, "VmRSS:");
}

size_t mp_rss_highest(mp_rss_meter *m)
{
    const size_t mark = field(m, "VmHWM:");

    if (m->highest < mark)
        m->highest = mark;
    return m->highest;
}

/* ---- what it consists of -------------------------------------------------------------------- */

static void tell_weights(const mp_pipeline_def *p, const void *open, const char *stage, bool pages,
                         mp_tell_bytes *tell, void *user)
{
    for (int i = 0; p->components[i]; i++) {
        const mp_weights *w = p->weights(open, i);
        if (!w)
            continue;
        const mp_weights_stats s = mp_weights_get_stats(w);
        const size_t resident = pages ? mp_weights_resident(w) : 0;
        if (!strcmp(p->stages[i], stage))
            tell(user, "weights_in_place", p->components[i], s.in_place);
        if (resident)
            tell(user, "weights_resident", p->components[i], resident);
        if (s.converted && !mp_weights_need_load(w))
            tell(user, "weights_converted", p->components[i], s.converted);
    }
}

/* The largest by name, and the rest. */
static void tell_shares(const mp_ctx *c, mp_tell_bytes *tell, void *user)
{
    enum { TOLD = 12 };
    mp_share shares[TOLD];
    const int n = mp_peak_shares(c, shares, TOLD);
    size_t rest = mp_pool_get(c).peak;

    for (int i = 0; i < n; i++) {
        tell(user, "activations", *shares[i].module ? shares[i].module : "(outside modules)",
             shares[i].bytes);
        rest -= shares[i].bytes;
    }
    if (n && rest)
        tell(user, "activations", "(others)", rest);
}

void mp_stage_memory_tell(const mp_ctx *c, const mp_pipeline_def *p, const void *open,
                          const char *stage, bool pages, mp_tell_bytes *tell, void *user)
{
    tell_weights(p, open, stage, pages, tell, user);
    if (mp_device_scratch(c))
        tell(user, "scratch", "", mp_device_scratch(c));
    tell_shares(c, tell, user);
}
