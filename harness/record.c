#include "harness/record.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

/* What a process can make its parent keep: far above any real generation. */
enum {
    MAX_SAMPLES = 1 << 16,
    MAX_TENSORS = 1 << 14,
    MAX_ACTIONS = 1 << 14,
    MAX_OPS = 1 << 12,
    MAX_BYTES = 1 << 12,
    MAX_WARNINGS = 1 << 16
};

void mp_record_init(mp_record *r, mp_arena *a)
{
    *r = (mp_record){.arena = a, .step = -1, .id = -1, .exception = "", .frame = ""};
}

void mp_record_free(mp_record *r)
{
    mp_text_free(&r->warnings);
}

const mp_captured *mp_record_tensor(const mp_record *r, const char *name)
{
    for (int i = 0; i < r->tensor_count; i++)
        if (!strcmp(r->tensors[i].name, name))
            return &r->tensors[i];
    return NULL;
}

/* Until the event is gone. */
static const char *peek(const json_t *event, const char *key)
{
    const char *text = json_string_value(json_object_get(event, key));

    return text ? text : "";
}

static const char *text_of(const mp_record *r, const json_t *event, const char *key)
{
    return mp_arena_strdup(r->arena, peek(event, key));
}

static int64_t int_of(const json_t *event, const char *key, int64_t fallback)
{
    const json_t *value = json_object_get(event, key);

    return json_is_integer(value) ? json_integer_value(value) : fallback;
}

/* A count or an index; the fallback also for what no int holds. */
static int small_of(const json_t *event, const char *key, int fallback)
{
    const int64_t value = int_of(event, key, fallback);

    return value < 0 || value >= INT_MAX ? fallback : (int)value;
}

static void *room_for(mp_record *r, void *items, int count, int *room, size_t size)
{
    if (count < *room)
        return items;
    *room = *room ? 2 * *room : 32;
    void *grown = mp_arena_alloc(r->arena, (size_t)*room, size);
    if (count)
        memcpy(grown, items, (size_t)count * size);
    return grown;
}

static void add_memory(mp_record *r, const char *stage, int64_t bytes)
{
    int i = 0;

    while (i < r->stage_count && strcmp(r->stages[i].stage, stage))
        i++;
    if (i == (int)(sizeof r->stages / sizeof *r->stages))
        return;
    if (i == r->stage_count)
        r->stages[r->stage_count++] = (mp_stage_memory){.stage = stage};
    if (r->stages[i].activations < bytes)
        r->stages[i].activations = bytes;
}

/* Each stage of each repeat is told once: the database holds no second one. */
static bool has_sample(const mp_record *r, const char *stage, int repeat)
{
    for (int i = r->sample_count - 1; i >= 0; i--)
        if (r->samples[i].repeat == repeat && !strcmp(r->samples[i].stage, stage))
            return true;
    return false;
}

static void on_stage(mp_record *r, const json_t *event)
{
    const json_t *seconds = json_object_get(event, "seconds");
    const char *name = peek(event, "name");
    const int64_t bytes = int_of(event, "activations", -1);
    const int64_t repeat = int_of(event, "repeat", 0); /* warm-ups are negative */

    if (!*name || (seconds && (!json_is_number(seconds) || json_number_value(seconds) < 0)) ||
        r->sample_count >= MAX_SAMPLES ||
        (seconds &&
         (repeat < -MAX_SAMPLES || repeat > MAX_SAMPLES || has_sample(r, name, (int)repeat)))) {
        r->malformed++;
        return;
    }
    if (!strcmp(r->begun, name))
        r->begun[0] = '\0';
    name = mp_arena_strdup(r->arena, name);
    if (bytes >= 0)
        add_memory(r, name, bytes);
    if (!json_is_number(seconds))
        return;
    r->samples = room_for(r, r->samples, r->sample_count, &r->sample_room, sizeof *r->samples);
    r->samples[r->sample_count++] = (mp_sample_row){
        .repeat = (int)repeat, .stage = name, .seconds = json_number_value(seconds)};
}

/* [] is a scalar; false for what is no shape. */
static bool read_shape(const json_t *shape, mp_captured *t)
{
    if (!json_is_array(shape) || json_array_size(shape) > MP_MAX_RANK)
        return false;
    t->rank = (int)json_array_size(shape);
    for (int i = 0; i < t->rank; i++) {
        t->dim[i] = json_integer_value(json_array_get(shape, (size_t)i));
        if (t->dim[i] < 1)
            return false;
    }
    return true;
}

