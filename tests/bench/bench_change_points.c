/* How often the two modes of results/change_points.h cry wolf, and how soon they see a step, as a
 * user of a nightly run lives it: night by night over the same seeded series.
 *
 *     bench_change_points [SERIES [P]]
 *
 * prints three Markdown tables; results/CHANGE_POINTS.md has them.  There are 20, 60 or 200 points
 * of history; then come 30 nights, without a step or with one at the first of them.  An alarm is a
 * change point that no earlier night has shown within 3 points.  Without a step each of them is
 * false; with one, the first within 3 points of it has found it. */
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

/* grain: values are rounded to it; 0: they are not. */
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

/* 100 and noise; from `history` on a step as well. */
static void make(double *x, int noise, int history, double step, uint64_t seed)
{
    double z = 0;
    state = seed * 1000003 + (uint64_t)(noise * 1000 + history);
    for (int i = 0; i < 20; i++) /* until the correlated one has forgotten its start */
        z = noises[noise].next(z);
    for (int i = 0; i < history + NIGHTS; i++) {
        z = noises[noise].next(z);
        const double y = 100 + z + (i >= history ? step : 0), grain = noises[noise].grain;
        x[i] = grain > 0 ? rint(y / grain) * grain : y;
    }
}

/* ---- A replay ------------------------------------------------------------------------------- */

typedef enum mode {
    DEFAULT,
    OTAVA, /* window 50, p 0.001, magnitude 0: what its command line and library start with */
    MODES
} mode;

static double p_of_default = 0.001;

static int analyse(mode m, const double *x, int64_t n, mp_change_point **out)
{
    static const mp_otava_options otava = {.window = 50, .p = 0.001};
    const mp_change_options ours = {.min_segment = 3, .p = p_of_default};
    mp_error err = {0};
    int count;

    if (m == OTAVA ? mp_change_points_otava(x, n, &otava, out, &count, &err)
                   : mp_change_points(x, n, &ours, out, &count, &err)) {
        fprintf(stderr, "bench_change_points: %s\n", err.text);
        exit(3);
    }
    return count;
}

typedef struct tally {
    int series;
    int alarms, newest, vanished; /* without a step; newest: within the last 3 points */
    int found[NIGHTS + 1];        /* by the night: 1 is the first with the step */
} tally;

typedef char nights_map[LONGEST + NEAR + 1]; /* of places */

static bool near_any(const nights_map seen, int64_t index)
{
    for (int64_t i = index > NEAR ? index - NEAR : 0; i <= index + NEAR; i++)
        if (seen[i])
            return true;
    return false;
}

/* One night's change points, those before them in seen; the place of a step, or -1.  True: found.
 */
static bool judge_night(const mp_change_point *c, int count, int64_t n, int64_t step,
                        const nights_map seen, nights_map fresh, tally *t)
{
    for (int i = 0; i < count; i++) {
        if (near_any(seen, c[i].index))
            continue;
        if (step >= 0 && llabs(c[i].index - step) <= NEAR)
            return true;
        if (step < 0) {
            t->alarms++;
            t->newest += c[i].index >= n - 3;
            fresh[c[i].index] = 1;
        }
    }
    return false;
}

static void replay(mode m, const double *x, int history, bool step, tally *t)
{
    nights_map seen = {0}, fresh = {0}, now;

    t->series++;
    for (int night = 0; night <= NIGHTS; night++) { /* 0: what was there before is no alarm */
        mp_change_point *c;
        const int count = analyse(m, x, history + night, &c);
        memset(now, 0, sizeof now);
        for (int i = 0; i < count; i++)
            now[c[i].index] = 1;
        for (int i = 0; i < LONGEST; i++)
            t->vanished += fresh[i] && !near_any(now, i);
        memset(fresh, 0, sizeof fresh);
        const bool found =
            night && judge_night(c, count, history + night, step ? history : -1, seen, fresh, t);
        mp_free(c);
        if (found) {
            t->found[night]++;
            return;
        }
        for (int i = 0; i < LONGEST; i++)
            seen[i] |= now[i];
    }
}

