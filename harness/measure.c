#include "harness/measure.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "results/metrics.h"
#include "results/statistics.h"

static const double MIB = 1048576.0;

static void add_row(mp_metrics *m, const mp_metric_row *row)
{
    if (m->count == m->room) {
        m->room = m->room ? 2 * m->room : 64;
        mp_metric_row *rows = mp_arena_alloc(m->arena, (size_t)m->room, sizeof *rows);
        if (m->count)
            memcpy(rows, m->rows, (size_t)m->count * sizeof *rows);
        m->rows = rows;
    }
    m->rows[m->count++] = *row;
}

static void add(mp_metrics *m, const char *name, const char *stage, int step, double value,
                const char *unit)
{
    add_row(m, &(mp_metric_row){.name = name,
                                .stage = stage,
                                .step = step,
                                .module = "",
                                .value = value,
                                .unit = unit});
}

static void summarize(mp_metrics *m, const char *name, double value, const char *unit)
{
    add(m, name, "run", -1, value, unit);
}

double mp_metrics_summary(const mp_metrics *m, const char *name)
{
    for (int64_t i = 0; i < m->count; i++)
        if (!strcmp(m->rows[i].stage, "run") && !strcmp(m->rows[i].name, name))
            return m->rows[i].value;
    return NAN;
}

/* ---- drift ---------------------------------------------------------------------------------- */

static bool both(const mp_outputs *x, const mp_outputs *ref, const char *name, mp_tensor *a,
                 mp_tensor *b)
{
    return mp_outputs_find(x, name, a) && mp_outputs_find(ref, name, b) && mp_same_shape(*a, *b);
}

static bool both_pictures(const mp_outputs *x, const mp_outputs *ref, mp_tensor *a, mp_tensor *b)
{
    return mp_outputs_picture(x, a) && mp_outputs_picture(ref, b) && mp_same_shape(*a, *b) &&
           a->rank == 4;
}

static void add_drift(mp_metrics *m, const char *stage, int step, mp_drift d)
{
    add(m, "rel_l2", stage, step, d.rel_l2, "1");
    add(m, "max_abs", stage, step, d.max_abs, "1");
    add(m, "cosine", stage, step, d.cosine, "1");
    add(m, "max_value", stage, step, d.max_value, "1");
    add(m, "headroom_bits", stage, step, d.headroom_bits, "bit");
    add(m, "nonfinite", stage, step, (double)d.nonfinite, "count");
    add(m, "saturated", stage, step, (double)d.saturated, "count");
}

/* The dtype in which the run held the tensor: what saturation and headroom are measured by. */
static mp_dtype held(const mp_execution *e, const char *name)
{
    const mp_captured *t = mp_record_tensor(&e->record, name);

    return t ? t->dtype : MP_F32;
}

static double measure_tensor(mp_metrics *m, const mp_execution *e, const mp_outputs *x,
                             const mp_outputs *ref, const char *name, const char *stage, int step)
{
    mp_tensor a, b;

    if (!both(x, ref, name, &a, &b))
        return NAN;
    const mp_drift d = mp_drift_between(a.data, b.data, mp_numel(a), held(e, name));
    add_drift(m, stage, step, d);
    return d.rel_l2;
}

static void measure_picture(mp_metrics *m, const mp_outputs *x, const mp_outputs *ref)
{
    mp_tensor a, b;
    double ssim = 0;

    if (!both_pictures(x, ref, &a, &b))
        return;
    const int64_t plane = a.dim[1] * a.dim[2] * a.dim[3];
    for (int64_t i = 0; i < a.dim[0]; i++)
        ssim += mp_ssim((const float *)a.data + i * plane, (const float *)b.data + i * plane,
                        a.dim[1], a.dim[2], a.dim[3]);
    summarize(m, "psnr_db", mp_psnr(a.data, b.data, mp_numel(a)), "dB");
    summarize(m, "ssim", ssim / (double)a.dim[0], "1");
}

/* Of two engines one may make another picture than the other. */
static const char *find_misfit(const mp_metrics *m, const mp_outputs *x, const mp_outputs *ref)
{
    mp_tensor a, b;

    for (int i = 0; i < mp_outputs_count(x); i++) {
        a = mp_outputs_at(x, i);
        if (mp_outputs_find(ref, a.name, &b) && !mp_same_shape(a, b))
            return mp_arena_printf(m->arena,
                                   "%s does not have the reference's shape (%lld and "
                                   "%lld values): it cannot be compared",
                                   a.name, (long long)mp_numel(a), (long long)mp_numel(b));
    }
    return NULL;
}

