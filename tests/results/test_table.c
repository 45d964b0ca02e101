/* Tables: alignment, and text out of files that may do nothing but be read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/core/memory.h"
#include "results/table.h"

enum { COLUMNS = 3 };
static const char *const heads[COLUMNS] = {"name", "count>", "note"};

static char *printed(const mp_table *t, mp_format format, int indent)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    assert_non_null(f);
    mp_table_print(t, format, indent, f);
    assert_int_equal(fclose(f), 0);
    return text;
}

/* A table of these rows is printed as expected. */
static void assert_table(mp_format format, int rows, const char *const (*cells)[COLUMNS],
                         const char *expected)
{
    mp_table *t = mp_table_create(COLUMNS, heads);

    for (int i = 0; i < rows; i++)
        for (int k = 0; k < COLUMNS; k++)
            mp_table_add(t, "%s", cells[i][k]);
    assert_int_equal(mp_table_rows(t), rows);
    char *text = printed(t, format, 0);
    assert_string_equal(text, expected);
    free(text);
    mp_table_free(t);
}

/* One cell in a table of one column; what is printed for it. */
static void assert_cell(mp_format format, const char *cell, const char *expected)
{
    static const char *const head[] = {"h"};
    const char *rest;
    mp_table *t = mp_table_create(1, head);

    mp_table_add(t, "%s", cell);
    char *text = printed(t, format, 0);
    rest = text + strcspn(text, "\n") + 1;
    if (format == MP_MARKDOWN)
        rest += strcspn(rest, "\n") + 1;
    assert_string_equal(rest, expected);
    free(text);
    mp_table_free(t);
}

static void test_table__aligns_text_by_column(void **state)
{
    (void)state;
    static const char *const cells[][COLUMNS] = {{"a", "1", ""}, {"longer", "12345678", "n"}};
    static const char *const empty[][COLUMNS] = {{"", "", ""}};

    assert_table(MP_TEXT, 2, cells,
                 "name       count  note\n"
                 "a              1  \n"
                 "longer  12345678  n\n");
    assert_table(MP_TEXT, 1, empty, "name  count  note\n             \n");
    assert_table(MP_TEXT, 0, NULL, "name  count  note\n");
}

static void test_table__indents_lines_of_text(void **state)
{
    (void)state;
    mp_table *t = mp_table_create(1, heads);
    char *text;

    mp_table_add(t, "%s/%d", "x", 3);
    text = printed(t, MP_TEXT, 2);
    assert_string_equal(text, "  name\n  x/3\n");
    free(text);
    mp_table_free(t);
}

static void test_table__counts_characters_by_their_columns(void **state)
{
    (void)state;
    /* A letter of two bytes, a letter with an accent on top, two wide ones, a picture. */
    static const char *const cells[][COLUMNS] = {{"\xc3\xa9", "1", "x"},
                                                 {"e\xcc\x81", "2", "x"},
                                                 {"\xe7\x8b\x90\xe7\x8b\x90", "3", "x"},
                                                 {"\xf0\x9f\xa6\x8a", "4", "x"}};

    assert_table(MP_TEXT, 4, cells,
                 "name  count  note\n"
                 "\xc3\xa9         1  x\n"
                 "e\xcc\x81         2  x\n"
                 "\xe7\x8b\x90\xe7\x8b\x90      3  x\n"
                 "\xf0\x9f\xa6\x8a        4  x\n");
}

static void test_table__keeps_a_cell_of_any_length(void **state)
{
    (void)state;
    char *lengthy = malloc(5001), *expected = malloc(5003);

    assert_true(lengthy && expected);
    memset(lengthy, 'x', 5000);
    lengthy[5000] = '\0';
    snprintf(expected, 5003, "%s\n", lengthy);
    assert_cell(MP_TEXT, lengthy, expected);
    free(lengthy);
    free(expected);
}

