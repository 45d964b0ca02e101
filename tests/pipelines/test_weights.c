/* Parameters: files, dtypes, binding.  Goldens: tests/fixtures/make_weights.py (torch 2.15). */
#include "tests/pipelines/scratch.h"

#include <sys/stat.h>

#include "pipelines/common/safetensors.h"
#include "pipelines/common/weights.h"

static const mp_weights_options plain = {
    .component = "net", .stem = "model", .dtype = MP_F32, .storage = MP_DTYPE_COUNT};

/* A file with fp32 zeros of these shapes. */
typedef struct shape {
    const char *name;
    int rank;
    int64_t dims[2];
} shape;

static float zeros[64];

static void write_shapes(const char *file, const shape *shapes, int n)
{
    mp_tensor t[16];
    mp_error err = {0};

    assert_in_range(n, 1, 16);
    for (int i = 0; i < n; i++) {
        t[i] = mp_view(zeros, MP_F32, shapes[i].rank, shapes[i].dims);
        t[i].name = shapes[i].name;
    }
    mp_safetensors_write(scratch(file), t, n, NULL, &err);
    assert_ok(&err);
}

static mp_weights *open_ok(const mp_weights_options *o)
{
    mp_error err = {0};
    mp_weights *w;

    mp_weights_open(scratch_dir, o, &w, &err);
    assert_ok(&err);
    return w;
}

static void remove_all(void)
{
    scratch_teardown(NULL);
    assert_int_equal(mkdir(scratch_dir, 0700), 0);
}

/* ---- values and dtypes ---- */

static const struct {
    const char *source;
    mp_dtype file;
} sources[] = {{"f32", MP_F32}, {"f16", MP_F16}, {"bf16", MP_BF16}, {"e4m3", MP_F8_E4M3}};

/* "layer.weight" as the source has it, alone in model.safetensors. */
static void write_source(const char *source)
{
    mp_error err = {0};
    mp_safetensors *s;
    mp_tensor t;

    mp_safetensors_open(MP_FIXTURES "/weights/source.safetensors", &s, &err);
    assert_ok(&err);
    assert_true(mp_safetensors_find(s, source, &t));
    t.name = "layer.weight";
    mp_safetensors_write(scratch("model.safetensors"), &t, 1, NULL, &err);
    assert_ok(&err);
    mp_safetensors_close(s);
}

/* What a kernel reads: stored values, widened, then rounded by the cast on use. */
static void assert_values(mp_tensor t, const mp_safetensors *goldens, const char *name)
{
    float values[256];
    mp_tensor golden;

    assert_true(mp_safetensors_find(goldens, name, &golden));
    assert_int_equal(mp_numel(t), 256);
    assert_true(mp_dtype_widens(t.store, t.dtype));
    mp_widen(t.store, t.data, values, 256);
    for (int i = 0; i < 256; i++)
        if (memcmp(&values[i], (float *)golden.data + i, sizeof *values))
            fail_msg("%s[%d] is %.9g, expected %.9g", name, i, values[i],
                     ((float *)golden.data)[i]);
}

static void check_source(const mp_safetensors *goldens, size_t source, mp_dtype dtype,
                         mp_dtype storage)
{
    mp_weights_options o = plain;
    mp_error err = {0};
    mp_tensor t;
    char name[64];

    o.dtype = dtype;
    o.storage = storage;
    mp_weights *w = open_ok(&o);
    mp_weights_bind(w, &t, 2, MP_DIMS(16, 16), "layer.weight");
    mp_weights_finish(w, &err);
    assert_ok(&err);
    snprintf(name, sizeof name, "%s.%s%s%s", sources[source].source, mp_dtype_name(dtype),
             storage < MP_DTYPE_COUNT ? "." : "",
             storage < MP_DTYPE_COUNT ? mp_dtype_name(storage) : "");
    assert_values(t, goldens, name);
    assert_int_equal(t.dtype, dtype);
    if (storage == MP_DTYPE_COUNT) {
        const bool mapped = mp_dtype_widens(sources[source].file, dtype);
        assert_int_equal(t.store, mapped ? sources[source].file : dtype);
        assert_int_equal(mp_weights_get_stats(w).converted > 0, !mapped);
    } else if (mp_dtype_size(storage) == 1 && sources[source].file != MP_F8_E4M3)
        assert_int_equal(t.store, storage);
    mp_weights_close(w);
}

