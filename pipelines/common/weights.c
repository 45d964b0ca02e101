#include "pipelines/common/weights.h"

#include <assert.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/core/memory.h"
#include "pipelines/common/file.h"
#include "pipelines/common/weights_files.h"

enum {
    LISTED = 20,      /* names in one message */
    LIST_BYTES = 560, /* room for one of its three lists */
    NAME_BYTES = 512,
    ALIGNMENT = 64, /* of converted parameters */
    CHUNK = 4096,   /* values converted at a time: 16 KiB, stays in the first cache */
};

/* One parameter of the files. */
typedef struct param {
    const char *name; /* in the file, without a stripped prefix */
    char *full;       /* component.name, once it is bound */
    mp_tensor source; /* as the file has it */
    mp_tensor bound;  /* as the model gets it */
    mp_dtype via[2];  /* values are rounded to these before bound.store: dtype, storage */
    bool used, converted;
} param;

typedef struct slot {
    mp_tensor *to;
    int64_t param;
} slot;

typedef struct problem_list {
    char text[LIST_BYTES];
    size_t at;
    int64_t count, listed;
} problem_list;

struct mp_weights {
    char *dir;
    mp_weights_options o;
    mp_weight_files files;
    param *params; /* by name */
    int64_t param_count, param_room;
    slot *slots;
    int64_t slot_count, slot_room;
    char **ignored;
    int64_t ignored_count;
    char *own; /* converted parameters, one anonymous mapping */
    size_t own_size;
    bool loaded; /* own has its values; else nobody may touch it */
    problem_list missing, misshapen, surplus, unreadable;
    bool no_memory;
};

static mp_code no_memory(const char *dir, mp_error *err)
{
    return mp_error_set(err, MP_ENOMEM, "%s: no memory for its weights", dir);
}

static void add_problem(problem_list *l, const char *name, const char *detail)
{
    const mp_plain_line plain = mp_plain(name);
    const size_t need = strlen(plain.text) + strlen(detail) + 2;

    l->count++;
    if (l->listed == LISTED || l->at + need >= sizeof l->text)
        return;
    l->at += (size_t)snprintf(l->text + l->at, sizeof l->text - l->at, "%s%s%s", l->at ? ", " : "",
                              plain.text, detail);
    l->listed++;
}

static int compare_params(const void *a, const void *b)
{
    return strcmp(((const param *)a)->name, ((const param *)b)->name);
}

static void sort_params(mp_weights *w)
{
    qsort(w->params, (size_t)w->param_count, sizeof *w->params, compare_params);
}

static param *find(const mp_weights *w, const char *name)
{
    const param key = {.name = name};

    return bsearch(&key, w->params, (size_t)w->param_count, sizeof *w->params, compare_params);
}

static mp_code list_params(mp_weights *w, mp_error *err)
{
    int64_t total = 0;

    for (int64_t i = 0; i < w->files.count; i++)
        total += mp_safetensors_count(w->files.file[i]);
    w->params = mp_alloc((size_t)total, sizeof *w->params);
    if (!w->params)
        return no_memory(w->dir, err);
    for (int64_t i = 0; i < w->files.count; i++)
        for (int64_t k = 0; k < mp_safetensors_count(w->files.file[i]); k++) {
            const mp_tensor t = mp_safetensors_at(w->files.file[i], k);
            w->params[w->param_count++] = (param){.name = t.name, .source = t};
        }
    sort_params(w);
    return MP_OK;
}

mp_code mp_weights_open(const char *dir, const mp_weights_options *o, mp_weights **out,
                        mp_error *err)
{
    mp_weights *w = mp_alloc(1, sizeof *w);
    mp_code code;

    *out = NULL;
    if (!w || !(w->dir = mp_strdup(dir))) {
        mp_free(w);
        return no_memory(dir, err);
    }
    w->o = *o;
    code = o->survey ? MP_OK : mp_weight_files_open(dir, o->stem, o->variant, &w->files, err);
    if (!code)
        code = list_params(w, err);
    if (code)
        mp_weights_close(w);
    else
        *out = w;
    return code;
}

void mp_weights_close(mp_weights *w)
{
    if (!w)
        return;
    for (int64_t i = 0; i < w->param_count; i++)
        mp_free(w->params[i].full);
    for (int64_t i = 0; i < w->ignored_count; i++)
        mp_free(w->ignored[i]);
    if (w->own)
        munmap(w->own, w->own_size);
    mp_weight_files_close(&w->files);
    mp_free(w->ignored);
    mp_free(w->slots);
    mp_free(w->params);
    mp_free(w->dir);
    mp_free(w);
}

