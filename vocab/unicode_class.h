/* SPDX-License-Identifier: MIT */
/*
 * What kind of character a code point is, as the tokenizers library sees it. Private to vocab/.
 * Thread class: pure.
 */
#ifndef HANMIX_VOCAB_UNICODE_CLASS_H
#define HANMIX_VOCAB_UNICODE_CLASS_H

#include <stdbool.h>
#include <stdint.h>

#define HM_UNICODE_CODES 0x110000u

enum hm_unicode_class {                 /* in the order of the table */
                        HM_CLASS_OTHER, /* C, unassigned among them */
                        HM_CLASS_LU,
                        HM_CLASS_LL,
                        HM_CLASS_LT,
                        HM_CLASS_LM,
                        HM_CLASS_LO,
                        HM_CLASS_MARK,
                        HM_CLASS_ND,
                        HM_CLASS_NL,
                        HM_CLASS_NO,
                        HM_CLASS_PUNCTUATION,
                        HM_CLASS_SYMBOL,
                        HM_CLASS_SEPARATOR,
};

enum hm_unicode_class hm_unicode_class(uint32_t code);
void hm_unicode_class_table(uint8_t table[HM_UNICODE_CODES]);
bool hm_unicode_is_space(uint32_t code); /* White_Space */
bool hm_unicode_is_han(uint32_t code);   /* Script=Han */
/* What the pre-tokenizers Digits and Punctuation take; their tables are others'. */
bool hm_unicode_is_numeric(uint32_t code);
bool hm_unicode_is_punctuation(uint32_t code);

#endif