static void on_tensor(mp_record *r, const json_t *event)
{
    mp_captured t = {.name = peek(event, "name"), .sha256 = peek(event, "sha256")};
    const mp_captured *first = mp_record_tensor(r, t.name);

    if (!*t.name || !*t.sha256 || !read_shape(json_object_get(event, "shape"), &t) ||
        !mp_dtype_parse(peek(event, "dtype"), &t.dtype) || r->tensor_count >= MAX_TENSORS) {
        r->malformed++;
        return;
    }
    if (first) {
        r->differing += strcmp(first->sha256, t.sha256) != 0;
        return;
    }
    t.name = text_of(r, event, "name");
    t.sha256 = text_of(r, event, "sha256");
    t.file = text_of(r, event, "file");
    r->tensors = room_for(r, r->tensors, r->tensor_count, &r->tensor_room, sizeof *r->tensors);
    r->tensors[r->tensor_count++] = t;
}

/* At most `most` bytes of it. */
static const char *short_text_of(const mp_record *r, const json_t *event, const char *key,
                                 size_t most)
{
    const char *text = peek(event, key);

    return mp_arena_strndup(r->arena, text, strnlen(text, most));
}

static const char *kind_of(const json_t *event)
{
    for (int k = 0; k < MP_ACTION_COUNT; k++)
        if (!strcmp(mp_action_name((mp_action_kind)k), peek(event, "kind")))
            return mp_action_name((mp_action_kind)k);
    return NULL;
}

/* False for what is no action. */
static bool read_action(const mp_record *r, const json_t *event, mp_action_row *out)
{
    const json_t *seconds = json_object_get(event, "seconds");
    mp_dtype from, to;

    if (!mp_dtype_parse(peek(event, "from"), &from) || !mp_dtype_parse(peek(event, "to"), &to))
        return false;
    *out = (mp_action_row){.stage = short_text_of(r, event, "stage", sizeof r->begun - 1),
                           .module = short_text_of(r, event, "module", MP_ERROR_MODULE - 1),
                           .op = short_text_of(r, event, "op", MP_ERROR_OP - 1),
                           .kind = kind_of(event),
                           .from = mp_dtype_name(from),
                           .to = mp_dtype_name(to),
                           .count = int_of(event, "count", 0),
                           .elements = int_of(event, "elements", -1),
                           .seconds = json_number_value(seconds)};
    return *out->stage && out->kind && out->count > 0 && out->elements >= 0 &&
           json_is_number(seconds) && out->seconds >= 0;
}

/* Each is told once: the database holds no second one. */
static bool has_action(const mp_record *r, const mp_action_row *x)
{
    for (int i = 0; i < r->action_count; i++) {
        const mp_action_row *a = &r->actions[i];
        if (!strcmp(a->module, x->module) && !strcmp(a->op, x->op) && !strcmp(a->stage, x->stage) &&
            !strcmp(a->kind, x->kind) && !strcmp(a->from, x->from) && !strcmp(a->to, x->to))
            return true;
    }
    return false;
}

static void on_action(mp_record *r, const json_t *event)
{
    mp_action_row row;

    if (r->action_count >= MAX_ACTIONS || !read_action(r, event, &row) || has_action(r, &row)) {
        r->malformed++;
        return;
    }
    r->actions = room_for(r, r->actions, r->action_count, &r->action_room, sizeof *r->actions);
    r->actions[r->action_count++] = row;
}

/* False for what is no row of a profile. */
static bool read_op(const mp_record *r, const json_t *event, mp_op_row *out)
{
    const json_t *seconds = json_object_get(event, "seconds");
    const char *op = peek(event, "op");
    mp_dtype dtype = MP_DTYPE_COUNT;

    if (*op && !mp_dtype_parse(peek(event, "dtype"), &dtype))
        return false;
    *out = (mp_op_row){.stage = short_text_of(r, event, "stage", sizeof r->begun - 1),
                       .module = short_text_of(r, event, "module", MP_ERROR_MODULE - 1),
                       .op = short_text_of(r, event, "op", MP_ERROR_OP - 1),
                       .dtype = *op ? mp_dtype_name(dtype) : "",
                       .calls = int_of(event, "calls", 0),
                       .seconds = json_number_value(seconds),
                       .bytes = int_of(event, "bytes", -1),
                       .flops = int_of(event, "flops", -1)};
    return *out->stage && out->calls > 0 && out->bytes >= 0 && out->flops >= 0 &&
           json_is_number(seconds) && out->seconds >= 0;
}

