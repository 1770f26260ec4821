/* SPDX-License-Identifier: MIT */
/*
 * Regular expressions over module names. PEFT matches target_modules (as a string), rank_pattern
 * and alpha_pattern with Python's re; a pattern comes from a file and is hostile, so it is compiled
 * into a small program with a size limit and run on all states at once (Thompson 1968): time is
 * bounded by program length times name length. Only "does the whole name match" is answered, so
 * greedy and lazy repetition are the same thing. Jumps are relative: a piece of program can be
 * copied or moved.
 */
#include "module_pattern.h"

#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/str.h"

enum { PROGRAM_LIMIT = 2000, DEPTH_LIMIT = 32, REPEAT_LIMIT = 1000 };

enum op { OP_SET, OP_SPLIT, OP_JUMP, OP_BEGIN, OP_END, OP_MATCH };

struct instruction {
    enum op op;
    int first, second; /* relative targets of a split; first alone of a jump */
    uint64_t set[4];   /* bytes accepted by OP_SET */
};

struct hm_pattern_program {
    struct instruction *code;
    size_t count, cap;
};

struct parser {
    struct hm_pattern_program *program;
    const char *text, *at;
    int depth;
    struct hm_error *err;
};

static int parse_alternatives(struct parser *p);

static int fail_at(const struct parser *p, const char *why)
{
    return hm_fail(p->err, HM_ERR_FORMAT, "pattern '%.200s': %s at character %zu", p->text, why,
                   (size_t)(p->at - p->text) + 1);
}

static int emit(struct parser *p, struct instruction instruction)
{
    struct hm_pattern_program *program = p->program;

    if (program->count >= PROGRAM_LIMIT)
        return fail_at(p, "the expression is too large");
    if (program->count == program->cap) {
        size_t cap = program->cap ? 2 * program->cap : 32;
        struct instruction *code =
            hm_realloc(HM_MEM_SCRATCH, program->code, cap * sizeof *program->code);
        if (!code)
            return hm_fail_nomem(p->err, "for pattern '%.200s'", p->text);
        program->code = code;
        program->cap = cap;
    }
    program->code[program->count++] = instruction;
    return HM_OK;
}

/* Put one instruction before the piece that starts at index start. */
static int insert(struct parser *p, size_t start, struct instruction instruction)
{
    HM_TRY(emit(p, instruction));
    struct instruction *code = p->program->code;
    memmove(code + start + 1, code + start, (p->program->count - 1 - start) * sizeof *code);
    code[start] = instruction;
    return HM_OK;
}

static void set_add(uint64_t set[4], unsigned first, unsigned last)
{
    for (unsigned c = first; c <= last; c++)
        set[c / 64] |= UINT64_C(1) << (c % 64);
}

static void set_complement(uint64_t set[4])
{
    for (int i = 0; i < 4; i++)
        set[i] = ~set[i];
}