static void test_weights__values_are_torchs_for_every_file_dtype_and_storage(void **state)
{
    mp_error err = {0};
    mp_safetensors *goldens;

    (void)state;
    mp_safetensors_open(MP_FIXTURES "/weights/expected.safetensors", &goldens, &err);
    assert_ok(&err);
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        write_source(sources[i].source);
        for (int d = MP_F32; d <= MP_BF16; d++)
            for (int s = MP_F32; s <= MP_DTYPE_COUNT; s++)
                check_source(goldens, i, (mp_dtype)d, (mp_dtype)s);
    }
    mp_safetensors_close(goldens);
}

/* What is converted comes with mp_weights_load and goes with mp_weights_unload, at the same place;
 * what is mapped is there when it is read. */
static void test_weights__come_and_go_with_their_stage(void **state)
{
    static const mp_dtype dtypes[] = {MP_F32, MP_BF16}; /* of a file in fp32: mapped, converted */
    mp_weights_options o = plain;
    mp_error err = {0};
    mp_safetensors *goldens;
    mp_tensor t;

    (void)state;
    write_source("f32");
    mp_safetensors_open(MP_FIXTURES "/weights/expected.safetensors", &goldens, &err);
    assert_ok(&err);
    o.load_later = true;
    for (int i = 0; i < 2; i++) {
        o.dtype = dtypes[i];
        mp_weights *w = open_ok(&o);
        mp_weights_bind(w, &t, 2, MP_DIMS(16, 16), "layer.weight");
        mp_weights_finish(w, &err);
        assert_ok(&err);
        const void *const at = t.data;
        assert_int_equal(mp_weights_get_stats(w).in_place, i ? 0 : 256 * sizeof(float));
        for (int times = 0; times < 2; times++) {
            assert_int_equal(mp_weights_need_load(w), i == 1);
            assert_int_equal(mp_weights_load(w, &err), MP_OK);
            assert_false(mp_weights_need_load(w));
            assert_ptr_equal(t.data, at);
            assert_values(t, goldens, i ? "f32.bf16" : "f32.fp32");
            if (i == 0)
                assert_true(mp_weights_resident(w) > 0);
            mp_weights_unload(w);
            assert_int_equal(mp_weights_resident(w), 0);
        }
        mp_weights_close(w);
    }
    mp_safetensors_close(goldens);
}

static const shape block[] = {
    {"blocks.0.to_q.weight", 2, {2, 3}},    {"blocks.0.to_q.bias", 1, {2}},
    {"blocks.0.norm1.weight", 1, {4}},      {"blocks.0.norm1.proj.weight", 2, {2, 2}},
    {"blocks.0.scale.weight", 1, {4}},      {"blocks.0.scale.bias", 1, {4}},
    {"blocks.0.table", 2, {2, 2}},          {"proj_in.weight", 2, {1, 1}},
    {"blocks.0.proj_in.weight", 2, {1, 1}}, {"wo.weight", 2, {2, 2}},
    {"time_embedder.weight", 2, {2, 2}},    {"proj_out.weight", 2, {1, 1}},
};
enum { BLOCK = sizeof block / sizeof *block };

static mp_weights *bind_block(const mp_weights_options *o, mp_tensor *t)
{
    mp_error err = {0};

    write_shapes("model.safetensors", block, BLOCK);
    mp_weights *w = open_ok(o);
    for (int i = 0; i < BLOCK; i++)
        mp_weights_bind(w, &t[i], block[i].rank, block[i].dims, "%s", block[i].name);
    mp_weights_finish(w, &err);
    assert_ok(&err);
    return w;
}

