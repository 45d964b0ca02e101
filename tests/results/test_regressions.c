/* What changed over the nights: found, held on record, acknowledged, fixed, withdrawn. */
#include <jansson.h>

#include "kernels/core/memory.h"
#include "results/markdown.h"
#include "results/regressions.h"
#include "tests/results/nights.h"

/* Noise of one part in a thousand that never repeats and never trends. */
static double steady(int i)
{
    static const double wobble[] = {0, 7, -4, 2, -6, 5, -1, 3, -7, 1, 6, -3};

    return 1 + 1e-3 * wobble[i % 12] / 7;
}

typedef struct seen {
    mp_history *h;
    mp_findings f;
} seen;

static const mp_regression_options recording = {.record = true};

static seen look(mp_store *s, mp_regression_options o)
{
    seen x = {0};
    mp_error err = {0};

    if (mp_history_load(s, &(mp_history_filter){0}, &x.h, &err) ||
        mp_findings_of(s, x.h, &o, &x.f, &err))
        fail_msg("%s", err.text);
    return x;
}

static void forget(seen *x)
{
    mp_findings_free(&x->f);
    mp_history_free(x->h);
}

/* One look: the number of findings, the first one's state. */
static void assert_finding(mp_store *s, int count, mp_finding_kind kind, mp_finding_state state,
                           int64_t id)
{
    seen x = look(s, recording);

    assert_int_equal(x.f.count, count);
    assert_string_equal(mp_finding_kind_names[x.f.items[0].kind], mp_finding_kind_names[kind]);
    assert_string_equal(mp_finding_state_names[x.f.items[0].state], mp_finding_state_names[state]);
    assert_int_equal(x.f.items[0].id, id);
    forget(&x);
}

static void nights(mp_store *s, int from, int to, double seconds)
{
    for (int i = from; i < to; i++)
        night_of(s, &(night_cell){.seconds = seconds * steady(i), .drift = 0.5, .peak_mib = 100});
}

/* ---- steps ---------------------------------------------------------------------------------- */

