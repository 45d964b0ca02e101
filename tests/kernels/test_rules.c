/* Dtype rules against torch: every cell of the two tables, by running the op itself on tiny
 * operands wherever the project has the op. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "kernels/rules.h"
#include "tests/support/mp_test.h"

/* The tensors of one cell: dtype a for x, b for what stands beside it (a where there is none). */
typedef struct cell {
    mp_ctx *c;
    mp_dtype a, b;
} cell;

static mp_tensor ones(mp_ctx *c, mp_dtype d, int rank, const int64_t *dims)
{
    static const float values[32] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                     1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

    return mp_test_floats(c, d, rank, dims, values);
}

#define X(...) ones(k->c, k->a, sizeof MP_DIMS(__VA_ARGS__) / sizeof(int64_t), MP_DIMS(__VA_ARGS__))
#define P(...) ones(k->c, k->b, sizeof MP_DIMS(__VA_ARGS__) / sizeof(int64_t), MP_DIMS(__VA_ARGS__))

static mp_tensor linear(const cell *k)
{
    return mp_linear(k->c, X(2, 4), P(3, 4), MP_NONE);
}

static mp_tensor linear_bias(const cell *k)
{
    return mp_linear(k->c, X(2, 4), P(3, 4), P(3));
}

static mp_tensor linear3d_bias(const cell *k)
{
    return mp_linear(k->c, X(1, 2, 4), P(3, 4), P(3));
}

static mp_tensor matmul2d(const cell *k)
{
    return mp_matmul(k->c, X(2, 4), P(4, 3));
}

static mp_tensor matmul4d(const cell *k)
{
    return mp_matmul(k->c, X(1, 2, 2, 4), P(1, 2, 4, 3));
}

static mp_tensor bmm(const cell *k)
{
    return mp_matmul(k->c, X(2, 2, 4), P(2, 4, 3));
}

static mp_tensor conv2d(const cell *k)
{
    return mp_conv2d(k->c, X(1, 2, 2, 4), P(3, 4, 1, 1), MP_NONE, (mp_conv2d_opts){0});
}

static mp_tensor conv2d_bias(const cell *k)
{
    return mp_conv2d(k->c, X(1, 2, 2, 4), P(3, 4, 1, 1), P(3), (mp_conv2d_opts){0});
}

static mp_tensor conv3d(const cell *k)
{
    return mp_conv3d(k->c, X(1, 2, 2, 2, 4), P(3, 4, 2, 1, 1), MP_NONE, (mp_conv3d_opts){0});
}

static mp_tensor conv3d_bias(const cell *k)
{
    return mp_conv3d(k->c, X(1, 2, 2, 2, 4), P(3, 4, 2, 1, 1), P(3), (mp_conv3d_opts){0});
}

static mp_tensor conv3d_1x1x1(const cell *k)
{
    return mp_conv3d(k->c, X(1, 2, 2, 2, 4), P(3, 4, 1, 1, 1), MP_NONE, (mp_conv3d_opts){0});
}

static mp_tensor conv3d_1x1x1_bias(const cell *k)
{
    return mp_conv3d(k->c, X(1, 2, 2, 2, 4), P(3, 4, 1, 1, 1), P(3), (mp_conv3d_opts){0});
}

static mp_tensor group_norm(const cell *k)
{
    return mp_group_norm(k->c, X(1, 2, 4), 2, P(4), P(4), 1e-5f);
}

static mp_tensor layer_norm(const cell *k)
{
    return mp_layer_norm(k->c, X(2, 4), P(4), P(4), 1e-5f);
}

static mp_tensor rms_norm(const cell *k)
{
    return mp_rms_norm(k->c, X(2, 4), P(4), MP_NONE, 1e-5f, MP_RMS_TORCH);
}

static mp_tensor rms_diffusers(const cell *k)
{
    return mp_rms_norm(k->c, X(2, 4), P(4), MP_NONE, 1e-5f, MP_RMS_DIFFUSERS);
}

static mp_tensor rms_diffusers_plain(const cell *k)
{
    return mp_rms_norm(k->c, X(2, 4), MP_NONE, MP_NONE, 1e-5f, MP_RMS_DIFFUSERS);
}

