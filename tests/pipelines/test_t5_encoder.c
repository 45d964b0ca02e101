/* Goldens: goldens/t5, made by tests/fixtures/make_t5.py (transformers 5.23, torch 2.15, CPU). */
#include "tests/pipelines/scratch.h"

#include <math.h>

#include "kernels/core/memory.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "pipelines/common/t5_encoder.h"
#include "tests/support/mp_test.h"

#define TINY     MP_FIXTURES "/checkpoints/sd3-tiny/text_encoder_3"
#define VARIANTS MP_FIXTURES "/goldens/t5/variants/"

enum { TOKENS = 512 };

static mp_weights_options options(mp_dtype dtype)
{
    return (mp_weights_options){
        .component = "text_encoder_3", .stem = "model", .dtype = dtype, .storage = MP_DTYPE_COUNT};
}

static mp_t5_encoder *open_ok(const char *dir, const mp_weights_options *o)
{
    mp_error err = {0};
    mp_t5_encoder *m = NULL;

    mp_t5_encoder_open(dir, o, &m, &err);
    assert_ok(&err);
    return m;
}

/* ---- a run of blocks.<dtype>.safetensors ----------------------------------------------------- */

typedef struct module {
    const char *path; /* without the run's name */
    mp_tensor golden; /* rows, or the whole of the position bias */
    double distance;  /* of what was computed, as of fp32's golden from this one */
    double drift;
    bool seen;
} module;

typedef struct run {
    const char *name;
    mp_safetensors *file, *exact; /* exact: fp32's goldens */
    int64_t n, rows[4], row_count;
    module modules[64];
    int count;
} run;

static int64_t integer(mp_tensor t, int64_t i)
{
    int64_t value;

    memcpy(&value, (const char *)t.data + (size_t)i * sizeof value, sizeof value);
    return value;
}

static float value_at(mp_tensor t, int64_t i)
{
    float value;

    mp_widen(t.store, (const char *)t.data + (size_t)i * mp_dtype_size(t.store), &value, 1);
    return value;
}

/* Relative L2 of the golden's rows of y (rows NULL: of y) against the golden. */
static double distance(mp_tensor y, mp_tensor golden, const int64_t *rows)
{
    const int64_t d = golden.dim[golden.rank - 1], count = mp_numel(golden) / d;
    double off = 0, all = 0;

    for (int64_t r = 0; r < count; r++)
        for (int64_t j = 0; j < d; j++) {
            const double b = value_at(golden, r * d + j);
            const double a = value_at(y, (rows ? rows[r] : r) * d + j);
            off += (a - b) * (a - b);
            all += b * b;
        }
    return sqrt(off / all);
}

/* The last op whose module is the path or below it gives the module's output. */
static void on_output(void *user, const mp_op_event *event)
{
    run *r = user;
    const char *at = event->module + strlen("text_encoder_3");

    if (*at++ != '.')
        return;
    for (int i = 0; i < r->count; i++) {
        module *m = &r->modules[i];
        const size_t n = strlen(m->path);
        if (strncmp(at, m->path, n) || (at[n] && at[n] != '.'))
            continue;
        const bool bias = strstr(m->path, "relative_attention_bias") != NULL;
        /* the dtype, too: sums are fp32 in an fp16 encoder */
        m->seen =
            event->y->dtype == m->golden.dtype && mp_dim(*event->y, -1) == mp_dim(m->golden, -1);
        if (m->seen)
            m->distance = distance(*event->y, m->golden, bias ? NULL : r->rows);
    }
}

static void open_run(run *r, const char *name, const char *dtype)
{
    char path[128];
    const size_t n = strlen(name);

    *r = (run){.name = name};
    snprintf(path, sizeof path, "goldens/t5/blocks.%s.safetensors", dtype);
    r->file = mp_test_goldens(path);
    r->exact = mp_test_goldens("goldens/t5/blocks.fp32.safetensors");
    for (int64_t i = 0; i < mp_safetensors_count(r->file); i++) {
        const mp_tensor t = mp_safetensors_at(r->file, i);
        if (strncmp(t.name, name, n) || t.name[n] != '.' || !strncmp(t.name + n, ".input.", 7) ||
            !strcmp(t.name + n, ".rows"))
            continue;
        const mp_tensor exact = mp_test_golden(r->exact, "%s", t.name);
        assert_true(r->count < 64);
        r->modules[r->count++] =
            (module){.path = t.name + n + 1, .golden = t, .drift = distance(t, exact, NULL)};
    }
    const mp_tensor rows = mp_test_golden(r->file, "%s.rows", name);
    for (r->row_count = 0; r->row_count < mp_numel(rows); r->row_count++)
        r->rows[r->row_count] = integer(rows, r->row_count);
}