/* Linear, convolution and embedding layers outside the skipped modules, as Diffusers'
 * apply_layerwise_casting walks them. */
static void test_weights__storage_holds_for_layers_outside_the_skipped_modules(void **state)
{
    static const char *const skip[] = {"embedder", NULL}; /* the model's own */
    static const char *const keep[] = {"wo", NULL};
    static const bool stored[BLOCK] = {[0] = true, [1] = true, [8] = true};
    mp_weights_options o = plain;
    mp_tensor t[BLOCK];

    (void)state;
    o.dtype = MP_BF16;
    o.storage = MP_F8_E4M3;
    o.storage_skip = skip;
    o.keep_fp32 = keep;
    mp_weights *w = bind_block(&o, t);
    for (int i = 0; i < BLOCK; i++) {
        const mp_dtype dtype = i == 9 ? MP_F32 : MP_BF16;
        assert_int_equal(t[i].dtype, dtype);
        if (t[i].store != (stored[i] ? MP_F8_E4M3 : dtype))
            fail_msg("%s is stored as %s", block[i].name, mp_dtype_name(t[i].store));
    }
    mp_weights_close(w);
}

static void test_weights__keep_fp32_holds_for_half_loads_only(void **state)
{
    static const char *const keep[] = {"norm1", "scale", NULL};
    static const bool kept[BLOCK] = {[2] = true, [3] = true, [4] = true, [5] = true};
    mp_weights_options o = plain;
    mp_tensor t[BLOCK];

    (void)state;
    o.dtype = MP_F16;
    o.keep_fp32 = keep;
    mp_weights *w = bind_block(&o, t);
    for (int i = 0; i < BLOCK; i++)
        assert_int_equal(t[i].dtype, kept[i] ? MP_F32 : MP_F16);
    assert_int_equal(mp_weights_dtype(w), MP_F16);
    mp_weights_close(w);

    o.round_trip_fp32 = true; /* .to(fp16) spares nothing */
    w = bind_block(&o, t);
    for (int i = 0; i < BLOCK; i++)
        assert_int_equal(t[i].dtype, MP_F16);
    mp_weights_close(w);
}

/* transformers' list, unlike Diffusers', says nothing of bf16. */
static void test_weights__keep_fp32_of_fp16_holds_for_fp16_loads_only(void **state)
{
    static const char *const keep[] = {"wo", NULL};
    mp_weights_options o = plain;
    mp_tensor t[BLOCK];

    (void)state;
    o.keep_fp32_of_fp16 = keep;
    for (int k = 0; k < 3; k++) {
        o.dtype = k ? MP_F16 : MP_BF16;
        o.round_trip_fp32 = k == 2;
        mp_weights *w = bind_block(&o, t);
        for (int i = 0; i < BLOCK; i++)
            assert_int_equal(t[i].dtype, k == 1 && i == 9 ? MP_F32 : o.dtype);
        mp_weights_close(w);
    }
}

static void test_weights__the_last_matching_override_wins_over_all(void **state)
{
    static const char *const keep[] = {"norm1", NULL};
    static const mp_dtype_override overrides[] = {
        {"net.blocks.0", MP_F32}, {"net.*.norm1*", MP_F16}, {"net.wo.weight", MP_F16}};
    static const mp_dtype expected[BLOCK] = {MP_F32, MP_F32,  MP_F16, MP_F16, MP_F32,  MP_F32,
                                             MP_F32, MP_BF16, MP_F32, MP_F16, MP_BF16, MP_BF16};
    mp_weights_options o = plain;
    mp_tensor t[BLOCK];

    (void)state;
    o.dtype = MP_BF16;
    o.storage = MP_F8_E5M2;
    o.keep_fp32 = keep;
    o.overrides = overrides;
    o.override_count = 3;
    mp_weights *w = bind_block(&o, t);
    for (int i = 0; i < BLOCK; i++) {
        assert_int_equal(t[i].dtype, expected[i]);
        assert_int_equal(t[i].store, i == 10 ? MP_F8_E5M2 : expected[i]);
    }
    mp_weights_close(w);
}

