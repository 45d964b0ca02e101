/* The small pictures that the database holds of cells and of their references.
 *
 *     mp_picture p;
 *     if (!mp_picture_of(s, cell, "output", &p, &err) && p.png)
 *         fwrite(p.png, 1, p.size, to);
 *     mp_picture_free(&p);
 */
#ifndef MP_RESULTS_PICTURES_H
#define MP_RESULTS_PICTURES_H

#include "results/store.h"

typedef struct mp_picture {
    int64_t width, height;
    char sha256[65];    /* of png: fit for the name of a file */
    unsigned char *png; /* NULL: there is none on record */
    size_t size;
} mp_picture;

/* role: "output" or "reference".  MP_EFORMAT for bytes that are not what the row says of them: the
 * hash, and a head of a PNG of that size. */
mp_code mp_picture_of(mp_store *s, int64_t cell, const char *role, mp_picture *out, mp_error *err);
void mp_picture_free(mp_picture *p);

#endif
