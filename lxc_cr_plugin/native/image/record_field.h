/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One member as its field describes it. Reader and writer refuse the same values. */
#ifndef CR_RECORD_FIELD_H
#define CR_RECORD_FIELD_H

#include "record.h"

enum {
	RECORD_DEPTH =
		8, /* of tables within tables, and of containers in a value that is skipped */
	RECORD_FIELDS = 128, /* most fields of one table */
};

/* Fields of a table; refuses one that is at fault, or too many tables (@depth) above it. */
struct cr_error *field_count(const struct field *fields, unsigned int depth, size_t *ret);

/* UINT, INT and BOOL members; INT in two's complement. */
uint64_t field_load(const struct field *field, const void *member);
void field_store(const struct field *field, void *member, uint64_t value);

/* Zero, empty, or a struct of nothing but such members: what "absent" reads as. */
bool field_is_zero(const struct field *field, const void *member);

/* @code: CR_IMAGE for what was read, CR_INTERNAL for what is to be written. */
struct cr_error *field_check_uint(const struct field *field, uint64_t value, enum cr_code code);
struct cr_error *field_check_int(const struct field *field, int64_t value, enum cr_code code);
struct cr_error *field_check_bytes(const struct field *field, const uint8_t *data, size_t len,
				   enum cr_code code);
struct cr_error *field_check_items(const struct field *field, uint64_t count, enum cr_code code);

/* UTF-8 (RFC 3629) without a NUL. */
struct cr_error *text_check(const uint8_t *data, size_t len, enum cr_code code);

#endif