static void test_weights__names_tensors_by_component_and_parameter(void **state)
{
    mp_tensor t[BLOCK];
    mp_weights *w = bind_block(&plain, t);
    const mp_weights_stats stats = mp_weights_get_stats(w);

    (void)state;
    assert_string_equal(t[0].name, "net.blocks.0.to_q.weight");
    assert_int_equal(stats.parameters, 6 + 2 + 4 + 4 + 4 + 4 + 4 + 1 + 1 + 4 + 4 + 1);
    assert_int_equal(stats.converted, 0);
    assert_true(stats.mapped > 34 * sizeof(float));
    mp_weights_close(w);
}

static void test_weights__copies_what_is_not_aligned_in_its_file(void **state)
{
    mp_error err = {0};
    mp_tensor t;
    const unsigned char bytes[] = {0, 1, 2, 3, 4, 5, 6, 7};

    (void)state;
    scratch_safetensors("model.safetensors",
                        "{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}   ", 8);
    mp_weights *w = open_ok(&plain);
    mp_weights_bind(w, &t, 1, MP_DIMS(2), "w");
    mp_weights_finish(w, &err);
    assert_ok(&err);
    assert_int_equal((uintptr_t)t.data % sizeof(float), 0);
    assert_memory_equal(t.data, bytes, 8);
    mp_weights_close(w);
}

/* ---- binding ---- */

static void test_weights__pairs_take_weight_and_bias(void **state)
{
    static const float values[2 * 3 * 3 * 3];
    mp_tensor t[3];
    mp_error err = {0};
    mp_affine conv, linear;

    (void)state;
    t[0] = mp_view((void *)values, MP_F32, 4, MP_DIMS(2, 3, 3, 3));
    t[0].name = "a.conv.weight";
    t[1] = mp_view((void *)values, MP_F32, 1, MP_DIMS(2));
    t[1].name = "a.conv.bias";
    t[2] = mp_view((void *)values, MP_F32, 2, MP_DIMS(4, 5));
    t[2].name = "a.3.weight";
    mp_safetensors_write(scratch("model.safetensors"), t, 3, NULL, &err);
    mp_weights *w = open_ok(&plain);
    mp_weights_bind_conv2d(w, &conv, 2, 3, 3, true, "a.%s", "conv");
    mp_weights_bind_linear(w, &linear, 4, 5, false, "a.%d", 3);
    mp_weights_finish(w, &err);
    assert_ok(&err);
    assert_int_equal(conv.weight.rank, 4);
    assert_int_equal(conv.bias.dim[0], 2);
    assert_int_equal(linear.weight.dim[1], 5);
    assert_false(mp_given(linear.bias));
    mp_weights_close(w);
}

static void test_weights__one_error_lists_all_that_does_not_fit(void **state)
{
    static const shape shapes[] = {
        {"a.weight", 2, {2, 3}}, {"b", 1, {4}}, {"extra.x", 1, {1}}, {"ignored.1", 1, {1}}};
    mp_error err = {0};
    mp_tensor t;

    (void)state;
    write_shapes("model.safetensors", shapes, 4);
    mp_weights *w = open_ok(&plain);
    mp_weights_ignore(w, "ignored.*");
    mp_weights_bind(w, &t, 2, MP_DIMS(3, 2), "a.weight");
    assert_false(mp_given(t));
    mp_weights_bind(w, &t, 1, MP_DIMS(4), "b");
    mp_weights_bind(w, &t, 1, MP_DIMS(4), "c.%d", 1);
    mp_weights_bind(w, &t, 1, MP_DIMS(4), "c.%d", 2);
    mp_weights_finish(w, &err);
    assert_error(&err, MP_EMISSING, scratch_dir, "do not fit the net", "config.json",
                 "\n  missing (2): c.1, c.2",
                 "\n  misshapen (1): a.weight is [2, 3], expected [3, 2]",
                 "\n  surplus (1): extra.x");
    assert_null(strstr(err.text, "ignored"));
    mp_weights_close(w);
}