/* Each is told once: the database holds no second one. */
static bool has_op(const mp_record *r, const mp_op_row *x)
{
    for (int i = 0; i < r->op_count; i++) {
        const mp_op_row *o = &r->ops[i];
        if (!strcmp(o->module, x->module) && !strcmp(o->op, x->op) && !strcmp(o->dtype, x->dtype) &&
            !strcmp(o->stage, x->stage))
            return true;
    }
    return false;
}

static void on_op(mp_record *r, const json_t *event)
{
    mp_op_row row;

    if (r->op_count >= MAX_OPS || !read_op(r, event, &row) || has_op(r, &row)) {
        r->malformed++;
        return;
    }
    r->ops = room_for(r, r->ops, r->op_count, &r->op_room, sizeof *r->ops);
    r->ops[r->op_count++] = row;
}

static double real_of(const json_t *event, const char *key)
{
    return json_number_value(json_object_get(event, key));
}

static void on_roofline(mp_record *r, const json_t *event)
{
    const mp_roofline told = {real_of(event, "flops"), real_of(event, "pairs"),
                              real_of(event, "copy")};

    if (told.flops > 0 && told.pairs >= 0 && told.copy >= 0)
        r->roofline = told;
    else
        r->malformed++;
}

/* NaN for what was not counted, and false for what is no count. */
static bool read_count(const json_t *event, const char *name, double *out)
{
    const json_t *value = json_object_get(event, name);

    *out = value ? json_number_value(value) : NAN;
    return !value || (json_is_number(value) && *out >= 0);
}

static void on_counters(mp_record *r, const json_t *event)
{
    mp_counts c;
    bool good = r->counts_count < MAX_SAMPLES;

    for (int i = 0; i < MP_COUNTERS; i++)
        good = read_count(event, mp_counter_names[i], &c.value[i]) && good;
    if (!good) {
        r->malformed++;
        return;
    }
    r->counts = room_for(r, r->counts, r->counts_count, &r->counts_room, sizeof *r->counts);
    r->counts[r->counts_count++] = c;
}

static void on_place(mp_record *r, const json_t *event)
{
    r->stage = text_of(r, event, "stage");
    r->step = small_of(event, "step", -1);
    strncpy(r->error.module, peek(event, "module"), sizeof r->error.module - 1);
    strncpy(r->error.op, peek(event, "op"), sizeof r->error.op - 1);
}

static void on_error(mp_record *r, const json_t *event)
{
    const char *code = peek(event, "code"), *text = peek(event, "text");
    mp_code known = MP_OK;

    r->id = int_of(event, "id", -1);
    if (r->error.code)
        return; /* the first one stays */
    for (int i = 1; i < MP_CODE_COUNT; i++)
        if (!strcmp(mp_code_name((mp_code)i), code))
            known = (mp_code)i;
    if (!known) {
        r->malformed++;
        return;
    }
    r->error.code = known;
    strncpy(r->error.text, *text ? text : "an error without a text", sizeof r->error.text - 1);
    r->exception = text_of(r, event, "exception");
    r->frame = text_of(r, event, "frame");
    on_place(r, event);
}

static void on_nonfinite(mp_record *r, const json_t *event)
{
    if (r->nonfinite || r->error.code)
        return; /* the first place stays */
    r->nonfinite = true;
    r->nan = int_of(event, "nan", 0);
    r->inf = int_of(event, "inf", 0);
    on_place(r, event);
}

/* Too many are no reason to lose a result. */
static void on_warning(mp_record *r, const char *text)
{
    if (r->more_warnings)
        return;
    r->more_warnings = r->warnings.length + strlen(text) > MAX_WARNINGS;
    mp_text_printf(&r->warnings, "%s%s", r->warnings.length ? "\n" : "",
                   r->more_warnings ? "and more warnings than are kept" : text);
}

/* What the event "bytes" counts: the names of metrics, without their "_mib". */
static const char *counted(const json_t *event)
{
    static const char *const names[] = {"weights_in_place", "weights_resident", "weights_converted",
                                        "activations",      "scratch",          "rss_peak"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i], peek(event, "of")))
            return names[i];
    return NULL;
}

