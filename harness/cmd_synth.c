#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/commands.h"
#include "harness/folders.h"
#include "harness/options.h"
#include "harness/presets.h"
#include "harness/scenario.h"
#include "harness/synth.h"
#include "harness/synth_folder.h"
#include "harness/yaml_node.h"
#include "kernels/core/ctx.h"
#include "results/table.h"

static const double GB = 1e9;

typedef struct command {
    mp_arena *arena;
    const char *preset, *dir;
    const char *dtype_name, *shard_size, *seed;
    mp_words storage;
    bool force;
    mp_precision precision;
    mp_synth_options options;
} command;

/* ---- arguments ---- */

/* COMPONENT=DTYPE; which components there are is known after the survey. */
static mp_code parse_storage(command *c, mp_error *err)
{
    mp_component_dtype *const list =
        mp_arena_alloc(c->arena, (size_t)c->storage.count, sizeof *list);

    for (int i = 0; i < c->storage.count; i++) {
        const char *const word = c->storage.items[i];
        const size_t n = strcspn(word, "=");
        list[i].component = mp_arena_strndup(c->arena, word, n);
        if (!n || !word[n] || !mp_dtype_parse(word + n + 1, &list[i].dtype))
            return mp_error_set(err, MP_EUSAGE,
                                "--storage: found '%.60s', expected COMPONENT=DTYPE, as in "
                                "transformer=fp8_e4m3",
                                word);
    }
    c->precision.storage = list;
    c->precision.storage_count = c->storage.count;
    return MP_OK;
}

static mp_code parse_seed(const char *text, uint64_t *out, mp_error *err)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 10);
    if (errno || *end || text[0] < '0' || text[0] > '9')
        mp_error_set(err, MP_EUSAGE,
                     "--seed: found '%.60s', expected an integer from 0 to 2^64 - 1", text);
    return err->code;
}

static mp_code parse_arguments(command *c, mp_error *err)
{
    size_t shard;

    if (!mp_dtype_parse(c->dtype_name, &c->precision.dtype))
        return mp_error_set(err, MP_EUSAGE, "--dtype: \"%s\" is unknown", c->dtype_name);
    if (!mp_parse_size(c->shard_size, &shard) || !shard)
        return mp_error_set(err, MP_EUSAGE,
                            "--shard-size: found '%.60s', expected a size as 5000000000, 4GiB or "
                            "512MiB",
                            c->shard_size);
    c->options.shard_bytes = shard;
    if (!c->options.threads)
        c->options.threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
    return parse_seed(c->seed, &c->options.seed, err) ? err->code : parse_storage(c, err);
}

static mp_code check_storage(const command *c, const mp_synth_model *m, mp_error *err)
{
    for (int i = 0; i < c->precision.storage_count; i++) {
        bool found = false;
        char known[200] = "";
        for (int k = 0; k < m->count; k++) {
            found = found || !strcmp(m->parts[k].component, c->precision.storage[i].component);
            const size_t at = strlen(known);
            snprintf(known + at, sizeof known - at, "%s%s", k ? ", " : "", m->parts[k].component);
        }
        if (!found)
            mp_error_set(err, MP_EUSAGE, "--storage: %s has no component '%.60s'; it has %s",
                         c->preset, c->precision.storage[i].component, known);
    }
    return err->code;
}

/* ---- the preset ---- */

static mp_code unknown_preset(mp_arena *a, const char *name, mp_error *err)
{
    const char *const *names = mp_preset_names(a);
    mp_text list = {0};
    int n = 0;

    for (; names[n]; n++)
        mp_text_printf(&list, "%s%s", n ? ", " : "", names[n]);
    const char *const near = mp_nearest(name, names, n);
    return mp_error_set(
        err, MP_EUSAGE, "'%.60s' is no preset and no folder with a model_index.json%s; presets: %s",
        name, near ? mp_arena_printf(a, "; did you mean '%s'?", near) : "", mp_text_take(&list, a));
}

static bool is_preset(mp_arena *a, const char *name)
{
    for (const char *const *p = mp_preset_names(a); *p; p++)
        if (!strcmp(*p, name))
            return true;
    return false;
}

