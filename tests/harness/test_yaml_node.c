/* The YAML tree: types, places, variables, what is refused, and what hostile files do. */
#include "tests/pipelines/scratch.h"

#include "harness/yaml_node.h"

static mp_arena *arena;

static int open_arena(void **state)
{
    (void)state;
    arena = mp_arena_create();
    setenv("MPBENCH_TEST_WORD", "fox", 1);
    setenv("MPBENCH_TEST_EMPTY", "", 1);
    unsetenv("MPBENCH_TEST_UNSET");
    return 0;
}

static int close_arena(void **state)
{
    (void)state;
    mp_arena_free(arena);
    return 0;
}

static mp_yaml *parse_bytes(const char *text, size_t n)
{
    mp_yaml *root;
    mp_error err = {0};

    mp_yaml_parse(arena, "x.yaml", text, n, &root, &err);
    assert_ok(&err);
    return root;
}

static mp_yaml *parse(const char *text)
{
    return parse_bytes(text, strlen(text));
}

/* The value of key `v`. */
static const mp_yaml *value(const char *text)
{
    const mp_yaml *v = mp_yaml_get(parse(text), "v");

    assert_non_null(v);
    return v;
}

static void refuses_bytes(const char *text, size_t n, const char *const *parts)
{
    mp_yaml *root = (mp_yaml *)&arena;
    mp_error err = {0};

    const mp_code code = mp_yaml_parse(arena, "x.yaml", text, n, &root, &err);
    assert_int_equal(code, err.code);
    assert_failure(&err, MP_EUSAGE, parts);
    assert_null(root);
}
#define REFUSES(text, ...) \
    refuses_bytes((text), strlen(text), (const char *const[]){__VA_ARGS__, NULL})

static const char *written(const mp_yaml *node)
{
    mp_text t = {0};

    mp_yaml_write(&t, node);
    return mp_text_take(&t, arena);
}

/* ---- values --------------------------------------------------------------------------------- */

static void test_yaml__scalars_have_the_types_of_the_core_schema(void **state)
{
    static const struct {
        const char *text;
        double number;
    } numbers[] = {{"v: 7", 7},    {"v: -3", -3}, {"v: +4", 4},      {"v: 0.5", 0.5},
                   {"v: .5", 0.5}, {"v: 5.", 5},  {"v: 2e-2", 0.02}, {"v: 1E3", 1000},
                   {"v: -0", 0},   {"v: 007", 7}};
    static const char *const texts[] = {"v: \"7\"", "v: '7'",   "v: 1.2.3", "v: 0x10", "v: .inf",
                                        "v: .nan",  "v: 1e999", "v: e5",    "v: '+'",  "v: 1_000",
                                        "v: 7 up",  "v: '-'",   "v: 1:30",  "v: inf",  "v: nan"};
    double number;

    (void)state;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        assert_true(mp_yaml_number(value(numbers[i].text), &number));
        assert_true(number == numbers[i].number);
    }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (mp_yaml_number(value(texts[i]), &number))
            fail_msg("%s reads as the number %g", texts[i], number);
        assert_int_equal(value(texts[i])->kind, MP_YAML_SCALAR);
    }
}

static void test_yaml__only_true_and_false_are_booleans(void **state)
{
    static const char *const others[] = {"v: yes", "v: on", "v: 'true'", "v: 1", "v: tRue", "v: y"};
    bool b = false;

    (void)state;
    assert_true(mp_yaml_bool(value("v: true"), &b) && b);
    assert_true(mp_yaml_bool(value("v: False"), &b) && !b);
    assert_true(mp_yaml_bool(value("v: TRUE"), &b) && b);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(mp_yaml_bool(value(others[i]), &b));
    assert_false(mp_yaml_bool(NULL, &b));
}

static void test_yaml__nothing_is_null_and_quoted_nothing_is_text(void **state)
{
    static const char *const nulls[] = {"v:", "v: ~", "v: null", "v: Null", "v: NULL"};

    (void)state;
    for (size_t i = 0; i < sizeof nulls / sizeof *nulls; i++)
        assert_int_equal(value(nulls[i])->kind, MP_YAML_NULL);
    assert_int_equal(value("v: ''")->kind, MP_YAML_SCALAR);
    assert_int_equal(value("v: 'null'")->kind, MP_YAML_SCALAR);
    assert_int_equal(value("v: nULL")->kind, MP_YAML_SCALAR);
    assert_true(mp_yaml_is_null(NULL));
}

