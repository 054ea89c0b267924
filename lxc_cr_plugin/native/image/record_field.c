/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <inttypes.h>
#include <string.h>

#include "record_field.h"

static bool is_number(const struct field *field)
{
	return field->type == FIELD_TYPE_UINT || field->type == FIELD_TYPE_INT ||
	       field->type == FIELD_TYPE_BOOL;
}

/* What load and store rely on: a table may name a member that is no number at all. */
static bool has_number_size(const struct field *field)
{
	return field->size == 1 || field->size == 2 || field->size == 4 || field->size == 8;
}

struct cr_error *field_count(const struct field *fields, unsigned int depth, size_t *ret)
{
	size_t count;

	if (depth >= RECORD_DEPTH)
		return error_new(CR_INTERNAL, "Tables of fields are nested deeper than %d",
				 RECORD_DEPTH);
	for (count = 0; fields[count].type != FIELD_TYPE_END; count++)
		if (is_number(&fields[count]) && !has_number_size(&fields[count]))
			return error_new(CR_INTERNAL, "%s has %zu bytes, no number has",
					 fields[count].name, fields[count].size);
	if (count > RECORD_FIELDS)
		return error_new(CR_INTERNAL, "A table has %zu fields, more than %d", count,
				 RECORD_FIELDS);
	*ret = count;
	return NULL;
}

/* Through memcpy: uint64_t and unsigned long long may not alias, and both are members. */
union number {
	uint8_t u8;
	uint16_t u16;
	uint32_t u32;
	uint64_t u64;
};

uint64_t field_load(const struct field *field, const void *member)
{
	unsigned int unused = 64 - 8 * (unsigned int)field->size;
	union number number = {0};
	uint64_t value = 0;

	memcpy(&number, member, field->size);
	switch (field->size) {
	case 1: value = number.u8; break;
	case 2: value = number.u16; break;
	case 4: value = number.u32; break;
	case 8: value = number.u64; break;
	}
	if (field->type == FIELD_TYPE_INT)
		return (uint64_t)((int64_t)(value << unused) >> unused);
	return value;
}

void field_store(const struct field *field, void *member, uint64_t value)
{
	union number number = {0};

	switch (field->size) {
	case 1: number.u8 = (uint8_t)value; break;
	case 2: number.u16 = (uint16_t)value; break;
	case 4: number.u32 = (uint32_t)value; break;
	case 8: number.u64 = value; break;
	}
	memcpy(member, &number, field->size);
}

bool field_is_zero(const struct field *field, const void *member)
{
	switch (field->type) {
	case FIELD_TYPE_END: break;
	case FIELD_TYPE_UINT:
	case FIELD_TYPE_INT:
	case FIELD_TYPE_BOOL: return field_load(field, member) == 0;
	case FIELD_TYPE_BYTES:
	case FIELD_TYPE_PATH:
	case FIELD_TYPE_TEXT: return ((const struct bytes *)member)->len == 0;
	case FIELD_TYPE_LIST:
	case FIELD_TYPE_ROWS: return ((const struct list *)member)->count == 0;
	case FIELD_TYPE_STRUCT:
		for (const struct field *sub = field->sub; sub->type != FIELD_TYPE_END; sub++)
			if (!field_is_zero(sub, (const char *)member + sub->offset))
				return false;
		break;
	}
	return true;
}

struct cr_error *field_check_uint(const struct field *field, uint64_t value, enum cr_code code)
{
	uint64_t widest = UINT64_MAX >> (64 - 8 * field->size);

	if (value < field->umin || value > field->umax)
		return error_new(code, "%" PRIu64 " is not in the range of %" PRIu64 " to %" PRIu64,
				 value, field->umin, field->umax);
	if (value > widest)
		return error_new(code, "%" PRIu64 " does not fit into %zu bytes", value,
				 field->size);
	return NULL;
}

struct cr_error *field_check_int(const struct field *field, int64_t value, enum cr_code code)
{
	int64_t widest = INT64_MAX >> (64 - 8 * field->size);

	if (value < field->min || value > field->max)
		return error_new(code, "%" PRId64 " is not in the range of %" PRId64 " to %" PRId64,
				 value, field->min, field->max);
	if (value > widest || value < -widest - 1)
		return error_new(code, "%" PRId64 " does not fit into %zu bytes", value,
				 field->size);
	return NULL;
}

/* Length of the character at @s, 0 when it is not one. */
static size_t utf8_length(const uint8_t *s, size_t left)
{
	/* Least code point by length: a longer form than needed is another spelling of the same
	 * name */
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t length;
	uint32_t point;

	if (s[0] < 0x80)
		return 1;
	if ((s[0] & 0xe0) == 0xc0)
		length = 2;
	else if ((s[0] & 0xf0) == 0xe0)
		length = 3;
	else if ((s[0] & 0xf8) == 0xf0)
		length = 4;
	else
		return 0;
	if (length > left)
		return 0;

	point = s[0] & (0x7fU >> length);
	for (size_t i = 1; i < length; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		point = point << 6 | (s[i] & 0x3f);
	}
	if (point < least[length] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
		return 0;
	return length;
}

static struct cr_error *nul_check(const uint8_t *data, size_t len, enum cr_code code)
{
	if (len && memchr(data, 0, len))
		return error_new(code, "It contains a NUL");
	return NULL;
}

struct cr_error *text_check(const uint8_t *data, size_t len, enum cr_code code)
{
	size_t step;

	TRY(nul_check(data, len, code));
	for (size_t i = 0; i < len; i += step) {
		step = utf8_length(data + i, len - i);
		if (step == 0)
			return error_new(code, "It is not UTF-8");
	}
	return NULL;
}

struct cr_error *field_check_bytes(const struct field *field, const uint8_t *data, size_t len,
				   enum cr_code code)
{
	if (len > field->umax)
		return error_new(code, "%zu bytes are more than %" PRIu64, len, field->umax);
	if (field->type == FIELD_TYPE_TEXT)
		return text_check(data, len, code);
	if (field->type == FIELD_TYPE_PATH)
		return nul_check(data, len, code);
	return NULL;
}

struct cr_error *field_check_items(const struct field *field, uint64_t count, enum cr_code code)
{
	if (count > field->umax)
		return error_new(code, "%" PRIu64 " items are more than %" PRIu64, count,
				 field->umax);
	return NULL;
}
