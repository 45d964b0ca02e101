/* The command line of a subcommand: every kind of option, what is refused and in which words. */
#include "tests/pipelines/scratch.h"

#include <fcntl.h>

#include "harness/options.h"

static const char *const formats[] = {"text", "json", NULL};

typedef struct command {
    mp_arena *arena;
    mp_option options[6];
    mp_usage usage;
    bool flag;
    const char *db, *format;
    int threads;
    mp_words only, operands;
    int status;
    char *out, *err; /* what it printed */
} command;

static void open_command(command *c)
{
    *c = (command){.arena = mp_arena_create(), .threads = 4, .format = "text"};
    const mp_option options[] = {
        MP_OPTION("dry-run", FLAG, &c->flag, NULL, "check everything"),
        MP_OPTION("db", TEXT, &c->db, "FILE", "database"),
        MP_OPTION("format", TEXT, &c->format, "F", "text or json", .among = formats),
        MP_OPTION("threads", INT, &c->threads, "N", "threads", .min = 1, .max = 256),
        MP_OPTION("only", LIST, &c->only, "KEY=VAL", "cells"),
        MP_OPTION("exact-long-name", FLAG, &c->flag, NULL, "name wider than the column"),
    };
    memcpy(c->options, options, sizeof options);
    c->usage = (mp_usage){.command = "try",
                          .operands = "FILE...",
                          .summary = "Does nothing.",
                          .options = c->options,
                          .option_count = 6,
                          .min_operands = 0,
                          .max_operands = 2};
}

static void close_command(command *c)
{
    free(c->out);
    free(c->err);
    mp_arena_free(c->arena);
}

static int redirect(int fd, const char *name, FILE *stream)
{
    fflush(stream);
    const int saved = dup(fd), file = open(scratch(name), O_RDWR | O_CREAT | O_TRUNC, 0600);

    assert_true(saved >= 0 && file >= 0 && dup2(file, fd) == fd);
    close(file);
    return saved;
}

static char *restore(int fd, const char *name, FILE *stream, int saved)
{
    char *text = calloc(1, 1 << 16);

    fflush(stream);
    assert_true(dup2(saved, fd) == fd);
    close(saved);
    FILE *f = fopen(scratch(name), "rb");
    assert_non_null(f);
    assert_non_null(text);
    text[fread(text, 1, (1 << 16) - 1, f)] = '\0';
    fclose(f);
    return text;
}

/* Runs the parser over words (NULL-terminated, without the command) with both streams captured. */
static bool parse(command *c, const char *const *words)
{
    char *argv[64] = {(char *)"try"};
    int argc = 1;

    for (; *words; words++)
        argv[argc++] = (char *)*words;
    free(c->out);
    free(c->err);
    const int out = redirect(1, "out", stdout), err = redirect(2, "err", stderr);
    const bool go = mp_options_parse(c->arena, &c->usage, argc, argv, &c->operands, &c->status);
    c->err = restore(2, "err", stderr, err);
    c->out = restore(1, "out", stdout, out);
    return go;
}
#define PARSE(c, ...) parse((c), (const char *const[]){__VA_ARGS__, NULL})

/* Refused with status 2, on stderr alone, in these words and with the way to the help page. */
static void refused(command *c, const char *const *words, const char *text)
{
    const bool go = parse(c, words);

    if (go)
        fail_msg("accepted, expected: %s", text);
    assert_int_equal(c->status, MP_EXIT_USAGE);
    assert_string_equal(c->out, "");
    const char *whole =
        mp_arena_printf(c->arena, "mpbench try: %s; see `mpbench try --help`\n", text);
    assert_string_equal(c->err, whole);
}
#define REFUSED(c, text, ...) refused((c), (const char *const[]){__VA_ARGS__, NULL}, (text))

