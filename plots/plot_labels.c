/* Short names of cells: of their keys only what tells one from another. */
#include <inttypes.h>
#include <string.h>

#include "plots/draw.h"

enum { LABEL = 44, ROOM = 400 }; /* bytes: of a label, and while it is made */

/* One "key=value" of what follows the scenario's name in a cell's key. */
typedef struct part {
    const char *name, *value, *end;
} part;

static bool names_a_key(const char *s)
{
    const size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_.");

    return n && s[n] == '=';
}

/* The part at s; its end is a comma before the next key, or that of the text. */
static part part_at(const char *s)
{
    part p = {.name = s, .value = s + strcspn(s, "=")};

    p.value += *p.value == '=';
    p.end = p.value;
    while (*p.end && !(*p.end == ',' && names_a_key(p.end + 1)))
        p.end++;
    return p;
}

static const mp_subject *subject_of(const mp_plot *p, int cell)
{
    return &p->h->subjects[p->cells[cell].subject];
}

static const char *tail_of(const mp_subject *s)
{
    const size_t n = strlen(s->scenario);

    return !strncmp(s->key, s->scenario, n) && s->key[n] == '/' ? s->key + n + 1 : "";
}

static bool has_part(const mp_subject *s, const part *wanted)
{
    const size_t n = (size_t)(wanted->end - wanted->name);

    for (const char *t = tail_of(s); *t;) {
        const part p = part_at(t);
        if ((size_t)(p.end - p.name) == n && !memcmp(p.name, wanted->name, n))
            return true;
        t = p.end + (*p.end == ',');
    }
    return false;
}

static bool all_have(const mp_plot *p, const part *wanted)
{
    for (int i = 0; i < p->count; i++)
        if (!has_part(subject_of(p, i), wanted))
            return false;
    return true;
}

static void append(char label[ROOM], const char *text, size_t n)
{
    const size_t length = strlen(label);

    snprintf(label + length, ROOM - length, "%s%.*s", length ? ", " : "", (int)n, text);
}

/* precision.default=bf16 is "bf16", tiling=off and inputs.seed=7 are "tiling=off" and "seed=7". */
static void append_part(char label[ROOM], const part *p)
{
    static const char dtype[] = "precision.default=";
    const char *from = p->name;

    if (!strncmp(p->name, dtype, sizeof dtype - 1))
        from = p->value;
    for (const char *s = from; s < p->value; s++)
        if (*s == '.')
            from = s + 1;
    append(label, from, (size_t)(p->end - from));
}

typedef const char *(*trait)(const mp_subject *s);

static const char *scenario_of(const mp_subject *s)
{
    return s->scenario;
}
static const char *engine_of(const mp_subject *s)
{
    return s->engine;
}
static const char *device_of(const mp_subject *s)
{
    return s->device;
}
static const char *fingerprint_of(const mp_subject *s)
{
    return s->fingerprint;
}

static void append_trait(const mp_plot *p, int cell, trait of, int bytes, char label[ROOM])
{
    const char *own = of(subject_of(p, cell));
    int i = 0;

    while (i < p->count && !strcmp(of(subject_of(p, i)), own))
        i++;
    if (i < p->count)
        append(label, own, strnlen(own, (size_t)bytes));
}

/* At most LABEL bytes, and no half character at the end. */
static void shorten(char *label)
{
    size_t n = LABEL - 3;

    if (strlen(label) <= LABEL)
        return;
    while (n && ((unsigned char)label[n] & 0xc0) == 0x80)
        n--;
    strcpy(label + n, "...");
}

static void keep(mp_plot *p, int cell, const char *label)
{
    p->cells[cell].label = mp_texts_keep(p->h->texts, label);
    if (!p->cells[cell].label)
        mp_error_set(p->err, MP_ENOMEM, "no memory for the labels of a plot");
}

static void name_cell(mp_plot *p, int cell)
{
    char label[ROOM] = "";

    append_trait(p, cell, scenario_of, ROOM, label);
    for (const char *t = tail_of(subject_of(p, cell)); *t;) {
        const part at = part_at(t);
        if (p->count == 1 || !all_have(p, &at))
            append_part(label, &at);
        t = at.end + (*at.end == ',');
    }
    append_trait(p, cell, engine_of, ROOM, label);
    append_trait(p, cell, device_of, ROOM, label);
    append_trait(p, cell, fingerprint_of, 6, label);
    const char *status = p->h->observations[p->cells[cell].observation].status;
    if (!p->over_runs && strcmp(status, "ok") != 0)
        append(label, status, strlen(status));
    shorten(label);
    if (!*label && p->count > 1)
        snprintf(label, sizeof label, "cell %" PRId64, p->cells[cell].id);
    keep(p, cell, *label ? label : "default");
}

/* Others are cells of the same key: of other runs, or of settings that are not in the key. */
static bool is_alone(const mp_plot *p, int cell)
{
    for (int i = 0; i < p->count; i++)
        if (i != cell && !strcmp(p->cells[i].label, p->cells[cell].label))
            return false;
    return true;
}

void mp_plot_name_cells(mp_plot *p)
{
    bool alone[MP_PLOT_CELLS];
    char label[LABEL + 32];

    for (int i = 0; i < p->count && !p->err->code; i++)
        name_cell(p, i);
    for (int i = 0; i < p->count && !p->err->code; i++)
        alone[i] = is_alone(p, i);
    for (int i = 0; i < p->count && !p->err->code; i++)
        if (!alone[i]) {
            snprintf(label, sizeof label, "%s (cell %" PRId64 ")", p->cells[i].label,
                     p->cells[i].id);
            keep(p, i, label);
        }
}
