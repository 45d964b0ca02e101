/* safetensors files, made by Python's package (make_safetensors.py) and hostile ones made here. */
#include "tests/pipelines/scratch.h"

#include <signal.h>
#include <sys/resource.h>

#include "kernels/core/convert.h"
#include "pipelines/common/safetensors.h"

#define GOLDEN MP_FIXTURES "/safetensors/all.safetensors"

static mp_code open_and_close(const char *path, mp_error *err)
{
    mp_safetensors *s;
    const mp_code code = mp_safetensors_open(path, &s, err);

    mp_safetensors_close(s);
    return code;
}

static void test_safetensors__reads_every_dtype_of_ours(void **state)
{
    static const struct {
        const char *name;
        mp_dtype dtype;
    } rows[] = {{"f32", MP_F32},
                {"f16", MP_F16},
                {"bf16", MP_BF16},
                {"e4m3", MP_F8_E4M3},
                {"e5m2", MP_F8_E5M2}};
    mp_error err = {0};
    mp_safetensors *s;
    mp_tensor t;

    (void)state;
    mp_safetensors_open(GOLDEN, &s, &err);
    assert_ok(&err);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        float values[6];
        assert_true(mp_safetensors_find(s, rows[i].name, &t));
        assert_int_equal(t.dtype, rows[i].dtype);
        assert_int_equal(t.store, rows[i].dtype);
        assert_int_equal(t.rank, 2);
        assert_int_equal(t.dim[0], 2);
        assert_int_equal(t.dim[1], 3);
        assert_string_equal(t.name, rows[i].name);
        mp_widen(t.store, t.data, values, 6);
        for (int k = 0; k < 6; k++)
            assert_true(values[k] == (float)k - 2);
    }
    assert_false(mp_safetensors_find(s, "f3", &t));
    assert_int_equal(mp_safetensors_index(s, "zz"), -1);
    mp_safetensors_close(s);
}

static void test_safetensors__lists_foreign_dtypes_without_binding_them(void **state)
{
    mp_error err = {0};
    mp_safetensors *s;
    mp_tensor t;

    (void)state;
    mp_safetensors_open(GOLDEN, &s, &err);
    assert_ok(&err);
    assert_true(mp_safetensors_find(s, "i64", &t));
    assert_int_equal(t.dtype, MP_DTYPE_COUNT);
    const mp_safetensors_entry e = mp_safetensors_entry_at(s, mp_safetensors_index(s, "i64"));
    assert_string_equal(e.dtype, "I64");
    assert_int_equal(e.bytes, 24);
    assert_int_equal(((const int64_t *)e.data)[2], -3);
    assert_true(mp_safetensors_find(s, "rank6", &t));
    assert_int_equal(t.dtype, MP_DTYPE_COUNT);
    assert_int_equal(mp_safetensors_entry_at(s, mp_safetensors_index(s, "rank6")).rank, 6);
    mp_safetensors_close(s);
}

static void test_safetensors__accepts_scalars_empty_tensors_and_any_name(void **state)
{
    mp_error err = {0};
    mp_safetensors *s;
    mp_tensor t;

    (void)state;
    mp_safetensors_open(GOLDEN, &s, &err);
    assert_ok(&err);
    assert_true(mp_safetensors_find(s, "scalar", &t));
    assert_int_equal(t.rank, 0);
    assert_true(*(const float *)t.data == 7.5f);
    assert_true(mp_safetensors_find(s, "empty", &t));
    assert_int_equal(mp_numel(t), 0);
    assert_true(mp_given(t));
    assert_true(mp_safetensors_find(s, "größe \"x\"", &t));
    assert_string_equal(mp_safetensors_metadata(s, "format"), "pt");
    assert_null(mp_safetensors_metadata(s, "none"));
    for (int64_t i = 1; i < mp_safetensors_count(s); i++)
        assert_true((char *)mp_safetensors_at(s, i).data >=
                    (char *)mp_safetensors_at(s, i - 1).data);
    mp_safetensors_close(s);
}