static void test_table__escapes_controls_in_text(void **state)
{
    (void)state;
    assert_cell(MP_TEXT, "\x1b[2J\a\r\n\t\x7f", "\\x1b[2J\\x07\\x0d\\x0a\\x09\\x7f\n");
    assert_cell(MP_TEXT,
                "\xc2\x9b"
                "31m",
                "\\xc2\\x9b31m\n"); /* CSI in one character */
}

static void test_table__escapes_what_reorders_or_hides_text(void **state)
{
    (void)state;
    static const char *const hidden[] = {
        "\xe2\x80\xae", "\xe2\x80\x8f",     "\xe2\x81\xa6", "\xe2\x80\xa8", /* RLO RLM LRI LS */
        "\xef\xbb\xbf", "\xd8\x9c",         "\xc2\xad",     "\xe1\xa0\x8e", /* BOM ALM SHY MVS */
        "\xef\xbf\xb9", "\xf3\xa0\x81\x81", "\xef\xbf\xbf"}; /* IAA, a tag, what is no character */
    char expected[32];

    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++) {
        size_t n = 0;
        for (const char *s = hidden[i]; *s; s++)
            n += (size_t)snprintf(expected + n, sizeof expected - n, "\\x%02x", (unsigned char)*s);
        snprintf(expected + n, sizeof expected - n, "\n");
        assert_cell(MP_TEXT, hidden[i], expected);
    }
    assert_cell(MP_TEXT, "\xd7\xa9\xc2\xa0\xe2\x82\xac", "\xd7\xa9\xc2\xa0\xe2\x82\xac\n");
}

static void test_table__escapes_bad_utf8_byte_by_byte(void **state)
{
    (void)state;
    assert_cell(MP_TEXT, "\xff", "\\xff\n");
    assert_cell(MP_TEXT, "\xc3", "\\xc3\n");            /* cut at the end */
    assert_cell(MP_TEXT, "\xe2\x82x", "\\xe2\\x82x\n"); /* cut in the middle */
    assert_cell(MP_TEXT, "\xc0\xaf", "\\xc0\\xaf\n");   /* overlong '/' */
    assert_cell(MP_TEXT, "\xe0\x9f\xbf", "\\xe0\\x9f\\xbf\n");
    assert_cell(MP_TEXT, "\xf0\x8f\xbf\xbf", "\\xf0\\x8f\\xbf\\xbf\n");
    assert_cell(MP_TEXT, "\xed\xa0\x80", "\\xed\\xa0\\x80\n"); /* a surrogate */
    assert_cell(MP_TEXT, "\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80\n");
}

static void test_table__escapes_markup_in_markdown(void **state)
{
    (void)state;
    static const char *const cells[][COLUMNS] = {{"a|b", "1", "<script>*x*_`$~#&[]\\"},
                                                 {"two\nlines", "", "\x1b"}};

    assert_table(MP_MARKDOWN, 2, cells,
                 "| name | count | note |\n"
                 "|---|---:|---|\n"
                 "| a\\|b | 1 | \\<script\\>\\*x\\*\\_\\`\\$\\~\\#\\&\\[\\]\\\\ |\n"
                 "| two lines |  | \\\\x1b |\n");
}

static void test_table__quotes_csv_as_rfc_4180_says(void **state)
{
    (void)state;
    static const char *const cells[][COLUMNS] = {{"plain", "1", "a,b"},
                                                 {"say \"hi\"", "", "two\nlines"}};

    assert_table(MP_CSV, 2, cells,
                 "name,count,note\r\n"
                 "plain,1,\"a,b\"\r\n"
                 "\"say \"\"hi\"\"\",,\"two\nlines\"\r\n");
    assert_cell(MP_CSV, "\x1b[0m\r", "\\x1b[0m\\x0d\r\n");
    assert_cell(MP_CSV, "\xff", "\\xff\r\n");
}