static void test_yaml__quoting_styles_give_their_text(void **state)
{
    (void)state;
    assert_string_equal(value("v: \"a\\n\\\"b\\\" \\u00e9\"")->text, "a\n\"b\" \xc3\xa9");
    assert_string_equal(value("v: 'it''s # no comment'")->text, "it's # no comment");
    assert_string_equal(value("v: |\n  two\n  lines\n")->text, "two\nlines\n");
    assert_string_equal(value("v: >-\n  one\n  line\n")->text, "one line");
    assert_string_equal(value("v: plain words # comment")->text, "plain words");
    assert_true(value("v: |\n  7\n")->quoted);
    assert_false(value("v: 7")->quoted);
}

static void test_yaml__maps_and_lists_keep_order_and_places(void **state)
{
    const mp_yaml *root = parse("a: 1\nb:\n  - x\n  - {c: 2}\n");
    const mp_yaml *list = mp_yaml_get(root, "b");

    (void)state;
    assert_int_equal(root->kind, MP_YAML_MAP);
    assert_int_equal(root->count, 2);
    assert_string_equal(root->keys[1]->text, "b");
    assert_int_equal(mp_yaml_key(root, "b")->line, 2);
    assert_int_equal(list->count, 2);
    assert_int_equal(list->items[0]->line, 3);
    assert_int_equal(list->items[0]->column, 5);
    assert_int_equal(mp_yaml_get(list->items[1], "c")->column, 9);
    assert_string_equal(list->file, "x.yaml");
    assert_null(mp_yaml_get(root, "c"));
    assert_null(mp_yaml_get(list, "x"));
    assert_null(mp_yaml_get(NULL, "x"));
}

/* ---- anchors -------------------------------------------------------------------------------- */

static void test_yaml__aliases_are_copies_that_change_alone(void **state)
{
    mp_yaml *root = parse("a: &x {k: 1}\nb: *x\n");
    const mp_yaml *found = NULL;

    (void)state;
    assert_string_equal(mp_yaml_at(root, "b.k")->text, "1");
    assert_true(mp_yaml_put(arena, root, "b.k", parse("2"), &found));
    assert_string_equal(mp_yaml_at(root, "a.k")->text, "1");
    assert_string_equal(mp_yaml_at(root, "b.k")->text, "2");
    REFUSES("a: *never\n", "x.yaml:1:", "undefined alias");
}

static void test_yaml__a_bomb_of_aliases_is_refused(void **state)
{
    mp_text t = {0};

    (void)state;
    mp_text_add(&t, "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]\n");
    for (int i = 1; i < 12; i++) {
        mp_text_printf(&t, "a%d: &a%d [", i, i);
        for (int k = 0; k < 10; k++)
            mp_text_printf(&t, "%s*a%d", k ? ", " : "", i - 1);
        mp_text_add(&t, "]\n");
    }
    REFUSES(t.data, "x.yaml:", "more than 100000 values");
    mp_text_free(&t);
}

static void test_yaml__an_alias_inside_of_its_anchor_is_refused(void **state)
{
    (void)state;
    REFUSES("a: &x [*x]\n", "x.yaml:1:", "nested deeper than 64");
    REFUSES("a: &x [*x, *x, *x]\n", "x.yaml:1:");
    REFUSES("&x {k: *x}\n", "x.yaml:1:", "nested deeper than 64");
}

/* ---- what is refused ------------------------------------------------------------------------ */

static void test_yaml__a_key_that_comes_twice_is_refused(void **state)
{
    (void)state;
    REFUSES("a: 1\nb: 2\na: 3\n", "x.yaml:3:1:", "'a'", "second time", "line 1");
    REFUSES("m: {k: 1, k: 2}\n", "x.yaml:1:11:", "'k'");
    REFUSES("m: {k: 1, \"k\": 2}\n", "x.yaml:1:11:", "'k'");
}