static void on_bytes(mp_record *r, const json_t *event)
{
    const mp_bytes row = {.of = counted(event),
                          .stage = short_text_of(r, event, "stage", sizeof r->begun - 1),
                          .module = short_text_of(r, event, "module", MP_ERROR_MODULE - 1),
                          .bytes = int_of(event, "bytes", -1)};

    if (!row.of || !*row.stage || row.bytes < 0 || r->bytes_count >= MAX_BYTES) {
        r->malformed++;
        return;
    }
    for (int i = 0; i < r->bytes_count; i++) {
        mp_bytes *b = &r->bytes[i];
        if (b->of == row.of && !strcmp(b->stage, row.stage) && !strcmp(b->module, row.module)) {
            b->bytes = b->bytes < row.bytes ? row.bytes : b->bytes;
            return;
        }
    }
    r->bytes = room_for(r, r->bytes, r->bytes_count, &r->bytes_room, sizeof *r->bytes);
    r->bytes[r->bytes_count++] = row;
}

static int64_t bytes_of(const json_t *event, const char *key)
{
    const int64_t value = int_of(event, key, 0);

    return value > 0 ? value : 0;
}

static void on_memory(mp_record *r, const json_t *event)
{
    r->peak_rss = bytes_of(event, "peak_rss");
    r->idle_rss = bytes_of(event, "idle_rss");
    r->cuda_allocated = bytes_of(event, "cuda_allocated");
    r->cuda_reserved = bytes_of(event, "cuda_reserved");
}

static void on_step(mp_record *r, const json_t *event)
{
    r->steps_done = small_of(event, "step", -1) + 1;
    r->steps = small_of(event, "steps", 0);
    r->repeat = small_of(event, "repeat", 0);
}

static void on_event(mp_record *r, const json_t *event)
{
    const char *kind = peek(event, "event");

    if (!strcmp(kind, "stage")) {
        on_stage(r, event);
    } else if (!strcmp(kind, "tensor")) {
        on_tensor(r, event);
    } else if (!strcmp(kind, "action")) {
        on_action(r, event);
    } else if (!strcmp(kind, "op")) {
        on_op(r, event);
    } else if (!strcmp(kind, "counters")) {
        on_counters(r, event);
    } else if (!strcmp(kind, "roofline")) {
        on_roofline(r, event);
    } else if (!strcmp(kind, "bytes")) {
        on_bytes(r, event);
    } else if (!strcmp(kind, "weights")) {
        r->weights_mapped = int_of(event, "mapped", 0);
        r->weights_converted = int_of(event, "converted", 0);
    } else if (!strcmp(kind, "warning")) {
        on_warning(r, peek(event, "text"));
    } else if (!strcmp(kind, "nonfinite")) {
        on_nonfinite(r, event);
    } else if (!strcmp(kind, "error")) {
        on_error(r, event);
    } else if (!strcmp(kind, "done")) {
        r->done = true;
        r->id = int_of(event, "id", -1);
    } else if (!strcmp(kind, "step")) {
        on_step(r, event);
    } else if (!strcmp(kind, "begin")) {
        snprintf(r->begun, sizeof r->begun, "%s", peek(event, "stage"));
        r->steps_done = 0;
    } else if (!strcmp(kind, "memory")) {
        on_memory(r, event);
    } else {
        r->malformed++;
    }
}

const char *mp_record_excerpt(mp_arena *a, const char *line, size_t n)
{
    enum { SHOWN = 100 };
    char *text = mp_arena_strndup(a, line, n < SHOWN ? n : SHOWN);

    for (char *s = text; *s; s++) /* what is no ASCII may be cut, or be no UTF-8 at all */
        if ((unsigned char)*s >= 0x7f || (unsigned char)*s < ' ')
            *s = '?';
    return text;
}

void mp_record_line(mp_record *r, const char *line, size_t n)
{
    json_t *event = json_loadb(line, n, JSON_ALLOW_NUL, NULL);
    const int before = r->malformed;

    if (json_is_object(event))
        on_event(r, event);
    else
        r->malformed++;
    if (r->malformed != before && !r->bad_line)
        r->bad_line = mp_record_excerpt(r->arena, line, n);
    json_decref(event);
}
