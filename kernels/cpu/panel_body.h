/* The product that all others come down to.  Included by kernels/cpu/isa.c only.
 *
 *     y [m, n] = a [m, k] b [k, n], or is added to y
 *
 * Operands are panels of 32-bit words: floats, or pairs of bf16 that are neighbours in k, where the
 * instruction set multiplies those.  a lies row after row; b is cut into strips of PANEL_N columns,
 * [n / PANEL_N][k][PANEL_N], which the innermost loop reads in order.  An element of y is a sum
 * over k in a fixed order, in fp32, whatever m, n and the position are: no bit depends on how a
 * product is cut into rows and columns.  (Only OpenBLAS, on a CPU without AVX2, does not promise
 * that.)
 *
 * Pairs of bf16 go through the CPU's own dot products, which take denormal operands and results for
 * zero: bf16 has fp32's range, so these are below 2^-126. */

/* The strip that is multiplied next, and how many lines of it the CPU is asked for with each block
 * of rows: its own prefetching, which goes by what was read last, does not foresee it. */
typedef struct panel_ahead {
    const char *at;
    int64_t lines;
} panel_ahead;

enum { PANEL_LINE = 64 };

#if defined(__AVX2__)

#if defined(__AVX512F__)
enum { PANEL_ROWS = 12 };
#else
enum { PANEL_ROWS = 6 };
#endif

/* PANEL_OVERLAP: rows of a may be nearer to one another than they are long. */
enum { PANEL_N = 2 * REG_LANES, PANEL_HALF = REG_LANES, PANEL_OVERLAP = true };

#if defined(__AVX512BF16__)

enum { PANEL_PAIRS = true };

static inline reg panel_dot(reg a, reg b, reg sum)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

#else

enum { PANEL_PAIRS = false };

static inline reg panel_dot(reg a, reg b, reg sum)
{
    return reg_fma(a, b, sum); /* never called */
}

#endif

/* sum += a b.  Of the instruction's three forms, the one that overwrites the sum: gcc takes any,
 * and moves sums about or leaves them on the stack (one twentieth of the time, measured). */
static inline void panel_accumulate(reg *sum, reg a, reg b)
{
    __asm__("vfmadd231ps %2, %1, %0" : "+v"(*sum) : "v"(a), "v"(b));
}

/* Every third row of a, so that three are reached from one register. */
enum { PANEL_BASES = (PANEL_ROWS + 2) / 3, PANEL_STEPS = 4 };

/* One step of k, which base goes on by: rows x vecs products, those of row r from base[r / 3]. */
static inline __attribute__((always_inline)) void panel_step(bool pairs, int rows, int vecs,
                                                             const char **base, int64_t lda,
                                                             const float *b, reg sum[PANEL_ROWS][2])
{
    const reg b0 = reg_floats(b), b1 = vecs == 2 ? reg_floats(b + REG_LANES) : b0;

#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        const reg x = reg_fill(*(const float *)(base[r / 3] + r % 3 * lda));
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++)
            if (pairs)
                sum[r][v] = panel_dot(x, v ? b1 : b0, sum[r][v]);
            else
                panel_accumulate(&sum[r][v], x, v ? b1 : b0);
    }
#pragma GCC unroll 16
    for (int i = 0; i < (rows + 2) / 3; i++)
        base[i] += sizeof *b;
}

/* rows x (vecs * REG_LANES) of y, the sums in registers; rows and vecs are constants. */
static inline __attribute__((always_inline)) void
panel_block(bool pairs, int rows, int vecs, const float *a, int64_t lda, const float *b,
            int64_t ldb, int64_t k, bool add, float *y, int64_t ldy, panel_ahead *ahead)
{
    const char *next = ahead->at, *const end = next + ahead->lines * PANEL_LINE;
    const char *base[PANEL_BASES];
    int64_t row_bytes = lda * (int64_t)sizeof *a, p = 0;
    reg sum[PANEL_ROWS][2];

#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++)
            sum[r][v] = reg_fill(0.0f);
#pragma GCC unroll 16
    for (int i = 0; i < (rows + 2) / 3; i++) {
        base[i] = (const char *)(a + 3 * i * lda);
        __asm__("" : "+r"(base[i])); /* one register each, not one for each row */
    }
    __asm__("" : "+r"(row_bytes));
    for (; p + PANEL_STEPS <= k; p += PANEL_STEPS) {
        if (next < end) {
            __builtin_prefetch(next, 0, 2);
            next += PANEL_LINE;
        }
#pragma GCC unroll 4
        for (int i = 0; i < PANEL_STEPS; i++, b += ldb)
            panel_step(pairs, rows, vecs, base, row_bytes, b, sum);
    }
    for (; p < k; p++, b += ldb)
        panel_step(pairs, rows, vecs, base, row_bytes, b, sum);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++, y += ldy)