static void test_yaml__merge_keys_and_tags_are_refused(void **state)
{
    (void)state;
    REFUSES("a: &x {k: 1}\nb:\n  <<: *x\n", "x.yaml:3:3:", "merge keys", "write the keys out");
    REFUSES("a: !!int 7\n", "x.yaml:1:4:", "tag", "int");
    REFUSES("a: !!python/object/apply:os.system [ls]\n", "x.yaml:1:4:", "tag", "not supported");
    REFUSES("a: !mine {}\n", "x.yaml:1:4:", "tag", "!mine");
    assert_string_equal(value("v: !!str fox")->text, "fox");
}

static void test_yaml__a_key_is_one_word(void **state)
{
    (void)state;
    REFUSES("? [a, b]\n: 1\n", "x.yaml:1:", "no plain word");
    REFUSES("{? {a: 1} : 2}\n", "x.yaml:1:", "no plain word");
}

static void test_yaml__a_second_document_is_refused(void **state)
{
    (void)state;
    REFUSES("a: 1\n---\nb: 2\n", "x.yaml:3:1:", "second YAML document");
    REFUSES("a: 1\n...\nb: 2\n", "x.yaml:");
    assert_int_equal(parse("---\na: 1\n...\n")->count, 1);
    assert_int_equal(parse("# first\n---\na: 1\n# last\n")->count, 1);
}

static void test_yaml__broken_syntax_names_its_place(void **state)
{
    (void)state;
    REFUSES("", "x.yaml:1:1:", "no value");
    REFUSES("# only a comment\n", "x.yaml:1:1:", "no value");
    REFUSES("a:\n\tb: 1\n", "x.yaml:2:1:", "cannot start any token");
    REFUSES("a: [1, 2\n", "x.yaml:2:1:", "this is no YAML");
    REFUSES("a: \"no end\n", "x.yaml:2:1:", "unexpected end");
    REFUSES("a: {b: 1\n", "x.yaml:", "this is no YAML");
    REFUSES("a: 1\n b: 2\n", "x.yaml:2:", "this is no YAML");
    REFUSES("a: 'x' y\n", "x.yaml:1:", "this is no YAML");
    REFUSES("%YAML 3.0\n---\na: 1\n", "x.yaml:1:1:", "incompatible");
    REFUSES("a: @x\n", "x.yaml:1:4:", "cannot start any token");
}

/* Every prefix of a scenario is read or refused, never more than that. */
static void test_yaml__a_truncated_file_is_read_or_refused(void **state)
{
    static const char text[] = "name: x # c\ninputs: {prompt: \"a \\u00e9\", steps: 6}\n"
                               "list: &l [1, 'two', {k: ~}]\nagain: *l\nblock: |\n  text\n";
    int refused = 0;

    (void)state;
    for (size_t n = 0; n < sizeof text; n++) {
        char *copy = malloc(n + 1); /* exactly as long, so that ASan sees a read beyond it */
        mp_yaml *root;
        mp_error err = {0};
        assert_non_null(copy);
        memcpy(copy, text, n);
        refused += mp_yaml_parse(arena, "x.yaml", copy, n, &root, &err) != MP_OK;
        assert_int_equal(root == NULL, err.code != MP_OK);
        assert_true(!err.code || !strncmp(err.text, "x.yaml:", 7));
        free(copy);
    }
    assert_true(refused > 10);
}

static void test_yaml__zero_bytes_are_refused_wherever_they_stand(void **state)
{
    (void)state;
    refuses_bytes("a: x\0y\n", 7, (const char *const[]){"x.yaml:1:5:", "control", NULL});
    refuses_bytes("a: 1\n\0", 6, (const char *const[]){"x.yaml:2:1:", "control", NULL});
    REFUSES("a: \"x\\0y\"\n", "x.yaml:1:4:", "zero byte");
    REFUSES("\"a\\0b\": 1\n", "x.yaml:1:1:", "zero byte");
}

static void test_yaml__text_that_is_no_utf8_names_its_line(void **state)
{
    (void)state;
    REFUSES("a: 1\nb: caf\xe9 x\n", "x.yaml:2:8:", "UTF-8");
    REFUSES("a: 1\n\nb: \xff\n", "x.yaml:3:4:", "UTF-8");
    REFUSES("a: \xc0\xaf\n", "x.yaml:1:4:", "UTF-8");
    REFUSES("a: \xed\xa0\x80\n", "x.yaml:1:4:");
    REFUSES("\xc3\xa9: \xf0\x9f", "x.yaml:1:4:", "UTF-8");
    assert_string_equal(value("\xef\xbb\xbfv: \xf0\x9f\xa6\x8a")->text, "\xf0\x9f\xa6\x8a");
}

