/* SPDX-License-Identifier: MIT */
/*
 * AdamW: steps of the reference against the paper in f64, the sum of squares; moments in 8 bits:
 * codes are nearest entries, next to every midpoint too. Every path must give the reference's bits.
 */
#include <math.h>
#include <string.h>

#include "check.h"

static struct hm_adamw_step step_at(int t)
{
    return (struct hm_adamw_step){ .lr = 1e-3,
                                   .beta1 = 0.9,
                                   .beta2 = 0.999,
                                   .eps = 1e-8,
                                   .weight_decay = 0.1,
                                   .bias1 = 1 - pow(0.9, t),
                                   .bias2 = 1 - pow(0.999, t),
                                   .grad_scale = 0.7f };
}

static struct hm_map8 map8[2]; /* without and with sign */

/* The look-up as hanmix/kernels/map8.h states it. */
static int code_looked_up(const struct hm_map8 *map, float x)
{
    float magnitude = fabsf(x);
    uint32_t bits;

    memcpy(&bits, &magnitude, sizeof(bits));
    uint32_t from = bits > HM_MAP8_LOWEST_BITS ? bits - HM_MAP8_LOWEST_BITS : 0;
    uint32_t piece = (uint32_t)map->piece[(from >> map->shift) + (x < 0 ? map->negative : 0)];
    int code = (int)(piece & 255) + ((from & ((1u << map->shift) - 1)) >= piece >> 8);
    return x < 0 ? 255 - code : code;
}

/* The arithmetic it states; -1 where the code is not certain. */
static int code_computed(const struct hm_map8 *map, float x)
{
    const struct hm_map8_runs *runs = &map->runs;
    float a = fmaxf(fabsf(x), runs->least);
    uint32_t bits;

    memcpy(&bits, &a, sizeof(bits));
    uint32_t exponent = bits >> 23 & 31;
    int run = runs->run[exponent] + (a > runs->turn[exponent]);
    float at = fminf(fmaf(a, runs->scale[run], runs->offset[run]), runs->most[run]);
    memcpy(&bits, &at, sizeof(bits));
    if ((bits & HM_MAP8_CERTAIN) == 0 || (x < 0 && a == runs->turn[exponent]))
        return -1;
    int code = (int)(bits >> 15 & 255);
    return x < 0 ? 254 - (code < 254 ? code : 254) : code;
}

/* Around every midpoint, near and far, and anywhere. */
static void codes_compared(const struct hm_map8 *map)
{
    size_t certain = 0, all = 0;

    for (int i = 0; i < 400; i++)
        for (int k = -1000; k <= 1000; k++) {
            float x = i < 255 ? (map->value[i] + map->value[i + 1]) / 2.0f
                              : (float)pow(10, -8 * check_uniform());
            x = fmaxf(fminf(x * (1 + (float)k * (i % 2 ? 0x1p-23f : 0x1p-17f)), 1.0f), map->low);
            int want = code_looked_up(map, x), got = code_computed(map, x);
            check_that(got < 0 || got == want, "%.9g computed %d, looked up %d", (double)x, got,
                       want);
            certain += got >= 0;
            all++;
        }
    check_that(certain > all / 3, "%zu of %zu codes are certain", certain, all);
}

static void maps(void)
{
    for (int with_sign = 0; with_sign < 2; with_sign++) {
        float map[256];
        check_context("map %s sign", with_sign ? "with" : "without");
        hm_dynamic_map(with_sign, map);
        check_that(map[255] == 1.0f && map[with_sign ? 127 : 0] == 0.0f, "0 or 1 is misplaced");
        for (size_t i = 0; i < 255; i++)
            check_that(map[i] < map[i + 1], "entry %zu does not rise", i);
        codes_compared(&map8[with_sign]);
        for (int i = 0; i < 255; i++) {
            float at = (map[i] + map[i + 1]) / 2.0f;
            int low = with_sign ? 0 : 1, below = i < low ? low : i,
                above = i + 1 < low ? low : i + 1;
            check_that(code_looked_up(&map8[with_sign], at) == below, "midpoint %d", i);
            check_that(code_looked_up(&map8[with_sign], nextafterf(at, 2.0f)) == above,
                       "behind midpoint %d", i);
            check_that(code_looked_up(&map8[with_sign], map[i]) == below, "entry %d", i);
        }
    }
}