/* ---- which dtype ---- */

/* True when one of the dotted parts of name is in the list. */
static bool has_part(const char *name, const char *const *list)
{
    for (; list && *list; list++) {
        const size_t n = strlen(*list);
        for (const char *part = name; part; part = strchr(part, '.')) {
            part += *part == '.';
            if (!strncmp(part, *list, n) && (part[n] == '.' || !part[n]))
                return true;
        }
    }
    return false;
}

/* The two anchors are all that Diffusers' patterns use of regular expressions. */
static bool matches_pattern(const char *module, const char *pattern)
{
    const bool head = pattern[0] == '^';
    size_t n = strlen(pattern += head);
    const bool tail = n && pattern[n - 1] == '$';
    const size_t length = strlen(module);

    n -= tail;
    if (n > length)
        return false;
    for (size_t at = 0; at + n <= length; at++)
        if (!strncmp(module + at, pattern, n) && (!head || !at) && (!tail || at + n == length))
            return true;
    return false;
}

/* Diffusers skips a module when a pattern is found in its path or in that of a parent. */
static bool is_skipped(const char *module, const char *const *patterns)
{
    char path[NAME_BYTES];

    for (; patterns && *patterns; patterns++)
        for (size_t n = strlen(module);; n--) {
            if (module[n] == '.' || !module[n]) {
                snprintf(path, sizeof path, "%.*s", (int)n, module);
                if (matches_pattern(path, *patterns))
                    return true;
            }
            if (!n)
                break;
        }
    return false;
}

/* Name without its last part into out. */
static void module_of(const char *name, char *out, size_t size)
{
    const char *dot = strrchr(name, '.');

    snprintf(out, size, "%.*s", dot ? (int)(dot - name) : 0, name);
}

/* What layerwise casting leaves alone in every model (DEFAULT_SKIP_MODULES_PATTERN in
 * diffusers/hooks/layerwise_casting.py), to which a component adds its own. */
static const char *const always_skipped[] = {"pos_embed", "patch_embed", "norm",
                                             "^proj_in$", "^proj_out$",  NULL};

/* Layerwise casting holds for linear, convolution and embedding layers: those whose "weight" has
 * two dimensions or more, with their bias. */
static bool is_stored(const mp_weights *w, const param *p)
{
    char module[NAME_BYTES], weight[NAME_BYTES + 8];
    const char *last = strrchr(p->name, '.');

    if (w->o.storage == MP_DTYPE_COUNT || !last ||
        (strcmp(last, ".weight") && strcmp(last, ".bias")))
        return false;
    module_of(p->name, module, sizeof module);
    snprintf(weight, sizeof weight, "%s.weight", module);
    const param *sibling = find(w, weight);
    return sibling && sibling->source.rank >= 2 && !is_skipped(module, always_skipped) &&
           !is_skipped(module, w->o.storage_skip) && !is_skipped(module, w->o.keep_fp32);
}

static bool overridden(const mp_weights *w, const param *p, mp_dtype *out)
{
    bool found = false;

    for (int i = 0; i < w->o.override_count; i++)
        if (mp_path_matches(w->o.overrides[i].match, p->full)) {
            *out = w->o.overrides[i].dtype;
            found = true;
        }
    return found;
}

/* Whether it stays fp32 in a component of dtype d that from_pretrained loads. */
static bool is_kept_fp32(const mp_weights *w, const param *p, mp_dtype d)
{
    if (w->o.round_trip_fp32 || (d != MP_F16 && d != MP_BF16))
        return false;
    return has_part(p->name, w->o.keep_fp32) ||
           (d == MP_F16 && has_part(p->name, w->o.keep_fp32_of_fp16));
}

/* What torch would say of the parameter, and what will lie in memory.  It stays mapped when the
 * roundings to dtype and storage change no value of the file's format. */
static void choose_dtypes(const mp_weights *w, param *p)
{
    const mp_dtype file = p->source.store;
    mp_dtype dtype = w->o.dtype, storage;
    const bool forced = overridden(w, p, &dtype);

    if (!forced && is_kept_fp32(w, p, dtype))
        dtype = MP_F32;
    storage = !forced && is_stored(w, p) ? w->o.storage : dtype;
    p->via[0] = dtype;
    p->via[1] = storage;
    p->bound = p->source;
    p->bound.dtype = dtype;
    p->bound.name = p->full;
    p->converted = !mp_dtype_widens(file, dtype) || !mp_dtype_widens(file, storage);
    if (!p->converted)
        p->bound.store = file;
    else /* bf16 kept under fp16: the rounding of the cast on use is made now */
        p->bound.store = mp_dtype_widens(storage, dtype) ? storage : dtype;
}