static void test_yaml__messages_do_not_steer_the_terminal(void **state)
{
    mp_error err = {0};

    (void)state;
    REFUSES("\"\\e[31m\": 1\n\"\\e[31m\": 2\n", "x.yaml:2:1:", "\\x1b[31m");
    mp_yaml_fail(&err, parse("a"), "found %s", "a\x1b[2J\n\xc2\x9b\xff.");
    assert_string_equal(err.text, "x.yaml:1:1: found a?[2J????.");
}

/* ---- size ----------------------------------------------------------------------------------- */

static char *repeated(const char *part, int n, const char *before, const char *after)
{
    mp_text t = {0};

    mp_text_add(&t, before);
    for (int i = 0; i < n; i++)
        mp_text_add(&t, part);
    mp_text_add(&t, after);
    return t.data;
}

static void test_yaml__deep_nesting_is_refused(void **state)
{
    static const struct {
        const char *part, *after;
        int n;
    } cases[] = {{"[", "", 66},         {"{a: ", "", 66},     {"[", "", 100000},
                 {"- ", "x\n", 100000}, {"{a: ", "", 100000}, {"? ", "x\n", 100000}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = repeated(cases[i].part, cases[i].n, "", cases[i].after);
        REFUSES(text, "x.yaml:");
        free(text);
    }
    char *open = repeated("[", 66, "", "x"), *shut = repeated("]", 66, open, "\n");
    REFUSES(shut, "x.yaml:1:65:", "nested deeper than 64 levels");
    free(open);
    free(shut);
    open = repeated("[", 64, "", "x");
    shut = repeated("]", 64, open, "\n");
    assert_int_equal(parse(shut)->count, 1);
    free(open);
    free(shut);
}

static void test_yaml__a_list_of_a_megabyte_is_refused_by_count(void **state)
{
    char *many = repeated("1, ", 340000, "a: [", "1]\n"),
         *fits = repeated("1, ", 90000, "a: [", "]\n");

    (void)state;
    REFUSES(many, "x.yaml:1:", "more than 100000 values");
    assert_int_equal(mp_yaml_get(parse(fits), "a")->count, 90000);
    free(many);
    free(fits);
}

static void test_yaml__a_map_of_very_many_keys_is_refused(void **state)
{
    mp_text t = {0};

    (void)state;
    for (int i = 0; i < 1001; i++)
        mp_text_printf(&t, "k%d: 1\n", i);
    REFUSES(t.data, "x.yaml:1:1:", "1001 keys", "at most 1000");
    mp_text_free(&t);
}

static void test_yaml__a_file_beyond_a_megabyte_is_refused(void **state)
{
    char *big = repeated("# fox\n", 200000, "a: 1\n", ""),
         *just = repeated("#2345\n", 174000, "a: 1\n", "");
    mp_yaml *root;
    mp_error err = {0};

    (void)state;
    mp_yaml_read(arena, scratch_text("big.yaml", big), &root, &err);
    assert_error(&err, MP_EUSAGE, "big.yaml: larger than 1048576 bytes");
    assert_null(root);
    err = (mp_error){0};
    mp_yaml_read(arena, scratch_text("just.yaml", just), &root, &err);
    assert_ok(&err);
    free(big);
    free(just);
}

static void test_yaml__a_file_that_cannot_be_read_is_named(void **state)
{
    mp_yaml *root;
    mp_error err = {0};

    (void)state;
    mp_yaml_read(arena, scratch("none.yaml"), &root, &err);
    assert_error(&err, MP_EUSAGE, "none.yaml: cannot open the scenario: No such file");
    err = (mp_error){0};
    mp_yaml_read(arena, scratch_dir, &root, &err);
    assert_error(&err, MP_EUSAGE, scratch_dir, "cannot read the scenario: Is a directory");
    assert_null(root);
}

static void test_yaml__the_first_error_stays(void **state)
{
    mp_error err = {.code = MP_EIO, .text = "first"};
    mp_yaml *root;

    (void)state;
    assert_int_equal(mp_yaml_parse(arena, "x.yaml", "a: [", 4, &root, &err), MP_EIO);
    assert_string_equal(err.text, "first");
    assert_int_equal(mp_yaml_parse(arena, "x.yaml", "a: [", 4, &root, NULL), MP_EUSAGE);
}