static void test_weights__a_long_list_ends_in_a_count(void **state)
{
    static const shape shapes[] = {{"b", 1, {4}}};
    mp_error err = {0};
    mp_tensor t;

    (void)state;
    write_shapes("model.safetensors", shapes, 1);
    mp_weights *w = open_ok(&plain);
    for (int i = 0; i < 500; i++)
        mp_weights_bind(w, &t, 1, MP_DIMS(4), "c.%d", i);
    mp_weights_finish(w, &err);
    assert_error(&err, MP_EMISSING, "missing (500): c.0, ", "c.19 and 480 more",
                 "\n  surplus (1): b");
    mp_weights_close(w);
}

static void test_weights__strips_a_prefix_where_there_is_one(void **state)
{
    static const shape shapes[] = {{"model.a", 1, {4}}, {"lm_head", 1, {1}}};
    mp_error err = {0};
    mp_tensor t;

    (void)state;
    write_shapes("model.safetensors", shapes, 2);
    mp_weights *w = open_ok(&plain);
    mp_weights_strip(w, "model.");
    assert_true(mp_weights_has(w, "a"));
    assert_false(mp_weights_has(w, "model.a"));
    mp_weights_ignore(w, "lm_head");
    mp_weights_bind(w, &t, 1, MP_DIMS(4), "a");
    mp_weights_finish(w, &err);
    assert_ok(&err);
    assert_string_equal(t.name, "net.a");
    mp_weights_close(w);
}

static void test_weights__a_name_twice_after_stripping_is_refused(void **state)
{
    static const shape shapes[] = {{"model.a", 1, {4}}, {"a", 1, {4}}};
    mp_error err = {0};
    mp_tensor t;

    (void)state;
    write_shapes("model.safetensors", shapes, 2);
    mp_weights *w = open_ok(&plain);
    mp_weights_strip(w, "model.");
    mp_weights_bind(w, &t, 1, MP_DIMS(4), "a");
    mp_weights_finish(w, &err);
    assert_error(&err, MP_EFORMAT, "a (twice)");
    mp_weights_close(w);
}

static void test_weights__foreign_dtypes_and_ranks_cannot_be_bound(void **state)
{
    mp_error err = {0};
    mp_tensor t;

    (void)state;
    scratch_safetensors("model.safetensors",
                        "{\"ids\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]},"
                        "\"w\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[8,16]},"
                        "\"six\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1],"
                        "\"data_offsets\":[16,20]}}",
                        20);
    mp_weights *w = open_ok(&plain);
    mp_weights_ignore(w, "ids");
    mp_weights_bind(w, &t, 1, MP_DIMS(1), "w");
    mp_weights_bind(w, &t, 5, MP_DIMS(1, 1, 1, 1, 1), "six");
    mp_weights_finish(w, &err);
    assert_error(&err, MP_EUNSUPPORTED, "of a dtype or rank", "(2): w, six");
    mp_weights_close(w);
}

/* ---- files ---- */

static void assert_refused(const char *variant, mp_code code, const char *says)
{
    mp_weights_options o = plain;
    mp_error err = {0};
    mp_weights *w;

    o.variant = variant;
    mp_weights_open(scratch_dir, &o, &w, &err);
    assert_null(w);
    assert_error(&err, code, scratch_dir, says);
}

static const shape one[] = {{"a", 1, {4}}};
static const shape two[] = {{"b", 1, {4}}};