static void test_safetensors__accepts_a_file_without_tensors(void **state)
{
    mp_error err = {0};
    mp_safetensors *s;

    (void)state;
    mp_safetensors_open(scratch_safetensors("none", "{}", 0), &s, &err);
    assert_ok(&err);
    assert_int_equal(mp_safetensors_count(s), 0);
    mp_safetensors_close(s);
}

#define ENTRY(name, dtype, shape, from, to)                                                        \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #from "," #to \
    "]}"

/* Each header with so many bytes of data is refused, with this in the message. */
static const struct {
    const char *header;
    size_t bytes;
    const char *says;
} hostile[] = {
    {"{" ENTRY("a", "F32", "2", 0, 8) "," ENTRY("b", "F32", "2", 4, 12) "}", 12,
     "\"b\" at [4, 12] overlaps \"a\""},
    {"{" ENTRY("a", "F32", "1", 0, 4) "," ENTRY("b", "F32", "1", 0, 4) "}", 4, "overlaps"},
    {"{" ENTRY("a", "F32", "1", 0, 4) "," ENTRY("b", "F32", "1", 8, 12) "}", 12,
     "\"b\" begins at 8 and leaves a hole after 4"},
    {"{" ENTRY("a", "F32", "1", 4, 8) "}", 8, "hole after 0"},
    {"{" ENTRY("a", "F32", "1", 0, 4) "}", 8, "8 bytes of data, but its tensors end at 4"},
    {"{" ENTRY("a", "F32", "1", 8, 4) "}", 8, "[8, 4] are reversed"},
    {"{" ENTRY("a", "F32", "4", 0, 16) "}", 8, "beyond the 8 bytes of data; the file is truncated"},
    {"{" ENTRY("a", "F32", "3", 0, 8) "}", 8, "hold 8 bytes, dtype F32 and shape need 12"},
    {"{" ENTRY("a", "F32", "4294967296,4294967296,4", 0, 0) "}", 0, "shape overflows"},
    {"{" ENTRY("a", "F32", "9223372036854775807,2", 0, 0) "}", 0, "shape overflows"},
    {"{" ENTRY("a", "F32", "4611686018427387904", 0, 0) "}", 0, "shape overflows"},
    {"{" ENTRY("a", "F4", "3", 0, 1) "}", 1, "no whole number of bytes"},
    {"{" ENTRY("a", "F33", "1", 0, 4) "}", 4,
     "\"dtype\": expected one of the format's (F32, BF16, "
     "...), found \"F33\""},
    {"{" ENTRY("a", "F32", "-1", 0, 4) "}", 4, "sizes of 0 or more, found -1"},
    {"{" ENTRY("a", "F32", "1.0", 0, 4) "}", 4, "sizes of 0 or more, found 1"},
    {"{" ENTRY("a", "F32", "1", -4, 0) "}", 4, "offsets of 0 or more, found -4"},
    {"{" ENTRY("a", "F32", "1", 0, 99999999999999999999) "}", 4, "integer"},
    {"{" ENTRY("a", "F32", "1", 0, 4) "," ENTRY("a", "F32", "1", 0, 4) "}", 4, "duplicate"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "duplicate"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4,
     "unknown key \"x\""},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 0, "\"data_offsets\": expected a list of 2"},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "\"shape\": expected a list"},
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "\"dtype\": expected a name, found null"},
    {"{\"a\":[]}", 0, "tensor \"a\": expected an object, found a list of 0"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ \"a\": found 1, expected a string"},
    {"{\"__metadata__\":7}", 0, "__metadata__: found 7"},
    {"[]", 0, "found a list of 0, expected an object"},
    {"{\"a\":", 0, "header, line 1, column"},
    {"{} x", 0, "header, line 1"},
    {"{\"\\u0007\\u202e\":1}", 0, "tensor \"\\x07\\xe2\\x80\\xae\""},
    {"", 0, "header, line 1"},
};

static void test_safetensors__refuses_hostile_headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        mp_error err = {0};
        const char *path = scratch_safetensors("hostile", hostile[i].header, hostile[i].bytes);
        open_and_close(path, &err);
        assert_error(&err, MP_EFORMAT, path, hostile[i].says);
    }
}