const char *mp_measure_drift(mp_metrics *m, const mp_execution *e, const mp_outputs *x,
                             const mp_outputs *reference)
{
    const int steps = mp_outputs_steps(x);
    double last = NAN;
    mp_tensor picture;

    measure_tensor(m, e, x, reference, "prompt_embeds", "prompt_embeds", -1);
    for (int i = 0; i < steps; i++) {
        char name[32];
        snprintf(name, sizeof name, "latents_%03d", i);
        last = measure_tensor(m, e, x, reference, name, "latents", i);
    }
    const double image =
        measure_tensor(m, e, x, reference,
                       mp_outputs_find(x, "image", &picture) ? "image" : "frames", "image", -1);
    if (!isnan(last))
        summarize(m, "latent_rel_l2", last, "1");
    if (!isnan(image))
        summarize(m, "image_rel_l2", image, "1");
    measure_picture(m, x, reference);
    return find_misfit(m, x, reference);
}

void mp_measure_seam(mp_metrics *m, const mp_outputs *x, const mp_outputs *untiled,
                     const mp_tiling *tiling)
{
    mp_tensor a, b;
    double worst = -INFINITY;

    if (!both_pictures(x, untiled, &a, &b))
        return;
    const int64_t plane = a.dim[1] * a.dim[2] * a.dim[3];
    for (int64_t i = 0; i < a.dim[0]; i++) {
        const double seam =
            mp_seam((const float *)a.data + i * plane, (const float *)b.data + i * plane, a.dim[1],
                    a.dim[2], a.dim[3], tiling->stride_height, tiling->stride_width);
        if (seam > worst)
            worst = seam;
    }
    if (worst > -INFINITY) /* no border lies inside the picture: nothing to say */
        summarize(m, "seam", worst, "1");
}

mp_distance mp_measure_distance(const mp_outputs *x, const mp_outputs *reference)
{
    mp_distance d = {NAN, NAN};
    char name[32];
    mp_tensor a, b;

    snprintf(name, sizeof name, "latents_%03d", mp_outputs_steps(x) - 1);
    if (both(x, reference, name, &a, &b))
        d.latents = mp_drift_between(a.data, b.data, mp_numel(a), MP_F32).rel_l2;
    if (both_pictures(x, reference, &a, &b))
        d.image = mp_drift_between(a.data, b.data, mp_numel(a), MP_F32).rel_l2;
    return d;
}

bool mp_measure_finite(const mp_outputs *x)
{
    for (int i = 0; i < mp_outputs_count(x); i++) {
        const mp_tensor t = mp_outputs_at(x, i);
        const float *v = t.data;
        for (int64_t k = 0, n = mp_numel(t); k < n; k++)
            if (!isfinite(v[k]))
                return false;
    }
    return true;
}

bool mp_measure_constant(const mp_outputs *x, float *value)
{
    mp_tensor t;

    if (!mp_outputs_picture(x, &t))
        return false;
    const float *v = t.data;
    *value = v[0];
    for (int64_t k = 1, n = mp_numel(t); k < n; k++)
        if (v[k] != v[0])
            return false;
    return true;
}

void mp_measure_floor(mp_metrics *m, double latents, double image)
{
    if (!isnan(latents))
        summarize(m, "floor_latent_rel_l2", latents, "1");
    if (!isnan(image))
        summarize(m, "floor_image_rel_l2", image, "1");
}

/* ---- the process ---------------------------------------------------------------------------- */

static void measure_time(mp_metrics *m, const mp_record *r)
{
    double *totals = mp_arena_alloc(m->arena, (size_t)r->sample_count + 1, sizeof *totals);
    int64_t n = 0;

    for (int i = 0; i < r->sample_count; i++)
        if (!strcmp(r->samples[i].stage, "total") && r->samples[i].repeat >= 0)
            totals[n++] = r->samples[i].seconds;
    if (n)
        summarize(m, "seconds", mp_median(totals, n), "s");
}

/* The CPU's counters, where it has them: the median of the generations. */
static void measure_counters(mp_metrics *m, const mp_record *r)
{
    double *values = mp_arena_alloc(m->arena, (size_t)r->counts_count + 1, sizeof *values);

    for (int i = 0; i < MP_COUNTERS; i++) {
        int64_t n = 0;
        for (int k = 0; k < r->counts_count; k++)
            if (!isnan(r->counts[k].value[i]))
                values[n++] = r->counts[k].value[i];
        if (n)
            summarize(m, mp_counter_names[i], mp_median(values, n), "count");
    }
}