/* ---- variables ------------------------------------------------------------------------------ */

static void test_yaml__variables_are_replaced_in_values(void **state)
{
    (void)state;
    assert_string_equal(value("v: ${MPBENCH_TEST_WORD}")->text, "fox");
    assert_string_equal(value("v: a ${MPBENCH_TEST_WORD}, a ${MPBENCH_TEST_WORD}")->text,
                        "a fox, a fox");
    assert_string_equal(value("v: '${MPBENCH_TEST_WORD}'")->text, "fox");
    assert_string_equal(mp_yaml_get(parse("v: ['${MPBENCH_TEST_WORD}']"), "v")->items[0]->text,
                        "fox");
    assert_string_equal(value("v: $MPBENCH_TEST_WORD $ {x}")->text, "$MPBENCH_TEST_WORD $ {x}");
    assert_non_null(mp_yaml_get(parse("\"${MPBENCH_TEST_UNSET}\": 1"), "${MPBENCH_TEST_UNSET}"));
}

static void test_yaml__a_default_stands_in_for_unset_and_empty(void **state)
{
    double number;

    (void)state;
    assert_string_equal(value("v: ${MPBENCH_TEST_UNSET:-../x}/y")->text, "../x/y");
    assert_string_equal(value("v: ${MPBENCH_TEST_EMPTY:-hen}")->text, "hen");
    assert_string_equal(value("v: ${MPBENCH_TEST_WORD:-hen}")->text, "fox");
    assert_int_equal(value("v: ${MPBENCH_TEST_UNSET:-}")->kind, MP_YAML_NULL);
    assert_int_equal(value("v: ${MPBENCH_TEST_EMPTY}")->kind, MP_YAML_NULL);
    assert_true(mp_yaml_number(value("v: ${MPBENCH_TEST_UNSET:-6}"), &number) && number == 6);
}

static void test_yaml__two_dollars_stand_for_the_characters(void **state)
{
    (void)state;
    assert_string_equal(value("v: $${HOME}")->text, "${HOME}");
    assert_string_equal(value("v: $$${HOME}")->text, "$${HOME}");
    assert_string_equal(value("v: $$ $${a} ${MPBENCH_TEST_WORD}")->text, "$$ ${a} fox");
}

static void test_yaml__a_variable_that_is_not_set_is_an_error_with_its_place(void **state)
{
    (void)state;
    REFUSES("a: 1\nb:\n  c: ${MPBENCH_TEST_UNSET}/x\n",
            "x.yaml:3:6:", "MPBENCH_TEST_UNSET is not set", "${MPBENCH_TEST_UNSET:-default}");
}