static void test_safetensors__refuses_headers_nested_without_end(void **state)
{
    enum { DEPTH = 100000 };
    static char header[DEPTH + 16] = "{\"a\":";
    mp_error err = {0};

    (void)state;
    memset(header + 5, '[', DEPTH);
    open_and_close(scratch_safetensors("deep", header, 0), &err);
    assert_error(&err, MP_EFORMAT, "maximum parsing depth");
}

static void test_safetensors__refuses_headers_longer_than_the_file(void **state)
{
    static const struct {
        unsigned char bytes[16];
        size_t n;
        const char *says;
    } rows[] = {
        {{0}, 0, "0 bytes, expected at least 8"},
        {{1, 2, 3}, 3, "3 bytes, expected at least 8"},
        {{9, 0, 0, 0, 0, 0, 0, 0, '{', '}'}, 10, "header of 9 bytes in a file of 10"},
        {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 8, "header of 18446744073709551615"},
        {{0, 0xe1, 0xf5, 0x05}, 8, "header of 100000000 bytes in a file of 8"},
        {{1, 0xe1, 0xf5, 0x05}, 8, "header of 100000001 bytes, expected at most 100000000"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mp_error err = {0};
        open_and_close(scratch_write("short", rows[i].bytes, rows[i].n), &err);
        assert_error(&err, MP_EFORMAT, rows[i].says);
    }
}

/* Cut anywhere, a good file is refused and never read beyond its end. */
static void test_safetensors__refuses_every_truncation_of_a_good_file(void **state)
{
    static unsigned char bytes[1 << 16];
    FILE *f = fopen(GOLDEN, "rb");

    (void)state;
    assert_non_null(f);
    const size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    assert_in_range(n, 100, sizeof bytes - 1);
    for (size_t cut = 0; cut < n; cut++) {
        mp_error err = {0};
        if (!open_and_close(scratch_write("cut", bytes, cut), &err))
            fail_msg("the first %zu of %zu bytes were accepted", cut, n);
    }
}

static void test_safetensors__names_what_cannot_be_opened(void **state)
{
    mp_error err = {0};

    (void)state;
    open_and_close(scratch("absent"), &err);
    assert_error(&err, MP_EMISSING, "absent: cannot be opened (No such file");
    err = (mp_error){0};
    open_and_close(scratch_dir, &err);
    assert_error(&err, MP_EIO, "is a folder, expected a regular file");
}

static void test_safetensors__reports_short_memory_at_every_request(void **state)
{
    int failures = 0;

    (void)state;
    for (uint64_t n = 1;; n++) {
        mp_error err = {0};
        mp_memory_fail_at(n);
        const mp_code code = open_and_close(GOLDEN, &err);
        mp_memory_fail_at(0);
        if (!code)
            break;
        assert_error(&err, MP_ENOMEM, "memory");
        failures++;
    }
    assert_in_range(failures, 10, 1000);
}

/* ---- writing ---- */

static float f32[] = {1, -2, 3.5f};
static uint16_t bf16[] = {0x3f80, 0xc000};
static uint8_t e4m3[] = {0x38};

static int64_t sample_tensors(mp_tensor *t)
{
    t[0] = mp_view(e4m3, MP_F8_E4M3, 1, MP_DIMS(1));
    t[0].name = "a.small";
    t[1] = mp_view(bf16, MP_BF16, 2, MP_DIMS(1, 2));
    t[1].name = "b";
    t[2] = mp_view(f32, MP_F32, 1, MP_DIMS(3));
    t[2].name = "c \"quoted\"";
    t[3] = mp_view(f32, MP_F32, 1, MP_DIMS(0));
    t[3].name = "empty";
    return 4;
}

static void test_safetensors__reads_back_what_it_wrote(void **state)
{
    const char *const metadata[] = {"torch", "2.15", "seed", "7", NULL};
    mp_tensor t[4], back;
    mp_error err = {0};
    mp_safetensors *s;
    const int64_t n = sample_tensors(t);

    (void)state;
    mp_safetensors_write(scratch("out"), t, n, metadata, &err);
    assert_ok(&err);
    mp_safetensors_open(scratch("out"), &s, &err);
    assert_ok(&err);
    assert_int_equal(mp_safetensors_count(s), n);
    for (int64_t i = 0; i < n; i++) {
        assert_true(mp_safetensors_find(s, t[i].name, &back));
        assert_true(mp_same_shape(back, t[i]));
        assert_int_equal(back.dtype, t[i].dtype);
        assert_memory_equal(back.data, t[i].data, mp_nbytes(t[i]));
        assert_int_equal((uintptr_t)back.data % mp_dtype_size(back.store), 0);
    }
    assert_string_equal(mp_safetensors_metadata(s, "seed"), "7");
    mp_safetensors_close(s);
}

static int files_in_scratch(const char *part)
{
    char command[256], text[32] = "";

    snprintf(command, sizeof command, "ls %s | grep -c -- '%s'", scratch_dir, part);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    assert_non_null(fgets(text, sizeof text, f));
    pclose(f);
    return atoi(text);
}

static void test_safetensors__leaves_the_old_file_when_the_disk_is_full(void **state)
{
    const struct rlimit full = {.rlim_cur = 100, .rlim_max = RLIM_INFINITY};
    const struct rlimit free_again = {RLIM_INFINITY, RLIM_INFINITY};
    mp_tensor t[4];
    mp_error err = {0};
    const int64_t n = sample_tensors(t);
    const char *path = scratch_text("precious", "old");
    char kept[8] = "";

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
    mp_safetensors_write(path, t, n, NULL, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &free_again), 0);
    assert_error(&err, MP_EIO, path, "free some space or choose another folder");
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(kept, sizeof kept, f));
    fclose(f);
    assert_string_equal(kept, "old");
    assert_int_equal(files_in_scratch("part"), 0);
}