/* ---- binding ---- */

/* The array with room for one more entry than `count`, NULL when memory is short. */
static void *grow(void *array, int64_t count, int64_t *room, size_t size)
{
    const int64_t more = *room ? 2 * *room : 256;

    if (count < *room)
        return array;
    void *const grown = mp_realloc(array, (size_t)more, size);
    if (grown)
        *room = more;
    return grown;
}

static bool grow_slots(mp_weights *w)
{
    slot *const slots = grow(w->slots, w->slot_count, &w->slot_room, sizeof *slots);

    if (slots)
        w->slots = slots;
    return slots != NULL;
}

static char *full_name(const mp_weights *w, const char *name)
{
    const size_t n = strlen(w->o.component) + strlen(name) + 2;
    char *full = mp_alloc(n, 1);

    if (full)
        snprintf(full, n, "%s.%s", w->o.component, name);
    return full;
}

static void misshapen(mp_weights *w, const param *p, int rank, const int64_t *dims)
{
    char is[120], wanted[120], detail[280];
    const mp_tensor want = mp_view(NULL, MP_F32, rank, dims);

    snprintf(detail, sizeof detail, " is %s, expected %s", mp_shape_text(p->source, is, sizeof is),
             mp_shape_text(want, wanted, sizeof wanted));
    add_problem(&w->misshapen, p->name, detail);
}

/* Under a survey, what the model asks for is what there is. */
static void ask(mp_weights *w, mp_tensor *to, int rank, const int64_t *dims, const char *name)
{
    param *const params = grow(w->params, w->param_count, &w->param_room, sizeof *params);
    char *const full = full_name(w, name);

    if (params)
        w->params = params;
    if (!params || !full) {
        mp_free(full);
        w->no_memory = true;
        return;
    }
    *to = mp_view(NULL, MP_F32, rank, dims);
    params[w->param_count++] =
        (param){.name = full + strlen(full) - strlen(name), .full = full, .source = *to};
}

static void bind(mp_weights *w, mp_tensor *to, int rank, const int64_t *dims, const char *name)
{
    param *const p = w->o.survey ? NULL : find(w, name);

    *to = MP_NONE;
    if (w->o.survey) {
        ask(w, to, rank, dims, name);
        return;
    }
    if (!p) {
        add_problem(&w->missing, name, "");
        return;
    }
    p->used = true;
    if (p->source.store == MP_DTYPE_COUNT) {
        add_problem(&w->unreadable, name, "");
        return;
    }
    if (!mp_same_shape(p->source, mp_view(NULL, MP_F32, rank, dims))) {
        misshapen(w, p, rank, dims);
        return;
    }
    if (!grow_slots(w) || (!p->full && !(p->full = full_name(w, p->name)))) {
        w->no_memory = true;
        return;
    }
    choose_dtypes(w, p);
    w->slots[w->slot_count++] = (slot){.to = to, .param = p - w->params};
    *to = p->bound;
}

