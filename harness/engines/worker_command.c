#include "harness/engines/worker_command.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "harness/digest.h"
#include "harness/engines/worker_files.h"

extern char **environ;

typedef struct builder {
    mp_arena *arena;
    const mp_engine_options *options;
    mp_worker_command *out;
    int variables;
    const char *file;    /* the worker */
    const char *library; /* the folder of worker.py */
} builder;

static const char *absolute(mp_arena *a, const char *path)
{
    char whole[PATH_MAX];

    return realpath(path, whole) ? mp_arena_strdup(a, whole) : path;
}

static bool is_python(const char *name)
{
    const size_t n = strlen(name);

    return !strchr(name, '/') || (n > 3 && !strcmp(name + n - 3, ".py"));
}

static void build_argv(builder *b)
{
    const char *given = getenv("MPBENCH_PYTHON");
    const char *python = b->options->python ? b->options->python
                         : given && *given  ? given
                                            : "python3";
    int i = 0;

    b->out->argv = mp_arena_alloc(b->arena, 3, sizeof *b->out->argv);
    if (is_python(b->options->name))
        b->out->argv[i++] = python;
    b->out->argv[i] = b->file;
}

/* Replaces it where it is set. */
static void set_variable(builder *b, const char *key, const char *value)
{
    const char **all = b->out->envp;
    const size_t length = strlen(key);
    int i = 0;

    while (i < b->variables && (strncmp(all[i], key, length) || all[i][length] != '='))
        i++;
    all[i] = mp_arena_printf(b->arena, "%s=%s", key, value);
    b->variables += i == b->variables;
}

/* DIR and DIR/src (a checkout), the folder of worker.py, and what there was. */
static const char *python_path(builder *b)
{
    const char *before = getenv("PYTHONPATH"), *dir = b->options->pythonpath;
    mp_text t = {0};

    if (dir)
        mp_text_printf(&t, "%s:%s/src:", absolute(b->arena, dir), absolute(b->arena, dir));
    mp_text_add(&t, b->library);
    if (before && *before)
        mp_text_printf(&t, ":%s", before);
    return mp_text_take(&t, b->arena);
}

static void build_environment(builder *b, const char *path)
{
    static const char *const threads[] = {"OMP_NUM_THREADS", "MKL_NUM_THREADS",
                                          "OPENBLAS_NUM_THREADS"};
    static const char *const set[] = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE",
                                      "HF_HUB_DISABLE_TELEMETRY", "PYTHONUNBUFFERED"};
    enum { MORE = 16 };

    while (environ[b->variables])
        b->variables++;
    b->out->envp = mp_arena_alloc(b->arena, (size_t)b->variables + MORE, sizeof *b->out->envp);
    memcpy(b->out->envp, environ, (size_t)b->variables * sizeof *b->out->envp);
    const char *count = mp_arena_printf(b->arena, "%d", b->options->machine->device.threads);
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++)
        set_variable(b, threads[i], count);
    for (size_t i = 0; i < sizeof set / sizeof *set; i++)
        set_variable(b, set[i], "1");
    set_variable(b, "PYTHONPATH", path);
    if (b->options->pythonpath)
        set_variable(b, "MPBENCH_PYTHONPATH", absolute(b->arena, b->options->pythonpath));
}

static void write_by_hand(builder *b, const char *path)
{
    mp_text t = {0};

    mp_text_add(&t, "PYTHONPATH=");
    mp_text_shell(&t, path);
    for (const char **s = b->out->argv; *s; s++) {
        mp_text_add(&t, " ");
        mp_text_shell(&t, *s);
    }
    mp_text_add(&t, " 3>&1 </dev/null");
    b->out->by_hand = mp_text_take(&t, b->arena);
}

/* By which libraries choose instructions, algorithms and precision. */
static bool changes_bits(const char *variable)
{
    static const char *const families[] = {"ONEDNN_", "DNNL_",    "ATEN_",   "MKL_",   "OMP_",
                                           "TORCH_",  "PYTORCH_", "NVIDIA_", "CUBLAS", "CUDA_"};

    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (!strncmp(variable, families[i], strlen(families[i])))
            return true;
    return false;
}

static void write_code(builder *b)
{
    mp_text t = {0};
    mp_error ignored = {0}; /* a file that is not there says so when it is started */
    char hash[65] = "";

    mp_digest_file(b->file, hash, &ignored);
    mp_text_printf(&t, "%s\n%s\n", b->library, hash); /* the folder is named by its content */
    for (int i = 0; i < b->variables; i++)
        if (changes_bits(b->out->envp[i]))
            mp_text_printf(&t, "%s\n", b->out->envp[i]);
    b->out->code = mp_text_take(&t, b->arena);
}

static mp_code check_pythonpath(const mp_engine_options *o, mp_error *err)
{
    struct stat st;

    if (o->pythonpath && (stat(o->pythonpath, &st) || !S_ISDIR(st.st_mode)))
        return mp_error_set(err, MP_EUSAGE,
                            "--pythonpath %s: no such folder; expected a checkout, or the DIR of "
                            "`pip install --target DIR`",
                            o->pythonpath);
    return MP_OK;
}

mp_code mp_worker_command_build(mp_arena *a, const mp_engine_options *o, mp_worker_command *out,
                                mp_error *err)
{
    builder b = {.arena = a, .options = o, .out = out, .file = o->name};

    *out = (mp_worker_command){0};
    if (check_pythonpath(o, err) || mp_worker_files_write(a, o->cache, &b.library, NULL, err) ||
        (!strchr(o->name, '/') && mp_worker_files_write(a, o->cache, &b.file, o->name, err)))
        return err->code;
    b.library = absolute(a, b.library);
    b.file = absolute(a, b.file);
    const char *path = python_path(&b);
    build_argv(&b);
    build_environment(&b, path);
    write_by_hand(&b, path);
    write_code(&b);
    return MP_OK;
}