static mp_code check_preset(const command *c, mp_error *err)
{
    if (!is_preset(c->arena, c->preset) && !mp_is_checkpoint(c->preset))
        return unknown_preset(c->arena, c->preset, err);
    return MP_OK;
}

/* The models of the preset, whose configs lie in `folder` afterwards. */
static mp_code prepare(const command *c, const char *preset, const char *folder,
                       mp_synth_model *model, mp_error *err)
{
    if (is_preset(c->arena, preset)) {
        if (mp_preset_write(c->arena, preset, folder, err))
            return err->code;
        return mp_synth_survey(c->arena, folder, &c->precision, model, err);
    }
    if (mp_synth_survey(c->arena, preset, &c->precision, model, err))
        return err->code;
    return mp_copy_configs(c->arena, preset, folder, err);
}

/* ---- writing ---- */

static void add_row(mp_table *t, const char *name, int64_t parameters, uint64_t bytes, int files)
{
    mp_table_add(t, "%s", name);
    mp_table_add(t, "%.1f", (double)parameters / 1e6);
    mp_table_add(t, "%.3f", (double)bytes / GB);
    mp_table_add(t, "%d", files);
}

static mp_code write_parts(const command *c, const mp_synth_model *m, const char *folder,
                           mp_table *t, mp_error *err)
{
    int all = 0;

    for (int i = 0; i < m->count; i++) {
        int files;
        if (mp_synth_write(c->arena, &m->parts[i], folder, &c->options, &files, err))
            return err->code;
        add_row(t, m->parts[i].component, m->parts[i].parameters, m->parts[i].bytes, files);
        all += files;
    }
    add_row(t, "total", m->parameters, m->bytes, all);
    return MP_OK;
}

static mp_code write_checkpoint(const command *c, const char *folder, mp_error *err)
{
    static const char *const heads[] = {"component", "M parameters>", "GB>", "files>"};
    mp_synth_model model;
    const uint64_t begin = mp_now_ns();

    if (prepare(c, c->preset, folder, &model, err) || check_storage(c, &model, err) ||
        mp_check_space(folder, c->dir, model.bytes, err))
        return err->code;
    mp_table *const t = mp_table_create(sizeof heads / sizeof *heads, heads);
    if (!t)
        return mp_error_set(err, MP_ENOMEM, "no memory for the table");
    if (!write_parts(c, &model, folder, t, err) && !mp_put_in_place(folder, c->dir, err)) {
        const double seconds = 1e-9 * (double)(mp_now_ns() - begin);
        mp_table_print(t, MP_TEXT, 0, stdout);
        printf("%s: %s of %s, seed %llu, written in %.1f s (%.2f GB/s)\n", c->dir,
               model.pipeline->name, c->dtype_name, (unsigned long long)c->options.seed, seconds,
               (double)model.bytes / GB / seconds);
    }
    mp_table_free(t);
    return err->code;
}

/* The folders above the checkpoint's. */
static mp_code make_above(const command *c, const char *dir, mp_error *err)
{
    const char *const slash = strrchr(dir, '/');

    return slash && slash != dir
               ? mp_make_folders(mp_arena_printf(c->arena, "%.*s", (int)(slash - dir), dir), err)
               : MP_OK;
}

/* Beside its final place, and gone if anything fails. */
static mp_code make(const command *c, mp_error *err)
{
    const size_t n = strlen(c->dir);
    const char *const dir =
        mp_arena_printf(c->arena, "%.*s", (int)(n > 1 && c->dir[n - 1] == '/' ? n - 1 : n), c->dir);
    char *const folder = mp_arena_printf(c->arena, "%s.part-XXXXXX", dir);

    if (check_preset(c, err) || mp_check_target(c->dir, c->force, err) || make_above(c, dir, err))
        return err->code;
    signal(SIGINT, mp_synth_interrupt);
    signal(SIGTERM, mp_synth_interrupt);
    if (!mkdtemp(folder))
        return mp_error_set(err, MP_EIO,
                            "%s: cannot be made (%s); check that the folder above it is writable",
                            c->dir, strerror(errno));
    chmod(folder, 0755); /* mkdtemp's is private */
    if (write_checkpoint(c, folder, err))
        mp_remove_folder(folder);
    return err->code;
}