#pragma GCC unroll 2
        for (int v = 0; v < vecs; v++) {
            if (add)
                sum[r][v] += reg_floats(y + v * REG_LANES);
            reg_put(y + v * REG_LANES, sum[r][v]);
        }
    ahead->at = next;
}

/* As many rows as go in blocks of `rows`; their number. */
static inline __attribute__((always_inline)) int64_t
panel_blocks(bool pairs, int rows, int vecs, const float *a, int64_t lda, const float *b,
             int64_t ldb, int64_t m, int64_t k, bool add, float *y, int64_t ldy, panel_ahead *ahead)
{
    int64_t i = 0;

    for (; i + rows <= m; i += rows)
        panel_block(pairs, rows, vecs, a + i * lda, lda, b, ldb, k, add, y + i * ldy, ldy, ahead);
    return i;
}

static inline __attribute__((always_inline)) void
panel_rows(bool pairs, int vecs, const float *a, int64_t lda, const float *b, int64_t ldb,
           int64_t m, int64_t k, bool add, float *y, int64_t ldy, panel_ahead *ahead)
{
    int64_t i = panel_blocks(pairs, PANEL_ROWS, vecs, a, lda, b, ldb, m, k, add, y, ldy, ahead);

    i += panel_blocks(pairs, 4, vecs, a + i * lda, lda, b, ldb, m - i, k, add, y + i * ldy, ldy,
                      ahead);
    panel_blocks(pairs, 1, vecs, a + i * lda, lda, b, ldb, m - i, k, add, y + i * ldy, ldy, ahead);
}

static inline __attribute__((always_inline)) void
panel_vectors(bool pairs, const float *a, int64_t lda, const float *b, int64_t ldb, int64_t m,
              int64_t columns, int64_t k, bool add, float *y, int64_t ldy, panel_ahead *ahead)
{
    if (columns == PANEL_N)
        panel_rows(pairs, 2, a, lda, b, ldb, m, k, add, y, ldy, ahead);
    else
        panel_rows(pairs, 1, a, lda, b, ldb, m, k, add, y, ldy, ahead);
}

static void panel_floats(const float *a, int64_t lda, const float *b, int64_t ldb, int64_t m,
                         int64_t columns, int64_t k, bool add, float *y, int64_t ldy,
                         panel_ahead *ahead)
{
    panel_vectors(false, a, lda, b, ldb, m, columns, k, add, y, ldy, ahead);
}

#if defined(__AMX_BF16__)

/* Two by two tiles of 16 x 16 sums; where a row or a column of them is missing, one by two. */
enum { PANEL_PAIR_ROWS = 16, PANEL_PAIR_BLOCK = 32, PANEL_PAIR_DEPTH = 16 };

