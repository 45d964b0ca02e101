#include "results/pictures.h"

#include <stdio.h>
#include <string.h>

#include "kernels/core/memory.h"
#include "results/db.h"
#include "results/metrics.h"

enum { SIZE_LIMIT = 1 << 20 }; /* bytes; 192 x 192 pixels have 110592 */

static uint32_t big_endian(const unsigned char *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* Pages show it to browsers as it is: it is nothing but the PNG that was stored. */
static bool sound(const mp_picture *p)
{
    static const unsigned char head[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    enum { HEAD = sizeof head - 1 };
    char hash[65];

    if (p->size < HEAD + 8 || memcmp(p->png, head, HEAD) || big_endian(p->png + HEAD) != p->width ||
        big_endian(p->png + HEAD + 4) != p->height)
        return false;
    mp_sha256_hex(p->png, p->size, hash);
    return !strcmp(hash, p->sha256);
}

static mp_code take(mp_store *s, sqlite3_stmt *q, int64_t cell, mp_picture *out, mp_error *err)
{
    const void *png = sqlite3_column_blob(q, 3);

    out->size = (size_t)sqlite3_column_bytes(q, 3);
    out->width = sqlite3_column_int64(q, 1);
    out->height = sqlite3_column_int64(q, 2);
    snprintf(out->sha256, sizeof out->sha256, "%s", mp_db_text(q, 0));
    if (out->size && out->size <= SIZE_LIMIT) {
        out->png = mp_alloc(out->size, 1);
        if (!out->png)
            return mp_error_set(err, MP_ENOMEM, "no memory for a picture");
        memcpy(out->png, png, out->size);
    }
    if (out->png && sound(out))
        return MP_OK;
    mp_picture_free(out);
    return mp_error_set(err, MP_EFORMAT,
                        "%s: a picture of cell %lld is not the PNG that its row tells of; run the "
                        "cell again",
                        mp_store_path(s), (long long)cell);
}

mp_code mp_picture_of(mp_store *s, int64_t cell, const char *role, mp_picture *out, mp_error *err)
{
    sqlite3_stmt *q = NULL;
    bool row = false;

    *out = (mp_picture){0};
    if (s->version < MP_DB_SINCE_FINDINGS)
        return MP_OK;
    if (!mp_db_prepare(
            s,
            "SELECT sha256, width, height, png FROM picture JOIN cell_picture ON picture "
            "= sha256 WHERE cell = ? AND role = ?",
            &q, err) &&
        !mp_db_bind(s, q, err, "it", cell, role) && !mp_db_step(s, q, &row, err) && row)
        take(s, q, cell, out, err);
    sqlite3_finalize(q);
    return err->code;
}

void mp_picture_free(mp_picture *p)
{
    mp_free(p->png);
    *p = (mp_picture){0};
}
