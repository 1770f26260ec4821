/* SPDX-License-Identifier: MIT */
/*
 * AdamW with moments in 8 bits for x86: the reference's bits. Codes are looked up in tables that
 * know every midpoint exactly; adamw8_wide.h does the same in arithmetic where tables are cheap to
 * permute, and comes here for what it leaves open.
 */
#include "adamw_values.h"

/* VW codes of values that are scaled, by look-up: see struct hm_map8. */
static inline vi map8_look_up(const struct hm_map8 *map, vf x)
{
    x = vf_min(vf_max(x, vf_set1(map->low)), vf_set1(1.0f));
    vi bits = vi_from_bits(x);
    vi sign = vi_sign_fill(bits); /* 0 or -1 */
    vi from =
        vi_max(vi_sub(vi_and(bits, vi_set1(0x7fffffff)), vi_set1(HM_MAP8_LOWEST_BITS)), vi_zero());
    vi index =
        vi_add(vi_shift_right(from, map->shift), vi_and(sign, vi_set1((int32_t)map->negative)));
    vi piece = vi_gather(map->piece, index);
    vi offset = vi_and(from, vi_set1((1 << map->shift) - 1));
    vi code = vi_and(piece, vi_set1(255));
    code = vi_sub(code, vi_less(vi_shift_right(piece, 8), vi_add(offset, vi_set1(1))));
    return vi_xor(code, vi_and(sign, vi_set1(255)));
}

/* n values, a multiple of 16, times inverse. */
static void values_look_up(const struct hm_map8 *map, const float *values, size_t n, vf inverse,
                           uint8_t *code)
{
    for (size_t i = 0; i < n; i += 16) {
        vi part[16 / VW];
        UNROLL for (size_t j = 0; j < 16 / VW; j++) part[j] =
            map8_look_up(map, vf_mul(vf_load(values + i + j * VW), inverse));
        _mm_storeu_si128((__m128i *)(code + i), vi_bytes16(part));
    }
}

static inline float scale_inverse(float absmax)
{
    return 1.0f / (absmax > HM_BLOCK8_ABSMAX_FLOOR ? absmax : HM_BLOCK8_ABSMAX_FLOOR);
}

#if VW == 16
#include "adamw8_wide.h"
#else
static void block_update(const struct adamw *constants, float *param, const float *grad,
                         const struct hm_moments8 *moments, size_t block)
{
    uint8_t *m_code = moments->m + block * HM_BLOCK8, *v_code = moments->v + block * HM_BLOCK8;
    float *m_absmax = &moments->m_absmax[block], *v_absmax = &moments->v_absmax[block];
    const float *m_value = moments->m_map->value, *v_value = moments->v_map->value;
    const vf m_scale = vf_set1(*m_absmax), v_scale = vf_set1(*v_absmax);
    vf m_most = vf_set1(0.0f), v_most = vf_set1(0.0f);
    float m[HM_BLOCK8], v[HM_BLOCK8];

    for (size_t i = 0; i < HM_BLOCK8; i += VW) {
        vf ms = vf_mul(vf_gather(m_value, vi_from_bytes(m_code + i)), m_scale);
        vf vs = vf_mul(vf_gather(v_value, vi_from_bytes(v_code + i)), v_scale);
        vf_store(param + i,
                 adamw_values(constants, vf_load(param + i), vf_load(grad + i), &ms, &vs));
        m_most = vf_max(vf_abs(ms), m_most);
        v_most = vf_max(vf_abs(vs), v_most);
        vf_store(m + i, ms);
        vf_store(v + i, vs);
    }
    *m_absmax = vf_largest(m_most);
    *v_absmax = vf_largest(v_most);
    values_look_up(moments->m_map, m, HM_BLOCK8, vf_set1(scale_inverse(*m_absmax)), m_code);
    values_look_up(moments->v_map, v, HM_BLOCK8, vf_set1(scale_inverse(*v_absmax)), v_code);
}

static void blocks_update(const struct adamw *constants, float *param, const float *grad,
                          const struct hm_moments8 *moments, size_t n_blocks)
{
    for (size_t block = 0; block < n_blocks; block++)
        block_update(constants, param + block * HM_BLOCK8, grad + block * HM_BLOCK8, moments,
                     block);
}
#endif

void HM_ISA(hm_adamw8)(float *param, const float *grad, const struct hm_moments8 *moments, size_t n,
                       const struct hm_adamw_step *step)
{
    const struct adamw constants = adamw_constants(step);
    size_t n_blocks = n / HM_BLOCK8, done = n_blocks * HM_BLOCK8;
    struct hm_moments8 rest = *moments;

    blocks_update(&constants, param, grad, moments, n_blocks);
    rest.m += done, rest.v += done;
    rest.m_absmax += n_blocks, rest.v_absmax += n_blocks;
    hm_adamw8_ref(param + done, grad + done, &rest, n - done, step);
}