static void test_weights__reads_all_shards_of_an_index(void **state)
{
    mp_error err = {0};
    mp_tensor a, b;

    (void)state;
    remove_all();
    write_shapes("model-00001-of-00002.safetensors", one, 1);
    write_shapes("model-00002-of-00002.safetensors", two, 1);
    scratch_text("model.safetensors.index.json",
                 "{\"metadata\": {\"total_size\": 32}, \"weight_map\": {"
                 "\"a\": \"model-00001-of-00002.safetensors\","
                 "\"b\": \"model-00002-of-00002.safetensors\"}}");
    mp_weights *w = open_ok(&plain);
    mp_weights_bind(w, &a, 1, MP_DIMS(4), "a");
    mp_weights_bind(w, &b, 1, MP_DIMS(4), "b");
    mp_weights_finish(w, &err);
    assert_ok(&err);
    mp_weights_close(w);
}

static void test_weights__refuses_an_index_that_does_not_fit(void **state)
{
    static const struct {
        const char *index;
        mp_code code;
        const char *says;
    } rows[] = {
        {"{\"weight_map\": {\"a\": \"one.safetensors\", \"b\": \"gone.safetensors\"}}", MP_EMISSING,
         "1 of its 2 files are missing: gone.safetensors"},
        {"{\"weight_map\": {\"a\": \"../one.safetensors\"}}", MP_EFORMAT,
         "\"a\" is said to be in \"../one.safetensors\"; expected the name of a .safetensors file"},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", MP_EFORMAT, "in the same folder"},
        {"{\"weight_map\": {\"a\": \"one.bin\"}}", MP_EFORMAT, "\"one.bin\"; expected the name"},
        {"{\"weight_map\": {\"a\": 3}}", MP_EFORMAT, "said to be in 3; expected"},
        {"{\"weight_map\": {}}", MP_EFORMAT, "names no file"},
        {"{\"weight_map\": []}", MP_EFORMAT, "expected an object, found a list"},
        {"{}", MP_EFORMAT, "\"weight_map\": expected an object, found null"},
        {"{\"weight_map\": {\"a\": \"one.safetensors\", \"z\": \"one.safetensors\"}}", MP_EFORMAT,
         "1 tensors are not in the file named for them (z), 0 tensors of the files are not"},
        {"{\"weight_map\": {\"a\": \"one.safetensors\", \"c\": \"two.safetensors\"}}", MP_EFORMAT,
         "1 tensors are not in the file named for them (c), 1 tensors of the files are not in "
         "the index (b)"},
        {"{\"weight_map\": {\"a\": \"two.safetensors\", \"b\": \"one.safetensors\"}}", MP_EFORMAT,
         "2 tensors are not in the file named for them"},
        {"{\"weight_map\": ", MP_EFORMAT, "model.safetensors.index.json: line 1"},
    };

    (void)state;
    remove_all();
    write_shapes("one.safetensors", one, 1);
    write_shapes("two.safetensors", two, 1);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        scratch_text("model.safetensors.index.json", rows[i].index);
        assert_refused(NULL, rows[i].code, rows[i].says);
    }
}

static void test_weights__a_broken_shard_is_named(void **state)
{
    (void)state;
    remove_all();
    scratch_text("one.safetensors", "garbage");
    scratch_text("model.safetensors.index.json", "{\"weight_map\": {\"a\": \"one.safetensors\"}}");
    assert_refused(NULL, MP_EFORMAT, "one.safetensors: 7 bytes, expected at least 8");
}

static void test_weights__finds_variants_single_and_sharded(void **state)
{
    static const char *const indexes[] = {"model.safetensors.index.bf16.json",
                                          "model.bf16.safetensors.index.json"};
    mp_weights_options o = plain;

    (void)state;
    remove_all();
    write_shapes("model.safetensors", one, 1);
    write_shapes("model.fp16.safetensors", two, 1);
    write_shapes("model.bf16-00001-of-00001.safetensors", two, 1);
    o.variant = "fp16";
    mp_weights *w = open_ok(&o);
    assert_true(mp_weights_has(w, "b"));
    mp_weights_close(w);
    o.variant = "bf16";
    for (int i = 0; i < 2; i++) {
        scratch_text(indexes[i],
                     "{\"weight_map\": {\"b\": \"model.bf16-00001-of-00001.safetensors\"}}");
        w = open_ok(&o);
        assert_true(mp_weights_has(w, "b"));
        mp_weights_close(w);
        assert_int_equal(remove(scratch(indexes[i])), 0);
    }
}