static void close_run(run *r)
{
    mp_safetensors_close(r->file);
    mp_safetensors_close(r->exact);
}

static void forward_run(mp_ctx *c, run *r, const mp_t5_encoder *m)
{
    const mp_tensor ids = mp_test_golden(r->file, "%s.input.input_ids", r->name);
    const bool masked = strstr(r->name, "masked") != NULL;
    int32_t tokens[TOKENS];
    uint8_t mask[TOKENS];

    r->n = mp_numel(ids);
    assert_in_range(r->n, 1, TOKENS);
    for (int64_t i = 0; i < r->n; i++) {
        tokens[i] = (int32_t)integer(ids, i);
        if (masked)
            mask[i] = integer(mp_test_golden(r->file, "%s.input.attention_mask", r->name), i) != 0;
    }
    const mp_tensor y = mp_t5_encoder_forward(c, m, tokens, masked ? mask : NULL, r->n);
    mp_test_ok(c);
    assert_int_equal(y.rank, 3);
    assert_int_equal(y.dim[1], r->n);
    assert_int_equal(y.dim[2], mp_t5_encoder_width(m));
}

static const char *const runs[] = {"s77", "s256", "s77_masked", "s256_masked"};

typedef struct limits {
    double absolute;   /* of each module */
    double each, mean; /* of the golden's own distance from fp32's */
} limits;

static void compare(const char *dtype_name, mp_dtype dtype, limits l)
{
    const mp_weights_options o = options(dtype);
    mp_t5_encoder *const m = open_ok(TINY, &o);
    double sum = 0;
    int count = 0;

    for (int i = 0; i < 4; i++) {
        mp_ctx *const c = mp_test_ctx(NULL, 0);
        run r;
        open_run(&r, runs[i], dtype_name);
        mp_observe(c, (mp_observer){.output = on_output, .user = &r});
        forward_run(c, &r, m);
        for (int k = 0; k < r.count; k++) {
            const module *p = &r.modules[k];
            const double bound = fmax(l.absolute, l.each * p->drift);
            if (!p->seen || p->distance > bound)
                fail_msg("%s, %s: %s is %g away, expected at most %g", dtype_name, r.name, p->path,
                         p->seen ? p->distance : NAN, bound);
            sum += p->drift > 0 ? p->distance / p->drift : 0;
            count++;
        }
        close_run(&r);
        mp_device_close(c);
    }
    assert_int_equal(count, 43);
    if (sum / count > l.mean)
        fail_msg("%s: %g of the goldens' own drift, expected at most %g", dtype_name, sum / count,
                 l.mean);
    mp_t5_encoder_close(m);
}

/* fp32 differs from torch in the order of sums of at most 64 products and in exp and tanh, about
 * sqrt(64) roundings of 2^-24 (5e-7) in each of four layers: up to 1.2e-6 here.  3e-6 is below what
 * any wrong term makes. */
static void test_t5_encoder__equals_transformers_module_by_module_in_fp32(void **state)
{
    (void)state;
    compare("fp32", MP_F32, (limits){.absolute = 3e-6, .mean = 1});
}

/* The halves round at the same points, so that a layer's own values are mostly the same bits; a sum
 * on the other side of a tie moves one by an ulp, and all that follow from it.  A rounding point
 * left out or added moves all values by as much as they are from fp32's.  Measured over the
 * modules, as parts of that distance: mean 0.31 and 0.25, most 0.68; with eager attention's
 * rounding points in SDPA's place, mean 0.68 and 0.84, most 1.2.  The limits lie between. */
static const limits halves = {.each = 0.9, .mean = 0.5};

static void test_t5_encoder__rounds_where_transformers_rounds_in_fp16(void **state)
{
    (void)state;
    compare("fp16", MP_F16, halves);
}

static void test_t5_encoder__rounds_where_transformers_rounds_in_bf16(void **state)
{
    (void)state;
    compare("bf16", MP_BF16, halves);
}

/* ---- variants ---------------------------------------------------------------------------------
 */