static mp_tensor rms_gemma(const cell *k)
{
    return mp_rms_norm(k->c, X(2, 4), P(4), MP_NONE, 1e-5f, MP_RMS_GEMMA);
}

static mp_tensor batch_norm(const cell *k)
{
    return mp_batch_norm(k->c, X(2, 4), P(4), P(4), P(4), P(4), 1e-5f);
}

static mp_tensor sdpa(const cell *k)
{
    return mp_attn_softmax(k->c, X(1, 2, 4), P(1, 2, 4), P(1, 2, 4), (mp_attn_opts){.heads = 1});
}

static mp_tensor add(const cell *k)
{
    return mp_add(k->c, X(4), P(4));
}

static mp_tensor mul(const cell *k)
{
    return mp_mul(k->c, X(4), P(4));
}

static mp_tensor mul_number(const cell *k)
{
    return mp_mul(k->c, X(4), ones(k->c, k->b, 0, NULL));
}

static mp_tensor number_mul(const cell *k)
{
    return mp_mul(k->c, ones(k->c, k->b, 0, NULL), X(4));
}

static mp_tensor add_number(const cell *k)
{
    return mp_add(k->c, X(4), ones(k->c, k->b, 0, NULL));
}

static mp_tensor cat(const cell *k)
{
    const mp_tensor xs[] = {X(4), P(4)};

    return mp_cat(k->c, 2, xs, 0);
}

static mp_tensor where(const cell *k)
{
    static const uint8_t mask[] = {0, 1, 1, 0};

    return mp_where(k->c, mask, X(4), P(4));
}

static mp_tensor modulate(const cell *k)
{
    return mp_modulate(k->c, X(1, 2, 4), P(1, 1, 4), P(1, 1, 4));
}

static mp_tensor add_gated(const cell *k)
{
    return mp_add_gated(k->c, X(1, 2, 4), P(1, 1, 4), X(1, 2, 4));
}

static mp_tensor gate(const cell *k)
{
    return mp_gate(k->c, X(2, 4), P(2, 4), MP_ACT_SILU);
}

static mp_tensor softmax(const cell *k)
{
    return mp_softmax(k->c, X(2, 4));
}

static mp_tensor silu(const cell *k)
{
    return mp_activate(k->c, X(4), MP_ACT_SILU);
}

static mp_tensor gelu(const cell *k)
{
    return mp_activate_(k->c, X(4), MP_ACT_GELU);
}

static mp_tensor gelu_tanh(const cell *k)
{
    return mp_activate(k->c, X(4), MP_ACT_GELU_TANH);
}

static mp_tensor relu(const cell *k)
{
    return mp_activate(k->c, X(4), MP_ACT_RELU);
}

static mp_tensor relu6(const cell *k)
{
    return mp_activate(k->c, X(4), MP_ACT_RELU6);
}

static mp_tensor act_tanh(const cell *k)
{
    return mp_activate(k->c, X(4), MP_ACT_TANH);
}

static mp_tensor sigmoid(const cell *k)
{
    return mp_activate(k->c, X(4), MP_ACT_SIGMOID);
}

static mp_tensor mish(const cell *k)
{
    return mp_activate(k->c, X(4), MP_ACT_MISH);
}

static mp_tensor glu(const cell *k)
{
    return mp_glu(k->c, X(2, 4), MP_ACT_SILU);
}

static mp_tensor act_exp(const cell *k)
{
    return mp_exp(k->c, X(4));
}

static mp_tensor sum(const cell *k)
{
    return mp_sum(k->c, X(4));
}

static mp_tensor mean_channels(const cell *k)
{
    return mp_mean_channels(k->c, X(2, 4), 2);
}

static mp_tensor interp_nearest(const cell *k)
{
    return mp_upsample_nearest2(k->c, X(1, 2, 2, 4));
}

static mp_tensor interp_bilinear(const cell *k)
{
    return mp_resize_bilinear(k->c, X(1, 2, 2, 4), 3, 3);
}

static mp_tensor embedding(const cell *k)
{
    return mp_embedding(k->c, (const int32_t[]){1, 0}, 2, X(2, 4));
}

static mp_tensor clip(const cell *k)
{
    return mp_clip(k->c, X(4), 0.0f, 1.0f);
}

