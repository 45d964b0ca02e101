/* gnuplot and what is written for it: texts stay texts, whatever is in them. */
#include "plots/gnuplot.h"
#include "tests/results/scratch.h"

#include <math.h>

static mp_error err;

/* A folder of its own for each test. */
static mp_gnuplot begin(const char *name)
{
    const char *folder = scratch_file(name);

    err = (mp_error){0};
    assert_int_equal(mkdir(folder, 0777), 0);
    return (mp_gnuplot){.folder = folder, .width = 300, .height = 200, .err = &err};
}

static char *read_text(const mp_gnuplot *g, const char *name)
{
    char path[600], *text = calloc(1, 1 << 20);

    snprintf(path, sizeof path, "%s/%s", g->folder, name);
    FILE *f = fopen(path, "rb");
    assert_non_null(text);
    if (!f)
        fail_msg("%s is not there: %s", path, err.text);
    fread(text, 1, (1 << 20) - 1, f);
    fclose(f);
    return text;
}

static void assert_file(const mp_gnuplot *g, const char *name, const char *expected)
{
    char *text = read_text(g, name);

    if (strcmp(text, expected))
        fail_msg("%s holds:\n%s\nexpected:\n%s", name, text, expected);
    free(text);
}

static void assert_file_has(const mp_gnuplot *g, const char *name, const char *part)
{
    char *text = read_text(g, name);

    if (!strstr(text, part))
        fail_msg("%s does not have '%s':\n%s", name, part, text);
    free(text);
}

static void assert_failed(mp_code code, const char *part)
{
    assert_int_equal(err.code, code);
    if (!strstr(err.text, part))
        fail_msg("'%s' is not in: %s", part, err.text);
}

/* A template of the user's own, in a folder of its own. */
static void use_template(mp_gnuplot *g, const char *kind, const char *text)
{
    char path[600];

    snprintf(path, sizeof path, "%s/own", g->folder);
    mkdir(path, 0777);
    g->templates = strdup(path);
    snprintf(path, sizeof path, "%s/own/%s.gp", g->folder, kind);
    write_file(path, text);
}

static void end(mp_gnuplot *g)
{
    mp_gnuplot_end(g);
    free((char *)g->templates);
}

static void test_gnuplot__rows_are_columns_between_tabs(void **state)
{
    mp_gnuplot g = begin("rows");

    (void)state;
    mp_gnuplot_data(&g, "a.tsv");
    mp_gnuplot_row(&g, "ntn", 0.1, "fp16, tiling=off", 1e-3);
    mp_gnuplot_row(&g, "nnn", INFINITY, -INFINITY, NAN);
    mp_gnuplot_end_block(&g);
    mp_gnuplot_data(&g, "b.tsv");
    mp_gnuplot_bytes(&g, "\1\2", 2);
    end(&g);
    assert_int_equal(err.code, MP_OK);
    assert_file(&g, "a.tsv", "0.10000000000000001\tfp16, tiling=off\t0.001\nNaN\tNaN\tNaN\n\n\n");
    assert_file(&g, "b.tsv", "\1\2");
}

/* What gnuplot makes of the fields is tested below, by what it draws. */
static void test_gnuplot__texts_have_no_say_in_fields_and_settings(void **state)
{
    mp_gnuplot g = begin("texts");

    (void)state;
    mp_gnuplot_data(&g, "a.tsv");
    mp_gnuplot_row(&g, "t", "a\tb \"d\" \\n 'e' \x1b[31m ]]>");
    mp_gnuplot_set_text(&g, "heading", "it's `x` @y #\n");
    mp_gnuplot_set_number(&g, "cells", 3);
    end(&g);
    assert_int_equal(err.code, MP_OK);
    assert_file(&g, "a.tsv", "a\\134x09b \\042d\\042 \\134n \\047e\\047 \\134x1b[31m ] ]\\076\n");
    assert_file(&g, "settings.gp",
                "heading = \"it\\047s \\140x\\140 \\100y \\043\\134x0a\"\ncells = 3\n");
}

/* The texts of a title, a key, a tic and a label, as an SVG has them. */
static const char all_places[] = "load 'settings.gp'\nload 'style.gp'\nset title heading\n"
                                 "plot 'a.tsv' using 1:2 title columnheader(3), "
                                 "'a.tsv' skip 1 using 1:2:3 with labels notitle, "
                                 "'a.tsv' skip 1 using 1:2:ytic(4) notitle\n";