static void test_weights__says_which_variants_are_there(void **state)
{
    (void)state;
    remove_all();
    write_shapes("model.fp16.safetensors", one, 1);
    assert_refused(NULL, MP_EMISSING, "give one of the variants that are there: fp16");
    assert_refused("bf16", MP_EMISSING, "no weights of variant \"bf16\"; there: fp16");
    write_shapes("model.safetensors", one, 1);
    assert_refused("bf16", MP_EMISSING, "there: weights without a variant, fp16");
    remove_all();
    write_shapes("model.fp16-00001-of-00002.safetensors", one, 1);
    write_shapes("model.fp16-00002-of-00002.safetensors", two, 1);
    assert_refused("fp16", MP_EMISSING, "no weights of variant \"fp16\"; there: fp16");
}

static void test_weights__never_reads_pickles(void **state)
{
    (void)state;
    remove_all();
    assert_refused(NULL, MP_EMISSING,
                   "no weights; expected model.safetensors or model.safetensors.index.json");
    scratch_text("pytorch_model.bin", "x");
    assert_refused(
        NULL, MP_EUNSUPPORTED,
        "only pickle files are there (pytorch_model.bin), which are never read; convert");
}

static void test_weights__names_a_missing_folder(void **state)
{
    mp_error err = {0};
    mp_weights *w;

    (void)state;
    mp_weights_open(scratch("nowhere"), &plain, &w, &err);
    assert_null(w);
    assert_error(&err, MP_EMISSING, "/nowhere: no such folder");
}

static mp_code load(mp_error *err)
{
    mp_weights *w = NULL;
    mp_weights_options o = plain;
    mp_tensor a, b;

    o.dtype = MP_BF16;
    if (!mp_weights_open(scratch_dir, &o, &w, err)) {
        mp_weights_ignore(w, "x*");
        mp_weights_bind(w, &a, 1, MP_DIMS(4), "a");
        mp_weights_bind(w, &b, 1, MP_DIMS(4), "b");
        mp_weights_finish(w, err);
    }
    mp_weights_close(w);
    return err->code;
}

static void test_weights__reports_short_memory_at_every_request(void **state)
{
    int failures = 0;

    (void)state;
    remove_all();
    write_shapes("one.safetensors", one, 1);
    write_shapes("two.safetensors", two, 1);
    scratch_text("model.safetensors.index.json",
                 "{\"weight_map\": {\"a\": \"one.safetensors\", \"b\": \"two.safetensors\"}}");
    for (uint64_t n = 1;; n++) {
        mp_error err = {0};
        mp_memory_fail_at(n);
        const mp_code code = load(&err);
        mp_memory_fail_at(0);
        if (!code)
            break;
        assert_error(&err, MP_ENOMEM, "memory");
        failures++;
    }
    assert_in_range(failures, 20, 1000);
}

/* ---- survey ---- */

/* What a survey was told, a line each. */
static char told[1000];

static void tell(void *user, const mp_weights_options *o, const mp_tensor *p)
{
    char dims[120];
    const size_t at = strlen(told);

    (void)user;
    assert_true(!p->data);
    snprintf(told + at, sizeof told - at, "%s %s %s %s\n", o->component, p->name,
             mp_shape_text(*p, dims, sizeof dims), mp_dtype_name(p->store));
}

static const mp_weights_survey survey = {.parameter = tell};