/* Relative L2 of the output against `golden`; the golden's own from fp32's into drift. */
static double variant_distance(const char *name, const mp_weights_options *o, const char *golden,
                               double *drift)
{
    char path[256];
    int32_t ids[64];
    uint8_t mask[64];
    mp_ctx *const c = mp_test_ctx(NULL, 1);

    snprintf(path, sizeof path, "goldens/t5/variants/%s/golden.safetensors", name);
    mp_safetensors *g = mp_test_goldens(path);
    const mp_tensor tokens = mp_test_golden(g, "input_ids");
    const int64_t n = mp_numel(tokens);
    assert_in_range(n, 1, 64);
    for (int64_t i = 0; i < n; i++) {
        ids[i] = (int32_t)integer(tokens, i);
        mask[i] = integer(mp_test_golden(g, "attention_mask"), i) != 0;
    }
    snprintf(path, sizeof path, VARIANTS "%s", name);
    mp_t5_encoder *m = open_ok(path, o);
    const mp_tensor y = mp_t5_encoder_forward(c, m, ids, mask, n);
    const mp_tensor wanted = mp_test_golden(g, "%s", golden);
    mp_test_ok(c);
    assert_int_equal(y.dtype, wanted.dtype);
    assert_int_equal(mp_numel(y), mp_numel(wanted));
    const double d = distance(y, wanted, NULL);
    *drift = distance(wanted, mp_test_golden(g, "output.fp32"), NULL);
    mp_t5_encoder_close(m);
    mp_safetensors_close(g);
    mp_device_close(c);
    return d;
}

/* relu without a gate, gated silu with other buckets and another epsilon, a bias in every block,
 * infinities.  Bounds as above. */
static void test_t5_encoder__variants_equal_transformers(void **state)
{
    static const char *const names[] = {"relu", "buckets", "umt5", "overflow"};
    static const struct {
        const char *golden;
        mp_dtype dtype;
        bool to;
    } loads[] = {{"output.fp32", MP_F32, false},
                 {"output.fp16", MP_F16, false},
                 {"output.bf16", MP_BF16, false},
                 {"to.fp16", MP_F16, true}};

    (void)state;
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < 4; k++) {
            mp_weights_options o = options(loads[k].dtype);
            double drift;
            o.round_trip_fp32 = loads[k].to;
            const double d = variant_distance(names[i], &o, loads[k].golden, &drift);
            if (d > fmax(3e-6, halves.each * drift))
                fail_msg("%s, %s: %g away, expected at most %g", names[i], loads[k].golden, d,
                         halves.each * drift);
        }
}

/* ---- memory -----------------------------------------------------------------------------------
 */

/* At 512 tokens, scores of all heads at once would be 4 MB in fp32. */
static void test_t5_encoder__has_no_square_of_the_tokens_in_memory(void **state)
{
    const mp_weights_options o = options(MP_F32);
    mp_t5_encoder *const m = open_ok(TINY, &o);
    mp_ctx *const c = mp_test_ctx(NULL, 1);
    int32_t ids[TOKENS];
    size_t peak[2];

    (void)state;
    for (int i = 0; i < TOKENS; i++)
        ids[i] = i % 300;
    for (int i = 0; i < 2; i++) {
        const mp_mark mark = mp_open(c);
        mp_pool_reset_peak(c);
        mp_t5_encoder_forward(c, m, ids, NULL, TOKENS >> !i);
        mp_test_ok(c);
        peak[i] = mp_pool_get(c).peak;
        mp_drop(c, mark);
    }
    assert_in_range(peak[1], 1, 2 * peak[0] + (64 << 10));
    assert_in_range(peak[1], 1, 1 << 20);
    mp_t5_encoder_close(m);
    mp_device_close(c);
}

/* ---- refusals ---------------------------------------------------------------------------------
 */

static void write_config(const char *changes)
{
    char text[512];

    snprintf(text, sizeof text,
             "{\"vocab_size\": 304, \"d_model\": 48, \"d_kv\": 8, \"d_ff\": 64, \"num_layers\": 2,"
             " \"num_heads\": 4, \"feed_forward_proj\": \"gated-gelu\"%s}",
             changes);
    scratch_text("config.json", text);
}

static void link_weights(void)
{
    unlink(scratch("model.safetensors"));
    assert_int_equal(symlink(TINY "/model.safetensors", scratch("model.safetensors")), 0);
}

static void assert_refused(mp_code code, const char *part, const char *more)
{
    const mp_weights_options o = options(MP_F32);
    mp_t5_encoder *m = NULL;
    mp_error err = {0};

    mp_t5_encoder_open(scratch_dir, &o, &m, &err);
    assert_error(&err, code, part, more);
    assert_null(m);
}