static void panel_open(void)
{
    static const struct {
        uint8_t palette, start, zero[14];
        uint16_t bytes[16]; /* of a row */
        uint8_t rows[16];
    } shapes = {.palette = 1,
                .bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

    _tile_loadconfig(&shapes);
}

static void panel_close(void)
{
    _tile_release();
}

/* rows and columns: 16 or 32, constants. */
static inline __attribute__((always_inline)) void panel_tiles(int rows, int columns, const float *a,
                                                              int64_t lda, const float *b,
                                                              int64_t ldb, int64_t k, bool add,
                                                              float *y, int64_t ldy)
{
    const size_t a_row = (size_t)lda * sizeof *a, b_row = (size_t)ldb * sizeof *b;
    const size_t y_row = (size_t)ldy * sizeof *y;
    const bool wide = columns == 32, tall = rows == 32;
    float *low = y + 16 * ldy;

    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    if (add) {
        _tile_loadd(0, y, y_row);
        if (wide)
            _tile_loadd(1, y + 16, y_row);
        if (tall)
            _tile_loadd(2, low, y_row);
        if (tall && wide)
            _tile_loadd(3, low + 16, y_row);
    }
    for (int64_t p = 0; p < k; p += PANEL_PAIR_DEPTH) {
        _tile_loadd(4, a + p, a_row);
        _tile_loadd(6, b + p * ldb, b_row);
        _tile_dpbf16ps(0, 4, 6);
        if (wide) {
            _tile_loadd(7, b + p * ldb + 16, b_row);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (tall) {
            _tile_loadd(5, a + 16 * lda + p, a_row);
            _tile_dpbf16ps(2, 5, 6);
            if (wide)
                _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, y, y_row);
    if (wide)
        _tile_stored(1, y + 16, y_row);
    if (tall)
        _tile_stored(2, low, y_row);
    if (tall && wide)
        _tile_stored(3, low + 16, y_row);
}

static inline __attribute__((always_inline)) void panel_tile_rows(int columns, const float *a,
                                                                  int64_t lda, const float *b,
                                                                  int64_t ldb, int64_t m, int64_t k,
                                                                  bool add, float *y, int64_t ldy)
{
    int64_t i = 0;

    for (; i + 32 <= m; i += 32)
        panel_tiles(32, columns, a + i * lda, lda, b, ldb, k, add, y + i * ldy, ldy);
    if (i < m)
        panel_tiles(16, columns, a + i * lda, lda, b, ldb, k, add, y + i * ldy, ldy);
}

static void panel_pairs(const float *a, int64_t lda, const float *b, int64_t ldb, int64_t m,
                        int64_t columns, int64_t k, bool add, float *y, int64_t ldy,
                        panel_ahead *ahead)
{
    (void)ahead; /* no gain was measured */
    if (columns == PANEL_N)
        panel_tile_rows(32, a, lda, b, ldb, m, k, add, y, ldy);
    else
        panel_tile_rows(16, a, lda, b, ldb, m, k, add, y, ldy);
}

#else

enum { PANEL_PAIR_ROWS = 1, PANEL_PAIR_BLOCK = PANEL_ROWS, PANEL_PAIR_DEPTH = 1 };

static void panel_open(void)
{
}

static void panel_close(void)
{
}

static void panel_pairs(const float *a, int64_t lda, const float *b, int64_t ldb, int64_t m,
                        int64_t columns, int64_t k, bool add, float *y, int64_t ldy,
                        panel_ahead *ahead)
{
    panel_vectors(true, a, lda, b, ldb, m, columns, k, add, y, ldy, ahead);
}

#endif

/* One strip of b, its rows ldb words apart: PANEL_N or PANEL_HALF columns of y. */
static void panel_strip(bool pairs, const float *a, int64_t lda, const float *b, int64_t ldb,
                        int64_t m, int64_t columns, int64_t k, bool add, float *y, int64_t ldy,
                        panel_ahead *ahead)
{
    (pairs ? panel_pairs : panel_floats)(a, lda, b, ldb, m, columns, k, add, y, ldy, ahead);
}

#else

/* On every other CPU, OpenBLAS: it knows the old ones, and those that are not x86. */
enum {
    PANEL_N = 16,
    PANEL_HALF = PANEL_N,
    PANEL_OVERLAP = false,
    PANEL_ROWS = 16,
    PANEL_PAIRS = false,
    PANEL_PAIR_ROWS = 1,
    PANEL_PAIR_BLOCK = 1,
    PANEL_PAIR_DEPTH = 1
};

static void panel_open(void)
{
}

static void panel_close(void)
{
}

static void panel_strip(bool pairs, const float *a, int64_t lda, const float *b, int64_t ldb,
                        int64_t m, int64_t columns, int64_t k, bool add, float *y, int64_t ldy,
                        panel_ahead *ahead)
{
    (void)pairs, (void)ahead;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)m, (int)columns, (int)k, 1.0f, a,
                (int)lda, b, (int)ldb, add ? 1.0f : 0.0f, y, (int)ldy);
}

#endif

static int64_t panel_up(int64_t n, int64_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

/* What m, n and k (in words) of panels are multiples of; operands are filled up to them. */
static int64_t panel_m(bool pairs, int64_t m)
{
    return panel_up(m, pairs ? PANEL_PAIR_ROWS : 1);
}

/* Rows that the innermost loop takes at a time: multiples are fastest. */
static int64_t panel_full_m(bool pairs)
{
    return pairs ? PANEL_PAIR_BLOCK : PANEL_ROWS;
}

static int64_t panel_n(int64_t n)
{
    return panel_up(n, PANEL_N);
}

static int64_t panel_k(bool pairs, int64_t values)
{
    return pairs ? panel_up((values + 1) / 2, PANEL_PAIR_DEPTH) : values;
}

/* A strip of k words for each column, asked for while m rows are multiplied. */
static panel_ahead panel_ask(bool pairs, const float *strip, int64_t m, int64_t k)
{
    const int64_t blocks = panel_up(m, panel_full_m(pairs)) / panel_full_m(pairs);
    const int64_t lines = k * PANEL_N * (int64_t)sizeof *strip / PANEL_LINE;

    return (panel_ahead){(const char *)strip, panel_up(lines, blocks) / blocks};
}

/* m, n, k: multiples as above. */
static void panel_product(bool pairs, const float *a, int64_t lda, const float *b, int64_t m,
                          int64_t n, int64_t k, bool add, float *y, int64_t ldy)
{
    if (pairs)
        panel_open();
    for (int64_t j = 0; j < n; j += PANEL_N)
        panel_strip(pairs, a, lda, b + j * k, PANEL_N, m, PANEL_N, k, add, y + j, ldy,
                    &(panel_ahead){0});
    if (pairs)
        panel_close();
}

/* Whether the dtype's values are bf16's too: all fp8 values are. */
static bool panel_is_bf16(mp_dtype d)
{
    return d == MP_BF16 || d == MP_F8_E4M3 || d == MP_F8_E5M2;
}

/* n stored values become the words of a row from its at-th value on. */
static void panel_read(bool pairs, mp_dtype store, const void *from, float *row, int64_t at,
                       int64_t n)
{
    float wide[VEC_CHUNK];
    uint16_t *half = (uint16_t *)row + at;

    if (!pairs) {
        vec_widen(store, from, row + at, n);
        return;
    }
    if (store == MP_BF16) {
        memcpy(half, from, (size_t)n * sizeof *half);
        return;
    }
    for (int64_t i = 0; i < n; i += VEC_CHUNK) { /* fp8: the upper half of its fp32 is exact */
        const int64_t m = vec_min(VEC_CHUNK, n - i);
        vec_widen(store, (const char *)from + (size_t)i * mp_dtype_size(store), wide, m);
        for (int64_t j = 0; j < m; j++)
            half[i + j] = (uint16_t)(vec_bits(wide[j]) >> 16);
    }
}

/* Zeroes what is beyond `values` in rows of k words. */
static void panel_fill_up(bool pairs, float *rows, int64_t ld, int64_t count, int64_t values,
                          int64_t k)
{
    const size_t used = (size_t)values * (pairs ? sizeof(uint16_t) : sizeof(float));
    const size_t all = (size_t)k * sizeof(float);

    for (int64_t i = 0; i < count && used < all; i++)
        memset((char *)(rows + i * ld) + used, 0, all - used);
}

#if defined(__AVX2__)

/* 8 x 8 words: rows of `from` become columns. */
static inline void panel_turn(const float *from, int64_t ld, float *to, int64_t to_ld)
{
    __m256 r[8], s[8];

#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        r[i] = _mm256_loadu_ps(from + i * ld);
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(s[i], s[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(s[i], s[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + i * to_ld, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(to + (i + 4) * to_ld, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

enum { PANEL_TURN = 8 };

#else

static inline void panel_turn(const float *from, int64_t ld, float *to, int64_t to_ld)
{
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            to[j * to_ld + i] = from[i * ld + j];
}

enum { PANEL_TURN = 4 };

#endif

/* n rows of k words, `ld` apart, become k rows of n, `to_ld` apart; n: a multiple of PANEL_TURN. */
static void panel_transpose(const float *rows, int64_t ld, int64_t n, int64_t k, float *to,
                            int64_t to_ld)
{
    int64_t p = 0;

    for (; p + PANEL_TURN <= k; p += PANEL_TURN)
        for (int64_t j = 0; j < n; j += PANEL_TURN)
            panel_turn(rows + j * ld + p, ld, to + p * to_ld + j, to_ld);
    for (; p < k; p++)
        for (int64_t j = 0; j < n; j++)
            to[p * to_ld + j] = rows[j * ld + p];
}

/* Rows [count, all) become zero: they enter no result, but what the scratch held before may be
 * denormal as floats, as pairs of bf16 are, and make each of the CPU's steps a hundred times as
 * long. */
static void panel_clear(float *rows, int64_t ld, int64_t count, int64_t all, int64_t k)
{
    for (int64_t i = count; i < all; i++)
        memset(rows + i * ld, 0, (size_t)k * sizeof *rows);
}

/* Whether rows of k stored values, `stride` values apart, can be read as words where they lie. */
static bool panel_in_place(bool pairs, mp_dtype store, const void *from, int64_t stride, int64_t k)
{
    if ((uintptr_t)from % sizeof(float))
        return false;
    return pairs ? store == MP_BF16 && stride % 2 == 0 && k % (2 * PANEL_PAIR_DEPTH) == 0
                 : store == MP_F32;
}

/* n rows of k stored values, `stride` values apart, become columns of words whose neighbours in k
 * lie to_ld apart, filled up to `columns`, a multiple of PANEL_TURN.  `rows` [columns, ld] is room
 * to work in. */
static void panel_turn_rows(bool pairs, mp_dtype store, const void *from, int64_t stride, int64_t n,
                            int64_t columns, int64_t k, float *rows, int64_t ld, float *to,
                            int64_t to_ld)
{
    const size_t size = mp_dtype_size(store);
    const int64_t words = panel_k(pairs, k);

    if (n == columns && panel_in_place(pairs, store, from, stride, k)) {
        panel_transpose(from, pairs ? stride / 2 : stride, columns, words, to, to_ld);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        panel_read(pairs, store, (const char *)from + (size_t)(i * stride) * size, rows + i * ld, 0,
                   k);
    panel_fill_up(pairs, rows, ld, n, k, words);
    panel_clear(rows, ld, n, columns, words);
    panel_transpose(rows, ld, columns, words, to, to_ld);
}

/* b [k, n] from its columns: n rows of k stored values that lie `stride` values apart.  `rows`
 * [PANEL_N, ld] is room to work in. */
static void panel_pack_columns(bool pairs, mp_dtype store, const void *from, int64_t stride,
                               int64_t n, int64_t k, float *rows, int64_t ld, float *b)
{
    const size_t size = mp_dtype_size(store);
    const int64_t words = panel_k(pairs, k);

    for (int64_t j = 0; j < n; j += PANEL_N)
        panel_turn_rows(pairs, store, (const char *)from + (size_t)(j * stride) * size, stride,
                        vec_min(PANEL_N, n - j), PANEL_N, k, rows, ld, b + j * words, PANEL_N);
}

/* A bf16 in a word, which is read as a float again. */
typedef uint16_t __attribute__((may_alias)) panel_half;

/* Neighbours in k of one row of pairs. */
static void panel_weave(const panel_half *even, const panel_half *odd, int64_t n, panel_half *to)
{
    for (int64_t j = 0; j < n; j++) {
        to[2 * j] = even[j];
        to[2 * j + 1] = odd[j];
    }
}

/* b [k, n] from its rows, `stride` values apart, in pairs; `rows` is room for two of them. */
static void panel_pack_pairs(mp_dtype store, const void *from, int64_t stride, int64_t k, int64_t n,
                             float *rows, float *b)
{
    const size_t size = mp_dtype_size(store);
    const int64_t words = panel_k(true, k);
    panel_half *even = (panel_half *)rows, *odd = even + n;

    for (int64_t p = 0; p < words; p++) {
        for (int i = 0; i < 2; i++)
            if (2 * p + i < k)
                panel_read(true, store, (const char *)from + (size_t)((2 * p + i) * stride) * size,
                           rows, i * n, n);
            else
                memset(i ? odd : even, 0, (size_t)n * sizeof *odd);
        for (int64_t j = 0; j < n; j += PANEL_N)
            panel_weave(even + j, odd + j, vec_min(PANEL_N, n - j),
                        (panel_half *)(b + j * words + p * PANEL_N));
    }
}

/* The same for either kind of words. */
static void panel_pack_rows(bool pairs, mp_dtype store, const void *from, int64_t stride, int64_t k,
                            int64_t n, float *rows, float *b)
{
    const size_t size = mp_dtype_size(store);

    if (pairs) {
        panel_pack_pairs(store, from, stride, k, n, rows, b);
        return;
    }
    for (int64_t p = 0; p < k; p++)
        for (int64_t j = 0; j < n; j += PANEL_N) {
            float *row = b + j * k + p * PANEL_N;
            const int64_t m = vec_min(PANEL_N, n - j);
            vec_widen(store, (const char *)from + (size_t)(p * stride + j) * size, row, m);
            memset(row + m, 0, (size_t)(PANEL_N - m) * sizeof *row); /* as panel_clear */
        }
}
