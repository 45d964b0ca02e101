/* How often the two modes of results/change_points.h cry wolf, and how soon they see a step, as a
 * user of a nightly run lives it: night by night over the same seeded series.
 *
 *     bench_change_points [SERIES] [NOISE]
 *
 * prints a Markdown table.  History is 20, 60 or 200 points; then come 30 nights, with a step at
 * the first of them or without.  An alarm is a change point that no earlier night has shown within
 * 3 points.  Without a step each is false; with one, those within 3 points of it count as found. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/change_points.h"

enum { NIGHTS = 30, LONGEST = 200 + NIGHTS, NEAR = 3 };

/* ---- Series --------------------------------------------------------------------------------- */

static uint64_t state;

static double uniform(void) /* in (0, 1); splitmix64 */
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return ((double)((z ^ (z >> 31)) >> 11) + 0.5) * 0x1p-53;
}

static double gauss(void)
{
    const double r = sqrt(-2 * log(uniform()));
    return r * cos(6.283185307179586 * uniform());
}

/* Each of deviation 1. */
static double of_gauss(double before)
{
    (void)before;
    return gauss();
}

static double of_heavy(double before) /* Student's t of 3 degrees of freedom */
{
    (void)before;
    const double a = gauss(), b = gauss(), c = gauss();
    return gauss() / sqrt(a * a + b * b + c * c);
}

static double of_bimodal(double before)
{
    (void)before;
    return (uniform() < 0.5 ? -1 : 1) * sqrt(0.98) + sqrt(0.02) * gauss();
}

static double of_correlated(double before)
{
    return 0.5 * before + sqrt(0.75) * gauss();
}

static double of_constant(double before)
{
    (void)before;
    return 0;
}

static const struct {
    const char *name;
    double (*next)(double before);
    double grain;
} noises[] = {
    {"Gauss", of_gauss, 0},     {"heavy-tailed", of_heavy, 0},
    {"bimodal", of_bimodal, 0}, {"autocorrelated", of_correlated, 0},
    {"quantised", of_gauss, 1}, {"constant", of_constant, 0},
};
enum { NOISES = sizeof noises / sizeof *noises };

static void make(double *x, int noise, int history, double step, uint64_t seed)
{
    double z = 0;
    state = seed * 1000003 + (uint64_t)(noise * 1000 + history);
    for (int i = 0; i < 20; i++)
        z = noises[noise].next(z);
    for (int i = 0; i < history + NIGHTS; i++) {
        z = noises[noise].next(z);
        const double y = 100 + z + (i >= history ? step : 0);
        x[i] = noises[noise].grain > 0 ? rint(y / noises[noise].grain) * noises[noise].grain : y;
    }
}

/* ---- Modes ---------------------------------------------------------------------------------- */

static int analyse(int mode, const double *x, int64_t n, mp_change_point **out)
{
    static const mp_otava_options otava = {.window = 50, .p = 0.001};
    static const mp_change_options ours = {.min_segment = 3, .p = 0.001};
    mp_error err = {0};
    int count;

    if (mode ? mp_change_points_otava(x, n, &otava, out, &count, &err)
             : mp_change_points(x, n, &ours, out, &count, &err)) {
        fprintf(stderr, "bench_change_points: %s\n", err.text);
        exit(3);
    }
    return count;
}

typedef struct tally {
    double alarms, vanished, recent; /* without a step */
    int found, found_soon, series;
    int latency[NIGHTS + 1];
} tally;

static bool shown(const char *seen, int64_t index)
{
    for (int64_t i = index - NEAR; i <= index + NEAR; i++)
        if (i >= 0 && seen[i])
            return true;
    return false;
}

/* step: it is at `history`, else nowhere. */
static void replay(int mode, const double *x, int history, bool step, tally *t)
{
    char seen[LONGEST + NEAR + 1] = {0}, now[LONGEST + NEAR + 1], last[LONGEST + NEAR + 1] = {0},
                               fresh[LONGEST + NEAR + 1] = {0};
    t->series++;
    for (int night = 0; night <= NIGHTS; night++) {
        mp_change_point *points;
        const int count = analyse(mode, x, history + night, &points);
        memset(now, 0, sizeof now);
        for (int i = 0; i < count; i++)
            now[points[i].index] = 1;
        for (int i = 0; i < LONGEST; i++)
            if (fresh[i] && !shown(now, i))
                t->vanished++;
        memset(fresh, 0, sizeof fresh);
        for (int i = 0; night && i < count; i++) {
            if (points[i].index >= history + night - 3 && !last[points[i].index])
                t->recent++;
            if (shown(seen, points[i].index))
                continue;
            if (!step) {
                t->alarms++;
                fresh[points[i].index] = 1;
            } else if (llabs(points[i].index - history) <= NEAR) {
                t->found++;
                t->found_soon += night <= 10;
                t->latency[night]++;
                mp_free(points);
                return;
            }
        }
        for (int i = 0; i < LONGEST; i++)
            seen[i] |= now[i];
        memcpy(last, now, sizeof last);
        mp_free(points);
    }
}

static int median_latency(const tally *t)
{
    int below = 0;
    for (int night = 1; night <= NIGHTS; night++)
        if (2 * (below += t->latency[night]) >= t->found && t->found)
            return night;
    return 0;
}

int main(int argc, char **argv)
{
    static const int histories[] = {20, 60, 200};
    static const double steps[] = {0.5, 1, 2, 3, 5, 10};
    const int series = argc > 1 ? atoi(argv[1]) : 1000;
    double x[LONGEST];

    for (int noise = 0; noise < NOISES; noise++)
        for (int h = 0; h < 3; h++) {
            if (argc > 2 && strcmp(argv[2], noises[noise].name))
                continue;
            tally none[2] = {0};
            for (int mode = 0; mode < 2; mode++)
                for (int k = 0; k < series; k++) {
                    make(x, noise, histories[h], 0, (uint64_t)k);
                    replay(mode, x, histories[h], false, &none[mode]);
                }
            printf("| %s | %d | %.3f / %.3f (rec %.3f / %.3f, van %.3f / %.3f)", noises[noise].name,
                   histories[h], none[0].alarms / series, none[1].alarms / series,
                   none[0].recent / series, none[1].recent / series, none[0].vanished / series,
                   none[1].vanished / series);
            for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
                tally t[2] = {0};
                for (int mode = 0; mode < 2; mode++)
                    for (int k = 0; k < series / 4; k++) {
                        make(x, noise, histories[h], steps[s], (uint64_t)k);
                        replay(mode, x, histories[h], true, &t[mode]);
                    }
                printf(" | %.0f / %.0f, %.0f / %.0f %%, %d / %d",
                       100.0 * t[0].found_soon / t[0].series, 100.0 * t[1].found_soon / t[1].series,
                       100.0 * t[0].found / t[0].series, 100.0 * t[1].found / t[1].series,
                       median_latency(&t[0]), median_latency(&t[1]));
            }
            puts(" |");
            fflush(stdout);
        }
}
