/* Markdown below a limit: rows whole or not at all, folded parts closed, code that cannot end
 * early. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "results/markdown.h"

static char *text;
static size_t size;
static FILE *to;

static mp_markdown *begin(size_t limit)
{
    to = open_memstream(&text, &size);
    assert_non_null(to);
    mp_markdown *m = mp_markdown_create(to, limit);
    assert_non_null(m);
    return m;
}

static void end(mp_markdown *m)
{
    mp_error err = {0};

    assert_int_equal(mp_markdown_close(m, "rows", &err), MP_OK);
    assert_int_equal(fclose(to), 0);
}

static int occurrences(const char *part)
{
    int n = 0;

    for (const char *s = text; (s = strstr(s, part)); s += strlen(part))
        n++;
    return n;
}

static void test_markdown__everything_is_there_when_it_fits(void **state)
{
    static const char *const heads[] = {"name", "n>"};
    mp_table *t = mp_table_create(2, heads);
    mp_markdown *m = begin(1000);

    (void)state;
    for (int i = 0; i < 3; i++) {
        mp_table_add(t, "a|b%d", i);
        mp_table_add(t, "%d", i);
    }
    mp_markdown_text(m, "### %d findings\n\n", 3);
    mp_markdown_rows(m, t, 0, 2);
    mp_markdown_details(m, "%d more", 1);
    mp_markdown_rows(m, t, 2, 3);
    mp_markdown_details_end(m);
    assert_int_equal(mp_markdown_rows_left(m), 0);
    end(m);
    mp_table_free(t);
    assert_string_equal(text, "### 3 findings\n\n"
                              "| name | n |\n|---|---:|\n| a\\|b0 | 0 |\n| a\\|b1 | 1 |\n\n"
                              "<details><summary>1 more</summary>\n\n"
                              "| name | n |\n|---|---:|\n| a\\|b2 | 2 |\n\n\n</details>\n\n");
    free(text);
}

/* At every limit: rows from the first on, each whole, the details closed, the rest counted. */
static void test_markdown__is_cut_between_rows_at_every_limit(void **state)
{
    enum { ROWS = 20 };
    int most = 0;

    (void)state;
    for (size_t limit = 200; limit < 900; limit++) {
        mp_markdown *m = begin(limit);
        int left;
        for (int i = 0; i < ROWS; i++) {
            if (i == 5)
                mp_markdown_details(m, "more");
            fprintf(mp_markdown_row(m), "<row %02d %*s>\n", i, i, "");
        }
        mp_markdown_details_end(m);
        left = mp_markdown_rows_left(m);
        end(m);
        assert_true(size <= limit);
        const int whole = occurrences(" >\n");
        assert_int_equal(whole, occurrences("<row"));
        assert_int_equal(whole + left, ROWS);
        assert_true(whole >= most); /* more room, never less */
        most = whole;
        for (int i = 0; i < whole; i++) {
            char row[20];
            snprintf(row, sizeof row, "<row %02d", i);
            assert_non_null(strstr(text, row));
        }
        assert_int_equal(occurrences("<details>"), occurrences("</details>"));
        assert_int_equal(occurrences("Left out"), left > 0);
        free(text);
    }
    assert_int_equal(most, ROWS);
}

static void test_markdown__what_follows_something_left_out_is_left_out(void **state)
{
    mp_markdown *m = begin(300);

    (void)state;
    fprintf(mp_markdown_row(m), "%0200d\n", 1); /* too long */
    fprintf(mp_markdown_row(m), "short\n");
    mp_markdown_text(m, "a heading\n");
    mp_markdown_details(m, "more");
    fprintf(mp_markdown_row(m), "short\n");
    mp_markdown_details_end(m);
    end(m);
    assert_string_equal(text,
                        "\nLeft out, too long for a comment: 3 more rows. The database has all.\n");
    free(text);
}

static void test_markdown__code_cannot_end_before_its_text(void **state)
{
    static const struct {
        const char *text, *code;
        size_t most;
    } cases[] = {
        {"plain", "`plain`", 99},
        {"a `b` c", "`` a `b` c ``", 99},
        {"``", "``` `` ```", 99},
        {"two\nlines", "`two lines`", 99},
        {"\x1b[31m\xff", "`\\x1b[31m\\xff`", 99},
        {"12345", "`1234...`", 4},
        {"a\xc3\xa9z", "`a\xc3\xa9...`", 2}, /* a character is not cut */
        {"12345````", "`1234...`", 4},       /* nor is the fence longer than what is shown needs */
        {"a\xc3\xa9", "`a\xc3\xa9`", 3},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        FILE *f = open_memstream(&text, &size);
        mp_markdown_code(f, cases[i].text, cases[i].most);
        fclose(f);
        assert_string_equal(text, cases[i].code);
        free(text);
    }
}

static void test_markdown__a_block_of_code_is_longer_than_what_it_holds(void **state)
{
    FILE *f = open_memstream(&text, &size);

    (void)state;
    mp_markdown_code_block(f, "x\n```\n````\ny", 2);
    fclose(f);
    assert_string_equal(text, "  `````\n  x\n  ```\n  ````\n  y\n  `````\n");
    free(text);
}

static void test_markdown__a_full_disk_is_an_error(void **state)
{
    FILE *full = fopen("/dev/full", "w");
    mp_error err = {0};

    (void)state;
    assert_non_null(full);
    setvbuf(full, NULL, _IONBF, 0);
    mp_markdown *m = mp_markdown_create(full, 1000);
    assert_non_null(m);
    mp_markdown_text(m, "text\n");
    assert_int_equal(mp_markdown_close(m, "rows", &err), MP_EIO);
    fclose(full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_markdown__everything_is_there_when_it_fits),
        cmocka_unit_test(test_markdown__is_cut_between_rows_at_every_limit),
        cmocka_unit_test(test_markdown__what_follows_something_left_out_is_left_out),
        cmocka_unit_test(test_markdown__code_cannot_end_before_its_text),
        cmocka_unit_test(test_markdown__a_block_of_code_is_longer_than_what_it_holds),
        cmocka_unit_test(test_markdown__a_full_disk_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
