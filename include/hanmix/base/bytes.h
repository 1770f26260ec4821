/* SPDX-License-Identifier: MIT */
/*
 * Little-endian numbers in bytes, as every file format here has them; the same on every machine.
 * Thread class: thread safe.
 */
#ifndef HANMIX_BASE_BYTES_H
#define HANMIX_BASE_BYTES_H

#include <stddef.h>
#include <stdint.h>

/* The low 8 * bytes bits of value; bytes <= 8. */
static inline void hm_le_put(uint8_t *to, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static inline uint64_t hm_le_get(const void *from, size_t bytes)
{
    const uint8_t *byte = (const uint8_t *)from;
    uint64_t value = 0;

    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)byte[i] << (8 * i);
    return value;
}

#endif