void mp_measure_instructions(mp_metrics *m, double count, const char *unit)
{
    static const char name[] = "instructions";

    for (int64_t i = 0; i < m->count; i++)
        if (!strcmp(m->rows[i].stage, "run") && !strcmp(m->rows[i].name, name)) {
            m->rows[i].value = count;
            m->rows[i].unit = unit;
            return;
        }
    summarize(m, name, count, unit);
}

/* What the policy did, in all. */
static void measure_actions(mp_metrics *m, const mp_record *r)
{
    double casts = 0, elements = 0, seconds = 0, redone = 0;

    for (int i = 0; i < r->action_count; i++) {
        const mp_action_row *a = &r->actions[i];
        if (!strncmp(a->kind, "cast_", 5)) {
            casts += (double)a->count;
            elements += (double)a->elements;
            seconds += a->seconds;
        } else {
            redone += (double)a->count;
        }
    }
    if (casts > 0) {
        summarize(m, "casts", casts, "count");
        summarize(m, "cast_elements", elements, "count");
        summarize(m, "cast_seconds", seconds, "s");
    }
    if (redone > 0)
        summarize(m, "redone", redone, "count");
}

/* What the machine can do at most: what a profile of ops is held against. */
static void measure_roofline(mp_metrics *m, const mp_roofline *r)
{
    static const double giga = 1e-9;

    if (!(r->flops > 0))
        return;
    add(m, "roofline_fp32", "machine", -1, giga * r->flops, "GFLOP/s");
    if (r->pairs > 0)
        add(m, "roofline_bf16", "machine", -1, giga * r->pairs, "GFLOP/s");
    if (r->copy > 0)
        add(m, "roofline_copy", "machine", -1, giga * r->copy, "GB/s");
}

/* Of a process that did not come to say it: the kernel's mark, which each stage has set back, and
 * the stages' own. */
static int64_t peak_of(const mp_execution *e)
{
    int64_t peak = (int64_t)e->end.peak_rss;

    if (e->record.peak_rss)
        return e->record.peak_rss;
    for (int i = 0; i < e->record.bytes_count; i++)
        if (!strcmp(e->record.bytes[i].of, "rss_peak") && peak < e->record.bytes[i].bytes)
            peak = e->record.bytes[i].bytes;
    return peak;
}

static void measure_stages(mp_metrics *m, const mp_record *r)
{
    for (int i = 0; i < r->stage_count; i++)
        add(m, "activations_mib", r->stages[i].stage, -1, (double)r->stages[i].activations / MIB,
            "MiB");
    for (int i = 0; i < r->bytes_count; i++) {
        const mp_bytes *b = &r->bytes[i];
        if (!*b->module && !strcmp(b->of, "activations"))
            continue; /* the stage's own event has it */
        add_row(m, &(mp_metric_row){.name = mp_arena_printf(m->arena, "%s_mib", b->of),
                                    .stage = b->stage,
                                    .step = -1,
                                    .module = b->module,
                                    .value = (double)b->bytes / MIB,
                                    .unit = "MiB"});
    }
}

void mp_measure_process(mp_metrics *m, const mp_execution *e)
{
    const mp_record *r = &e->record;

    measure_time(m, r);
    measure_counters(m, r);
    measure_actions(m, r);
    measure_roofline(m, &r->roofline);
    const int64_t peak = peak_of(e);

    if (peak > 0)
        summarize(m, "peak_mib", (double)peak / MIB, "MiB");
    if (r->idle_rss)
        summarize(m, "idle_mib", (double)r->idle_rss / MIB, "MiB");
    if (r->cuda_reserved) {
        summarize(m, "cuda_allocated_mib", (double)r->cuda_allocated / MIB, "MiB");
        summarize(m, "cuda_reserved_mib", (double)r->cuda_reserved / MIB, "MiB");
    }
    if (r->weights_mapped || r->weights_converted) {
        summarize(m, "weights_mapped_mib", (double)r->weights_mapped / MIB, "MiB");
        summarize(m, "weights_converted_mib", (double)r->weights_converted / MIB, "MiB");
    }
    measure_stages(m, r);
}
