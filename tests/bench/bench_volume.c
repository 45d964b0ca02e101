/* A database of many nights, written through the store as `mpbench run` does:
 *
 *     bench_volume FILE [NIGHTS [CELLS [METRICS]]]
 *
 * by default 365 nights of 200 cells with 140 metric rows each, 10 million in all.  Times and
 * memory have 1 % of noise; one cell in 50 becomes 10 % slower on a night of its own, and on three
 * nights the bits of all cells change.  Prints one JSON line: rows of all tables and rows per
 * second, with a cell on record before it begins and again when it is over, as in a run. */
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "kernels/core/memory.h"
#include "results/store.h"

enum { SETTINGS = 25, REPEATS = 5, STAGES = 5, OUTPUTS = 8, MAX_METRICS = 2000 };

typedef struct volume {
    mp_store *s;
    int nights, cells, metrics;
    int64_t rows;
    uint64_t random;
    mp_error err;
} volume;

static void check(const volume *v)
{
    if (!v->err.code)
        return;
    fprintf(stderr, "bench_volume: %s\n", v->err.text);
    exit(3);
}

/* Of mean 0 and deviation 1: twelve even numbers (Knuth's 64-bit generator). */
static double noise(volume *v)
{
    double sum = -6;

    for (int i = 0; i < 12; i++) {
        v->random = v->random * 6364136223846793005u + 1442695040888963407u;
        sum += (double)(v->random >> 11) * 0x1p-53;
    }
    return sum;
}

/* 1.1 after the night on which this cell became slower. */
static double level(const volume *v, int night, int cell)
{
    return cell % 50 == 7 && night >= v->nights / 3 + cell ? 1.1 : 1;
}

static int add_metrics(volume *v, mp_metric_row *m, int night, int cell, int epoch)
{
    static const char *const by_step[] = {"rel_l2",    "cosine",    "max_abs",      "max_value",
                                          "nonfinite", "saturated", "headroom_bits"};
    const double drift = 0.01 * (1 + 0.01 * epoch) * (1 + cell % 7);
    int n = 0;

    m[n++] = (mp_metric_row){
        "seconds", "run", -1, "", level(v, night, cell) * (1 + cell % 11) * (1 + 0.01 * noise(v)),
        "s"};
    m[n++] = (mp_metric_row){"peak_mib", "run", -1, "", 500 * (1 + 0.002 * noise(v)), "MiB"};
    m[n++] = (mp_metric_row){"latent_rel_l2", "run", -1, "", drift, "1"};
    m[n++] = (mp_metric_row){"image_rel_l2", "run", -1, "", drift / 2, "1"};
    m[n++] = (mp_metric_row){"psnr_db", "run", -1, "", -20 * log10(drift), "dB"};
    m[n++] = (mp_metric_row){"ssim", "run", -1, "", 1 - drift * drift, "1"};
    for (int i = 0; n < v->metrics; i++)
        m[n++] = (mp_metric_row){by_step[i % 7], "latents", i / 7, "", drift * (1 + i % 5), "1"};
    return n < v->metrics ? n : v->metrics;
}

static void record(volume *v, int64_t run, int night, int cell)
{
    static const char *const stages[] = {"load", "text_encode", "denoise", "decode", "total"};
    static char key[80], scenario[32], hash[OUTPUTS][65];
    static mp_metric_row metrics[MAX_METRICS];
    static char names[SETTINGS][32], output_names[OUTPUTS][32];
    mp_pair settings[SETTINGS];
    mp_sample_row samples[STAGES * REPEATS];
    mp_output_row outputs[OUTPUTS];
    const int epoch = 4 * night / v->nights;
    int64_t id;

    snprintf(scenario, sizeof scenario, "scenario-%02d", cell / 10);
    snprintf(key, sizeof key, "%s/precision.default=%s,inputs.seed=%d", scenario,
             cell % 3 ? cell % 3 == 1 ? "fp16" : "bf16" : "fp32", cell);
    for (int i = 0; i < SETTINGS; i++) {
        snprintf(names[i], sizeof names[i], "inputs.setting_%d", i);
        settings[i] = (mp_pair){names[i], "a value of usual length"};
    }
    settings[0] =
        (mp_pair){"precision.default", cell % 3 ? cell % 3 == 1 ? "fp16" : "bf16" : "fp32"};
    for (int i = 0; i < STAGES * REPEATS; i++)
        samples[i] = (mp_sample_row){i % REPEATS, stages[i / REPEATS],
                                     level(v, night, cell) * (1 + 0.01 * noise(v))};
    for (int i = 0; i < OUTPUTS; i++) {
        snprintf(output_names[i], sizeof output_names[i], "latents_%03d", i);
        snprintf(hash[i], sizeof hash[i], "%064x", (unsigned)(epoch * 1000 + cell * 10 + i));
        outputs[i] = (mp_output_row){output_names[i], "bf16", "[1, 32, 32, 32]", hash[i]};
    }
    const mp_cell_info info = {.key = key,
                               .scenario = scenario,
                               .scenario_hash = "settings",
                               .pipeline = "sana",
                               .checkpoint = "sana-1600m",
                               .checkpoint_hash = "weights",
                               .repro = "mpbench run scenario.yaml --only precision.default=bf16",
                               .settings = settings,
                               .setting_count = SETTINGS};
    const mp_cell_result result = {.status = "ok",
                                   .as_expected = true,
                                   .step = -1,
                                   .metrics = metrics,
                                   .metric_count = add_metrics(v, metrics, night, cell, epoch),
                                   .samples = samples,
                                   .sample_count = STAGES * REPEATS,
                                   .outputs = outputs,
                                   .output_count = OUTPUTS};
    mp_store_begin_cell(v->s, run, &info, &id, &v->err);
    check(v);
    mp_store_finish_cell(v->s, id, &result, &v->err);
    check(v);
    v->rows += 1 + SETTINGS + result.metric_count + STAGES * REPEATS + OUTPUTS;
}

