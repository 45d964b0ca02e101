#include "results/metric_kind.h"

#include <string.h>

static const double TIME_EFFECT = 0.02;  /* below that a proved difference matters to nobody */
static const double BYTES_EFFECT = 0.02; /* pages come and go from run to run */
static const double WORKER_EFFECT =
    0.05;                            /* with an interpreter and its allocator, measured: 0.03 */
static const double BYTES_FLOOR = 1; /* MiB: two equal runs of a small model differ by 0.4 */
/* How much the jump at tile borders stands out, as a ratio: nobody sees this share of it. */
static const double SEAM_EFFECT = 0.02;
/* Threads that wait for each other spin, a little more or less each time. */
static const double INSTRUCTIONS_EFFECT = 0.02;
/* Of callgrind's count, whose unit is Ir: measured, two runs are 1e-5 apart. */
static const double EXACT_EFFECT = 1e-4;

static bool begins(const char *name, const char *with)
{
    return !strncmp(name, with, strlen(with));
}

/* Context, not quality: shown by `mpbench show`, not compared. */
static bool context_only(const char *name)
{
    return begins(name, "floor_") || begins(name, "weights_") || begins(name, "roofline_") ||
           !strcmp(name, "idle_mib") || !strcmp(name, "cast_seconds") || !strcmp(name, "cycles") ||
           !strcmp(name, "cache_misses");
}

static mp_metric_class class_of(const char *name, const char *unit)
{
    if (context_only(name))
        return MP_METRIC_CONTEXT;
    if (!strcmp(name, "instructions"))
        return MP_METRIC_COUNT;
    if (!strcmp(unit, "s"))
        return MP_METRIC_TIME;
    return !strcmp(unit, "MiB") ? MP_METRIC_BYTES : MP_METRIC_EXACT;
}

mp_metric_kind mp_metric_kind_of(const char *name, const char *unit, const char *engine)
{
    mp_metric_kind k = {.class = class_of(name, unit)};

    k.higher_is_better = !strcmp(name, "psnr_db") || !strcmp(name, "ssim") ||
                         !strcmp(name, "cosine") || !strcmp(name, "headroom_bits");
    switch (k.class) {
    case MP_METRIC_TIME:
        k.effect = TIME_EFFECT;
        break;
    case MP_METRIC_BYTES:
        k.effect = strcmp(engine, "native") ? WORKER_EFFECT : BYTES_EFFECT;
        k.floor = BYTES_FLOOR;
        break;
    case MP_METRIC_COUNT:
        k.effect = begins(unit, "Ir") ? EXACT_EFFECT : INSTRUCTIONS_EFFECT;
        break;
    default:
        k.effect = strcmp(name, "seam") ? 0 : SEAM_EFFECT;
        break;
    }
    return k;
}