/* The set of an escape after the backslash; p->at is on its letter and moves past it. */
static int escape_set(struct parser *p, uint64_t set[4], int *ret_literal)
{
    unsigned char c = (unsigned char)*p->at;

    *ret_literal = -1;
    memset(set, 0, 4 * sizeof *set);
    switch (c | 0x20) {
    case 'd':
        set_add(set, '0', '9');
        break;
    case 'w':
        set_add(set, '0', '9');
        set_add(set, 'a', 'z');
        set_add(set, 'A', 'Z');
        set_add(set, '_', '_');
        break;
    case 's':
        set_add(set, '\t', '\r');
        set_add(set, ' ', ' ');
        break;
    default:
        if (!c || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
            return fail_at(p, "this escape is not supported");
        *ret_literal = c;
        set_add(set, c, c);
        p->at++;
        return HM_OK;
    }
    if (c == 'D' || c == 'W' || c == 'S')
        set_complement(set);
    p->at++;
    return HM_OK;
}

/* One member of a class: a literal (ret_literal >= 0) or an escape's set. */
static int class_member(struct parser *p, uint64_t set[4], int *ret_literal)
{
    if (!*p->at)
        return fail_at(p, "a class is not closed");
    if (*p->at == '\\') {
        p->at++;
        return escape_set(p, set, ret_literal);
    }
    *ret_literal = (unsigned char)*p->at++;
    memset(set, 0, 4 * sizeof *set);
    set_add(set, (unsigned)*ret_literal, (unsigned)*ret_literal);
    return HM_OK;
}

static int parse_class(struct parser *p)
{
    struct instruction instruction = { .op = OP_SET };
    bool negated = *p->at == '^';
    const char *first;

    if (negated)
        p->at++;
    first = p->at;
    while (*p->at != ']' || p->at == first) {
        uint64_t member[4], unused[4];
        int low, high;

        HM_TRY(class_member(p, member, &low));
        if (low >= 0 && p->at[0] == '-' && p->at[1] && p->at[1] != ']') {
            p->at++;
            HM_TRY(class_member(p, unused, &high));
            if (high < low)
                return fail_at(p, "a class holds a reversed range");
            set_add(instruction.set, (unsigned)low, (unsigned)high);
        } else {
            for (int i = 0; i < 4; i++)
                instruction.set[i] |= member[i];
        }
    }
    p->at++;
    if (negated)
        set_complement(instruction.set);
    return emit(p, instruction);
}

static int parse_group(struct parser *p)
{
    if (*p->at == '?') {
        if (p->at[1] == ':') {
            p->at += 2;
        } else if (p->at[1] == 'P' && p->at[2] == '<') {
            while (*p->at && *p->at != '>')
                p->at++;
            if (*p->at)
                p->at++;
        } else {
            return fail_at(p, "look-around, flags and back-references are not supported");
        }
    }
    if (++p->depth > DEPTH_LIMIT)
        return fail_at(p, "groups are nested too deeply");
    HM_TRY(parse_alternatives(p));
    p->depth--;
    if (*p->at != ')')
        return fail_at(p, "a group is not closed");
    p->at++;
    return HM_OK;
}

static int parse_atom(struct parser *p)
{
    struct instruction instruction = { .op = OP_SET };
    int literal;

    switch (*p->at) {
    case '(':
        p->at++;
        return parse_group(p);
    case '[':
        p->at++;
        return parse_class(p);
    case '.':
        p->at++;
        set_add(instruction.set, '\n', '\n');
        set_complement(instruction.set);
        break;
    case '^':
    case '$':
        instruction.op = *p->at++ == '^' ? OP_BEGIN : OP_END;
        break;
    case '*':
    case '+':
    case '?':
        return fail_at(p, "nothing to repeat");
    case '\\':
        p->at++;
        HM_TRY(escape_set(p, instruction.set, &literal));
        break;
    default:
        set_add(instruction.set, (unsigned char)*p->at, (unsigned char)*p->at);
        p->at++;
    }
    return emit(p, instruction);
}

/* "{2}", "{2,}", "{,3}", "{2,3}" at p->at: true and the bounds (most -1: none); else it is a
 * literal brace. */
static bool parse_bounds(struct parser *p, int *least, int *most)
{
    const char *s = p->at + 1;
    int bound[2] = { 0, -1 };
    bool digits = false, comma = false;

    for (; *s && *s != '}'; s++) {
        if (*s == ',' && !comma) {
            comma = true;
        } else if (*s >= '0' && *s <= '9') {
            int *b = &bound[comma];
            *b = (*b < 0 ? 0 : *b) * 10 + (*s - '0');
            if (*b > REPEAT_LIMIT)
                *b = REPEAT_LIMIT + 1;
            digits = true;
        } else {
            return false;
        }
    }
    if (*s != '}' || !digits)
        return false;
    *least = bound[0];
    *most = comma ? bound[1] : bound[0];
    p->at = s + 1;
    return true;
}

/* Append `count` copies of the piece [start, start + len). */
static int copy_piece(struct parser *p, size_t start, size_t len)
{
    for (size_t i = 0; i < len; i++)
        HM_TRY(emit(p, p->program->code[start + i]));
    return HM_OK;
}

/* The piece that starts at `start` becomes optional, or a loop of zero or more. */
static int make_optional(struct parser *p, size_t start, bool loop)
{
    int len = (int)(p->program->count - start);
    struct instruction split = { .op = OP_SPLIT, .first = 1, .second = len + (loop ? 2 : 1) };

    HM_TRY(insert(p, start, split));
    if (loop)
        HM_TRY(emit(p, (struct instruction){ .op = OP_JUMP, .first = -(len + 1) }));
    return HM_OK;
}

static int repeat(struct parser *p, size_t start, int least, int most)
{
    size_t len = p->program->count - start;
    size_t piece = start;

    if (least > REPEAT_LIMIT || most > REPEAT_LIMIT)
        return fail_at(p, "a repeat count is too large");
    if (most >= 0 && most < least)
        return fail_at(p, "a repeat's bounds are reversed");
    if (most == 0) {
        p->program->count = start;
        return HM_OK;
    }
    for (int i = 1; i < least; i++)
        HM_TRY(copy_piece(p, start, len));
    if (most < 0) { /* least copies, then a loop; x* loops on the piece itself */
        if (least > 0) {
            piece = p->program->count;
            HM_TRY(copy_piece(p, start, len));
        }
        return make_optional(p, piece, true);
    }
    for (int i = least > 0 ? least : 1; i < most; i++) {
        piece = p->program->count;
        HM_TRY(copy_piece(p, start, len));
        HM_TRY(make_optional(p, piece, false));
    }
    return least == 0 ? make_optional(p, start, false) : HM_OK;
}

static int parse_repeated(struct parser *p)
{
    size_t start = p->program->count;
    int least = 0, most = -1;

    HM_TRY(parse_atom(p));
    if (*p->at == '*' || *p->at == '+' || *p->at == '?') {
        least = *p->at == '+';
        most = *p->at == '?' ? 1 : -1;
        p->at++;
    } else if (*p->at != '{' || !parse_bounds(p, &least, &most)) {
        return HM_OK;
    }
    HM_TRY(repeat(p, start, least, most));
    if (*p->at == '?')
        p->at++;
    else if (*p->at == '+')
        return fail_at(p, "possessive repeats are not supported");
    const char *brace = p->at;
    if (*brace == '*' || *brace == '+' || *brace == '?' ||
        (*brace == '{' && parse_bounds(p, &least, &most)))
        return fail_at(p, "a repeat is repeated");
    return HM_OK;
}

static int parse_alternatives(struct parser *p)
{
    size_t start = p->program->count;

    while (*p->at && *p->at != ')' && *p->at != '|')
        HM_TRY(parse_repeated(p));
    if (*p->at != '|')
        return HM_OK;
    p->at++;
    /* split L1, L2; L1: left; jump end; L2: right. PROGRAM_LIMIT bounds this recursion. */
    int left = (int)(p->program->count - start);
    HM_TRY(
        insert(p, start, (struct instruction){ .op = OP_SPLIT, .first = 1, .second = left + 2 }));
    size_t jump = p->program->count;
    HM_TRY(emit(p, (struct instruction){ .op = OP_JUMP }));
    HM_TRY(parse_alternatives(p));
    p->program->code[jump].first = (int)(p->program->count - jump);
    return HM_OK;
}

int hm_pattern_compile(const char *text, struct hm_pattern_program **ret_program,
                       struct hm_error *err)
{
    struct hm_pattern_program *program = hm_calloc(HM_MEM_SCRATCH, 1, sizeof *program);
    struct parser p = { program, text, text, 0, err };
    int status;

    if (!program)
        return hm_fail_nomem(err, "for pattern '%.200s'", text);
    status = parse_alternatives(&p);
    if (status == HM_OK && *p.at)
        status = fail_at(&p, "a ')' opens nothing");
    if (status == HM_OK)
        status = emit(&p, (struct instruction){ .op = OP_MATCH });
    if (status < 0) {
        hm_pattern_free(program);
        return status;
    }
    *ret_program = program;
    return HM_OK;
}

void hm_pattern_free(struct hm_pattern_program *program)
{
    if (program)
        hm_free(program->code);
    hm_free(program);
}

struct states {
    uint16_t *list;   /* instruction indices waiting at the current character */
    uint8_t *present; /* [program count] */
    size_t count;
};

/* Follow splits, jumps and anchors from `from`; the list is its own work list. */
static void add_state(const struct hm_pattern_program *program, struct states *states, size_t from,
                      bool at_begin, bool at_end)
{
    size_t next = states->count;

    if (!states->present[from]) {
        states->present[from] = 1;
        states->list[states->count++] = (uint16_t)from;
    }
    for (; next < states->count; next++) {
        size_t i = states->list[next];
        const struct instruction *in = &program->code[i];
        int targets[2] = { in->first, in->second };
        int n = in->op == OP_SPLIT ? 2 : in->op == OP_JUMP;

        if ((in->op == OP_BEGIN && at_begin) || (in->op == OP_END && at_end)) {
            targets[0] = 1;
            n = 1;
        }
        for (int t = 0; t < n; t++) {
            size_t to = (size_t)((ptrdiff_t)i + targets[t]);
            if (!states->present[to]) {
                states->present[to] = 1;
                states->list[states->count++] = (uint16_t)to;
            }
        }
    }
}

int hm_pattern_matches(const struct hm_pattern_program *program, const char *name,
                       struct hm_error *err)
{
    size_t count = program->count, last = count - 1; /* OP_MATCH */
    uint8_t *memory = hm_calloc(HM_MEM_SCRATCH, 2 * count, sizeof(uint16_t) + 1);
    struct states now, after;
    size_t len = strlen(name);
    int matched;

    if (!memory)
        return hm_fail_nomem(err, "matching a pattern with '%.160s'", name);
    now = (struct states){ (uint16_t *)(void *)memory, memory + 4 * count, 0 };
    after = (struct states){ now.list + count, now.present + count, 0 };
    add_state(program, &now, 0, true, len == 0);
    for (size_t at = 0; at < len; at++) {
        unsigned char c = (unsigned char)name[at];
        struct states swap;

        for (size_t s = 0; s < now.count; s++) {
            const struct instruction *in = &program->code[now.list[s]];
            if (in->op == OP_SET && (in->set[c / 64] >> (c % 64) & 1))
                add_state(program, &after, now.list[s] + 1u, false, at + 1 == len);
        }
        memset(now.present, 0, count);
        now.count = 0;
        swap = now;
        now = after;
        after = swap;
    }
    matched = now.present[last];
    hm_free(memory);
    return matched;
}

bool hm_pattern_is_expression(const char *text)
{
    return strpbrk(text, "*+?()[]{}|^$\\") != NULL;
}
