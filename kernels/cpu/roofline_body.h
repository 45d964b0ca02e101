/* Loops that do nothing but multiply and add, in registers: how fast this instruction set can be.
 * Each returns the FLOPs it did.  Included by kernels/cpu/isa.c only. */

#if defined(__AVX2__)

/* Two units of four cycles are busy with eight sums; these are as many as registers allow. */
enum { PEAK_SUMS = 12 };

/* Keeps what a loop computes in registers, and the compiler from computing less. */
#define PEAK_USE(v) __asm__ volatile("" : "+x"(v))

static inline __attribute__((always_inline)) int64_t peak_sums(bool pairs, int64_t turns)
{
    reg sum[PEAK_SUMS] = {0}, a = {0}, b = {0};

    PEAK_USE(a);
    PEAK_USE(b);
    for (int64_t t = 0; t < turns; t++)
#pragma GCC unroll 12
        for (int i = 0; i < PEAK_SUMS; i++) {
            sum[i] = pairs ? panel_dot(a, b, sum[i]) : reg_fma(a, b, sum[i]);
            PEAK_USE(sum[i]);
        }
    return turns * PEAK_SUMS * REG_LANES * (pairs ? 4 : 2);
}

static int64_t peak_fma(int64_t turns)
{
    return peak_sums(false, turns);
}

#else

/* OpenBLAS multiplies here (kernels/cpu/panel_body.h): its own product, small enough for the cache.
 */
static int64_t peak_fma(int64_t turns)
{
    enum { N = 64, PART = 1000 }; /* PART turns are one product */
    static const float a[N * N], b[N * N];
    float y[N * N];

    for (int64_t t = 0; t < turns; t += PART)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, N, N, N, 1.0f, a, N, b, N, 0.0f, y,
                    N);
    return (turns + PART - 1) / PART * 2 * N * N * N;
}

#endif

#if defined(__AMX_BF16__)

/* As in panel_pairs: two by two tiles, [16 x 16] += [16 x 32] [32 x 16]. */
static int64_t peak_pairs(int64_t turns)
{
    panel_open();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (int64_t t = 0; t < turns; t++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    panel_close();
    return turns * 4 * 16 * 16 * 32 * 2;
}

#elif defined(__AVX512BF16__)

static int64_t peak_pairs(int64_t turns)
{
    return peak_sums(true, turns);
}

#else
#define peak_pairs NULL
#endif