static void test_gnuplot__draws_hostile_texts_as_they_are(void **state)
{
    static const char *const texts[] = {
        "`touch pwned`",
        "$(touch pwned)",
        "\"; system('touch pwned'); \"",
        "'; system('touch pwned') #",
        "@heading ${x} %s %d",
        "{/Bold a}^b_c & <b>d</b>",
        "back\\slash \\n \\042",
        "# not a remark",
        "#1 \\60 \"7\" '0123'",
        "NaN",
        "\".system(\"touch pwned\").\"",
        "'.system('touch pwned').'",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char name[16], shown[120] = "<text>", pwned[600];
        snprintf(name, sizeof name, "hostile%zu", i);
        mp_gnuplot g = begin(name);
        use_template(&g, "probe", all_places);
        mp_gnuplot_set_text(&g, "heading", texts[i]);
        mp_gnuplot_data(&g, "a.tsv");
        mp_gnuplot_row(&g, "ttt", "x", "y", texts[i]);
        for (int k = 0; k < 3; k++)
            mp_gnuplot_row(&g, "nntt", (double)k, (double)k, texts[i], texts[i]);
        if (mp_gnuplot_draw(&g, "probe"))
            fail_msg("%s: %s", texts[i], err.text);
        for (const char *s = texts[i]; *s; s++)
            sprintf(shown + strlen(shown), *s == '<' ? "&lt;" : *s == '&' ? "&amp;" : "%c", *s);
        strcat(shown, "</text>");
        /* title and key once, three labels, three tics */
        char *svg = read_text(&g, "probe.svg");
        int found = 0;
        for (const char *s = svg; (s = strstr(s, shown)); s++)
            found++;
        if (found != 8)
            fail_msg("%s: %d times, expected 8", shown, found);
        free(svg);
        snprintf(pwned, sizeof pwned, "%s/pwned", g.folder);
        assert_int_not_equal(access(pwned, F_OK), 0);
        assert_int_not_equal(access("pwned", F_OK), 0);
        end(&g);
    }
}

static void test_gnuplot__draws_png_too(void **state)
{
    mp_gnuplot g = begin("png");

    (void)state;
    g.png = true;
    use_template(&g, "probe", "load 'settings.gp'\nplot x\n");
    assert_int_equal(mp_gnuplot_draw(&g, "probe"), MP_OK);
    assert_file_has(&g, "settings.gp", "set terminal pngcairo size width,height");
    char *text = read_text(&g, "probe.png");
    assert_memory_equal(text, "\x89PNG", 4);
    free(text);
    end(&g);
}

/* What no font has would be a black box over all of a PNG. */
static void test_gnuplot__names_rare_characters_in_png_only(void **state)
{
    static const char text[] = "\xc3\xbc\xce\xb1\xd0\x96 \xe6\x97\xa5\xf0\x9f\xa6\x8a 7";
    mp_gnuplot svg = begin("rare-svg"), png = begin("rare-png");

    (void)state;
    mp_gnuplot_data(&svg, "a.tsv");
    mp_gnuplot_row(&svg, "t", text);
    end(&svg);
    assert_file(&svg, "a.tsv", "\xc3\xbc\xce\xb1\xd0\x96 \xe6\x97\xa5\xf0\x9f\xa6\x8a 7\n");
    png.png = true;
    mp_gnuplot_data(&png, "a.tsv");
    mp_gnuplot_row(&png, "t", text);
    end(&png);
    assert_file(&png, "a.tsv", "\xc3\xbc\xce\xb1\xd0\x96 U+65E5U+1F98A 7\n");
}

static void test_gnuplot__a_template_that_fails_is_named_with_the_words_of_gnuplot(void **state)
{
    mp_gnuplot g = begin("refused");

    (void)state;
    use_template(&g, "drift", "load 'settings.gp'\nplot nonsense\n");
    mp_gnuplot_draw(&g, "drift");
    assert_failed(MP_EENGINE, "gnuplot refuses drift.gp (exit status 1): ");
    assert_non_null(strstr(err.text, "\"drift.gp\" line 2: undefined variable: nonsense"));
    assert_non_null(strstr(err.text, "--keep"));
    end(&g);
}