/* ---- the list ---- */

static const char *parts_of(mp_arena *a, const mp_synth_model *m)
{
    mp_text t = {0};

    for (int i = 0; i < m->count; i++)
        mp_text_printf(&t, "%s%s %.1f", i ? ", " : "", m->parts[i].component,
                       (double)m->parts[i].parameters / 1e6);
    return mp_text_take(&t, a);
}

static mp_code list_one(const command *c, const char *name, mp_table *t, mp_error *err)
{
    char folder[] = "/tmp/mpbench-synth-XXXXXX";
    mp_synth_model model;

    if (!mkdtemp(folder))
        return mp_error_set(err, MP_EIO, "/tmp: no folder can be made there (%s)", strerror(errno));
    if (!prepare(c, name, folder, &model, err)) {
        mp_table_add(t, "%s", name);
        mp_table_add(t, "%.1f", (double)model.parameters / 1e6);
        mp_table_add(t, "%.2f", (double)model.bytes / GB);
        mp_table_add(t, "%s", parts_of(c->arena, &model));
    }
    mp_remove_folder(folder);
    return err->code;
}

static mp_code list_presets(const command *c, mp_error *err)
{
    const char *const heads[] = {"preset", "M parameters>",
                                 mp_arena_printf(c->arena, "GB in %s>", c->dtype_name), "of which"};
    mp_table *const t = mp_table_create(sizeof heads / sizeof *heads, heads);

    if (!t)
        return mp_error_set(err, MP_ENOMEM, "no memory for the table");
    for (const char *const *name = mp_preset_names(c->arena); !err->code && *name; name++)
        list_one(c, *name, t, err);
    if (!err->code)
        mp_table_print(t, MP_TEXT, 0, stdout);
    mp_table_free(t);
    return err->code;
}

int mp_cmd_synth(int argc, char **argv)
{
    static const char *const dtypes[] = {"fp32", "fp16", "bf16", NULL};
    command c = {
        .arena = mp_arena_create(), .dtype_name = "bf16", .shard_size = "5000000000", .seed = "0"};
    const mp_option options[] = {
        MP_OPTION("dtype", TEXT, &c.dtype_name, "D", "fp32, fp16 or bf16 (default: bf16)",
                  .among = dtypes),
        MP_OPTION("storage", LIST, &c.storage, "COMPONENT=D",
                  "weights of linear, convolution and embedding layers in this dtype: fp8_e4m3, "
                  "fp8_e5m2"),
        MP_OPTION("seed", TEXT, &c.seed, "N", "of the weights (default: 0)"),
        MP_OPTION("shard-size", TEXT, &c.shard_size, "SIZE",
                  "of a file at most (default: 5000000000 bytes; 4GiB, 512MiB)"),
        MP_OPTION("threads", INT, &c.options.threads, "N", "default: all CPUs", .min = 1,
                  .max = 256),
        MP_OPTION("force", FLAG, &c.force, NULL, "replace the checkpoint DIR"),
    };
    const mp_usage usage = {
        .command = "synth",
        .operands = "[PRESET DIR]",
        .summary = "Writes a checkpoint with seeded random weights, as large as the real one.\n"
                   "PRESET is a name, or a folder in Diffusers' layout, whose weights are not "
                   "read.\nWithout operands: lists the presets.",
        .options = options,
        .option_count = sizeof options / sizeof *options,
        .max_operands = 2};
    mp_words operands;
    mp_error err = {0};
    int status;

    if (mp_options_parse(c.arena, &usage, argc, argv, &operands, &status)) {
        if (operands.count == 2) {
            c.preset = operands.items[0];
            c.dir = operands.items[1];
        }
        if (operands.count == 1)
            mp_error_set(&err, MP_EUSAGE, "missing operand: expected PRESET DIR");
        else if (!parse_arguments(&c, &err))
            operands.count ? make(&c, &err) : list_presets(&c, &err);
        if (err.code) {
            mp_complain("synth", &err);
            status = err.code == MP_EIO || err.code == MP_ENOMEM ? MP_EXIT_FAILED : MP_EXIT_USAGE;
        }
    }
    mp_arena_free(c.arena);
    return status;
}
