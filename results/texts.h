/* Texts that live together, each kept once: equal texts are equal pointers. */
#ifndef MP_RESULTS_TEXTS_H
#define MP_RESULTS_TEXTS_H

typedef struct mp_texts mp_texts;

mp_texts *mp_texts_create(void); /* NULL: no memory */
void mp_texts_free(mp_texts *t); /* NULL is fine */
/* NULL: no memory. */
const char *mp_texts_keep(mp_texts *t, const char *text);

#endif