static mp_tensor add_scalar(const cell *k)
{
    return mp_add_scalar(k->c, X(4), 1.0f);
}

static mp_tensor mul_scalar(const cell *k)
{
    return mp_mul_scalar(k->c, X(4), 2.0f);
}

static mp_tensor div_scalar(const cell *k)
{
    return mp_div_scalar(k->c, X(4), 2.0f);
}

/* An op of a table; NULL where only the rule exists so far. */
static const struct runner {
    const char *name;
    mp_tensor (*run)(const cell *k);
} runners[] = {
    {"linear", linear},
    {"linear_bias", linear_bias},
    {"linear3d_bias", linear3d_bias},
    {"matmul2d", matmul2d},
    {"matmul4d", matmul4d},
    {"bmm", bmm},
    {"conv2d", conv2d},
    {"conv2d_bias", conv2d_bias},
    {"conv3d", conv3d},
    {"conv3d_bias", conv3d_bias},
    {"conv3d_1x1x1", conv3d_1x1x1},
    {"conv3d_1x1x1_bias", conv3d_1x1x1_bias},
    {"layer_norm", layer_norm},
    {"rms_norm", rms_norm},
    {"rms_diffusers", rms_diffusers},
    {"rms_diffusers_plain", rms_diffusers_plain},
    {"rms_gemma", rms_gemma},
    {"group_norm", group_norm},
    {"batch_norm", batch_norm},
    {"sdpa", sdpa},
    {"add", add},
    {"mul", mul},
    {"mul_number", mul_number},
    {"number_mul", number_mul},
    {"add_number", add_number},
    {"cat", cat},
    {"where", where},
    {"modulate", modulate},
    {"add_gated", add_gated},
    {"gate", gate},
    {"softmax", softmax},
    {"silu", silu},
    {"gelu", gelu},
    {"gelu_tanh", gelu_tanh},
    {"relu", relu},
    {"relu6", relu6},
    {"tanh", act_tanh},
    {"sigmoid", sigmoid},
    {"mish", mish},
    {"glu", glu},
    {"exp", act_exp},
    {"sum", sum},
    {"mean_channels", mean_channels},
    {"interp_nearest", interp_nearest},
    {"interp_bilinear", interp_bilinear},
    {"embedding", embedding},
    {"clip", clip},
    {"add_scalar", add_scalar},
    {"mul_scalar", mul_scalar},
    {"div_scalar", div_scalar},
};

/* The next field of a line of CSV, unquoted in place; NULL at the end. */
static char *next_field(char **rest)
{
    char *in = *rest, *out = in, *field = in;
    bool quoted = false;

    if (!in)
        return NULL;
    for (; *in && (quoted || (*in != ',' && *in != '\r' && *in != '\n')); in++) {
        if (*in != '"')
            *out++ = *in;
        else if (quoted && in[1] == '"')
            *out++ = *in++;
        else
            quoted = !quoted;
    }
    *rest = *in == ',' ? in + 1 : NULL;
    *out = '\0';
    return field;
}

static int rule_of(const char *name)
{
    for (int r = 0; r < MP_RULE_COUNT; r++)
        if (!strcmp(name, mp_rule_name((mp_rule)r)))
            return r;
    return -1;
}

/* The function says the whole text, the exception's type included. */
static void check_rule(const char *op, mp_dtype a, mp_dtype b, const char *expected)
{
    char text[MP_RULE_TEXT];
    mp_dtype out = MP_DTYPE_COUNT;
    const int rule = rule_of(op);

    if (rule < 0)
        return;
    const bool accepted = mp_rule_apply((mp_rule)rule, a, b, &out, text);
    const char *is = accepted ? mp_dtype_torch(out) : text;
    if (strcmp(is, expected))
        fail_msg("rule %s of %s and %s: \"%s\", torch: \"%s\"", op, mp_dtype_name(a),
                 mp_dtype_name(b), is, expected);
}