static void test_safetensors__refuses_to_write_what_it_could_not_read(void **state)
{
    mp_tensor t[2];
    mp_error err = {0};

    (void)state;
    t[0] = t[1] = mp_view(f32, MP_F32, 1, MP_DIMS(3));
    t[0].name = t[1].name = "twice";
    mp_safetensors_write(scratch("never"), t, 2, NULL, &err);
    assert_error(&err, MP_EFORMAT, "two tensors are named \"twice\"");
    err = (mp_error){0};
    mp_safetensors_write(scratch("no/such/folder"), t, 1, NULL, &err);
    assert_error(&err, MP_EIO, "no/such/folder: cannot be created", "folder exists");
    assert_int_equal(files_in_scratch("never"), 0);
}

static void test_safetensors__write_reports_short_memory_at_every_request(void **state)
{
    mp_tensor t[4];
    const int64_t count = sample_tensors(t);
    int failures = 0;

    (void)state;
    for (uint64_t n = 1;; n++) {
        mp_error err = {0};
        mp_memory_fail_at(n);
        const mp_code code = mp_safetensors_write(scratch("short"), t, count, NULL, &err);
        mp_memory_fail_at(0);
        if (!code)
            break;
        assert_error(&err, MP_ENOMEM, "memory");
        failures++;
    }
    assert_in_range(failures, 2, 100);
    assert_int_equal(files_in_scratch("part"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors__reads_every_dtype_of_ours),
        cmocka_unit_test(test_safetensors__lists_foreign_dtypes_without_binding_them),
        cmocka_unit_test(test_safetensors__accepts_scalars_empty_tensors_and_any_name),
        cmocka_unit_test(test_safetensors__accepts_a_file_without_tensors),
        cmocka_unit_test(test_safetensors__refuses_hostile_headers),
        cmocka_unit_test(test_safetensors__refuses_headers_nested_without_end),
        cmocka_unit_test(test_safetensors__refuses_headers_longer_than_the_file),
        cmocka_unit_test(test_safetensors__refuses_every_truncation_of_a_good_file),
        cmocka_unit_test(test_safetensors__names_what_cannot_be_opened),
        cmocka_unit_test(test_safetensors__reports_short_memory_at_every_request),
        cmocka_unit_test(test_safetensors__reads_back_what_it_wrote),
        cmocka_unit_test(test_safetensors__leaves_the_old_file_when_the_disk_is_full),
        cmocka_unit_test(test_safetensors__refuses_to_write_what_it_could_not_read),
        cmocka_unit_test(test_safetensors__write_reports_short_memory_at_every_request),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
