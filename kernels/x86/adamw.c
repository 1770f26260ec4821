/* SPDX-License-Identifier: MIT */
/*
 * AdamW, also with moments in 8 bits, and the sum of squares for x86: the reference's operations in
 * its order, the same bits (division and square root are exact roundings everywhere; the square of
 * an f32 is exact in f64; codes are looked up in tables that know every midpoint exactly).
 */
#include <math.h>

#include "isa.h"
#include "simd.h"

struct adamw { /* the constants of a step */
    vf keep, to_m, keep_v, to_v, rate, root_bias2, eps, clip;
};

static inline struct adamw adamw_constants(const struct hm_adamw_step *step)
{
    return (struct adamw){ .keep = vf_set1((float)(1.0 - step->lr * step->weight_decay)),
                           .to_m = vf_set1((float)(1.0 - step->beta1)),
                           .keep_v = vf_set1((float)step->beta2),
                           .to_v = vf_set1((float)(1.0 - step->beta2)),
                           .rate = vf_set1((float)(step->lr / step->bias1)),
                           .root_bias2 = vf_set1((float)sqrt(step->bias2)),
                           .eps = vf_set1((float)step->eps),
                           .clip = vf_set1(step->grad_scale) };
}

/* The new parameter; moments in place. */
static inline vf adamw_values(const struct adamw *c, vf p, vf g, vf *m, vf *v)
{
    g = vf_mul(g, c->clip);
    *m = vf_add(*m, vf_mul(c->to_m, vf_sub(g, *m)));
    *v = vf_add(vf_mul(*v, c->keep_v), vf_mul(vf_mul(c->to_v, g), g));
    vf denominator = vf_add(vf_div(vf_sqrt(*v), c->root_bias2), c->eps);
    return vf_sub(vf_mul(p, c->keep), vf_div(vf_mul(c->rate, *m), denominator));
}

void HM_ISA(hm_adamw)(float *param, const float *grad, float *m, float *v, size_t n,
                      const struct hm_adamw_step *step)
{
    const struct adamw constants = adamw_constants(step);
    const vf zero = vf_set1(0.0f);

    for (size_t i = 0; i < n; i += VW) {
        size_t left = n - i;
        vf g = vf_next(grad + i, left, zero), p = vf_next(param + i, left, zero);
        vf ms = vf_next(m + i, left, zero), vs = vf_next(v + i, left, zero);
        p = adamw_values(&constants, p, g, &ms, &vs);
        vf_put(m + i, ms, left);
        vf_put(v + i, vs, left);
        vf_put(param + i, p, left);
    }
}

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

#if VW == 16
struct runs { /* struct hm_map8_runs in registers */
    vf turn[2], scale, offset, least, most;
    vi run[2];
};

static inline struct runs runs_load(const struct hm_map8 *map)
{
    const struct hm_map8_runs *r = &map->runs;

    return (struct runs){ { vf_load(r->turn), vf_load(r->turn + 16) },
                          vf_load(r->scale),
                          vf_load(r->offset),
                          vf_load(r->least),
                          vf_load(r->most),
                          { _mm512_loadu_si512(r->run), _mm512_loadu_si512(r->run + 16) } };
}

/* In arithmetic; where a code is not certain, all are looked up. */
static inline vi map8_codes(const struct hm_map8 *map, const struct runs *runs, vf x)
{
    x = vf_min(vf_max(x, vf_set1(map->low)), vf_set1(1.0f));
    vf a = vf_abs(x);
    vi from = vi_max(vi_sub(vi_from_bits(a), vi_set1(HM_MAP8_LOWEST_BITS)), vi_zero());
    vi exponent = vi_shift_right(from, 23);
    vf turn = table32_at(runs->turn[0], runs->turn[1], exponent);
    vi run = _mm512_permutex2var_epi32(runs->run[0], exponent, runs->run[1]);
    run = _mm512_mask_add_epi32(run, _mm512_cmp_ps_mask(a, turn, _CMP_GT_OQ), run, vi_set1(1));
    vf at = vf_fma(a, _mm512_permutexvar_ps(run, runs->scale),
                   _mm512_permutexvar_ps(run, runs->offset));
    at = vf_max(at, _mm512_permutexvar_ps(run, runs->least));
    at = vf_min(at, _mm512_permutexvar_ps(run, runs->most));
    vf apart = vf_abs(vf_sub(at, vf_nearest(at)));
    if (_mm512_cmp_ps_mask(apart, vf_set1(HM_MAP8_NEAR), _CMP_LT_OQ) |
        _mm512_cmp_ps_mask(a, turn, _CMP_EQ_OQ))
        return map8_look_up(map, x);
    vi code = _mm512_cvttps_epi32(at);
    return _mm512_mask_sub_epi32(code, _mm512_movepi32_mask(vi_from_bits(x)), vi_set1(254),
                                 _mm512_min_epi32(code, vi_set1(254)));
}
#else
struct runs {
    int none;
};

