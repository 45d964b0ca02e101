/* The kernels of the device "meta": none of them does anything. */
#ifndef MP_KERNELS_META_H
#define MP_KERNELS_META_H

#include "kernels/backend.h"

extern const mp_backend mp_meta_backend;

#endif