static void test_gnuplot__a_template_that_draws_nothing_is_told(void **state)
{
    mp_gnuplot g = begin("nothing");

    (void)state;
    use_template(&g, "drift", "x = 1\n");
    mp_gnuplot_draw(&g, "drift");
    assert_failed(MP_EENGINE, "drift.gp drew no drift.svg");
    end(&g);
}

static void test_gnuplot__ends_one_that_does_not_end(void **state)
{
    mp_gnuplot g = begin("endless");

    (void)state;
    g.timeout = 1;
    use_template(&g, "drift", "pause 600\n");
    mp_gnuplot_draw(&g, "drift");
    assert_failed(MP_EENGINE, "gnuplot did not end within 1 s on drift.gp");
    end(&g);
}

static bool always(void)
{
    return true;
}

static void test_gnuplot__is_ended_when_the_caller_is(void **state)
{
    mp_gnuplot g = begin("stopped");

    (void)state;
    g.stopped = always;
    use_template(&g, "drift", "pause 600\n");
    mp_gnuplot_draw(&g, "drift");
    assert_failed(MP_EIO, "interrupted");
    end(&g);
}

static void test_gnuplot__without_gnuplot_the_remedy_is_named(void **state)
{
    mp_gnuplot g = begin("missing");
    char *path = strdup(getenv("PATH"));

    (void)state;
    setenv("PATH", g.folder, 1);
    mp_gnuplot_draw(&g, "drift");
    setenv("PATH", path, 1);
    free(path);
    assert_failed(MP_EENGINE, "gnuplot cannot be started: No such file or directory; install it "
                              "with ci/setup or `apt install gnuplot-nox`");
    end(&g);
}

static void test_gnuplot__a_folder_that_is_not_there_is_an_error_once(void **state)
{
    mp_gnuplot g = {.folder = "/nowhere/at/all", .width = 300, .height = 200, .err = &err};

    (void)state;
    err = (mp_error){0};
    mp_gnuplot_data(&g, "a.tsv");
    mp_gnuplot_row(&g, "nt", 1.0, "x");
    mp_gnuplot_bytes(&g, "x", 1);
    mp_gnuplot_end_block(&g);
    mp_gnuplot_set_text(&g, "a", "b");
    assert_int_equal(mp_gnuplot_draw(&g, "drift"), MP_EIO);
    assert_failed(MP_EIO, "/nowhere/at/all/a.tsv: cannot be made: No such file or directory");
    mp_gnuplot_end(&g);
}

/* A user's folder may hold some of the scripts; the others are the program's own. */
static void test_gnuplot__takes_the_own_style_where_the_user_has_none(void **state)
{
    mp_gnuplot g = begin("mixed");

    (void)state;
    use_template(&g, "probe", "load 'settings.gp'\nload 'style.gp'\nplot x linetype colour(8)\n");
    if (mp_gnuplot_draw(&g, "probe"))
        fail_msg("%s", err.text);
    assert_file_has(&g, "style.gp", "Okabe and Ito");
    end(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gnuplot__rows_are_columns_between_tabs),
        cmocka_unit_test(test_gnuplot__texts_have_no_say_in_fields_and_settings),
        cmocka_unit_test(test_gnuplot__draws_hostile_texts_as_they_are),
        cmocka_unit_test(test_gnuplot__draws_png_too),
        cmocka_unit_test(test_gnuplot__names_rare_characters_in_png_only),
        cmocka_unit_test(test_gnuplot__a_template_that_fails_is_named_with_the_words_of_gnuplot),
        cmocka_unit_test(test_gnuplot__a_template_that_draws_nothing_is_told),
        cmocka_unit_test(test_gnuplot__ends_one_that_does_not_end),
        cmocka_unit_test(test_gnuplot__is_ended_when_the_caller_is),
        cmocka_unit_test(test_gnuplot__without_gnuplot_the_remedy_is_named),
        cmocka_unit_test(test_gnuplot__a_folder_that_is_not_there_is_an_error_once),
        cmocka_unit_test(test_gnuplot__takes_the_own_style_where_the_user_has_none),
    };

    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