void mp_weights_bind(mp_weights *w, mp_tensor *to, int rank, const int64_t *dims,
                     const char *format, ...)
{
    char name[NAME_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    bind(w, to, rank, dims, name);
}

static void bind_affine(mp_weights *w, mp_affine *p, int rank, const int64_t *dims, bool bias,
                        const char *module)
{
    char name[NAME_BYTES + 8];

    snprintf(name, sizeof name, "%s.weight", module);
    bind(w, &p->weight, rank, dims, name);
    p->bias = MP_NONE;
    if (!bias)
        return;
    snprintf(name, sizeof name, "%s.bias", module);
    bind(w, &p->bias, 1, dims, name);
}

void mp_weights_bind_linear(mp_weights *w, mp_affine *p, int64_t out, int64_t in, bool bias,
                            const char *format, ...)
{
    char module[NAME_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(module, sizeof module, format, args);
    va_end(args);
    bind_affine(w, p, 2, MP_DIMS(out, in), bias, module);
}

void mp_weights_bind_conv2d(mp_weights *w, mp_affine *p, int64_t out, int64_t in_per_group, int k,
                            bool bias, const char *format, ...)
{
    char module[NAME_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(module, sizeof module, format, args);
    va_end(args);
    bind_affine(w, p, 4, MP_DIMS(out, in_per_group, k, k), bias, module);
}

void mp_weights_ignore(mp_weights *w, const char *pattern)
{
    char **list = mp_realloc(w->ignored, (size_t)w->ignored_count + 1, sizeof *list);

    if (list)
        w->ignored = list;
    if (!list || !(list[w->ignored_count] = mp_strdup(pattern)))
        w->no_memory = true;
    else
        w->ignored_count++;
}

void mp_weights_strip(mp_weights *w, const char *prefix)
{
    const size_t n = strlen(prefix);

    assert(!w->slot_count);
    for (int64_t i = 0; i < w->param_count; i++)
        if (!strncmp(w->params[i].name, prefix, n))
            w->params[i].name += n;
    sort_params(w);
}

bool mp_weights_has(const mp_weights *w, const char *name)
{
    return !w->o.survey && find(w, name) != NULL;
}

/* In fp32 as asked for, a parameter gets the dtype that a run would convert it to. */
static void tell_survey(mp_weights *w)
{
    sort_params(w); /* for find, by which storage looks for the weight beside a bias */
    for (int64_t i = 0; i < w->param_count; i++) {
        param *const p = &w->params[i];
        choose_dtypes(w, p);
        mp_tensor told = p->bound;
        told.name = p->name;
        w->o.survey->parameter(w->o.survey->user, &w->o, &told);
    }
}

/* ---- finishing ---- */

static bool is_ignored(const mp_weights *w, const char *name)
{
    for (int64_t i = 0; i < w->ignored_count; i++)
        if (!fnmatch(w->ignored[i], name, 0))
            return true;
    return false;
}

static void append_list(char *text, size_t size, const char *what, const problem_list *l)
{
    const size_t at = strlen(text);

    if (!l->count)
        return;
    snprintf(text + at, size - at, "\n  %s (%lld): %s", what, (long long)l->count, l->text);
    if (l->count > l->listed) {
        const size_t end = strlen(text);
        snprintf(text + end, size - end, " and %lld more", (long long)(l->count - l->listed));
    }
}

static mp_code check_names(mp_weights *w, mp_error *err)
{
    char text[MP_ERROR_TEXT] = "";
    const mp_code missing = w->missing.count ? MP_EMISSING : MP_EFORMAT;

    for (int64_t i = 0; i < w->param_count; i++) {
        const char *name = w->params[i].name;
        if (i && !strcmp(name, w->params[i - 1].name))
            add_problem(&w->surplus, name, " (twice)");
        else if (!w->params[i].used && !is_ignored(w, name))
            add_problem(&w->surplus, name, "");
    }
    append_list(text, sizeof text, "missing", &w->missing);
    append_list(text, sizeof text, "misshapen", &w->misshapen);
    append_list(text, sizeof text, "surplus", &w->surplus);
    append_list(text, sizeof text,
                "of a dtype or rank that weights cannot have (F32, F16, BF16, F8_E4M3, F8_E5M2 and "
                "at most 5 dimensions; convert them)",
                &w->unreadable);
    if (!text[0])
        return MP_OK;
    return mp_error_set(err, w->unreadable.count ? MP_EUNSUPPORTED : missing,
                        "%s: the weights do not fit the %s that its config.json describes; check "
                        "that both are of one checkpoint%s",
                        w->dir, w->o.component, text);
}

static bool is_aligned(const param *p)
{
    return (uintptr_t)p->source.data % mp_dtype_size(p->source.store) == 0;
}

static bool needs_copy(const param *p)
{
    return p->full && (p->converted || !is_aligned(p));
}

static size_t padded_bytes(const param *p)
{
    return (mp_nbytes(p->bound) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* The pages of a converted range go back to the system: they are in the file and, as clean copies,
 * would only count against this process. */
static void forget_pages(const char *from, size_t n)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t first = ((uintptr_t)from + page - 1) / page * page;
    const uintptr_t last = ((uintptr_t)from + n) / page * page;

    if (last > first)
        madvise((void *)first, last - first, MADV_DONTNEED);
}

static void round_values(const mp_weights *w, mp_dtype d, float *values, int64_t n)
{
    uint32_t narrow[CHUNK];

    if (d == MP_F32)
        return;
    mp_narrow(d, w->o.e4m3, values, narrow, n);
    mp_widen(d, narrow, values, n);
}

static void convert(const mp_weights *w, const param *p, char *to)
{
    enum { FORGET = 8 << 20 }; /* bytes read between two forget_pages */
    const int64_t n = mp_numel(p->source);
    const size_t in = mp_dtype_size(p->source.store), out = mp_dtype_size(p->bound.store);
    const char *from = p->source.data;
    size_t kept = 0;
    float values[CHUNK];
    uint32_t aligned[CHUNK]; /* room for a chunk of any dtype, at its alignment */

    for (int64_t i = 0; i < n; i += CHUNK) {
        const int64_t m = n - i < CHUNK ? n - i : CHUNK;
        memcpy(aligned, from + (size_t)i * in, (size_t)m * in);
        mp_widen(p->source.store, aligned, values, m);
        if (p->via[0] != p->via[1])
            round_values(w, p->via[0], values, m);
        if (p->via[1] != p->bound.store)
            round_values(w, p->via[1], values, m);
        mp_narrow(p->bound.store, w->o.e4m3, values, to + (size_t)i * out, m);
        const size_t read = (size_t)(i + m) * in;
        if (read - kept >= FORGET) {
            forget_pages(from + kept, read - kept);
            kept = read;
        }
    }
    forget_pages(from + kept, (size_t)n * in - kept);
}

static mp_code no_memory_for_own(mp_weights *w, mp_error *err)
{
    return mp_error_set(err, MP_ENOMEM, "%s: no memory for %zu bytes of converted weights", w->dir,
                        w->own_size);
}

/* Addresses for what is converted or copied: they stay, the pages behind them come and go. */
static mp_code reserve_own(mp_weights *w, mp_error *err)
{
    size_t at = 0;

    for (int64_t i = 0; i < w->param_count; i++)
        if (needs_copy(&w->params[i]))
            w->own_size += padded_bytes(&w->params[i]);
    if (!w->own_size)
        return MP_OK;
    void *own =
        mmap(NULL, w->own_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (own == MAP_FAILED) {
        no_memory_for_own(w, err);
        w->own_size = 0;
        return err->code;
    }
    w->own = own;
    for (int64_t i = 0; i < w->param_count; i++)
        if (needs_copy(&w->params[i])) {
            w->params[i].bound.data = w->own + at;
            at += padded_bytes(&w->params[i]);
        }
    return MP_OK;
}

static void forget_files(mp_weights *w)
{
    for (int64_t i = 0; i < w->files.count; i++)
        mp_safetensors_forget(w->files.file[i]);
}

bool mp_weights_need_load(const mp_weights *w)
{
    return w->own && !w->loaded;
}

mp_code mp_weights_load(mp_weights *w, mp_error *err)
{
    if (!mp_weights_need_load(w))
        return MP_OK;
    if (mprotect(w->own, w->own_size, PROT_READ | PROT_WRITE))
        return no_memory_for_own(w, err);
    for (int64_t i = 0; !w->o.no_values && i < w->param_count; i++) {
        const param *p = &w->params[i];
        if (needs_copy(p) && p->converted)
            convert(w, p, p->bound.data);
        else if (needs_copy(p))
            memcpy(p->bound.data, p->source.data, mp_nbytes(p->source));
    }
    mprotect(w->own, w->own_size, PROT_READ);
    forget_files(w); /* also the pages that two parameters share */
    w->loaded = true;
    return MP_OK;
}

void mp_weights_unload(mp_weights *w)
{
    forget_files(w);
    if (!w->own)
        return;
    mprotect(w->own, w->own_size, PROT_NONE);
    madvise(w->own, w->own_size, MADV_DONTNEED);
    w->loaded = false;
}

mp_code mp_weights_finish(mp_weights *w, mp_error *err)
{
    if (w->no_memory)
        return no_memory(w->dir, err);
    if (w->o.survey) {
        tell_survey(w);
        return MP_OK;
    }

    mp_code code = check_names(w, err);
    if (!code)
        code = reserve_own(w, err);
    if (!code && !w->o.load_later)
        code = mp_weights_load(w, err);
    for (int64_t i = 0; !code && i < w->slot_count; i++)
        *w->slots[i].to = w->params[w->slots[i].param].bound;
    return code;
}

mp_weights_stats mp_weights_get_stats(const mp_weights *w)
{
    mp_weights_stats s = {.converted = w->own_size};

    for (int64_t i = 0; i < w->files.count; i++)
        s.mapped += mp_safetensors_bytes(w->files.file[i]);
    for (int64_t i = 0; i < w->param_count; i++) {
        const param *p = &w->params[i];
        if (p->full)
            s.parameters += mp_numel(p->source);
        if (p->full && !needs_copy(p))
            s.in_place += mp_nbytes(p->source);
    }
    return s;
}

size_t mp_weights_resident(const mp_weights *w)
{
    size_t bytes = 0;

    for (int64_t i = 0; i < w->files.count; i++)
        bytes += mp_safetensors_resident(w->files.file[i]);
    return bytes;
}

mp_dtype mp_weights_dtype(const mp_weights *w)
{
    return w->o.dtype;
}