static void values(const struct hm_kernels *ref)
{
    double p = 0.5, m = 0, v = 0;
    float got_p = 0.5f, got_m = 0, got_v = 0;

    for (int t = 1; t <= 50; t++) {
        struct hm_adamw_step step = step_at(t);
        float grad = (float)check_uniform() - 0.3f;
        double g = 0.7 * (double)grad;

        check_context("adamw step %d", t);
        ref->adamw(&got_p, &grad, &got_m, &got_v, 1, &step);
        m = 0.9 * m + 0.1 * g;
        v = 0.999 * v + 0.001 * g * g;
        p -= 1e-3 * 0.1 * p;
        p -= 1e-3 * (m / step.bias1) / (sqrt(v / step.bias2) + 1e-8);
        check_that(fabs((double)got_m - m) < 1e-6 * fabs(m) + 1e-8, "m is %g, expected %g",
                   (double)got_m, m);
        check_that(fabs((double)got_v - v) < 1e-6 * v, "v is %.9g, expected %.9g", (double)got_v,
                   v);
        check_that(fabs((double)got_p - p) < 3e-7 * t / 5 + 1e-7, "param is %.9g, expected %.9g",
                   (double)got_p, p);
    }
    check_context("sum_squares");
    float *x = check_normals(1001, 1);
    double sum = 0;
    for (size_t i = 0; i < 1001; i++)
        sum += (double)x[i] * (double)x[i];
    check_that(fabs(ref->sum_squares(x, 1001) - sum) < 1e-13 * sum, "the sum is off");
    check_that(ref->sum_squares(x, 0) == 0, "the empty sum is not 0");
    maps();
}

struct moments8 {
    struct hm_moments8 view;
    size_t n, blocks;
};

static struct moments8 moments8_new(size_t n)
{
    struct moments8 all = { .n = n, .blocks = (n + HM_BLOCK8 - 1) / HM_BLOCK8 };
    float *m_absmax = check_normals(all.blocks, 0.01), *v_absmax = check_normals(all.blocks, 1e-6);

    for (size_t i = 0; i < all.blocks; i++) {
        m_absmax[i] = fabsf(m_absmax[i]);
        v_absmax[i] = fabsf(v_absmax[i]);
    }
    all.view = (struct hm_moments8){ &map8[1],       &map8[0], check_bytes(n),
                                     check_bytes(n), m_absmax, v_absmax };
    for (size_t i = 0; i < n; i++) {
        all.view.m[i] = (uint8_t)check_below(256);
        all.view.v[i] = (uint8_t)check_below(256);
    }
    return all;
}

static struct moments8 moments8_copy(const struct moments8 *from)
{
    struct moments8 all = *from;

    all.view.m = check_copy(from->view.m, from->n);
    all.view.v = check_copy(from->view.v, from->n);
    all.view.m_absmax = check_copy(from->view.m_absmax, from->blocks * sizeof(float));
    all.view.v_absmax = check_copy(from->view.v_absmax, from->blocks * sizeof(float));
    return all;
}

/* beta1 0: the moment to be coded is the gradient; the block's first, 1, is its scale. */
static void codes_near_midpoints(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    const struct hm_adamw_step all = {
        .beta1 = 0, .beta2 = 1, .eps = 1, .bias1 = 1, .bias2 = 1, .grad_scale = 1
    };

    for (int e = 0; e < 254; e++) {
        float *grad = check_floats(HM_BLOCK8), *param[2];
        struct moments8 want = moments8_new(HM_BLOCK8);
        want.view.m_absmax[0] = 0.0f;
        struct moments8 got = moments8_copy(&want);
        float middle = (map8[1].value[e] + map8[1].value[e + 1]) / 2.0f;

        check_context("%s adamw8 midpoint %d", path->name, e);
        for (size_t i = 0; i < HM_BLOCK8; i++) { /* 127 neighbours on either side */
            grad[i] = middle;
            for (size_t k = 0; k < i; k++)
                grad[i] = nextafterf(grad[i], i % 2 ? -2.0f : 2.0f);
        }
        grad[0] = 1.0f;
        for (int i = 0; i < 2; i++)
            param[i] = check_normals(HM_BLOCK8, 1);
        ref->adamw8(param[0], grad, &want.view, HM_BLOCK8, &all);
        path->adamw8(param[1], grad, &got.view, HM_BLOCK8, &all);
        check_bytes_equal("m", got.view.m, want.view.m, HM_BLOCK8);
        for (size_t i = 0; i < HM_BLOCK8; i++) {
            double x = (double)grad[i];
            uint8_t code = want.view.m[i];
            double off = fabs((double)map8[1].value[code] - x);
            check_that(
                (code == 0 || fabs((double)map8[1].value[code - 1] - x) >= off * (1 - 1e-6)) &&
                    (code == 255 || fabs((double)map8[1].value[code + 1] - x) >= off * (1 - 1e-6)),
                "%.9g is coded %u", x, code);
        }
        check_release();
    }
}