static mp_code ask(const mp_weights_options *o, mp_error *err)
{
    mp_weights *w = NULL;
    mp_affine linear;
    mp_tensor x;

    told[0] = '\0';
    if (!mp_weights_open("/nowhere", o, &w, err)) {
        mp_weights_strip(w, "model.");
        mp_weights_ignore(w, "decoder.*");
        mp_weights_bind_linear(w, &linear, 4, 3, true, "b.%d", 10);
        assert_false(mp_weights_has(w, "b.10.weight"));
        mp_weights_bind(w, &x, 1, MP_DIMS(3), "norm.weight");
        mp_weights_bind(w, &x, 2, MP_DIMS(2, 3), "a.table");
        mp_weights_finish(w, err);
    }
    mp_weights_close(w);
    return err->code;
}

/* Without a file: the names in their order, and the dtypes in which a run keeps them. */
static void test_survey__tells_what_the_model_binds(void **state)
{
    static const char *const keep[] = {"a", NULL};
    mp_weights_options o = plain;
    mp_error err = {0};

    (void)state;
    o.survey = &survey;
    ask(&o, &err);
    assert_ok(&err);
    assert_string_equal(told, "net a.table [2, 3] fp32\nnet b.10.bias [4] fp32\n"
                              "net b.10.weight [4, 3] fp32\nnet norm.weight [3] fp32\n");
    o.dtype = MP_BF16;
    o.storage = MP_F8_E4M3;
    o.keep_fp32 = keep;
    ask(&o, &err);
    assert_ok(&err);
    assert_string_equal(told, "net a.table [2, 3] fp32\nnet b.10.bias [4] fp8_e4m3\n"
                              "net b.10.weight [4, 3] fp8_e4m3\nnet norm.weight [3] bf16\n");
}

static void test_survey__reports_short_memory_at_every_request(void **state)
{
    mp_weights_options o = plain;
    int failures = 0;

    (void)state;
    o.survey = &survey;
    for (uint64_t n = 1;; n++, failures++) {
        mp_error err = {0};
        mp_memory_fail_at(n);
        const mp_code code = ask(&o, &err);
        mp_memory_fail_at(0);
        if (!code)
            break;
        assert_error(&err, MP_ENOMEM, "memory");
    }
    assert_in_range(failures, 7, 100); /* a name each, what holds them, the folder's */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights__values_are_torchs_for_every_file_dtype_and_storage),
        cmocka_unit_test(test_weights__come_and_go_with_their_stage),
        cmocka_unit_test(test_weights__storage_holds_for_layers_outside_the_skipped_modules),
        cmocka_unit_test(test_weights__keep_fp32_holds_for_half_loads_only),
        cmocka_unit_test(test_weights__keep_fp32_of_fp16_holds_for_fp16_loads_only),
        cmocka_unit_test(test_weights__the_last_matching_override_wins_over_all),
        cmocka_unit_test(test_weights__names_tensors_by_component_and_parameter),
        cmocka_unit_test(test_weights__copies_what_is_not_aligned_in_its_file),
        cmocka_unit_test(test_weights__pairs_take_weight_and_bias),
        cmocka_unit_test(test_weights__one_error_lists_all_that_does_not_fit),
        cmocka_unit_test(test_weights__a_long_list_ends_in_a_count),
        cmocka_unit_test(test_weights__strips_a_prefix_where_there_is_one),
        cmocka_unit_test(test_weights__a_name_twice_after_stripping_is_refused),
        cmocka_unit_test(test_weights__foreign_dtypes_and_ranks_cannot_be_bound),
        cmocka_unit_test(test_weights__reads_all_shards_of_an_index),
        cmocka_unit_test(test_weights__refuses_an_index_that_does_not_fit),
        cmocka_unit_test(test_weights__a_broken_shard_is_named),
        cmocka_unit_test(test_weights__finds_variants_single_and_sharded),
        cmocka_unit_test(test_weights__says_which_variants_are_there),
        cmocka_unit_test(test_weights__never_reads_pickles),
        cmocka_unit_test(test_weights__names_a_missing_folder),
        cmocka_unit_test(test_weights__reports_short_memory_at_every_request),
        cmocka_unit_test(test_survey__tells_what_the_model_binds),
        cmocka_unit_test(test_survey__reports_short_memory_at_every_request),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