/* ---- Tables --------------------------------------------------------------------------------- */

static const int histories[] = {20, 60, 200};
static const double steps[] = {0.5, 1, 2, 3, 5, 10};
enum { HISTORIES = 3, STEPS = 6 };

static tally calm[NOISES][HISTORIES][MODES], stepped[NOISES][HISTORIES][STEPS][MODES];

static void run(int series)
{
    double x[LONGEST];

    for (int noise = 0; noise < NOISES; noise++)
        for (int h = 0; h < HISTORIES; h++)
            for (int s = -1; s < STEPS; s++)
                for (int k = 0; k < series; k++) {
                    make(x, noise, histories[h], s < 0 ? 0 : steps[s], (uint64_t)k);
                    for (mode m = 0; m < MODES; m++)
                        replay(m, x, histories[h], s >= 0,
                               s < 0 ? &calm[noise][h][m] : &stepped[noise][h][s][m]);
                }
}

static void print_false_alarms(void)
{
    puts("| noise | history | default | Otava | default, newest 3 | Otava, newest 3 | default, "
         "vanish | Otava, vanish |\n|---|--:|--:|--:|--:|--:|--:|--:|");
    for (int noise = 0; noise < NOISES; noise++)
        for (int h = 0; h < HISTORIES; h++) {
            const tally *t = calm[noise][h];
            const double n = t->series;
            printf("| %s | %d | %.4f | %.4f | %.4f | %.4f | %.4f | %.4f |\n", noises[noise].name,
                   histories[h], t[DEFAULT].alarms / n, t[OTAVA].alarms / n, t[DEFAULT].newest / n,
                   t[OTAVA].newest / n, t[DEFAULT].vanished / n, t[OTAVA].vanished / n);
        }
}

static int found_by(const tally *t, int night)
{
    int found = 0;
    for (int i = 1; i <= night; i++)
        found += t->found[i];
    return found;
}

static int median_night(const tally *t)
{
    int night = 1;
    while (night < NIGHTS && 2 * found_by(t, night) < found_by(t, NIGHTS))
        night++;
    return night;
}

static double percent(const tally *t, int night)
{
    return 100.0 * found_by(t, night) / t->series;
}

static void print_recall(int night)
{
    printf("| noise | history |");
    for (int s = 0; s < STEPS; s++)
        printf(" %g sigma |", steps[s]);
    puts("\n|---|--:|--:|--:|--:|--:|--:|--:|");
    for (int noise = 0; noise < NOISES; noise++)
        for (int h = 0; h < HISTORIES; h++) {
            printf("| %s | %d |", noises[noise].name, histories[h]);
            for (int s = 0; s < STEPS; s++) {
                const tally *t = stepped[noise][h][s];
                printf(" %.1f / %.1f", percent(&t[DEFAULT], night), percent(&t[OTAVA], night));
                if (night == NIGHTS)
                    printf(" (%d / %d)", median_night(&t[DEFAULT]), median_night(&t[OTAVA]));
                printf(" |");
            }
            puts("");
        }
}

int main(int argc, char **argv)
{
    const int series = argc > 1 ? atoi(argv[1]) : 1000;

    p_of_default = argc > 2 ? atof(argv[2]) : p_of_default;
    if (series < 1 || !(p_of_default > 0 && p_of_default < 1)) {
        fputs("usage: bench_change_points [SERIES [P]], SERIES from 1 on, P between 0 and 1\n",
              stderr);
        return 2;
    }
    run(series);
    puts("False alarms per series and 30 nights:\n");
    print_false_alarms();
    puts("\nRecall in percent within 30 nights (median night), default / Otava:\n");
    print_recall(NIGHTS);
    puts("\nRecall in percent within 10 nights, default / Otava:\n");
    print_recall(10);
}