static void test_t5_encoder__refuses_configs_that_it_cannot_run(void **state)
{
    static const struct {
        const char *changes;
        mp_code code;
        const char *part;
    } cases[] = {
        {", \"model_type\": \"mt5\"", MP_EUNSUPPORTED, "found \"mt5\", expected \"t5\" or"},
        {", \"is_decoder\": true", MP_EUNSUPPORTED, "\"is_decoder\": only the encoder"},
        {", \"dense_act_fn\": \"gelu_fast\"", MP_EUNSUPPORTED, "unknown activation \"gelu_fast\""},
        {", \"quantization_config\": {}", MP_EUNSUPPORTED, "quantized weights"},
        {", \"relative_attention_num_buckets\": 3", MP_EFORMAT, "relative_attention_num_buckets"},
        {", \"relative_attention_max_distance\": 8", MP_EFORMAT,
         "found 8, expected more than the 8 distances"},
    };
    static const char *const sizes[] = {
        "{\"d_model\": 0}",          "{\"d_model\": 99999999999}", "{\"num_layers\": 257}",
        "{\"num_layers\": -1}",      "{\"vocab_size\": 1.5}",      "{\"num_heads\": 4294967296}",
        "{\"d_ff\": 1000000000000}", "{\"num_heads\": \"4\"}",     "{\"d_kv\": 4097}"};

    (void)state;
    link_weights();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_config(cases[i].changes);
        assert_refused(cases[i].code, "config.json", cases[i].part);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        scratch_text("config.json", sizes[i]);
        assert_refused(MP_EFORMAT, "config.json", "expected");
    }
    scratch_text("config.json", "{\"num_heads\": 1024, \"d_kv\": 4096}");
    assert_refused(MP_EFORMAT, "config.json", "1024 heads of 4096 channels, expected at most");
}

static void test_t5_encoder__names_parameters_that_do_not_fit(void **state)
{
    (void)state;
    link_weights();
    write_config(", \"num_layers\": 3");
    assert_refused(MP_EFORMAT, "config.json", "duplicate");
    scratch_text("config.json",
                 "{\"vocab_size\": 304, \"d_model\": 48, \"d_kv\": 8, \"d_ff\": 64, "
                 "\"num_layers\": 3, \"num_heads\": 4, \"feed_forward_proj\": \"gated-gelu\"}");
    assert_refused(MP_EMISSING, "encoder.block.2.layer.0.SelfAttention.q.weight", "missing (9)");
    write_config(", \"is_gated_act\": false");
    assert_refused(MP_EMISSING, "encoder.block.0.layer.1.DenseReluDense.wi.weight", "surplus (4)");
    write_config(", \"model_type\": \"umt5\"");
    assert_refused(MP_EMISSING, "encoder.block.1.layer.0.SelfAttention.relative_attention_bias",
                   "missing (1)");
    write_config(", \"relative_attention_num_buckets\": 16");
    assert_refused(MP_EFORMAT, "relative_attention_bias.weight is [32, 4], expected [16, 4]",
                   "misshapen (1)");
    unlink(scratch("model.safetensors"));
    write_config("");
    assert_refused(MP_EMISSING, "model.safetensors", scratch_dir);
}

static void test_t5_encoder__refuses_no_tokens_and_unknown_ones(void **state)
{
    const mp_weights_options o = options(MP_F32);
    mp_t5_encoder *const m = open_ok(TINY, &o);
    mp_ctx *const c = mp_test_ctx(NULL, 1);
    const int32_t ids[] = {5, 304};

    (void)state;
    mp_t5_encoder_forward(c, m, ids, NULL, 0);
    mp_test_fails(c, MP_ESHAPE, "0 tokens, expected at least one");
    mp_t5_encoder_forward(c, m, ids, NULL, 2);
    mp_test_fails(c, MP_ESHAPE, "304");
    mp_t5_encoder_forward(c, m, ids, NULL, 1);
    mp_test_ok(c);
    mp_t5_encoder_close(m);
    mp_device_close(c);
}

static void test_t5_encoder__frees_all_when_any_allocation_fails(void **state)
{
    const mp_weights_options o = options(MP_F16);
    bool failed = true;
    uint64_t n = 1;

    (void)state;
    for (; failed; n++) {
        mp_t5_encoder *m = NULL;
        mp_error err = {0};
        mp_memory_fail_at(n);
        failed = mp_t5_encoder_open(TINY, &o, &m, &err) != MP_OK;
        mp_memory_fail_at(0);
        if (failed)
            assert_int_equal(err.code, MP_ENOMEM);
        mp_t5_encoder_close(m);
    }
    assert_true(n > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_t5_encoder__equals_transformers_module_by_module_in_fp32),
        cmocka_unit_test(test_t5_encoder__rounds_where_transformers_rounds_in_fp16),
        cmocka_unit_test(test_t5_encoder__rounds_where_transformers_rounds_in_bf16),
        cmocka_unit_test(test_t5_encoder__variants_equal_transformers),
        cmocka_unit_test(test_t5_encoder__has_no_square_of_the_tokens_in_memory),
        cmocka_unit_test(test_t5_encoder__refuses_configs_that_it_cannot_run),
        cmocka_unit_test(test_t5_encoder__names_parameters_that_do_not_fit),
        cmocka_unit_test(test_t5_encoder__refuses_no_tokens_and_unknown_ones),
        cmocka_unit_test(test_t5_encoder__frees_all_when_any_allocation_fails),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
