/* The outputs of a generation. */
#include "tests/pipelines/scratch.h"

#include "harness/outputs.h"
#include "pipelines/common/safetensors.h"

/* The first value of the picture that stands for outputs of one tensor, whose values count up. */
static float face_of(const char *name, int64_t batch, int64_t channels)
{
    enum { PLANE = 2 * 2 };
    float values[5 * 3 * PLANE];
    mp_tensor t = mp_view(values, MP_F32, 4, MP_DIMS(batch, channels, 2, 2)), face;
    mp_error err = {0};
    mp_outputs *o;

    for (int i = 0; i < 5 * 3 * PLANE; i++)
        values[i] = (float)i;
    t.name = name;
    mp_safetensors_write(scratch("o.safetensors"), &t, 1, NULL, &err);
    mp_outputs_open(scratch("o.safetensors"), &o, &err);
    assert_ok(&err);
    const bool found = mp_outputs_face(o, &face);
    if (found)
        assert_int_equal(mp_numel(face), 3 * PLANE);
    const float first = found ? *(const float *)face.data : -1;
    mp_outputs_close(o);
    return first;
}

static void test_outputs__the_first_image_and_the_frame_in_the_middle_stand_for_all(void **state)
{
    (void)state;
    assert_true(face_of("image", 1, 3) == 0);
    assert_true(face_of("image", 4, 3) == 0);
    assert_true(face_of("frames", 5, 3) == 2 * 12);
    assert_true(face_of("frames", 4, 3) == 2 * 12);
    assert_true(face_of("frames", 1, 3) == 0);
}

static void test_outputs__what_is_no_picture_stands_for_nothing(void **state)
{
    (void)state;
    assert_true(face_of("latents_000", 1, 3) == -1);
    assert_true(face_of("image", 1, 1) == -1);
    assert_true(face_of("image", 0, 3) == -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outputs__the_first_image_and_the_frame_in_the_middle_stand_for_all),
        cmocka_unit_test(test_outputs__what_is_no_picture_stands_for_nothing),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