static void record_night(volume *v, int night)
{
    char uuid[40], commit[48], program[68];
    const mp_pair environment[] = {
        {"cpu", "a machine"}, {"git_commit", commit}, {"program", program}};
    int64_t run;

    snprintf(uuid, sizeof uuid, "00000000-0000-4000-8000-%012d", night);
    snprintf(commit, sizeof commit, "%040x", night + 1);
    snprintf(program, sizeof program, "%064x", night + 1);
    mp_store_begin_run(v->s,
                       &(mp_run_info){.uuid = uuid,
                                      .label = "nightly",
                                      .engine = "native",
                                      .device = "cpu",
                                      .command = "mpbench run scenarios",
                                      .plan = "plan",
                                      .fingerprint = "machine",
                                      .environment = environment,
                                      .environment_count = 3},
                       &run, &v->err);
    check(v);
    for (int cell = 0; cell < v->cells; cell++)
        record(v, run, night, cell);
    mp_store_end_run(v->s, run, 0, &v->err);
    check(v);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The store dates runs by the clock; nights are days apart. */
static void spread_over_days(const char *path)
{
    sqlite3 *db = NULL;

    if (sqlite3_open(path, &db) ||
        sqlite3_exec(db,
                     "UPDATE run SET started = strftime('%Y-%m-%dT%H:%M:%fZ', '2025-01-01', (id - "
                     "1) || ' days'), ended = strftime('%Y-%m-%dT%H:%M:%fZ', '2025-01-01', (id - "
                     "1) || ' days', '1 hour')",
                     NULL, NULL, NULL)) {
        fprintf(stderr, "bench_volume: %s: %s\n", path, sqlite3_errmsg(db));
        exit(3);
    }
    sqlite3_close(db);
}

int main(int argc, char **argv)
{
    volume v = {.nights = argc > 2 ? atoi(argv[2]) : 365,
                .cells = argc > 3 ? atoi(argv[3]) : 200,
                .metrics = argc > 4 ? atoi(argv[4]) : 140,
                .random = 1};
    struct stat st = {0};

    if (argc < 2 || v.nights < 1 || v.cells < 1 || v.metrics < 6 || v.metrics > MAX_METRICS) {
        fprintf(stderr, "usage: bench_volume FILE [NIGHTS [CELLS [METRICS]]]\n");
        return 2;
    }
    if (!stat(argv[1], &st)) {
        fprintf(stderr, "bench_volume: %s: is there already; name a new file\n", argv[1]);
        return 2;
    }
    mp_store_open(argv[1], MP_STORE_WRITE, &v.s, &v.err);
    check(&v);
    const double start = now();
    for (int night = 0; night < v.nights; night++)
        record_night(&v, night);
    const double seconds = now() - start;
    mp_store_close(v.s);
    spread_over_days(argv[1]);
    stat(argv[1], &st);
    printf("{\"rows\": %lld, \"seconds\": %.2f, \"rows_per_second\": %.0f, \"mib\": %.0f}\n",
           (long long)v.rows, seconds, (double)v.rows / seconds, (double)st.st_size / 0x1p20);
    return 0;
}