/* The op fails with str(exception), the text after the type. */
static void check_op(mp_ctx *c, const char *op, mp_dtype a, mp_dtype b, const char *expected)
{
    const struct runner *r = runners;
    const cell k = {c, a, b};
    const mp_mark mark = mp_open(c);

    while (strcmp(r->name, op))
        if (++r == runners + sizeof runners / sizeof *runners)
            fail_msg("no test runs %s", op);
    if (!r->run)
        return;
    const mp_tensor y = r->run(&k);
    const char *refused = strstr(expected, ": ");
    const char *is = mp_failed(c) ? mp_ctx_error(c)->text : mp_dtype_torch(y.dtype);
    if (strcmp(is, refused ? refused + 2 : expected))
        fail_msg("%s of %s and %s: \"%s\", torch: \"%s\"", op, mp_dtype_name(a), mp_dtype_name(b),
                 is, expected);
    if (refused) {
        assert_int_equal(mp_ctx_error(c)->code, MP_EDTYPE);
        assert_true(mp_ctx_error(c)->op[0] != '\0');
    }
    mp_ctx_clear(c);
    mp_drop(c, mark);
}

/* Cells of the table that were compared. */
static int check_table(mp_ctx *c, const char *path)
{
    char full[512], line[512];
    int cells = 0;

    snprintf(full, sizeof full, "%s/%s", MP_FIXTURES, path);
    FILE *f = fopen(full, "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f)); /* names of the columns */
    for (; fgets(line, sizeof line, f); cells++) {
        char *rest = line;
        const char *op = next_field(&rest), *first = next_field(&rest);
        const char *second = next_field(&rest), *expected = next_field(&rest);
        mp_dtype a, b;
        assert_non_null(expected);
        assert_true(mp_dtype_parse(first, &a));
        if (!mp_dtype_parse(second, &b)) {
            assert_string_equal(second, "");
            b = a;
        }
        check_rule(op, a, b, expected);
        check_op(c, op, a, b, expected);
    }
    fclose(f);
    return cells;
}

static void test_rules__every_cell_of_the_table_is_torchs_result_or_text(void **state)
{
    (void)state;
    mp_ctx *c = mp_test_ctx(NULL, 1);

    assert_int_equal(check_table(c, "op_dtype_table.csv"), 480);
    mp_device_close(c);
}

static void test_rules__composite_and_other_ops_refuse_what_torch_refuses(void **state)
{
    (void)state;
    mp_ctx *c = mp_test_ctx(NULL, 1);

    assert_int_equal(check_table(c, "kernels/op_dtype_more.csv"), 350);
    mp_device_close(c);
}

static void test_rules__a_refusal_names_the_weight_and_its_module(void **state)
{
    (void)state;
    mp_ctx *c = mp_test_ctx(NULL, 1);
    mp_tensor w = ones(c, MP_F8_E4M3, 2, MP_DIMS(3, 4));

    w.name = "transformer.proj_out.weight";
    mp_linear(c, ones(c, MP_BF16, 2, MP_DIMS(2, 4)), w, MP_NONE);
    assert_string_equal(mp_ctx_error(c)->module, "transformer.proj_out");
    assert_string_equal(mp_ctx_error(c)->op, "linear");
    mp_test_fails(c, MP_EDTYPE, "expected m1 and m2 to have the same dtype");
    mp_device_close(c);
}

/* Every op leaves a failed context as it is. */
static void test_rules__no_op_runs_on_a_failed_context(void **state)
{
    (void)state;
    mp_ctx *c = mp_test_ctx(NULL, 1);
    const mp_tensor x = ones(c, MP_F32, 2, MP_DIMS(2, 4));

    mp_fail(c, MP_ESHAPE, NULL, "the first failure");
    assert_false(mp_given(mp_add(c, x, x)));
    assert_false(mp_given(mp_softmax(c, x)));
    assert_false(mp_given(mp_cast(c, x, MP_BF16)));
    assert_false(mp_given(mp_activate_(c, x, MP_ACT_SILU)));
    assert_false(mp_given(mp_permute(c, x, (const int[]){1, 0})));
    assert_false(mp_given(mp_cat(c, 1, &x, 0)));
    mp_test_fails(c, MP_ESHAPE, "the first failure");
    mp_device_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules__every_cell_of_the_table_is_torchs_result_or_text),
        cmocka_unit_test(test_rules__composite_and_other_ops_refuse_what_torch_refuses),
        cmocka_unit_test(test_rules__a_refusal_names_the_weight_and_its_module),
        cmocka_unit_test(test_rules__no_op_runs_on_a_failed_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