static void test_options__every_kind_is_read_in_both_forms(void **state)
{
    command c;

    (void)state;
    open_command(&c);
    assert_true(PARSE(&c, "--dry-run", "--db", "a.db", "--threads", "8", "--format", "json",
                      "--only", "x=1", "--only", "y=2", "one", "two"));
    assert_int_equal(c.status, MP_EXIT_OK);
    assert_true(c.flag);
    assert_string_equal(c.db, "a.db");
    assert_string_equal(c.format, "json");
    assert_int_equal(c.threads, 8);
    assert_int_equal(c.only.count, 2);
    assert_string_equal(c.only.items[1], "y=2");
    assert_int_equal(c.operands.count, 2);
    assert_string_equal(c.operands.items[0], "one");
    close_command(&c);

    open_command(&c);
    assert_true(PARSE(&c, "--db=b.db", "--threads=256", "--only=inputs.seed=7",
                      "--only=", "--format=text"));
    assert_string_equal(c.db, "b.db");
    assert_int_equal(c.threads, 256);
    assert_string_equal(c.only.items[0], "inputs.seed=7");
    assert_string_equal(c.only.items[1], "");
    assert_false(c.flag);
    assert_string_equal(c.err, "");
    assert_string_equal(c.out, "");
    close_command(&c);
}

static void test_options__what_is_not_given_keeps_its_value(void **state)
{
    command c;

    (void)state;
    open_command(&c);
    assert_true(parse(&c, (const char *const[]){NULL}));
    assert_int_equal(c.threads, 4);
    assert_string_equal(c.format, "text");
    assert_null(c.db);
    assert_int_equal(c.only.count, 0);
    assert_int_equal(c.operands.count, 0);
    close_command(&c);
}

static void test_options__the_last_of_two_values_counts(void **state)
{
    command c;

    (void)state;
    open_command(&c);
    assert_true(PARSE(&c, "--db", "a", "--threads", "2", "--db=b", "--threads=3"));
    assert_string_equal(c.db, "b");
    assert_int_equal(c.threads, 3);
    close_command(&c);
}

static void test_options__they_may_stand_between_operands_and_end_at_two_dashes(void **state)
{
    command c;

    (void)state;
    open_command(&c);
    assert_true(PARSE(&c, "one", "--threads", "2", "two"));
    assert_int_equal(c.operands.count, 2);
    assert_int_equal(c.threads, 2);
    assert_true(PARSE(&c, "--", "--db", "-h"));
    assert_string_equal(c.operands.items[0], "--db");
    assert_string_equal(c.operands.items[1], "-h");
    assert_null(c.db);
    assert_true(PARSE(&c, "-", "--", "--"));
    assert_string_equal(c.operands.items[0], "-");
    assert_string_equal(c.operands.items[1], "--");
    close_command(&c);
}

static void test_options__integers_are_whole_and_within_their_range(void **state)
{
    static const char *const bad[] = {"0",         "257", "-3",  "1.5", "two",
                                      "0x10",      "8 ",  "1e2", "",    "99999999999999999999",
                                      "2147483648"};
    command c;

    (void)state;
    open_command(&c);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *word = mp_arena_printf(c.arena, "--threads=%s", bad[i]);
        const char *text = mp_arena_printf(
            c.arena, "--threads: found '%s', expected an integer from 1 to 256", bad[i]);
        REFUSED(&c, text, word);
    }
    assert_int_equal(c.threads, 4);
    REFUSED(&c, "--threads: found '-3', expected an integer from 1 to 256", "--threads", "-3");
    close_command(&c);
}

static void test_options__a_word_is_one_of_the_list(void **state)
{
    command c;

    (void)state;
    open_command(&c);
    REFUSED(&c, "--format: found 'xml', expected one of: text, json", "--format", "xml");
    REFUSED(&c, "--format: found '', expected one of: text, json", "--format=");
    REFUSED(&c, "--format: found 'JSON', expected one of: text, json", "--format=JSON");
    REFUSED(&c, "--db: found an empty text, expected FILE", "--db=");
    close_command(&c);
}

static void test_options__a_forgotten_value_is_noticed(void **state)
{
    command c;

    (void)state;
    open_command(&c);
    REFUSED(&c, "--db needs a value: --db FILE", "--db");
    REFUSED(&c, "--threads needs a value: --threads N", "x", "--threads");
    REFUSED(&c, "--db needs a value: --db FILE", "--db", "--threads", "2");
    REFUSED(&c, "--only needs a value: --only KEY=VAL", "--only", "--", "x");
    assert_null(c.db);
    close_command(&c);
}

static void test_options__a_flag_takes_no_value(void **state)
{
    command c;

    (void)state;
    open_command(&c);
    REFUSED(&c, "--dry-run takes no value", "--dry-run=yes");
    REFUSED(&c, "--dry-run takes no value", "--dry-run=");
    assert_false(c.flag);
    close_command(&c);
}

