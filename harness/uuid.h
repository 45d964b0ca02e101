/* Names for rows that meet those of other databases. */
#ifndef MP_HARNESS_UUID_H
#define MP_HARNESS_UUID_H

#include "kernels/core/status.h"

/* Random, RFC 9562 version 4. */
mp_code mp_uuid_make(char out[37], mp_error *err);

#endif
