#include "pipelines/common/safetensors.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/core/memory.h"
#include "pipelines/common/file.h"
#include "pipelines/common/json.h"

/* The cap of the format's reference reader: a header is names and numbers, never this long. */
enum { HEADER_LIMIT = 100 * 1000 * 1000, LENGTH_BYTES = 8 };

#define AGAIN "the file is damaged or was not written by safetensors: fetch or convert it again"

/* Every dtype of the format.  Those of mp_dtype are found by name. */
static const struct file_dtype {
    const char *name;
    unsigned bits;
} file_dtypes[] = {
    {"F64", 64},    {"F32", 32},    {"F16", 16}, {"BF16", 16},   {"F8_E4M3", 8},
    {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"I64", 64}, {"I32", 32},    {"I16", 16},
    {"I8", 8},      {"U64", 64},    {"U32", 32}, {"U16", 16},    {"U8", 8},
    {"BOOL", 8},    {"C64", 64},    {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6},
};

typedef struct entry {
    char *name;
    const struct file_dtype *type;
    mp_dtype dtype; /* MP_DTYPE_COUNT: none of ours */
    int64_t *dims;
    int64_t rank;
    uint64_t begin, end; /* from the start of the data */
} entry;

struct mp_safetensors {
    char *path;
    char *map;
    size_t size, data; /* of the file; where the data begins */
    entry *entries;    /* by offset */
    int64_t *by_name;  /* indexes into entries */
    int64_t count;
    json_t *metadata;
};

static mp_code no_memory(const char *path, mp_error *err)
{
    return mp_error_set(err, MP_ENOMEM, "%s: no memory for its table of tensors", path);
}

static const struct file_dtype *type_of(const char *name)
{
    for (size_t i = 0; i < sizeof file_dtypes / sizeof *file_dtypes; i++)
        if (!strcmp(name, file_dtypes[i].name))
            return &file_dtypes[i];
    return NULL;
}

static mp_dtype dtype_of(const struct file_dtype *type)
{
    for (int d = 0; d < MP_DTYPE_COUNT; d++)
        if (!strcmp(type->name, mp_dtype_safetensors((mp_dtype)d)))
            return (mp_dtype)d;
    return MP_DTYPE_COUNT;
}

static mp_code wrong(const mp_safetensors *s, const char *name, mp_error *err, const char *what,
                     const json_t *value)
{
    char found[200];

    return mp_error_set(err, MP_EFORMAT, "%s: tensor \"%s\": %s, found %s; " AGAIN, s->path,
                        mp_plain(name).text, what, mp_json_describe(value, found, sizeof found));
}

static mp_code parse_dtype(const mp_safetensors *s, const char *name, const json_t *value, entry *e,
                           mp_error *err)
{
    if (!json_is_string(value))
        return wrong(s, name, err, "\"dtype\": expected a name", value);
    e->type = type_of(json_string_value(value));
    if (!e->type)
        return wrong(s, name, err, "\"dtype\": expected one of the format's (F32, BF16, ...)",
                     value);
    e->dtype = dtype_of(e->type);
    return MP_OK;
}