static void test_yaml__what_is_no_variable_is_refused(void **state)
{
    static const char *const texts[] = {"v: ${}",      "v: ${A B}",     "v: '${A'",
                                        "v: ${A:x}",   "v: ${A-x}",     "v: ${:-x}",
                                        "v: '${A:-x'", "v: ${A:-${B}}", "v: ${A:-a${B:-b}}"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        REFUSES(texts[i], "x.yaml:1:4:", "is no variable", "${NAME:-default}");
    setenv("MPBENCH_TEST_LATIN", "caf\xe9", 1);
    REFUSES("v: ${MPBENCH_TEST_LATIN}", "x.yaml:1:4:", "MPBENCH_TEST_LATIN is not UTF-8");
    unsetenv("MPBENCH_TEST_LATIN");
}

/* ---- the tree ------------------------------------------------------------------------------- */

static void test_yaml__put_makes_replaces_and_stops(void **state)
{
    mp_yaml *root = parse("a: {b: 1}\nn:\ns: text\n");
    const mp_yaml *found = NULL;

    (void)state;
    assert_true(mp_yaml_put(arena, root, "a.b", parse("2"), &found));
    assert_true(mp_yaml_put(arena, root, "a.c", parse("3"), &found));
    assert_true(mp_yaml_put(arena, root, "x.y.z", parse("[4]"), &found));
    assert_true(mp_yaml_put(arena, root, "n.m", parse("5"), &found));
    assert_string_equal(written(root), "{a: {b: 2, c: 3}, n: {m: 5}, s: text, x: {y: {z: [4]}}}");
    assert_false(mp_yaml_put(arena, root, "s.t", parse("6"), &found));
    assert_string_equal(found->text, "text");
    assert_string_equal(mp_yaml_at(root, "x.y.z")->items[0]->text, "4");
    assert_null(mp_yaml_at(root, "x.q.z"));
    mp_yaml_remove(root, "n");
    mp_yaml_remove(root, "no such key");
    assert_string_equal(written(root), "{a: {b: 2, c: 3}, s: text, x: {y: {z: [4]}}}");
}

static void test_yaml__a_copy_shares_nothing_that_changes(void **state)
{
    mp_yaml *root = parse("a: {b: [1, {c: 2}]}\n"), *copy = mp_yaml_copy(arena, root);
    const mp_yaml *found = NULL;

    (void)state;
    assert_true(mp_yaml_put(arena, mp_yaml_at(copy, "a.b")->items[1], "c", parse("3"), &found));
    mp_yaml_remove(mp_yaml_get(copy, "a"), "nothing");
    assert_string_equal(written(root), "{a: {b: [1, {c: 2}]}}");
    assert_string_equal(written(copy), "{a: {b: [1, {c: 3}]}}");
}

static void same(const mp_yaml *x, const mp_yaml *y, const char *text)
{
    double p = 0, q = 0;
    bool b = false, c = false;

    if (x->kind != y->kind || x->count != y->count)
        fail_msg("%s reads back as another kind", text);
    if (x->kind == MP_YAML_SCALAR && strcmp(x->text, y->text))
        fail_msg("%s reads back as \"%s\", expected \"%s\"", text, y->text, x->text);
    if (mp_yaml_number(x, &p) != mp_yaml_number(y, &q) || p != q ||
        mp_yaml_bool(x, &b) != mp_yaml_bool(y, &c) || b != c)
        fail_msg("%s reads back as another type", text);
    for (int i = 0; i < x->count; i++) {
        if (x->kind == MP_YAML_MAP)
            same(x->keys[i], y->keys[i], text);
        same(x->items[i], y->items[i], text);
    }
}

static void test_yaml__what_is_written_reads_back_as_the_same(void **state)
{
    static const char *const texts[] = {
        "{tile: [32, 32], stride: [28, 28]}",
        "\"a, b: c # d\"",
        "'7'",
        "'true'",
        "''",
        "'null'",
        "'~'",
        "[]",
        "{}",
        "{a: , b: ~}",
        "'---'",
        "'...'",
        "'-'",
        "'- a'",
        "'? a'",
        "-5",
        "- -e5",
        "' lead and trail '",
        "\"line\\nbreak\\ttab \\\\ \\\" quote\"",
        "\"\\x7f\\x80\\x85\\u2028\\u2029\\ufeff\\ufffe\\uffff\\ufffd\"",
        "\"\\xe9 \\U0001f98a\"",
        "\xf0\x9f\xa6\x8a \xc3\xa9",
        "$${HOME} $$${x} $",
        "'it''s'",
        "1.50",
        "!!str yes",
        "{\"a b\": 1, \"c: d\": [\"{\"], '7': x}",
        "\"*alias &anchor !tag %dir @at `tick | > \"",
        "a\\b",
        "=",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const mp_yaml *x = parse(texts[i]);
        const char *text = written(x);
        assert_null(strchr(text, '\n'));
        same(x, parse(text), text);
        const char *inner = mp_arena_printf(arena, "{k: [%s, %s]}", text, text);
        same(x, mp_yaml_get(parse(inner), "k")->items[1], inner);
    }
}

static void test_yaml__describe_says_what_was_found(void **state)
{
    (void)state;
    assert_string_equal(mp_yaml_describe(arena, NULL), "nothing");
    assert_string_equal(mp_yaml_describe(arena, value("v:")), "nothing");
    assert_string_equal(mp_yaml_describe(arena, value("v: [1, 2]")), "a list of 2");
    assert_string_equal(mp_yaml_describe(arena, value("v: {a: 1}")), "a map");
    assert_string_equal(mp_yaml_describe(arena, value("v: 7")), "\"7\"");
    assert_string_equal(mp_yaml_describe(arena, value("v: '7'")), "the text \"7\" in quotes");
    assert_string_equal(mp_yaml_describe(arena, value("v: 'fox'")), "\"fox\"");
    assert_string_equal(mp_yaml_describe(arena, value("v: \"a\\eb\"")), "\"a\\x1bb\"");
    const char *far = repeated("long ", 1000, "v: ", "");
    assert_true(strlen(mp_yaml_describe(arena, value(far))) < 200);
    free((char *)far);
}

static void test_yaml__nearest_offers_only_slips_of_the_finger(void **state)
{
    static const char *const names[] = {"tiling", "timeout", "repeat", "precision"};

    (void)state;
    assert_string_equal(mp_nearest("tilling", names, 4), "tiling");
    assert_string_equal(mp_nearest("tiling", names, 4), "tiling");
    assert_string_equal(mp_nearest("timeotu", names, 4), "timeout");
    assert_string_equal(mp_nearest("precison", names, 4), "precision");
    assert_string_equal(mp_nearest("repeats", names, 4), "repeat");
    assert_null(mp_nearest("colour", names, 4));
    assert_null(mp_nearest("", names, 4));
    assert_null(mp_nearest("x", names, 0));
    char *far = repeated("tiling", 100, "", "");
    assert_null(mp_nearest(far, names, 4));
    free(far);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_yaml__scalars_have_the_types_of_the_core_schema),
        cmocka_unit_test(test_yaml__only_true_and_false_are_booleans),
        cmocka_unit_test(test_yaml__nothing_is_null_and_quoted_nothing_is_text),
        cmocka_unit_test(test_yaml__quoting_styles_give_their_text),
        cmocka_unit_test(test_yaml__maps_and_lists_keep_order_and_places),
        cmocka_unit_test(test_yaml__aliases_are_copies_that_change_alone),
        cmocka_unit_test(test_yaml__a_bomb_of_aliases_is_refused),
        cmocka_unit_test(test_yaml__an_alias_inside_of_its_anchor_is_refused),
        cmocka_unit_test(test_yaml__a_key_that_comes_twice_is_refused),
        cmocka_unit_test(test_yaml__merge_keys_and_tags_are_refused),
        cmocka_unit_test(test_yaml__a_key_is_one_word),
        cmocka_unit_test(test_yaml__a_second_document_is_refused),
        cmocka_unit_test(test_yaml__broken_syntax_names_its_place),
        cmocka_unit_test(test_yaml__a_truncated_file_is_read_or_refused),
        cmocka_unit_test(test_yaml__zero_bytes_are_refused_wherever_they_stand),
        cmocka_unit_test(test_yaml__text_that_is_no_utf8_names_its_line),
        cmocka_unit_test(test_yaml__messages_do_not_steer_the_terminal),
        cmocka_unit_test(test_yaml__deep_nesting_is_refused),
        cmocka_unit_test(test_yaml__a_list_of_a_megabyte_is_refused_by_count),
        cmocka_unit_test(test_yaml__a_map_of_very_many_keys_is_refused),
        cmocka_unit_test(test_yaml__a_file_beyond_a_megabyte_is_refused),
        cmocka_unit_test(test_yaml__a_file_that_cannot_be_read_is_named),
        cmocka_unit_test(test_yaml__the_first_error_stays),
        cmocka_unit_test(test_yaml__variables_are_replaced_in_values),
        cmocka_unit_test(test_yaml__a_default_stands_in_for_unset_and_empty),
        cmocka_unit_test(test_yaml__two_dollars_stand_for_the_characters),
        cmocka_unit_test(test_yaml__a_variable_that_is_not_set_is_an_error_with_its_place),
        cmocka_unit_test(test_yaml__what_is_no_variable_is_refused),
        cmocka_unit_test(test_yaml__put_makes_replaces_and_stops),
        cmocka_unit_test(test_yaml__a_copy_shares_nothing_that_changes),
        cmocka_unit_test(test_yaml__what_is_written_reads_back_as_the_same),
        cmocka_unit_test(test_yaml__describe_says_what_was_found),
        cmocka_unit_test(test_yaml__nearest_offers_only_slips_of_the_finger),
    };

    /* One arena for all; the folder and the arena are this program's only state. */
    if (scratch_setup(NULL) || open_arena(NULL))
        return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    close_arena(NULL);
    scratch_teardown(NULL);
    return failed;
}
