/* Small pictures in the database. */
#include "kernels/core/memory.h"
#include "results/metrics.h"
#include "results/pictures.h"
#include "tests/results/scratch.h"

/* As far as a reader looks: a head of a PNG of 3 x 2 pixels, and something. */
static const char fox[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x03\0\0\0\x02 a red fox";
static const char cat[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x03\0\0\0\x02 a grey cat";

static const mp_picture_row fox_row = {
    .role = "output", .width = 3, .height = 2, .png = fox, .size = sizeof fox};

static mp_store *open_store(const char *path, mp_store_mode mode)
{
    mp_store *s = NULL;
    mp_error err = {0};

    if (mp_store_open(path, mode, &s, &err))
        fail_msg("%s", err.text);
    return s;
}

static int64_t add_run(mp_store *s)
{
    const mp_run_info run = {.uuid = "u",
                             .engine = "native",
                             .device = "cpu",
                             .command = "mpbench run",
                             .plan = "p",
                             .fingerprint = "f"};
    mp_error err = {0};
    int64_t id = 0;

    if (mp_store_begin_run(s, &run, &id, &err))
        fail_msg("%s", err.text);
    return id;
}

static mp_code add_cell(mp_store *s, int64_t run, const mp_picture_row *rows, int count,
                        int64_t *id, mp_error *err)
{
    const mp_cell_info cell = {.key = "k",
                               .scenario = "s",
                               .scenario_hash = "h",
                               .pipeline = "sana",
                               .checkpoint = "c",
                               .checkpoint_hash = "c",
                               .repro = "r"};
    const mp_cell_result result = {
        .status = "ok", .as_expected = true, .step = -1, .pictures = rows, .picture_count = count};

    if (mp_store_begin_cell(s, run, &cell, id, err))
        return err->code;
    return mp_store_finish_cell(s, *id, &result, err);
}

static void test_pictures__come_back_as_they_were_stored(void **state)
{
    const char *path = scratch_file("a.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);
    const mp_picture_row rows[] = {
        fox_row, {.role = "reference", .width = 3, .height = 2, .png = cat, .size = sizeof cat}};
    mp_error err = {0};
    mp_picture p;
    int64_t cell;
    char hash[65];

    (void)state;
    assert_int_equal(add_cell(s, add_run(s), rows, 2, &cell, &err), MP_OK);
    assert_int_equal(mp_picture_of(s, cell, "output", &p, &err), MP_OK);
    assert_int_equal(p.width, 3);
    assert_int_equal(p.height, 2);
    assert_int_equal(p.size, sizeof fox);
    assert_memory_equal(p.png, fox, sizeof fox);
    mp_sha256_hex(fox, sizeof fox, hash);
    assert_string_equal(p.sha256, hash);
    mp_picture_free(&p);
    assert_int_equal(mp_picture_of(s, cell, "reference", &p, &err), MP_OK);
    assert_memory_equal(p.png, cat, sizeof cat);
    mp_picture_free(&p);
    assert_int_equal(mp_picture_of(s, cell + 1, "output", &p, &err), MP_OK);
    assert_null(p.png);
    mp_store_close(s);
}

static void test_pictures__equal_ones_are_stored_once(void **state)
{
    const char *path = scratch_file("once.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);
    mp_error err = {0};
    const int64_t run = add_run(s);
    int64_t cell;

    (void)state;
    for (int night = 0; night < 3; night++)
        assert_int_equal(add_cell(s, run, &fox_row, 1, &cell, &err), MP_OK);
    mp_store_close(s);
    assert_sql(path, "SELECT count(*) FROM picture", "1");
    assert_sql(path, "SELECT count(*) FROM cell_picture", "3");
}

/* A page hands them on to browsers. */
static void test_pictures__refuses_bytes_that_are_no_such_png(void **state)
{
    static const char *const damage[] = {
        "png = CAST('<script>' AS BLOB)",
        "png = x''",
        "png = zeroblob(2000000)",
        "width = 4",
        "height = 1",
        "png = CAST(png || x'00' AS BLOB)",
        "png = substr(png, 1, 20)",
    };

    (void)state;
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        char name[16], sql[200];
        snprintf(name, sizeof name, "bad%zu.db", i);
        const char *path = scratch_file(name);
        mp_store *s = open_store(path, MP_STORE_WRITE);
        mp_error err = {0};
        mp_picture p;
        int64_t cell;
        assert_int_equal(add_cell(s, add_run(s), &fox_row, 1, &cell, &err), MP_OK);
        snprintf(sql, sizeof sql, "UPDATE picture SET %s", damage[i]);
        sql_run(path, sql);
        assert_int_equal(mp_picture_of(s, cell, "output", &p, &err), MP_EFORMAT);
        assert_null(p.png);
        assert_non_null(strstr(err.text, "a picture of cell 1 is not the PNG that its row tells"));
        mp_store_close(s);
    }
}

static void test_pictures__an_older_database_has_none(void **state)
{
    const char *path = scratch_file("old.db");
    mp_error err = {0};
    mp_picture p;

    (void)state;
    mp_store_close(open_store(path, MP_STORE_WRITE));
    sql_run(path, "DROP TABLE cell_picture; DROP TABLE picture; PRAGMA user_version = 4");
    mp_store *s = open_store(path, MP_STORE_READ);
    assert_int_equal(mp_picture_of(s, 1, "output", &p, &err), MP_OK);
    assert_null(p.png);
    mp_store_close(s);
}

static void test_pictures__a_role_of_its_own_invention_is_refused_with_the_whole_cell(void **state)
{
    const char *path = scratch_file("role.db");
    mp_store *s = open_store(path, MP_STORE_WRITE);
    mp_picture_row row = fox_row;
    mp_error err = {0};
    int64_t cell;

    (void)state;
    row.role = "selfie";
    assert_int_equal(add_cell(s, add_run(s), &row, 1, &cell, &err), MP_EDB);
    mp_store_close(s);
    assert_sql(path, "SELECT status FROM cell", "running");
    assert_sql(path, "SELECT count(*) FROM picture", "0");
}

static void test_pictures__short_memory_is_an_error_and_no_crash(void **state)
{
    mp_store *s = open_store(scratch_file("short.db"), MP_STORE_WRITE);
    mp_error err = {0};
    mp_picture p;
    int64_t cell;

    (void)state;
    assert_int_equal(add_cell(s, add_run(s), &fox_row, 1, &cell, &err), MP_OK);
    mp_memory_fail_at(1);
    assert_int_equal(mp_picture_of(s, cell, "output", &p, &err), MP_ENOMEM);
    mp_memory_fail_at(0);
    assert_null(p.png);
    mp_store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pictures__come_back_as_they_were_stored),
        cmocka_unit_test(test_pictures__equal_ones_are_stored_once),
        cmocka_unit_test(test_pictures__refuses_bytes_that_are_no_such_png),
        cmocka_unit_test(test_pictures__an_older_database_has_none),
        cmocka_unit_test(test_pictures__a_role_of_its_own_invention_is_refused_with_the_whole_cell),
        cmocka_unit_test(test_pictures__short_memory_is_an_error_and_no_crash),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