static void test_regressions__finds_a_step_between_its_two_runs(void **state)
{
    (void)state;
    mp_store *s = nights_open("step.db");

    nights(s, 0, 12, 2);
    nights(s, 12, 20, 2.2);
    seen x = look(s, recording);
    assert_int_equal(x.f.count, 1);
    const mp_finding *f = &x.f.items[0];
    assert_int_equal(f->kind, MP_FINDING_STEP);
    assert_int_equal(f->state, MP_FINDING_CONFIRMED);
    assert_true(f->open);
    assert_int_equal(f->direction, -1);
    assert_string_equal(f->metric, "seconds");
    assert_int_equal(x.h->observations[f->before].run, 11);
    assert_int_equal(x.h->observations[f->after].run, 12);
    assert_true(fabs(f->value_before - 2) < 0.01 && fabs(f->value_after - 2.2) < 0.01);
    assert_true(f->q > 0 && f->q < 0.01);
    assert_non_null(strstr(f->what, "seconds 2 -> 2.2 s (+10.0 %)"));
    assert_int_equal(x.f.open, 1);
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__calls_a_faster_cell_better_and_raises_no_alarm(void **state)
{
    (void)state;
    mp_store *s = nights_open("better.db");

    nights(s, 0, 12, 2);
    nights(s, 12, 20, 1.8);
    seen x = look(s, recording);
    assert_int_equal(x.f.count, 1);
    assert_int_equal(x.f.items[0].direction, 1);
    assert_false(x.f.items[0].open);
    assert_int_equal(x.f.open, 0);
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__keeps_still_over_noise_and_small_changes(void **state)
{
    (void)state;
    mp_store *s = nights_open("noise.db");

    nights(s, 0, 12, 2);
    nights(s, 12, 24, 2.02); /* one per cent: below what matters of time */
    seen x = look(s, recording);
    assert_int_equal(x.f.count, 0);
    assert_int_equal(x.f.judged, 2);
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__waits_for_three_runs_before_an_alarm(void **state)
{
    (void)state;
    mp_store *s = nights_open("wait.db");

    nights(s, 0, 12, 2);
    nights(s, 12, 13, 2.4);
    assert_finding(s, 1, MP_FINDING_STEP, MP_FINDING_DETECTED, 1);
    nights(s, 13, 14, 2.4);
    assert_finding(s, 1, MP_FINDING_STEP, MP_FINDING_DETECTED, 1);
    nights(s, 14, 15, 2.4);
    assert_finding(s, 1, MP_FINDING_STEP, MP_FINDING_CONFIRMED, 1);
    assert_finding(s, 1, MP_FINDING_STEP, MP_FINDING_CONFIRMED, 1); /* nothing new */
    assert_sql(mp_store_path(s), "SELECT group_concat(state) FROM finding_event",
               "detected,confirmed");
    mp_store_close(s);
}

static void test_regressions__takes_a_little_more_noise_for_noise(void **state)
{
    (void)state;
    mp_store *s = nights_open("extreme.db");

    for (int i = 0; i < 12; i++)
        nights(s, i, i + 1, i % 2 ? 2.2 : 2);
    nights(s, 12, 13, 2.3);
    seen x = look(s, recording);
    assert_int_equal(x.f.count, 0);
    forget(&x);
    nights(s, 13, 14, 3);
    x = look(s, recording);
    assert_int_equal(x.f.count, 1);
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__withdraws_a_spike_and_stays_quiet_about_it(void **state)
{
    (void)state;
    mp_store *s = nights_open("spike.db");

    nights(s, 0, 12, 2);
    nights(s, 12, 13, 3);
    assert_finding(s, 1, MP_FINDING_STEP, MP_FINDING_DETECTED, 1);
    nights(s, 13, 16, 2);
    seen x = look(s, recording);
    assert_int_equal(x.f.count, 0);
    assert_int_equal(x.f.withdrawn_count, 1);
    assert_int_equal(x.f.withdrawn[0], 1);
    forget(&x);
    x = look(s, recording); /* told once */
    assert_int_equal(x.f.withdrawn_count, 0);
    forget(&x);
    assert_sql(mp_store_path(s), "SELECT group_concat(state) FROM finding_event",
               "detected,withdrawn");
    mp_store_close(s);
}

static void test_regressions__knows_a_level_that_came_back(void **state)
{
    (void)state;
    mp_store *s = nights_open("fixed.db");

    nights(s, 0, 12, 2);
    nights(s, 12, 24, 2.4);
    assert_finding(s, 1, MP_FINDING_STEP, MP_FINDING_CONFIRMED, 1);
    nights(s, 24, 36, 2);
    seen x = look(s, recording);
    assert_int_equal(x.f.count, 1);
    assert_int_equal(x.f.items[0].state, MP_FINDING_FIXED);
    assert_int_equal(x.h->observations[x.f.items[0].fixed].run, 24);
    assert_int_equal(x.f.open, 0);
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__raises_an_alarm_when_an_improvement_is_lost(void **state)
{
    (void)state;
    mp_store *s = nights_open("lost.db");

    nights(s, 0, 12, 2);
    nights(s, 12, 24, 1.6);
    nights(s, 24, 36, 2);
    seen x = look(s, recording);
    assert_int_equal(x.f.count, 2);
    assert_int_equal(x.f.items[0].direction, -1);
    assert_true(x.f.items[0].open);
    assert_int_equal(x.h->observations[x.f.items[0].after].run, 24);
    assert_int_equal(x.f.items[1].direction, 1);
    assert_int_equal(x.f.items[1].state, MP_FINDING_CONFIRMED);
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__knows_that_a_way_back_in_one_step_fixes_two(void **state)
{
    (void)state;
    mp_store *s = nights_open("fixed_both.db");

    nights(s, 0, 12, 2);
    nights(s, 12, 24, 2.4);
    nights(s, 24, 36, 3);
    nights(s, 36, 48, 1.6); /* and further: that is better, and a finding as well */
    seen x = look(s, recording);
    assert_int_equal(x.f.count, 3);
    assert_int_equal(x.f.open, 0);
    assert_int_equal(x.f.items[0].direction, 1);
    assert_int_equal(x.f.items[1].state, MP_FINDING_FIXED);
    assert_int_equal(x.f.items[2].state, MP_FINDING_FIXED);
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__leaves_alone_what_is_not_finite(void **state)
{
    (void)state;
    mp_store *s = nights_open("nan.db");

    for (int i = 0; i < 20; i++)
        night_of(s, &(night_cell){.drift = NAN,
                                  .seconds = i % 5 == 2   ? NAN
                                             : i % 5 == 3 ? INFINITY
                                                          : steady(i) * (i < 10 ? 2 : 2.4)});
    seen x = look(s, recording);
    assert_int_equal(x.f.count, 1);
    assert_int_equal(x.h->observations[x.f.items[0].after].run, 10);
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__names_what_is_too_short(void **state)
{
    (void)state;
    mp_store *s = nights_open("short.db");

    nights(s, 0, 5, 2);
    seen x = look(s, recording);
    assert_int_equal(x.f.judged, 0);
    assert_int_equal(x.f.too_short, 2);
    assert_int_equal(x.f.least, 6);
    assert_string_equal(x.h->series[x.f.shortest].metric, "seconds");
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__never_takes_another_machine_for_a_change(void **state)
{
    (void)state;
    mp_store *s = nights_open("machines.db");

    for (int i = 0; i < 24; i++)
        night_add(
            s, night_begin(s, &(night){.fingerprint = i % 2 ? "slow" : "fast"}),
            &(night_cell){.seconds = (i % 2 ? 4 : 2) * steady(i), .image = i % 2 ? "one" : "two"});
    seen x = look(s, recording);
    assert_int_equal(x.f.count, 0);
    assert_int_equal(x.f.judged, 2);
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__does_not_judge_context(void **state)
{
    (void)state;
    mp_store *s = nights_open("context.db");

    for (int i = 0; i < 20; i++) {
        const mp_metric_row roofline = {"roofline_fp32",    "run",    -1, "",
                                        i < 10 ? 100 : 200, "GFLOP/s"};
        night_of(s, &(night_cell){.more = &roofline, .more_count = 1});
    }
    seen x = look(s, recording);
    assert_int_equal(x.f.count + x.f.judged, 0);
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__controls_false_discoveries_over_all_series(void **state)
{
    (void)state;
    mp_store *s = nights_open("fdr.db");
    mp_regression_options strict = {.false_discovery = 1e-300};

    nights(s, 0, 12, 2);
    nights(s, 12, 20, 2.2);
    seen x = look(s, strict);
    assert_int_equal(x.f.count, 0);
    forget(&x);
    mp_store_close(s);
}

/* Otava raises an alarm for the newest point alone, where the default mode waits. */
static void test_regressions__finds_steps_as_otava_does_on_request(void **state)
{
    (void)state;
    mp_store *s = nights_open("otava.db");
    static const mp_otava_options options = {.window = 50, .p = 0.001};

    nights(s, 0, 12, 2);
    nights(s, 12, 13, 2.4);
    seen x = look(s, (mp_regression_options){.otava = &options});
    assert_int_equal(x.f.count, 1);
    assert_int_equal(x.f.items[0].state, MP_FINDING_CONFIRMED);
    assert_int_equal(x.h->observations[x.f.items[0].after].run, 12);
    assert_true(isnan(x.f.items[0].q) && x.f.items[0].p < 0.001);
    forget(&x);
    mp_store_close(s);
}

/* ---- exact changes -------------------------------------------------------------------------- */

static void test_regressions__finds_other_bits_however_small(void **state)
{
    (void)state;
    mp_store *s = nights_open("bits.db");

    night_of(s, &(night_cell){.drift = 0.5, .image = "a"});
    night_of(s, &(night_cell){.drift = 0.5, .image = "a"});
    night_of(s, &(night_cell){.drift = 0.5, .image = "b"});
    night_of(s, &(night_cell){.drift = nextafter(0.5, 1), .image = "b"});
    seen x = look(s, recording);
    assert_int_equal(x.f.count, 2);
    assert_int_equal(x.f.open, 2);
    assert_string_equal(x.f.items[0].what,
                        "latent_rel_l2 0.5 -> 0.5 (+2.2e-14 %), same bits: the reference moved");
    assert_int_equal(x.f.items[0].direction, -1);
    assert_string_equal(x.f.items[1].what, "other bits");
    assert_int_equal(x.f.items[1].direction, 0);
    assert_int_equal(x.h->observations[x.f.items[1].after].run, 2);
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__calls_less_drift_better(void **state)
{
    (void)state;
    mp_store *s = nights_open("less.db");
    static const mp_metric_row psnr[] = {{"psnr_db", "run", -1, "", 40, "dB"},
                                         {"psnr_db", "run", -1, "", 50, "dB"}};

    night_of(s, &(night_cell){.drift = 0.5, .image = "a", .more = psnr, .more_count = 1});
    night_of(s, &(night_cell){.drift = 0.4, .image = "b", .more = psnr + 1, .more_count = 1});
    seen x = look(s, recording);
    assert_int_equal(x.f.count, 1);
    assert_int_equal(x.f.items[0].direction, 1);
    assert_int_equal(x.f.open, 0);
    assert_string_equal(x.f.items[0].what,
                        "psnr_db 40 -> 50 (+25 %), latent_rel_l2 0.5 -> 0.4 (-20 %), other bits");
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__says_when_one_program_gives_two_results(void **state)
{
    (void)state;
    mp_store *s = nights_open("same_program.db");

    for (int i = 0; i < 2; i++)
        night_add(s, night_begin(s, &(night){.program = "one"}),
                  &(night_cell){.drift = 0.5, .image = i ? "a" : "b"});
    seen x = look(s, recording);
    assert_string_equal(x.f.items[0].what, "other bits, by the same program: not reproducible");
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__knows_bits_that_came_back(void **state)
{
    (void)state;
    mp_store *s = nights_open("bits_back.db");

    night_of(s, &(night_cell){.drift = 0.5, .image = "a"});
    night_of(s, &(night_cell){.drift = 0.6, .image = "b"});
    assert_finding(s, 1, MP_FINDING_EXACT, MP_FINDING_CONFIRMED, 1);
    night_of(s, &(night_cell){.drift = 0.5, .image = "a"});
    assert_finding(s, 1, MP_FINDING_EXACT, MP_FINDING_FIXED, 1);
    mp_store_close(s);
}

static void test_regressions__asks_statistics_where_a_library_is_not_deterministic(void **state)
{
    (void)state;
    mp_store *s = nights_open("library.db");
    char image[12];

    for (int i = 0; i < 20; i++) { /* a GPU: other bits each night, drift within a per mille */
        snprintf(image, sizeof image, "%d", i);
        night_add(s, night_begin(s, &(night){.engine = "diffusers", .program = "0.42.1"}),
                  &(night_cell){.drift = 0.5 * steady(i) * (i < 10 ? 1 : 1.5), .image = image});
    }
    seen x = look(s, recording);
    assert_int_equal(x.f.count, 1);
    assert_int_equal(x.f.items[0].kind, MP_FINDING_STEP);
    assert_string_equal(x.f.items[0].metric, "latent_rel_l2");
    assert_string_equal(x.f.items[0].what, "latent_rel_l2 0.5 -> 0.7501 (+50.0 %)");
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__holds_a_library_to_the_bits_that_it_kept(void **state)
{
    (void)state;
    mp_store *s = nights_open("library_exact.db");

    for (int i = 0; i < 4; i++)
        night_add(
            s,
            night_begin(s, &(night){.engine = "diffusers", .program = i < 2 ? "0.42.1" : "0.43.0"}),
            &(night_cell){.drift = 0.5, .image = i < 2 ? "a" : "b"});
    seen x = look(s, recording);
    assert_int_equal(x.f.count, 1);
    assert_int_equal(x.f.items[0].kind, MP_FINDING_EXACT);
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__raises_an_alarm_when_better_bits_are_lost(void **state)
{
    (void)state;
    mp_store *s = nights_open("bits_lost.db");

    night_of(s, &(night_cell){.drift = 0.5, .image = "a"});
    night_of(s, &(night_cell){.drift = 0.4, .image = "b"});
    night_of(s, &(night_cell){.drift = 0.5, .image = "a"});
    seen x = look(s, recording);
    assert_int_equal(x.f.count, 2);
    assert_int_equal(x.f.open, 1);
    assert_int_equal(x.f.items[0].direction, -1);
    forget(&x);
    mp_store_close(s);
}

/* ---- outcomes ------------------------------------------------------------------------------- */

static void test_regressions__puts_a_newly_failing_cell_first(void **state)
{
    (void)state;
    mp_store *s = nights_open("fails.db");

    nights(s, 0, 12, 2);
    nights(s, 12, 20, 4);
    night_of(s, &(night_cell){.status = "error", .outcome = "dtype_mismatch", .unexpected = true});
    seen x = look(s, recording);
    assert_int_equal(x.f.count, 2);
    assert_int_equal(x.f.items[0].kind, MP_FINDING_OUTCOME);
    assert_string_equal(x.f.items[0].what, "ok -> error dtype_mismatch");
    assert_true(x.f.items[0].open);
    forget(&x);
    nights(s, 21, 22, 4);
    x = look(s, recording);
    assert_int_equal(x.f.items[1].kind, MP_FINDING_OUTCOME);
    assert_int_equal(x.f.items[1].state, MP_FINDING_FIXED);
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__knows_that_a_good_end_fixes_all_ways_to_fail(void **state)
{
    (void)state;
    mp_store *s = nights_open("ways.db");

    nights(s, 0, 2, 2);
    night_of(s, &(night_cell){.status = "error", .unexpected = true});
    night_of(s, &(night_cell){.status = "crash", .unexpected = true});
    nights(s, 4, 6, 2);
    seen x = look(s, recording);
    assert_int_equal(x.f.count, 2);
    assert_int_equal(x.f.open, 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(x.f.items[i].state, MP_FINDING_FIXED);
        assert_int_equal(x.f.items[i].fixed, 4);
    }
    forget(&x);
    mp_store_close(s);
}

/* ---- looking -------------------------------------------------------------------------------- */

static char *shown(mp_store *s, const mp_regressions_view *v, int expected_status)
{
    mp_error err = {0};
    char *text = NULL;
    size_t n;
    int status;
    FILE *f = open_memstream(&text, &n);

    assert_non_null(f);
    if (mp_regressions(s, v, f, &status, &err))
        fail_msg("%s", err.text);
    fclose(f);
    assert_int_equal(status, expected_status);
    return text;
}

static char *view_of(mp_store *s, mp_format format, bool settled, int expected_status)
{
    return shown(s,
                 &(mp_regressions_view){.options = recording, .format = format, .settled = settled},
                 expected_status);
}

static char *view(mp_store *s, mp_format format, int expected_status)
{
    return view_of(s, format, false, expected_status);
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("no \"%s\" in:\n%s", part, text);
}

/* ---- acknowledging -------------------------------------------------------------------------- */

static void acknowledge(mp_store *s, int64_t id, bool siblings, const char *why, mp_code code,
                        const char *text)
{
    mp_error err = {0};
    int count;

    assert_int_equal(mp_findings_acknowledge(s, &id, 1, siblings, why, &count, &err), code);
    if (code && !strstr(err.text, text))
        fail_msg("\"%s\" does not contain \"%s\"", err.text, text);
}

static void test_regressions__keeps_an_acknowledgement_and_its_reason(void **state)
{
    (void)state;
    mp_store *s = nights_open("ack.db");

    nights(s, 0, 12, 2);
    nights(s, 12, 20, 2.4);
    assert_finding(s, 1, MP_FINDING_STEP, MP_FINDING_CONFIRMED, 1);
    acknowledge(s, 1, false, "slower, but right: #123", MP_OK, "");
    nights(s, 20, 24, 2.4);
    seen x = look(s, recording);
    assert_int_equal(x.f.items[0].state, MP_FINDING_ACKNOWLEDGED);
    assert_string_equal(x.f.items[0].why, "slower, but right: #123");
    assert_int_equal(x.f.open, 0);
    forget(&x);
    nights(s, 24, 36, 2);
    assert_finding(s, 1, MP_FINDING_STEP, MP_FINDING_FIXED, 1);
    acknowledge(s, 1, false, "x", MP_EUSAGE, "finding 1 is fixed: there is nothing to acknowledge");
    acknowledge(s, 7, false, "x", MP_EMISSING, "there is no finding 7; `mpbench regressions`");
    assert_sql(mp_store_path(s), "SELECT group_concat(state) FROM finding_event",
               "confirmed,acknowledged,fixed");
    mp_store_close(s);
}

static void test_regressions__takes_the_newest_event_by_its_time(void **state)
{
    (void)state;
    mp_store *s = nights_open("late.db");

    nights(s, 0, 12, 2);
    nights(s, 12, 20, 2.4);
    assert_finding(s, 1, MP_FINDING_STEP, MP_FINDING_CONFIRMED, 1);
    acknowledge(s, 1, false, "known", MP_OK, "");
    /* as merge brings it from another database */
    sql_run(mp_store_path(s), "INSERT INTO finding_event (finding, at, state) VALUES (1, "
                              "'2020-01-01T00:00:00.000Z', 'detected')");
    assert_finding(s, 1, MP_FINDING_STEP, MP_FINDING_ACKNOWLEDGED, 1);
    sql_run(mp_store_path(s), "INSERT INTO finding_event (finding, at, state) VALUES (1, "
                              "'2999-01-01T00:00:00.000Z', 'confirmed')");
    acknowledge(s, 1, false, "also before a clock that is wrong", MP_OK, "");
    assert_finding(s, 1, MP_FINDING_STEP, MP_FINDING_ACKNOWLEDGED, 1);
    mp_store_close(s);
}

static void test_regressions__acknowledges_all_that_one_commit_changed(void **state)
{
    (void)state;
    mp_store *s = nights_open("siblings.db");

    for (int i = 0; i < 3; i++) {
        const int64_t run = night_begin(s, &(night){0});
        static const char *const keys[] = {"sana/a", "sana/b", "sana/c"};
        static const char *const images[] = {"1", "2", "3"};
        for (int k = 0; k < 3; k++) /* c changes a night later */
            night_add(
                s, run,
                &(night_cell){.key = keys[k], .drift = 1, .image = images[k == 2 ? i / 2 : i > 0]});
        if (i != 1) /* d was not run that night: its change may be of either */
            night_add(s, run, &(night_cell){.key = "sana/d", .drift = 1, .image = images[i]});
    }
    seen x = look(s, recording);
    assert_int_equal(x.f.open, 4);
    const int64_t id = x.f.items[0].id;
    forget(&x);
    mp_error err = {0};
    int count = 0;
    assert_int_equal(
        mp_findings_acknowledge(s, (int64_t[]){id, id}, 2, true, "a new compiler", &count, &err),
        MP_OK);
    assert_int_equal(count, 2); /* each once, however often it is named */
    x = look(s, recording);
    assert_int_equal(x.f.open, 2);
    assert_string_equal(x.h->subjects[x.f.items[0].subject].key, "sana/c");
    assert_string_equal(x.h->subjects[x.f.items[1].subject].key, "sana/d");
    forget(&x);
    char *text = view(s, MP_TEXT, 1); /* a group for each two runs */
    assert_has(text, "(runs 2 and 3, ");
    assert_has(text, "(runs 1 and 3, ");
    assert_has(text, "(runs 1 and 2, ");
    free(text);
    mp_store_close(s);
}

/* More data move a change point by a run or two. */
static void test_regressions__knows_a_finding_again_near_its_old_place(void **state)
{
    (void)state;
    mp_store *s = nights_open("moved.db");

    nights(s, 0, 12, 2);
    nights(s, 12, 20, 2.4);
    assert_finding(s, 1, MP_FINDING_STEP, MP_FINDING_CONFIRMED, 1);
    sql_run(mp_store_path(s), "UPDATE finding SET before_cell = 14, after_cell = 15");
    assert_finding(s, 1, MP_FINDING_STEP, MP_FINDING_CONFIRMED, 1);
    sql_run(mp_store_path(s),
            "UPDATE finding SET before_cell = 15, after_cell = 16, key = 'of another place'");
    assert_finding(s, 1, MP_FINDING_STEP, MP_FINDING_CONFIRMED, 2);
    assert_sql(mp_store_path(s), "SELECT group_concat(finding || state) FROM finding_event",
               "1confirmed,2confirmed,1withdrawn");
    mp_store_close(s);
}

static void test_regressions__withdraws_nothing_that_it_did_not_look_at(void **state)
{
    (void)state;
    mp_store *s = nights_open("unseen.db");

    nights(s, 0, 12, 2);
    nights(s, 12, 20, 2.4);
    assert_finding(s, 1, MP_FINDING_STEP, MP_FINDING_CONFIRMED, 1);
    sql_run(mp_store_path(s), "UPDATE finding SET step = 3, key = 'of a step'"); /* --all-rows */
    seen x = look(s, recording);
    assert_int_equal(x.f.items[0].id, 2);
    assert_int_equal(x.f.withdrawn_count, 0);
    forget(&x);
    mp_store_close(s);
}

static void test_regressions__records_nothing_unasked(void **state)
{
    (void)state;
    mp_store *s = nights_open("unasked.db");

    nights(s, 0, 12, 2);
    nights(s, 12, 20, 2.4);
    seen x = look(s, (mp_regression_options){0});
    assert_int_equal(x.f.items[0].id, 0);
    forget(&x);
    assert_sql(mp_store_path(s), "SELECT count(*) FROM finding", "0");
    mp_store_close(s);
}

/* ---- the view ------------------------------------------------------------------------------- */

static void test_regressions__shows_both_ends_and_what_else_changed(void **state)
{
    (void)state;
    mp_store *s = nights_open("view.db");

    nights(s, 0, 12, 2);
    nights(s, 12, 20, 2.4);
    sql_run(mp_store_path(s), "INSERT INTO run_environment SELECT id, 'blas', CASE WHEN id < 13 "
                              "THEN 'OpenBLAS 0.3.21' ELSE 'OpenBLAS 0.3.26' END FROM run");
    char *text = view(s, MP_TEXT, 1);
    assert_has(text, "near 0000000000..0000000000 (runs 12 and 13, 2026-01-12");
    assert_has(text, "changed too: blas: OpenBLAS 0.3.21 -> OpenBLAS 0.3.26");
    assert_null(strstr(text, "changed too: git_commit")); /* the heading has it */
    assert_null(strstr(text, "changed too: program"));
    assert_has(text, "before at 0000000000 (cell 12): mpbench run sana/dtype=bf16");
    assert_has(text, "after  at 0000000000 (cell 13): mpbench run sana/dtype=bf16");
    assert_has(text, "\nverdict: REGRESSION exit=1 (1 open finding; ");
    free(text);
    text = view(s, MP_CSV, 1);
    assert_has(text, "\n1,confirmed,step,1,worse,sana/dtype=bf16,seconds,run,-1,");
    free(text);
    text = view(s, MP_JSON, 1);
    json_t *all = json_loads(text, 0, NULL);
    const json_t *finding = json_array_get(json_object_get(all, "findings"), 0);
    assert_string_equal(json_string_value(json_object_get(all, "kind")), "mpbench regressions");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(finding, "after"), "run")),
                     13);
    assert_string_equal(json_string_value(json_array_get(
                            json_object_get(json_object_get(finding, "changed"), "blas"), 1)),
                        "OpenBLAS 0.3.26");
    json_decref(all);
    free(text);
    mp_store_close(s);
}

static void test_regressions__of_one_metric_are_nothing_else(void **state)
{
    (void)state;
    mp_store *s = nights_open("metric.db");
    mp_regressions_view of = {.format = MP_CSV, .filter = {.metric = "seconds"}};

    nights(s, 0, 12, 2);
    night_of(s, &(night_cell){.seconds = 2, .drift = 0.6, .image = "other"});
    night_of(s, &(night_cell){.status = "error", .unexpected = true});
    char *text = shown(s, &of, 0);
    assert_string_equal(strchr(text, '\n'), "\n"); /* heads alone */
    free(text);
    of.filter.metric = "latent_rel_l2";
    text = shown(s, &of, 1);
    assert_has(text, ",confirmed,exact,1,worse,");
    assert_null(strstr(text, ",outcome,"));
    free(text);
    of.filter.metric = "outcome";
    text = shown(s, &of, 1);
    assert_has(text, ",confirmed,outcome,1,worse,");
    assert_null(strstr(text, ",exact,"));
    free(text);
    mp_store_close(s);
}

static void test_regressions__does_not_repeat_for_ever_what_is_settled(void **state)
{
    (void)state;
    mp_store *s = nights_open("settled.db");

    nights(s, 0, 12, 2);
    nights(s, 12, 16, 2.4);
    free(view(s, MP_TEXT, 1));
    acknowledge(s, 1, false, "known: #7", MP_OK, "");
    char *text = view(s, MP_TEXT, 0);
    assert_has(text, "acknowledged  step  sana/dtype=bf16");
    assert_has(text, "because known: #7");
    free(text);
    nights(s, 16, 26, 2.4);
    text = view(s, MP_TEXT, 0);
    assert_null(strstr(text, "near "));
    assert_has(text, "1 older finding that is no alarm (better, acknowledged, fixed): --all shows");
    free(text);
    text = view_of(s, MP_TEXT, true, 0);
    assert_has(text, "because known: #7");
    free(text);
    mp_store_close(s);
}

static void test_regressions__says_ok_of_one_run(void **state)
{
    (void)state;
    mp_store *s = nights_open("one.db");

    nights(s, 0, 1, 2);
    char *text = view(s, MP_TEXT, 0);
    assert_has(text, "too short for statistics, which need 6 runs of a machine: 2 series, such as "
                     "seconds of sana/dtype=bf16");
    assert_has(text, "verdict: OK exit=0 (0 open findings; ");
    free(text);
    mp_store_close(s);
}

#define HOSTILE "\x1b[2J<script>|`$(x)`'; DROP TABLE run; --\xff"

static void test_regressions__cannot_be_injected_into(void **state)
{
    (void)state;
    mp_store *s = nights_open("hostile.db");

    for (int i = 0; i < 2; i++)
        night_add(s, night_begin(s, &(night){.commit = HOSTILE}),
                  &(night_cell){.key = HOSTILE, .drift = 1, .image = i ? "a" : "b"});
    for (mp_format f = MP_TEXT; f <= MP_CSV; f++) {
        char *text = view(s, f, 1);
        assert_null(strchr(text, '\x1b'));
        assert_null(strchr(text, '\xff'));
        if (f == MP_MARKDOWN)
            assert_has(text, "\\<script\\>\\|");
        if (f == MP_JSON) {
            json_t *all = json_loads(text, 0, NULL);
            assert_non_null(all);
            json_decref(all);
        }
        free(text);
    }
    assert_sql(mp_store_path(s), "SELECT count(*) FROM run", "2");
    mp_store_close(s);
}

static void test_regressions__fits_a_comment(void **state)
{
    (void)state;
    mp_store *s = nights_open("comment.db");
    char key[200];

    for (int i = 0; i < 40; i++) {
        const int64_t run = night_begin(s, &(night){0});
        char image[12];
        snprintf(image, sizeof image, "%d", i);
        for (int k = 0; k < 11; k++) {
            snprintf(key, sizeof key, "sana/%0150d", k);
            night_add(s, run, &(night_cell){.key = key, .drift = 1 + i, .image = image});
        }
    }
    char *text = view(s, MP_MARKDOWN, 1);
    assert_true(strlen(text) <= MP_MARKDOWN_COMMENT);
    assert_true(strlen(text) > MP_MARKDOWN_COMMENT / 2);
    assert_has(text, "more ranges of commits. The database has all.");
    assert_has(text, "and 1 more, which --format json shows");
    assert_has(text, "verdict: REGRESSION exit=1 (429 open findings");
    free(text);
    mp_store_close(s);
}

static void test_regressions__gives_up_cleanly_without_memory(void **state)
{
    (void)state;
    mp_store *s = nights_open("memory.db");
    mp_error err = {0};
    mp_history *h = NULL;
    mp_findings f;

    nights(s, 0, 8, 2);
    night_of(s, &(night_cell){.seconds = 2.4, .image = "b"});
    nights(s, 9, 14, 2.4);
    night_of(s, &(night_cell){.status = "error", .unexpected = true});
    assert_int_equal(mp_history_load(s, &(mp_history_filter){0}, &h, &err), MP_OK);
    const uint64_t before = mp_memory_requests();
    assert_int_equal(mp_findings_of(s, h, &recording, &f, &err), MP_OK);
    const uint64_t n = mp_memory_requests() - before;
    const int count = f.count;
    assert_true(count >= 3);
    mp_findings_free(&f);
    for (uint64_t i = 1; i <= n; i++) {
        err = (mp_error){0};
        mp_memory_fail_at(i);
        const mp_code code = mp_findings_of(s, h, &recording, &f, &err);
        mp_memory_fail_at(0);
        assert_true(code == MP_ENOMEM || (code == MP_OK && f.count == count));
        mp_findings_free(&f);
    }
    mp_history_free(h);
    mp_store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_regressions__finds_a_step_between_its_two_runs),
        cmocka_unit_test(test_regressions__calls_a_faster_cell_better_and_raises_no_alarm),
        cmocka_unit_test(test_regressions__keeps_still_over_noise_and_small_changes),
        cmocka_unit_test(test_regressions__waits_for_three_runs_before_an_alarm),
        cmocka_unit_test(test_regressions__takes_a_little_more_noise_for_noise),
        cmocka_unit_test(test_regressions__withdraws_a_spike_and_stays_quiet_about_it),
        cmocka_unit_test(test_regressions__knows_a_level_that_came_back),
        cmocka_unit_test(test_regressions__raises_an_alarm_when_an_improvement_is_lost),
        cmocka_unit_test(test_regressions__knows_that_a_way_back_in_one_step_fixes_two),
        cmocka_unit_test(test_regressions__leaves_alone_what_is_not_finite),
        cmocka_unit_test(test_regressions__names_what_is_too_short),
        cmocka_unit_test(test_regressions__never_takes_another_machine_for_a_change),
        cmocka_unit_test(test_regressions__does_not_judge_context),
        cmocka_unit_test(test_regressions__controls_false_discoveries_over_all_series),
        cmocka_unit_test(test_regressions__finds_steps_as_otava_does_on_request),
        cmocka_unit_test(test_regressions__finds_other_bits_however_small),
        cmocka_unit_test(test_regressions__calls_less_drift_better),
        cmocka_unit_test(test_regressions__says_when_one_program_gives_two_results),
        cmocka_unit_test(test_regressions__knows_bits_that_came_back),
        cmocka_unit_test(test_regressions__asks_statistics_where_a_library_is_not_deterministic),
        cmocka_unit_test(test_regressions__holds_a_library_to_the_bits_that_it_kept),
        cmocka_unit_test(test_regressions__raises_an_alarm_when_better_bits_are_lost),
        cmocka_unit_test(test_regressions__puts_a_newly_failing_cell_first),
        cmocka_unit_test(test_regressions__knows_that_a_good_end_fixes_all_ways_to_fail),
        cmocka_unit_test(test_regressions__keeps_an_acknowledgement_and_its_reason),
        cmocka_unit_test(test_regressions__takes_the_newest_event_by_its_time),
        cmocka_unit_test(test_regressions__acknowledges_all_that_one_commit_changed),
        cmocka_unit_test(test_regressions__knows_a_finding_again_near_its_old_place),
        cmocka_unit_test(test_regressions__withdraws_nothing_that_it_did_not_look_at),
        cmocka_unit_test(test_regressions__records_nothing_unasked),
        cmocka_unit_test(test_regressions__shows_both_ends_and_what_else_changed),
        cmocka_unit_test(test_regressions__of_one_metric_are_nothing_else),
        cmocka_unit_test(test_regressions__does_not_repeat_for_ever_what_is_settled),
        cmocka_unit_test(test_regressions__says_ok_of_one_run),
        cmocka_unit_test(test_regressions__cannot_be_injected_into),
        cmocka_unit_test(test_regressions__fits_a_comment),
        cmocka_unit_test(test_regressions__gives_up_cleanly_without_memory),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
