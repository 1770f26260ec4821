/* SPDX-License-Identifier: MIT */
/*
 * Numbers as users write them (sizes, counts, reals, booleans), the shortest text of a double, and
 * the distance of names. Integers are read exactly, never through a double.
 */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "hanmix/base/str.h"

struct decimal { /* mantissa * 10^exponent */
    uint64_t mantissa;
    int exponent;
};

/* digits [. digits] [e [+-] digits]; returns the first byte after it, NULL when malformed or too
 * long. */
static const char *decimal_read(const char *text, struct decimal *ret)
{
    struct decimal number = { 0 };
    bool digits = false;
    bool after_point = false;

    for (;; text++) {
        if (*text == '.' && !after_point) {
            after_point = true;
            continue;
        }
        if (!isdigit((unsigned char)*text))
            break;
        if (__builtin_mul_overflow(number.mantissa, 10u, &number.mantissa) ||
            __builtin_add_overflow(number.mantissa, (uint64_t)(*text - '0'), &number.mantissa))
            return NULL;
        number.exponent -= after_point;
        digits = true;
    }
    if (!digits)
        return NULL;
    if (*text == 'e' || *text == 'E') {
        char *end;
        const char *first = text + 1 + (text[1] == '+' || text[1] == '-');
        if (!isdigit((unsigned char)*first))
            return NULL;
        long exponent = strtol(text + 1, &end, 10);
        if (exponent < -100 || exponent > 100)
            return NULL;
        number.exponent += (int)exponent;
        text = end;
    }
    *ret = number;
    return text;
}

/* number << shift as an integer; false when it overflows or, if exact, is not integral. */
static bool decimal_integer(struct decimal number, unsigned shift, uint64_t *ret)
{
    uint64_t value = number.mantissa;

    if (__builtin_mul_overflow(value, (uint64_t)1 << shift, &value))
        return false;
    for (; number.exponent > 0 && value > 0; number.exponent--)
        if (__builtin_mul_overflow(value, 10u, &value))
            return false;
    for (; number.exponent < 0 && value > 0; number.exponent++) {
        if (value % 10 != 0)
            return false;
        value /= 10;
    }
    *ret = value;
    return true;
}

/* "", K, M, G, T with an optional B or iB; returns the shift, or -1. */
static int size_shift(const char *suffix)
{
    static const char letter[] = "KMGT";
    const char *found = *suffix ? strchr(letter, toupper((unsigned char)*suffix)) : NULL;
    int shift = found ? 10 * (int)(found - letter + 1) : 0;

    if (found)
        suffix++;
    if (*suffix == '\0' || strcasecmp(suffix, "B") == 0 || (found && strcasecmp(suffix, "iB") == 0))
        return shift;
    return -1;
}

int hm_parse_size(const char *text, uint64_t *ret_bytes, struct hm_error *err)
{
    struct decimal number;
    const char *end = decimal_read(text, &number);
    int shift = end ? size_shift(end) : -1;

    if (shift < 0 || !decimal_integer(number, (unsigned)shift, ret_bytes))
        return hm_fail(
            err, HM_ERR_USAGE,
            "'%s' is not a size: expected a number of bytes, or one with K, M, G or T (24G)", text);
    return HM_OK;
}

int hm_parse_count(const char *text, uint64_t *ret_count, struct hm_error *err)
{
    struct decimal number;
    const char *end = decimal_read(text, &number);

    if (!end || *end != '\0' || !decimal_integer(number, 0, ret_count))
        return hm_fail(err, HM_ERR_USAGE,
                       "'%s' is not a count: expected a whole number such as 25000 or 1e6", text);
    return HM_OK;
}

int hm_parse_double(const char *text, double *ret_value, struct hm_error *err)
{
    char *end = NULL;
    bool starts_well = isdigit((unsigned char)*text) || strchr("+-.", *text);
    double value = starts_well && *text ? strtod(text, &end) : 0;

    if (!end || end == text || *end != '\0' || !isfinite(value) || strpbrk(text, "xX"))
        return hm_fail(err, HM_ERR_USAGE, "'%s' is not a finite number", text);
    *ret_value = value;
    return HM_OK;
}

int hm_parse_bool(const char *text, bool *ret_value, struct hm_error *err)
{
    static const char *const yes[] = { "true", "yes", "on", "1" };
    static const char *const no[] = { "false", "no", "off", "0" };

    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        bool is_yes = strcasecmp(text, yes[i]) == 0;
        if (is_yes || strcasecmp(text, no[i]) == 0) {
            *ret_value = is_yes;
            return HM_OK;
        }
    }
    return hm_fail(err, HM_ERR_USAGE, "'%s' is not a truth value: expected true or false", text);
}

/* Digits without trailing zeros and the decimal exponent of the fewest digits that read back as
 * value. */
static int shortest_digits(double value, char digits[24])
{
    char text[40];

    for (int precision = 0; precision < 17; precision++) {
        snprintf(text, sizeof(text), "%.*e", precision, value);
        if (strtod(text, NULL) == value)
            break;
    }
    char *mark = strchr(text, 'e');
    size_t n = 0;
    for (const char *c = text; c < mark; c++)
        if (isdigit((unsigned char)*c))
            digits[n++] = *c;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    digits[n] = '\0';
    return atoi(mark + 1);
}

void hm_double_text(double value, char out[HM_DOUBLE_TEXT_BYTES])
{
    char digits[24];
    const size_t cap = HM_DOUBLE_TEXT_BYTES;

    if (!isfinite(value)) {
        snprintf(out, cap, "%s", isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity");
        return;
    }
    const char *sign = signbit(value) ? "-" : "";
    int exponent = shortest_digits(fabs(value), digits);
    int n = (int)strlen(digits);

    if (exponent < -4 || exponent >= 16)
        snprintf(out, cap, "%s%.1s%s%se%c%02d", sign, digits, n > 1 ? "." : "", digits + 1,
                 exponent < 0 ? '-' : '+', abs(exponent));
    else if (exponent < 0)
        snprintf(out, cap, "%s0.%.*s%s", sign, -exponent - 1, "000", digits);
    else if (n <= exponent + 1)
        snprintf(out, cap, "%s%s%.*s.0", sign, digits, exponent + 1 - n, "0000000000000000");
    else
        snprintf(out, cap, "%s%.*s.%s", sign, exponent + 1, digits, digits + exponent + 1);
}

#define NAME_MAX_BYTES 64u

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

unsigned hm_edit_distance(const char *a, const char *b)
{
    unsigned rows[3][NAME_MAX_BYTES + 1];
    size_t a_len = strlen(a);
    size_t b_len = strlen(b);

    if (a_len > NAME_MAX_BYTES || b_len > NAME_MAX_BYTES) /* no name of ours is that long */
        return strcmp(a, b) == 0 ? 0 : NAME_MAX_BYTES;
    for (unsigned j = 0; j <= b_len; j++)
        rows[0][j] = j;
    for (unsigned i = 1; i <= a_len; i++) {
        unsigned *row = rows[i % 3];
        const unsigned *up = rows[(i + 2) % 3];
        const unsigned *up2 = rows[(i + 1) % 3];
        row[0] = i;
        for (unsigned j = 1; j <= b_len; j++) {
            unsigned change = up[j - 1] + (a[i - 1] != b[j - 1]);
            row[j] = least(change, least(up[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = least(row[j], up2[j - 2] + 1);
        }
    }
    return rows[a_len % 3][b_len];
}