static inline struct runs runs_load(const struct hm_map8 *map)
{
    (void)map;
    return (struct runs){ 0 };
}

static inline vi map8_codes(const struct hm_map8 *map, const struct runs *runs, vf x)
{
    (void)runs;
    return map8_look_up(map, x);
}
#endif

static void block8_encode(const struct hm_map8 *map, const float values[HM_BLOCK8], float largest,
                          uint8_t *code)
{
    const struct runs runs = runs_load(map);
    vf inverse =
        vf_set1(1.0f / (largest > HM_BLOCK8_ABSMAX_FLOOR ? largest : HM_BLOCK8_ABSMAX_FLOOR));

    for (size_t i = 0; i < HM_BLOCK8; i += 16) {
        vi part[16 / VW];
        UNROLL for (size_t j = 0; j < 16 / VW; j++) part[j] =
            map8_codes(map, &runs, vf_mul(vf_load(values + i + j * VW), inverse));
        _mm_storeu_si128((__m128i *)(code + i), vi_bytes16(part));
    }
}

static void block8_update(const struct adamw *constants, float *param, const float *grad,
                          const struct hm_moments8 *moments, size_t block)
{
    uint8_t *m_code = moments->m + block * HM_BLOCK8, *v_code = moments->v + block * HM_BLOCK8;
    float *m_absmax = &moments->m_absmax[block], *v_absmax = &moments->v_absmax[block];
    const vf m_scale = vf_set1(*m_absmax), v_scale = vf_set1(*v_absmax);
    const struct table256 m_table = table256_load(moments->m_map->value);
    const struct table256 v_table = table256_load(moments->v_map->value);
    vf m_most = vf_set1(0.0f), v_most = vf_set1(0.0f);
    float m[HM_BLOCK8], v[HM_BLOCK8];

    for (size_t i = 0; i < HM_BLOCK8; i += VW) {
        vf ms = vf_mul(table256_at(&m_table, vi_from_bytes(m_code + i)), m_scale);
        vf vs = vf_mul(table256_at(&v_table, vi_from_bytes(v_code + i)), v_scale);
        vf_store(param + i,
                 adamw_values(constants, vf_load(param + i), vf_load(grad + i), &ms, &vs));
        m_most = vf_max(vf_abs(ms), m_most);
        v_most = vf_max(vf_abs(vs), v_most);
        vf_store(m + i, ms);
        vf_store(v + i, vs);
    }
    *m_absmax = vf_largest(m_most);
    *v_absmax = vf_largest(v_most);
    block8_encode(moments->m_map, m, *m_absmax, m_code);
    block8_encode(moments->v_map, v, *v_absmax, v_code);
}

void HM_ISA(hm_adamw8)(float *param, const float *grad, const struct hm_moments8 *moments, size_t n,
                       const struct hm_adamw_step *step)
{
    const struct adamw constants = adamw_constants(step);
    size_t n_blocks = n / HM_BLOCK8, done = n_blocks * HM_BLOCK8;
    struct hm_moments8 rest = *moments;

    for (size_t block = 0; block < n_blocks; block++)
        block8_update(&constants, param + block * HM_BLOCK8, grad + block * HM_BLOCK8, moments,
                      block);
    rest.m += done, rest.v += done;
    rest.m_absmax += n_blocks, rest.v_absmax += n_blocks;
    hm_adamw8_ref(param + done, grad + done, &rest, n - done, step);
}

double HM_ISA(hm_sum_squares)(const float *x, size_t n)
{
    enum { PARTS = HM_LANES_F64 / (VW / 2) };
    vd sum[PARTS];

    UNROLL for (size_t j = 0; j < PARTS; j++) sum[j] = vd_zero();
    for (size_t i = 0; i < n; i += HM_LANES_F64)
        UNROLL for (size_t j = 0; j < PARTS / 2; j++)
        {
            size_t at = i + j * VW;
            if (at >= n)
                break;
            vf a = vf_next(x + at, n - at, vf_set1(0.0f));
            sum[2 * j] = vd_fma(vd_low(a), vd_low(a), sum[2 * j]);
            sum[2 * j + 1] = vd_fma(vd_high(a), vd_high(a), sum[2 * j + 1]);
        }
    UNROLL for (size_t width = PARTS / 2; width > 0; width /= 2)
        UNROLL for (size_t j = 0; j < width; j++) sum[j] = vd_add(sum[j], sum[j + width]);
    return vd_join(sum[0]);
}
