#include "kernels/core/dtype.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

typedef struct dtype_row {
    size_t bytes;
    const char *name, *safetensors, *torch, *scalar, *c10;
} dtype_row;

#define X(id, type, name, bytes, st, torch, scalar) \
    [MP_##id] = {bytes, #name, st, torch, scalar, "c10::" scalar},
static const dtype_row rows[MP_DTYPE_COUNT] = {
#include "kernels/core/dtype.def"
};
#undef X

static const struct {
    double max;
    int mantissa, exponent; /* explicit bits */
} formats[MP_DTYPE_COUNT] = {
    [MP_F32] = {3.40282346638528859812e38, 23, 8},
    [MP_F16] = {65504, 10, 5},
    [MP_BF16] = {3.38953138925153547590e38, 7, 8},
    [MP_F8_E4M3] = {448, 3, 4},
    [MP_F8_E5M2] = {57344, 2, 5},
};

static const dtype_row *row_of(mp_dtype d)
{
    assert(d >= 0 && d < MP_DTYPE_COUNT);
    return &rows[d];
}

size_t mp_dtype_size(mp_dtype d)
{
    return row_of(d)->bytes;
}

const char *mp_dtype_name(mp_dtype d)
{
    return row_of(d)->name;
}

const char *mp_dtype_safetensors(mp_dtype d)
{
    return row_of(d)->safetensors;
}

const char *mp_dtype_torch(mp_dtype d)
{
    return row_of(d)->torch;
}

const char *mp_dtype_scalar(mp_dtype d)
{
    return row_of(d)->scalar;
}

/* C++'s own type has no c10 name. */
const char *mp_dtype_c10(mp_dtype d)
{
    return d == MP_F32 ? "float" : row_of(d)->c10;
}

double mp_dtype_max(mp_dtype d)
{
    assert(d >= 0 && d < MP_DTYPE_COUNT);
    return formats[d].max;
}

int mp_dtype_mantissa(mp_dtype d)
{
    assert(d >= 0 && d < MP_DTYPE_COUNT);
    return formats[d].mantissa;
}

static bool is_name(const dtype_row *r, const char *text)
{
    return !strcmp(text, r->name) || !strcmp(text, r->torch) || !strcasecmp(text, r->safetensors);
}

bool mp_dtype_parse(const char *text, mp_dtype *out)
{
    static const struct {
        const char *alias;
        mp_dtype dtype;
    } aliases[] = {
        {"float", MP_F32},           {"half", MP_F16},    {"fp8_e4m3fn", MP_F8_E4M3},
        {"float8_e4m3", MP_F8_E4M3}, {"fp8", MP_F8_E4M3},
    };

    if (!strncmp(text, "torch.", 6))
        text += 6;
    for (int d = 0; d < MP_DTYPE_COUNT; d++)
        if (is_name(&rows[d], text)) {
            *out = (mp_dtype)d;
            return true;
        }
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (!strcmp(text, aliases[i].alias)) {
            *out = aliases[i].dtype;
            return true;
        }
    return false;
}

/* e5m2 is the upper byte of a half; e4m3's 4 exponent and 3 mantissa bits fit both halves. */
bool mp_dtype_widens(mp_dtype from, mp_dtype to)
{
    if (from == to)
        return true;
    return formats[from].mantissa <= formats[to].mantissa &&
           formats[from].exponent <= formats[to].exponent;
}

static bool is_fp8(mp_dtype d)
{
    return d == MP_F8_E4M3 || d == MP_F8_E5M2;
}

mp_dtype mp_dtype_promote(mp_dtype a, mp_dtype b)
{
    if (a == b)
        return a;
    if (is_fp8(a) || is_fp8(b))
        return MP_DTYPE_COUNT;
    return MP_F32; /* fp16 with bf16 meet in fp32, and anything with fp32 */
}