static void test_table__disarms_formulas_in_csv_but_no_numbers(void **state)
{
    (void)state;
    assert_cell(MP_CSV, "=1+1", "\"'=1+1\"\r\n");
    assert_cell(MP_CSV, "=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\"\r\n");
    assert_cell(MP_CSV, "@SUM(A1)", "\"'@SUM(A1)\"\r\n");
    assert_cell(MP_CSV, "+1+1", "\"'+1+1\"\r\n");
    assert_cell(MP_CSV, "-1-1", "\"'-1-1\"\r\n");
    assert_cell(MP_CSV, "-cmd|' /C calc'!A0", "\"'-cmd|' /C calc'!A0\"\r\n");
    assert_cell(MP_CSV, "\t=1", "\"'\\x09=1\"\r\n");
    assert_cell(MP_CSV, "\n=1", "\"'\n=1\"\r\n");
    assert_cell(MP_CSV,
                "\xef\xbc\x9d"
                "1+1",
                "\"'\xef\xbc\x9d"
                "1+1\"\r\n");
    assert_cell(MP_CSV, "-1.5e-07", "-1.5e-07\r\n");
    assert_cell(MP_CSV, "-inf", "-inf\r\n");
    assert_cell(MP_CSV, "-", "-\r\n");
    assert_cell(MP_CSV, "a=1", "a=1\r\n");
}

static void test_print_plain__indents_further_lines(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    mp_print_plain(f, "one\ntwo\rthree", 4);
    mp_print_plain(f, "|a\nb", 0);
    mp_print_plain(f, "|a\nb", -1);
    fclose(f);
    assert_string_equal(text, "one\n    two\\x0dthree|a\nb|a\\x0ab");
    free(text);
}

static void test_plain_text__says_the_same_as_a_string(void **state)
{
    (void)state;
    char *text = mp_plain_text("caf\xc3\xa9\x1b\n\xff");

    assert_string_equal(text, "caf\xc3\xa9\\x1b\\x0a\\xff");
    mp_free(text);
    text = mp_plain_text("");
    assert_string_equal(text, "");
    mp_free(text);
}

static void test_format_of__knows_each_name(void **state)
{
    (void)state;
    assert_int_equal(mp_format_of("text"), MP_TEXT);
    assert_int_equal(mp_format_of("markdown"), MP_MARKDOWN);
    assert_int_equal(mp_format_of("json"), MP_JSON);
    assert_int_equal(mp_format_of("csv"), MP_CSV);
}

static void test_table__says_when_memory_failed(void **state)
{
    (void)state;
    int failures = 0;

    for (uint64_t n = 1;; n++) {
        mp_memory_fail_at(n);
        mp_table *t = mp_table_create(COLUMNS, heads);
        for (int i = 0; i < 100; i++)
            mp_table_add(t, "cell %d", i);
        char *text = printed(t, MP_TEXT, 0);
        mp_memory_fail_at(0);
        const bool failed = !strcmp(text, "(no memory for the table)\n");
        if (!failed)
            assert_non_null(strstr(text, "cell 98"));
        free(text);
        mp_table_free(t);
        if (!failed)
            break;
        failures++;
    }
    assert_true(failures > 100); /* each cell is one */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table__aligns_text_by_column),
        cmocka_unit_test(test_table__indents_lines_of_text),
        cmocka_unit_test(test_table__counts_characters_by_their_columns),
        cmocka_unit_test(test_table__keeps_a_cell_of_any_length),
        cmocka_unit_test(test_table__escapes_controls_in_text),
        cmocka_unit_test(test_table__escapes_what_reorders_or_hides_text),
        cmocka_unit_test(test_table__escapes_bad_utf8_byte_by_byte),
        cmocka_unit_test(test_table__escapes_markup_in_markdown),
        cmocka_unit_test(test_table__quotes_csv_as_rfc_4180_says),
        cmocka_unit_test(test_table__disarms_formulas_in_csv_but_no_numbers),
        cmocka_unit_test(test_print_plain__indents_further_lines),
        cmocka_unit_test(test_plain_text__says_the_same_as_a_string),
        cmocka_unit_test(test_format_of__knows_each_name),
        cmocka_unit_test(test_table__says_when_memory_failed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