static void test_options__an_unknown_one_offers_the_nearest(void **state)
{
    command c;

    (void)state;
    open_command(&c);
    REFUSED(&c, "unknown option '--thread'; did you mean '--threads'?", "--thread", "2");
    REFUSED(&c, "unknown option '--fromat'; did you mean '--format'?", "--fromat=json");
    REFUSED(&c, "unknown option '--colour'", "--colour");
    REFUSED(&c, "unknown option '-t'", "-t", "2");
    REFUSED(&c, "unknown option '-db=x'", "-db=x");
    close_command(&c);
}

static void test_options__operands_are_counted(void **state)
{
    command c;

    (void)state;
    open_command(&c);
    REFUSED(&c, "'three' is one operand too many; expected FILE...", "one", "two", "three");
    c.usage.min_operands = 1;
    REFUSED(&c, "missing operand: expected FILE...", "--dry-run");
    c.usage.min_operands = c.usage.max_operands = 0;
    c.usage.operands = "";
    REFUSED(&c, "'x' is one operand too many; expected none", "x");
    c.usage.max_operands = -1;
    assert_true(PARSE(&c, "1", "2", "3", "4", "5", "6", "7", "8", "9"));
    assert_int_equal(c.operands.count, 9);
    close_command(&c);
}

static void test_options__help_goes_to_stdout_and_ends_well(void **state)
{
    command c;

    (void)state;
    open_command(&c);
    assert_false(PARSE(&c, "--db", "x", "--help"));
    assert_int_equal(c.status, MP_EXIT_OK);
    assert_string_equal(c.err, "");
    assert_string_equal(c.out, "usage: mpbench try FILE... [options]\n\n"
                               "Does nothing.\n\n"
                               "options:\n"
                               "  --dry-run                check everything\n"
                               "  --db FILE                database\n"
                               "  --format F               text or json\n"
                               "  --threads N              threads\n"
                               "  --only KEY=VAL           cells\n"
                               "  --exact-long-name        name wider than the column\n"
                               "  --help                   this page\n");
    assert_false(PARSE(&c, "-h"));
    assert_int_equal(c.status, MP_EXIT_OK);
    close_command(&c);
}

static void test_options__the_stronger_exit_status_wins(void **state)
{
    static const int order[] = {MP_EXIT_OK, MP_EXIT_INCONCLUSIVE, MP_EXIT_FAILED,
                                MP_EXIT_REGRESSION, MP_EXIT_USAGE};

    (void)state;
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 5; k++)
            assert_int_equal(mp_exit_worse(order[i], order[k]), order[i > k ? i : k]);
}

static void test_options__the_database_is_the_option_the_variable_or_the_default(void **state)
{
    (void)state;
    setenv("MPBENCH_DB", "var.db", 1);
    assert_string_equal(mp_database_path("opt.db"), "opt.db");
    assert_string_equal(mp_database_path(NULL), "var.db");
    setenv("MPBENCH_DB", "", 1);
    assert_string_equal(mp_database_path(NULL), "mpbench.db");
    unsetenv("MPBENCH_DB");
    assert_string_equal(mp_database_path(NULL), "mpbench.db");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options__every_kind_is_read_in_both_forms),
        cmocka_unit_test(test_options__what_is_not_given_keeps_its_value),
        cmocka_unit_test(test_options__the_last_of_two_values_counts),
        cmocka_unit_test(test_options__they_may_stand_between_operands_and_end_at_two_dashes),
        cmocka_unit_test(test_options__integers_are_whole_and_within_their_range),
        cmocka_unit_test(test_options__a_word_is_one_of_the_list),
        cmocka_unit_test(test_options__a_forgotten_value_is_noticed),
        cmocka_unit_test(test_options__a_flag_takes_no_value),
        cmocka_unit_test(test_options__an_unknown_one_offers_the_nearest),
        cmocka_unit_test(test_options__operands_are_counted),
        cmocka_unit_test(test_options__help_goes_to_stdout_and_ends_well),
        cmocka_unit_test(test_options__the_stronger_exit_status_wins),
        cmocka_unit_test(test_options__the_database_is_the_option_the_variable_or_the_default),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
