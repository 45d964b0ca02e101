#include "harness/options.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/yaml_node.h"

enum { MAX_OPTIONS = 32 };

int mp_exit_worse(int a, int b)
{
    static const int rank[] = {[MP_EXIT_OK] = 0,
                               [MP_EXIT_INCONCLUSIVE] = 1,
                               [MP_EXIT_FAILED] = 2,
                               [MP_EXIT_REGRESSION] = 3,
                               [MP_EXIT_USAGE] = 4};

    return rank[a] >= rank[b] ? a : b;
}

int mp_complain(const char *command, const mp_error *err)
{
    fprintf(stderr, "mpbench %s: ", command);
    mp_print_plain(stderr, err->text, 2);
    fputc('\n', stderr);
    return err->code == MP_EMISSING || err->code == MP_EUSAGE ? MP_EXIT_USAGE : MP_EXIT_FAILED;
}

const char *mp_database_path(const char *option)
{
    const char *path = option ? option : getenv("MPBENCH_DB");

    return path && *path ? path : "mpbench.db";
}

static void print_help(const mp_usage *u)
{
    printf("usage: mpbench %s%s%s%s\n\n%s\n", u->command, *u->operands ? " " : "", u->operands,
           u->option_count ? " [options]" : "", u->summary);
    puts("\noptions:");
    for (int i = 0; i < u->option_count; i++) {
        const mp_option *o = &u->options[i];
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", o->name, o->meta ? " " : "",
                 o->meta ? o->meta : "");
        printf("  %-24s %s\n", left, o->help);
    }
    printf("  %-24s %s\n", "--help", "this page");
}

static bool wrong(const mp_usage *u, const char *text, const char *about)
{
    fprintf(stderr, "mpbench %s: %s%s; see `mpbench %s --help`\n", u->command, text, about,
            u->command);
    return false;
}

static const mp_option *find(const mp_usage *u, const char *name, size_t n)
{
    for (int i = 0; i < u->option_count; i++)
        if (strlen(u->options[i].name) == n && !strncmp(u->options[i].name, name, n))
            return &u->options[i];
    return NULL;
}

static bool unknown(mp_arena *a, const mp_usage *u, const char *argument)
{
    const char *names[MAX_OPTIONS];
    const int n = u->option_count < MAX_OPTIONS ? u->option_count : MAX_OPTIONS;

    for (int i = 0; i < n; i++)
        names[i] = u->options[i].name;
    const char *name = mp_arena_strndup(a, argument + 2, strcspn(argument + 2, "="));
    const char *near = mp_nearest(name, names, n);
    return wrong(u, mp_arena_printf(a, "unknown option '--%.60s'", name),
                 near ? mp_arena_printf(a, "; did you mean '--%s'?", near) : "");
}

static bool store_int(mp_arena *a, const mp_usage *u, const mp_option *o, const char *value)
{
    char *end;

    errno = 0;
    const long number = strtol(value, &end, 10);
    if (errno || !*value || *end || number < o->min || number > o->max)
        return wrong(u,
                     mp_arena_printf(a, "--%s: found '%.60s', expected an integer from %d to %d",
                                     o->name, value, o->min, o->max),
                     "");
    *(int *)o->out = (int)number;
    return true;
}

static bool store_real(mp_arena *a, const mp_usage *u, const mp_option *o, const char *value)
{
    char *end;
    const double number = strtod(value, &end);

    if (!*value || *end || !isfinite(number) || number < 0)
        return wrong(
            u,
            mp_arena_printf(a, "--%s: found '%.60s', expected a number, 0 or more", o->name, value),
            "");
    *(double *)o->out = number;
    return true;
}

static bool store_text(mp_arena *a, const mp_usage *u, const mp_option *o, const char *value)
{
    mp_text list = {0};

    for (int i = 0; o->among && o->among[i]; i++) {
        if (!strcmp(o->among[i], value)) {
            mp_text_free(&list);
            *(const char **)o->out = o->among[i];
            return true;
        }
        mp_text_printf(&list, "%s%s", i ? ", " : "", o->among[i]);
    }
    if (o->among)
        return wrong(u,
                     mp_arena_printf(a, "--%s: found '%.60s', expected one of: ", o->name, value),
                     mp_text_take(&list, a));
    if (!*value)
        return wrong(
            u, mp_arena_printf(a, "--%s: found an empty text, expected %s", o->name, o->meta), "");
    *(const char **)o->out = value;
    return true;
}

static void add_word(mp_arena *a, mp_words *w, const char *word, int room)
{
    if (!w->items)
        w->items = mp_arena_alloc(a, (size_t)room, sizeof *w->items);
    w->items[w->count++] = word;
}

static bool store(mp_arena *a, const mp_usage *u, const mp_option *o, const char *value, int argc)
{
    switch (o->kind) {
    case MP_OPTION_INT:
        return store_int(a, u, o, value);
    case MP_OPTION_REAL:
        return store_real(a, u, o, value);
    case MP_OPTION_TEXT:
        return store_text(a, u, o, value);
    default:
        add_word(a, o->out, value, argc);
        return true;
    }
}

static bool parse_option(mp_arena *a, const mp_usage *u, int argc, char **argv, int *i)
{
    const char *argument = argv[*i] + 2;
    const size_t n = strcspn(argument, "=");
    const mp_option *o = find(u, argument, n);

    if (!o)
        return unknown(a, u, argv[*i]);
    if (o->kind == MP_OPTION_FLAG) {
        if (argument[n])
            return wrong(u, mp_arena_printf(a, "--%s takes no value", o->name), "");
        *(bool *)o->out = true;
        return true;
    }
    if (argument[n])
        return store(a, u, o, argument + n + 1, argc);
    if (*i + 1 >= argc || !strncmp(argv[*i + 1], "--", 2)) /* --db --label x: it was forgotten */
        return wrong(
            u, mp_arena_printf(a, "--%s needs a value: --%s %s", o->name, o->name, o->meta), "");
    return store(a, u, o, argv[++*i], argc);
}

bool mp_options_parse(mp_arena *a, const mp_usage *u, int argc, char **argv, mp_words *operands,
                      int *status)
{
    bool options = true;

    *status = MP_EXIT_USAGE;
    *operands = (mp_words){0};
    for (int i = 1; i < argc; i++) {
        const char *s = argv[i];
        if (options && !strcmp(s, "--")) {
            options = false;
        } else if (options && (!strcmp(s, "--help") || !strcmp(s, "-h"))) {
            print_help(u);
            *status = MP_EXIT_OK;
            return false;
        } else if (options && !strncmp(s, "--", 2)) {
            if (!parse_option(a, u, argc, argv, &i))
                return false;
        } else if (options && s[0] == '-' && s[1]) {
            return wrong(u, mp_arena_printf(a, "unknown option '%.60s'", s), "");
        } else {
            add_word(a, operands, s, argc);
        }
    }
    if (operands->count < u->min_operands)
        return wrong(u, "missing operand: expected ", u->operands);
    if (u->max_operands >= 0 && operands->count > u->max_operands)
        return wrong(u,
                     mp_arena_printf(a, "'%.60s' is one operand too many; expected %s",
                                     operands->items[u->max_operands],
                                     *u->operands ? u->operands : "none"),
                     "");
    *status = MP_EXIT_OK;
    return true;
}

bool mp_parse_id(const char *text, int64_t *id)
{
    char *end;

    errno = 0;
    *id = strtoll(text, &end, 10);
    return !errno && *text && !*end && *id > 0;
}