static void path8(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    for (const size_t *n = check_sizes; *n; n++) {
        float *grad = check_normals(*n, 0.01), *want_p = check_normals(*n, 1);
        float *got_p = check_copy(want_p, *n * sizeof(float));
        struct moments8 want = moments8_new(*n), got = moments8_copy(&want);
        struct hm_adamw_step step = step_at(1 + (int)check_below(100));

        check_context("%s adamw8 n %zu", path->name, *n);
        if (check_below(4) == 0)
            grad[check_below(*n)] = check_below(2) ? NAN : INFINITY;
        if (check_below(4) == 0)
            for (size_t i = 0; i < *n && i < HM_BLOCK8; i++) /* a block of nothing or denormals */
                want.view.m_absmax[0] = got.view.m_absmax[0] = grad[i] =
                    check_below(2) ? 0.0f : 1e-40f;
        if (check_below(4) == 0) { /* scales of a state that was damaged */
            static const float scales[] = { NAN, INFINITY, -1.0f };
            float scale = scales[check_below(3)];
            bool first = check_below(2);
            *(first ? want.view.m_absmax : want.view.v_absmax) = scale;
            *(first ? got.view.m_absmax : got.view.v_absmax) = scale;
        }
        for (int t = 0; t < 3; t++) {
            ref->adamw8(want_p, grad, &want.view, *n, &step);
            path->adamw8(got_p, grad, &got.view, *n, &step);
        }
        check_equal("param", got_p, want_p, *n);
        check_bytes_equal("m", got.view.m, want.view.m, *n);
        check_bytes_equal("v", got.view.v, want.view.v, *n);
        check_equal("m_absmax", got.view.m_absmax, want.view.m_absmax, want.blocks);
        check_equal("v_absmax", got.view.v_absmax, want.view.v_absmax, want.blocks);
        check_release();
    }
    codes_near_midpoints(ref, path);
}

static void path(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    for (const size_t *n = check_sizes; *n; n++) {
        size_t size = *n * sizeof(float);
        float *grad = check_normals(*n, 0.01), *want[3], *got[3];
        struct hm_adamw_step step = step_at(1 + (int)check_below(100));

        check_context("%s adamw n %zu", path->name, *n);
        if (check_below(4) == 0)
            grad[check_below(*n)] = check_below(2) ? NAN : 0;
        for (size_t i = 0; i < 3; i++) {
            want[i] =
                check_normals(*n, i == 2 ? 1e-8 : 0.01); /* v as small as what is added to it */
            for (size_t j = 0; i == 2 && j < *n; j++)
                want[2][j] = fabsf(want[2][j]);
            got[i] = check_copy(want[i], size);
        }
        for (int t = 0; t < 3; t++) {
            ref->adamw(want[0], grad, want[1], want[2], *n, &step);
            path->adamw(got[0], grad, got[1], got[2], *n, &step);
        }
        check_equal("param", got[0], want[0], *n);
        check_equal("m", got[1], want[1], *n);
        check_equal("v", got[2], want[2], *n);
        double got_sum = path->sum_squares(want[0], *n), want_sum = ref->sum_squares(want[0], *n);
        check_near_f64("sum_squares", &got_sum, &want_sum, 1, 0, 0);
        check_release();
    }
    path8(ref, path);
}

int main(int argc, char **argv)
{
    hm_map8_init(false, &map8[0]);
    hm_map8_init(true, &map8[1]);
    return check_main(argc, argv, "adamw", values, path);
}
