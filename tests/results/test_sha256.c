/* SHA-256 against the vectors of FIPS 180-4's examples and of NIST's secure hash validation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "results/metrics.h"

static const struct vector {
    const char *text, *digest;
} vectors[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqr"
     "lmnopqrsmnopqrstnopqrstu",
     "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
};

static const char million_a[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

static void test_sha256__gives_the_published_digests(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        char out[65];
        mp_sha256_hex(vectors[i].text, strlen(vectors[i].text), out);
        assert_string_equal(out, vectors[i].digest);
    }
}

static void test_sha256__of_no_bytes_needs_no_pointer(void **state)
{
    (void)state;
    char out[65];
    mp_sha256_hex(NULL, 0, out);
    assert_string_equal(out, vectors[0].digest);
}

/* One million 'a' in pieces of `first`, `first` + step, ... bytes. */
static void stream(size_t first, size_t step, bool plain, char out[65])
{
    char piece[1024];
    memset(piece, 'a', sizeof piece);
    mp_sha256 s;
    mp_sha256_init(&s);
    s.plain |= plain;
    for (size_t left = 1000000, size = first; left > 0; size = (size + step) % sizeof piece) {
        const size_t n = size < left ? size : left;
        mp_sha256_update(&s, piece, n);
        left -= n;
    }
    mp_sha256_final(&s, out);
}

static void test_sha256__of_a_million_letters_does_not_depend_on_the_pieces(void **state)
{
    (void)state;
    /* single bytes; within a block; whole blocks; either side of one; growing, empty ones too */
    static const size_t pieces[][2] = {{1, 0},  {7, 0},   {63, 0}, {64, 0},
                                       {65, 0}, {997, 0}, {0, 13}, {1, 37}};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        char out[65];
        for (int plain = 0; plain < 2; plain++) {
            stream(pieces[i][0], pieces[i][1], plain, out);
            assert_string_equal(out, million_a);
        }
    }
}

/* The padding takes one block up to 55 bytes of the last one and two from 56 on.  The published
 * digests have none of these lengths: sha256sum gives them, of that many letters 'a'. */
static void test_sha256__pads_every_length_around_a_block(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        const char *digest;
    } edges[] = {
        {55, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"},
        {56, "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a"},
        {63, "7d3e74a05d7db15bce4ad9ec0658ea98e3f06eeecf16b4c6fff2da457ddc2f34"},
        {64, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"},
        {65, "635361c48bb9eab14198e76ea8ab7f1a41685d6ad62aa9146d301d4f17eb0ae0"},
        {119, "31eba51c313a5c08226adf18d4a359cfdfd8d2e816b13f4af952f7ea6584dcfb"},
        {120, "2f3d335432c70b580af0e8e1b3674a7c020d683aa5f73aaaedfdc55af904c21c"},
        {127, "c57e9278af78fa3cab38667bef4ce29d783787a2f731d4e12200270f0c32320a"},
        {128, "6836cf13bac400e9105071cd6af47084dfacad4e5e302c94bfed24e013afb73e"},
    };
    char text[128];
    memset(text, 'a', sizeof text);
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        char out[65];
        mp_sha256_hex(text, edges[i].n, out);
        assert_string_equal(out, edges[i].digest);
    }
}

static void test_sha256__tells_apart_what_differs_in_one_bit(void **state)
{
    (void)state;
    uint8_t data[200] = {0};
    char zeros[65], out[65];
    mp_sha256_hex(data, sizeof data, zeros);
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = 0x10;
        mp_sha256_hex(data, sizeof data, out);
        assert_string_not_equal(out, zeros);
        data[i] = 0;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256__gives_the_published_digests),
        cmocka_unit_test(test_sha256__of_no_bytes_needs_no_pointer),
        cmocka_unit_test(test_sha256__of_a_million_letters_does_not_depend_on_the_pieces),
        cmocka_unit_test(test_sha256__pads_every_length_around_a_block),
        cmocka_unit_test(test_sha256__tells_apart_what_differs_in_one_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