static mp_code parse_shape(const mp_safetensors *s, const char *name, const json_t *value, entry *e,
                           mp_error *err)
{
    if (!json_is_array(value))
        return wrong(s, name, err, "\"shape\": expected a list", value);
    e->rank = (int64_t)json_array_size(value);
    e->dims = mp_alloc((size_t)e->rank, sizeof *e->dims);
    if (!e->dims)
        return no_memory(s->path, err);
    for (int64_t i = 0; i < e->rank; i++) {
        const json_t *dim = json_array_get(value, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return wrong(s, name, err, "\"shape\": expected sizes of 0 or more", dim);
        e->dims[i] = json_integer_value(dim);
    }
    return MP_OK;
}

static mp_code parse_offsets(const mp_safetensors *s, const char *name, const json_t *value,
                             entry *e, mp_error *err)
{
    const uint64_t room = s->size - s->data;

    if (!json_is_array(value) || json_array_size(value) != 2)
        return wrong(s, name, err, "\"data_offsets\": expected a list of 2", value);
    for (size_t i = 0; i < 2; i++) {
        const json_t *at = json_array_get(value, i);
        if (!json_is_integer(at) || json_integer_value(at) < 0)
            return wrong(s, name, err, "\"data_offsets\": expected offsets of 0 or more", at);
        *(i ? &e->end : &e->begin) = (uint64_t)json_integer_value(at);
    }
    if (e->begin > e->end)
        return mp_error_set(
            err, MP_EFORMAT, "%s: tensor \"%s\": data_offsets [%llu, %llu] are reversed; " AGAIN,
            s->path, mp_plain(name).text, (unsigned long long)e->begin, (unsigned long long)e->end);
    if (e->end > room)
        return mp_error_set(err, MP_EFORMAT,
                            "%s: tensor \"%s\": data_offsets [%llu, %llu] reach beyond the %llu "
                            "bytes of data; the file is truncated: fetch it again",
                            s->path, mp_plain(name).text, (unsigned long long)e->begin,
                            (unsigned long long)e->end, (unsigned long long)room);
    return MP_OK;
}

/* Bytes that dtype and shape ask for; false when they overflow or end within a byte. */
static bool bytes_of(const entry *e, uint64_t *out)
{
    uint64_t n = 1, bits;

    for (int64_t i = 0; i < e->rank; i++)
        if (__builtin_mul_overflow(n, (uint64_t)e->dims[i], &n))
            return false;
    if (__builtin_mul_overflow(n, e->type->bits, &bits) || n > INT64_MAX || bits % 8)
        return false;
    *out = bits / 8;
    return true;
}

static mp_code check_size(const mp_safetensors *s, const entry *e, mp_error *err)
{
    uint64_t bytes;

    if (!bytes_of(e, &bytes))
        return mp_error_set(err, MP_EFORMAT,
                            "%s: tensor \"%s\": the product of its shape overflows or is no whole "
                            "number of bytes; " AGAIN,
                            s->path, mp_plain(e->name).text);
    if (bytes != e->end - e->begin)
        return mp_error_set(err, MP_EFORMAT,
                            "%s: tensor \"%s\": data_offsets [%llu, %llu] hold %llu bytes, dtype "
                            "%s and shape need %llu; " AGAIN,
                            s->path, mp_plain(e->name).text, (unsigned long long)e->begin,
                            (unsigned long long)e->end, (unsigned long long)(e->end - e->begin),
                            e->type->name, (unsigned long long)bytes);
    return MP_OK;
}

/* One "name": {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}. */
static mp_code parse_entry(const mp_safetensors *s, const char *name, json_t *object, entry *e,
                           mp_error *err)
{
    const char *key;
    json_t *value;
    mp_code code = MP_OK;

    e->name = mp_strdup(name);
    if (!e->name)
        return no_memory(s->path, err);
    if (!json_is_object(object))
        return wrong(s, name, err, "expected an object", object);
    json_object_foreach (object, key, value)
        if (strcmp(key, "dtype") && strcmp(key, "shape") && strcmp(key, "data_offsets"))
            return mp_error_set(err, MP_EFORMAT,
                                "%s: tensor \"%s\": unknown key \"%s\"; expected dtype, shape and "
                                "data_offsets",
                                s->path, mp_plain(name).text, mp_plain(key).text);
    if (!code)
        code = parse_dtype(s, name, json_object_get(object, "dtype"), e, err);
    if (!code)
        code = parse_shape(s, name, json_object_get(object, "shape"), e, err);
    if (!code)
        code = parse_offsets(s, name, json_object_get(object, "data_offsets"), e, err);
    if (!code)
        code = check_size(s, e, err);
    return code;
}

static mp_code parse_metadata(mp_safetensors *s, json_t *object, mp_error *err)
{
    const char *key;
    json_t *value;
    char found[200];

    if (!json_is_object(object))
        return mp_error_set(err, MP_EFORMAT, "%s: __metadata__: found %s, expected an object",
                            s->path, mp_json_describe(object, found, sizeof found));
    json_object_foreach (object, key, value)
        if (!json_is_string(value))
            return mp_error_set(err, MP_EFORMAT,
                                "%s: __metadata__ \"%s\": found %s, expected a string", s->path,
                                mp_plain(key).text, mp_json_describe(value, found, sizeof found));
    s->metadata = json_incref(object);
    return MP_OK;
}

static int compare_offsets(const void *pa, const void *pb)
{
    const entry *a = pa, *b = pb;

    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    if (a->end != b->end)
        return a->end < b->end ? -1 : 1;
    return strcmp(a->name, b->name);
}

static int compare_names(const void *pa, const void *pb, void *entries)
{
    const entry *e = entries;

    return strcmp(e[*(const int64_t *)pa].name, e[*(const int64_t *)pb].name);
}

/* Sorted by offset, each tensor must begin where the one before ends, and the last end with the
 * file: no byte belongs to two tensors or to none. */
static mp_code check_layout(const mp_safetensors *s, mp_error *err)
{
    const uint64_t room = s->size - s->data;
    uint64_t end = 0;

    for (int64_t i = 0; i < s->count; i++) {
        const entry *e = &s->entries[i];
        if (e->begin < end)
            return mp_error_set(err, MP_EFORMAT,
                                "%s: tensor \"%s\" at [%llu, %llu] overlaps \"%s\", which ends at "
                                "%llu; " AGAIN,
                                s->path, mp_plain(e->name).text, (unsigned long long)e->begin,
                                (unsigned long long)e->end, mp_plain(e[-1].name).text,
                                (unsigned long long)end);
        if (e->begin > end)
            return mp_error_set(err, MP_EFORMAT,
                                "%s: tensor \"%s\" begins at %llu and leaves a hole after %llu; "
                                "" AGAIN,
                                s->path, mp_plain(e->name).text, (unsigned long long)e->begin,
                                (unsigned long long)end);
        end = e->end;
    }
    if (end != room)
        return mp_error_set(err, MP_EFORMAT,
                            "%s: %llu bytes of data, but its tensors end at %llu; " AGAIN, s->path,
                            (unsigned long long)room, (unsigned long long)end);
    return MP_OK;
}

static mp_code parse_header(mp_safetensors *s, json_t *header, mp_error *err)
{
    const char *key;
    json_t *value;
    mp_code code = MP_OK;
    const size_t keys = json_object_size(header);

    s->entries = mp_alloc(keys, sizeof *s->entries);
    s->by_name = mp_alloc(keys, sizeof *s->by_name);
    if (!s->entries || !s->by_name)
        return no_memory(s->path, err);
    json_object_foreach (header, key, value) {
        if (!strcmp(key, "__metadata__"))
            code = parse_metadata(s, value, err);
        else
            code = parse_entry(s, key, value, &s->entries[s->count++], err);
        if (code)
            return code;
    }
    qsort(s->entries, (size_t)s->count, sizeof *s->entries, compare_offsets);
    for (int64_t i = 0; i < s->count; i++)
        s->by_name[i] = i;
    qsort_r(s->by_name, (size_t)s->count, sizeof *s->by_name, compare_names, s->entries);
    return check_layout(s, err);
}

/* The file begins with the header's length, 8 bytes little endian. */
static mp_code check_length(mp_safetensors *s, mp_error *err)
{
    uint64_t n = 0;

    if (s->size < LENGTH_BYTES)
        return mp_error_set(err, MP_EFORMAT,
                            "%s: %zu bytes, expected at least 8; the file is truncated: fetch it "
                            "again",
                            s->path, s->size);
    for (int i = LENGTH_BYTES - 1; i >= 0; i--)
        n = n << 8 | (unsigned char)s->map[i];
    if (n > HEADER_LIMIT)
        return mp_error_set(err, MP_EFORMAT,
                            "%s: header of %llu bytes, expected at most %d; " AGAIN, s->path,
                            (unsigned long long)n, HEADER_LIMIT);
    if (n > s->size - LENGTH_BYTES)
        return mp_error_set(err, MP_EFORMAT,
                            "%s: header of %llu bytes in a file of %zu; the file is truncated: "
                            "fetch it again",
                            s->path, (unsigned long long)n, s->size);
    s->data = LENGTH_BYTES + (size_t)n;
    return MP_OK;
}

static mp_code map_file(mp_safetensors *s, mp_error *err)
{
    int fd;
    mp_code code = mp_file_open(s->path, &fd, &s->size, err);

    if (code)
        return code;
    if (s->size) {
        void *map = mmap(NULL, s->size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED)
            code = mp_error_set(err, errno == ENOMEM ? MP_ENOMEM : MP_EIO,
                                "%s: cannot be mapped (%s)", s->path, strerror(errno));
        else
            s->map = map;
    }
    close(fd);
    return code;
}

mp_code mp_safetensors_open(const char *path, mp_safetensors **out, mp_error *err)
{
    json_t *header = NULL;
    mp_code code = MP_OK;

    *out = NULL;
    mp_safetensors *s = mp_alloc(1, sizeof *s);
    if (!s || !(s->path = mp_strdup(path))) {
        mp_free(s);
        return no_memory(path, err);
    }
    code = map_file(s, err);
    if (!code)
        code = check_length(s, err);
    if (!code)
        code = mp_json_parse(path, "header", s->map + LENGTH_BYTES, s->data - LENGTH_BYTES, &header,
                             err);
    if (!code)
        code = parse_header(s, header, err);
    json_decref(header);
    if (code)
        mp_safetensors_close(s);
    else
        *out = s;
    return code;
}

void mp_safetensors_close(mp_safetensors *s)
{
    if (!s)
        return;
    for (int64_t i = 0; i < s->count; i++) {
        mp_free(s->entries[i].name);
        mp_free(s->entries[i].dims);
    }
    mp_free(s->entries);
    mp_free(s->by_name);
    json_decref(s->metadata);
    if (s->map)
        munmap(s->map, s->size);
    mp_free(s->path);
    mp_free(s);
}

void mp_safetensors_forget(mp_safetensors *s)
{
    if (s->map)
        madvise((void *)s->map, s->size, MADV_DONTNEED);
}

/* /proc/self/pagemap: one word a page, whose last bit says that it is there. */
size_t mp_safetensors_resident(const mp_safetensors *s)
{
    enum { WORDS = 4096 };
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (s->size + page - 1) / page;
    const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    uint64_t words[WORDS];
    size_t found = 0;
    ssize_t n = 0;

    for (size_t at = 0; fd >= 0 && n >= 0 && at < pages; at += (size_t)n / sizeof *words) {
        const size_t ask = pages - at < WORDS ? pages - at : WORDS;
        n = pread(fd, words, ask * sizeof *words,
                  (off_t)(((uintptr_t)s->map / page + at) * sizeof *words));
        if (n < (ssize_t)sizeof *words)
            break;
        for (size_t i = 0; i < (size_t)n / sizeof *words; i++)
            found += words[i] >> 63;
    }
    if (fd >= 0)
        close(fd);
    return found * page;
}

const char *mp_safetensors_path(const mp_safetensors *s)
{
    return s->path;
}

int64_t mp_safetensors_count(const mp_safetensors *s)
{
    return s->count;
}

size_t mp_safetensors_bytes(const mp_safetensors *s)
{
    return s->size;
}

mp_safetensors_entry mp_safetensors_entry_at(const mp_safetensors *s, int64_t i)
{
    assert(i >= 0 && i < s->count);
    const entry *e = &s->entries[i];

    return (mp_safetensors_entry){
        .name = e->name,
        .dtype = e->type->name,
        .dims = e->dims,
        .rank = e->rank,
        .data = s->map + s->data + e->begin,
        .bytes = (size_t)(e->end - e->begin),
    };
}

mp_tensor mp_safetensors_at(const mp_safetensors *s, int64_t i)
{
    assert(i >= 0 && i < s->count);
    const entry *e = &s->entries[i];
    const int rank = e->rank > MP_MAX_RANK ? MP_MAX_RANK : (int)e->rank;

    mp_tensor t = mp_view(s->map + s->data + e->begin, e->dtype, rank, e->dims);
    if (e->rank > MP_MAX_RANK)
        t.dtype = t.store = MP_DTYPE_COUNT;
    t.name = e->name;
    return t;
}

int64_t mp_safetensors_index(const mp_safetensors *s, const char *name)
{
    int64_t low = 0, high = s->count;

    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        const int order = strcmp(name, s->entries[s->by_name[middle]].name);
        if (!order)
            return s->by_name[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return -1;
}

bool mp_safetensors_find(const mp_safetensors *s, const char *name, mp_tensor *out)
{
    const int64_t i = mp_safetensors_index(s, name);

    if (i >= 0)
        *out = mp_safetensors_at(s, i);
    return i >= 0;
}

const char *mp_safetensors_metadata(const mp_safetensors *s, const char *key)
{
    return json_string_value(json_object_get(s->metadata, key));
}

/* Larger elements first: every tensor then begins at a multiple of its element's size. */
static bool next_size(size_t *bytes)
{
    *bytes /= 2;
    return *bytes > 0;
}

static json_t *describe_tensor(const mp_tensor *t, uint64_t *at)
{
    json_t *shape = json_array();
    const uint64_t begin = *at;

    for (int i = 0; i < t->rank; i++)
        json_array_append_new(shape, json_integer(t->dim[i]));
    *at += mp_nbytes(*t);
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", mp_dtype_safetensors(t->store), "shape",
                     shape, "data_offsets", (json_int_t)begin, (json_int_t)*at);
}

static mp_code describe_all(const char *path, const mp_tensor *tensors, int64_t n,
                            const char *const *metadata, json_t *header, mp_error *err)
{
    uint64_t at = 0;

    if (metadata) {
        json_t *object = json_object();
        for (; *metadata; metadata += 2)
            json_object_set_new(object, metadata[0], json_string(metadata[1]));
        json_object_set_new(header, "__metadata__", object);
    }
    for (size_t bytes = 8; next_size(&bytes);)
        for (int64_t i = 0; i < n; i++) {
            assert(tensors[i].name && tensors[i].store < MP_DTYPE_COUNT);
            if (mp_dtype_size(tensors[i].store) != bytes)
                continue;
            if (json_object_get(header, tensors[i].name))
                return mp_error_set(err, MP_EFORMAT, "%s: two tensors are named \"%s\"", path,
                                    mp_plain(tensors[i].name).text);
            if (json_object_set_new(header, tensors[i].name, describe_tensor(&tensors[i], &at)))
                return mp_error_set(err, MP_ENOMEM, "%s: no memory for its header", path);
        }
    return MP_OK;
}

/* Length, header, and spaces up to a multiple of 8, into *out (mp_free). */
static mp_code print_head(const char *path, const json_t *header, char **out, size_t *size,
                          mp_error *err)
{
    const size_t n = json_dumpb(header, NULL, 0, JSON_COMPACT), padded = (n + 7) / 8 * 8;
    char *const text = mp_alloc(LENGTH_BYTES + padded, 1);

    if (!n || !text) {
        mp_free(text);
        return mp_error_set(err, n ? MP_ENOMEM : MP_EFORMAT, "%s: %s", path,
                            n ? "no memory for its header" : "a name or value is not UTF-8");
    }
    for (int i = 0; i < LENGTH_BYTES; i++)
        text[i] = (char)(unsigned char)((uint64_t)padded >> (8 * i));
    memset(text + LENGTH_BYTES, ' ', padded);
    json_dumpb(header, text + LENGTH_BYTES, n, JSON_COMPACT);
    *out = text;
    *size = LENGTH_BYTES + padded;
    return MP_OK;
}

static mp_code make_head(const char *path, const mp_tensor *tensors, int64_t n,
                         const char *const *metadata, char **text, size_t *size, mp_error *err)
{
    json_t *const header = json_object();

    *text = NULL;
    if (!describe_all(path, tensors, n, metadata, header, err))
        print_head(path, header, text, size, err);
    json_decref(header);
    return err->code;
}

static mp_code write_data(mp_replace *r, const mp_tensor *tensors, int64_t n, mp_error *err)
{
    mp_code code = MP_OK;

    for (size_t bytes = 8; next_size(&bytes);)
        for (int64_t i = 0; !code && i < n; i++)
            if (mp_dtype_size(tensors[i].store) == bytes)
                code = mp_replace_write(r, tensors[i].data, mp_nbytes(tensors[i]), err);
    return code;
}

static mp_code write_file(const char *path, const mp_tensor *tensors, int64_t n,
                          const char *const *metadata, bool scratch, mp_error *err)
{
    mp_replace r;
    char *head;
    size_t size;
    mp_code code = make_head(path, tensors, n, metadata, &head, &size, err);

    if (code)
        return code;
    code = mp_replace_begin(&r, path, err);
    if (code)
        goto done;
    r.scratch = scratch;
    code = mp_replace_write(&r, head, size, err);
    if (!code)
        code = write_data(&r, tensors, n, err);
    if (!code)
        code = mp_replace_commit(&r, err);
    if (code)
        mp_replace_abort(&r);
done:
    mp_free(head);
    return code;
}

mp_code mp_safetensors_write(const char *path, const mp_tensor *tensors, int64_t n,
                             const char *const *metadata, mp_error *err)
{
    return write_file(path, tensors, n, metadata, false, err);
}

mp_code mp_safetensors_write_scratch(const char *path, mp_tensor x, mp_error *err)
{
    return write_file(path, &x, 1, NULL, true, err);
}

static int compare_element_sizes(const void *pa, const void *pb)
{
    const mp_tensor *const a = pa, *const b = pb;
    const size_t x = mp_dtype_size(a->store), y = mp_dtype_size(b->store);

    return x != y ? (x < y ? 1 : -1) : strcmp(a->name, b->name);
}

mp_code mp_safetensors_head(const char *path, mp_tensor *tensors, int64_t n,
                            const char *const *metadata, char **text, size_t *size, mp_error *err)
{
    qsort(tensors, (size_t)n, sizeof *tensors, compare_element_sizes);
    return make_head(path, tensors, n, metadata, text, size, err);
}
