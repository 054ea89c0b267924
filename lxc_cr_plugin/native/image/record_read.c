/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An image is hostile input. Here nothing is allocated by what the data claims, only by what is
 * there: counts are bounded by the bytes left (record_item.c), lists grow as their items arrive,
 * depth is bounded.
 */
#include <inttypes.h>
#include <string.h>

#include "record_field.h"
#include "record_item.h"

bool record_at_end(const struct record_reader *reader)
{
	return reader->offset >= reader->len;
}

static struct cr_error *get_count(struct record_reader *reader, enum item_kind kind, size_t most,
				  size_t *count)
{
	struct item item;

	TRY(item_expect(reader, kind, &item));
	if (item.value > most)
		return error_new(CR_IMAGE,
				 "The item at byte %zu has %" PRIu64 " members, more than %zu",
				 item.offset, item.value, most);
	*count = item.value;
	return NULL;
}

struct cr_error *record_get_array(struct record_reader *reader, size_t most, size_t *count)
{
	return get_count(reader, ITEM_ARRAY, most, count);
}

struct cr_error *record_get_map(struct record_reader *reader, size_t most, size_t *count)
{
	return get_count(reader, ITEM_MAP, most, count);
}

struct cr_error *record_get_text(struct record_reader *reader, size_t longest, const char **ret)
{
	struct item item;
	char *text;

	TRY(item_expect(reader, ITEM_TEXT, &item));
	if (item.value > longest)
		return error_new(CR_IMAGE,
				 "The text at byte %zu has %" PRIu64 " bytes, more than %zu",
				 item.offset, item.value, longest);
	TRY(error_wrap(text_check(item.data, item.value, CR_IMAGE), "Bad text at byte %zu",
		       item.offset));
	text = pool_strndup(reader->pool, (const char *)item.data, item.value);
	if (!text)
		return error_nomem();
	*ret = text;
	return NULL;
}

struct cr_error *record_get_uint(struct record_reader *reader, uint64_t max, uint64_t *ret)
{
	struct item item;

	TRY(item_expect(reader, ITEM_UINT, &item));
	if (item.value > max)
		return error_new(CR_IMAGE,
				 "The number at byte %zu is %" PRIu64 ", more than %" PRIu64,
				 item.offset, item.value, max);
	*ret = item.value;
	return NULL;
}

static struct cr_error *skip(struct record_reader *reader, unsigned int depth)
{
	struct item item;
	uint64_t members = 0;

	TRY(item_get(reader, &item));
	if (item.kind == ITEM_ARRAY)
		members = item.value;
	else if (item.kind == ITEM_MAP)
		members = 2 * item.value; /* cannot overflow: bounded by the bytes left */
	else if (item.kind == ITEM_TAG)
		members = 1;
	if (members && depth == RECORD_DEPTH)
		return error_new(CR_IMAGE, "The item at byte %zu is nested deeper than %d",
				 item.offset, RECORD_DEPTH);
	while (members--)
		TRY(skip(reader, depth + 1));
	return NULL;
}

struct cr_error *record_skip(struct record_reader *reader)
{
	return skip(reader, 0);
}

static struct cr_error *get_map(struct record_reader *reader, const struct field *fields,
				void *object, unsigned int depth);
static struct cr_error *get_row(struct record_reader *reader, const struct field *fields,
				void *object, unsigned int depth);

static struct cr_error *get_uint(struct record_reader *reader, const struct field *field,
				 void *member)
{
	struct item item;

	TRY(item_expect(reader, ITEM_UINT, &item));
	TRY(field_check_uint(field, item.value, CR_IMAGE));
	field_store(field, member, item.value);
	return NULL;
}

static struct cr_error *get_int(struct record_reader *reader, const struct field *field,
				void *member)
{
	struct item item;
	int64_t value;

	TRY(item_get(reader, &item));
	if (item.kind != ITEM_UINT && item.kind != ITEM_NEGINT)
		return item_mismatch(&item, ITEM_UINT);
	if (item.value > INT64_MAX)
		return error_new(CR_IMAGE, "The number at byte %zu does not fit into 64 bits",
				 item.offset);
	value = item.kind == ITEM_UINT ? (int64_t)item.value : -1 - (int64_t)item.value;
	TRY(field_check_int(field, value, CR_IMAGE));
	field_store(field, member, (uint64_t)value);
	return NULL;
}

static struct cr_error *get_bool(struct record_reader *reader, const struct field *field,
				 void *member)
{
	struct item item;

	TRY(item_expect(reader, ITEM_BOOL, &item));
	field_store(field, member, item.value);
	return NULL;
}

static struct cr_error *get_string(struct record_reader *reader, const struct field *field,
				   struct bytes *bytes)
{
	struct item item;

	TRY(item_expect(reader, field->type == FIELD_TYPE_TEXT ? ITEM_TEXT : ITEM_BYTES, &item));
	TRY(field_check_bytes(field, item.data, item.value, CR_IMAGE));
	bytes->data = (uint8_t *)pool_strndup(reader->pool, (const char *)item.data, item.value);
	if (!bytes->data)
		return error_nomem();
	bytes->len = item.value;
	return NULL;
}

static struct cr_error *get_list(struct record_reader *reader, const struct field *field,
				 struct list *list, unsigned int depth)
{
	struct item head;

	TRY(item_expect(reader, ITEM_ARRAY, &head));
	TRY(field_check_items(field, head.value, CR_IMAGE));
	for (uint64_t i = 0; i < head.value; i++) {
		void *item = list_append(reader->pool, list, field->size);
		struct cr_error *error;

		if (!item)
			return error_nomem();
		if (field->type == FIELD_TYPE_ROWS)
			error = get_row(reader, field->sub, item, depth);
		else
			error = get_map(reader, field->sub, item, depth);
		if (error)
			return error_wrap(error, "Bad item %" PRIu64, i);
	}
	return NULL;
}

static struct cr_error *get_value(struct record_reader *reader, const struct field *field,
				  void *member, unsigned int depth)
{
	switch (field->type) {
	case FIELD_TYPE_END: break;
	case FIELD_TYPE_UINT: return get_uint(reader, field, member);
	case FIELD_TYPE_INT: return get_int(reader, field, member);
	case FIELD_TYPE_BOOL: return get_bool(reader, field, member);
	case FIELD_TYPE_BYTES:
	case FIELD_TYPE_PATH:
	case FIELD_TYPE_TEXT: return get_string(reader, field, member);
	case FIELD_TYPE_LIST:
	case FIELD_TYPE_ROWS: return get_list(reader, field, member, depth + 1);
	case FIELD_TYPE_STRUCT: return get_map(reader, field->sub, member, depth + 1);
	}
	return error_new(CR_INTERNAL, "Unknown type %d", (int)field->type);
}

static struct cr_error *get_field(struct record_reader *reader, const struct field *field,
				  void *object, unsigned int depth)
{
	size_t offset = reader->offset;

	return error_wrap(get_value(reader, field, (char *)object + field->offset, depth),
			  "Bad %s at byte %zu", field->name, offset);
}

/* The index of the field named by @key, @count when none is. Writers keep to our order: try @guess
 * first. */
static size_t find_field(const struct field *fields, size_t count, const struct item *key,
			 size_t guess)
{
	for (size_t n = 0; n < count; n++) {
		size_t i = (guess + n) % count;

		if (strlen(fields[i].name) == key->value &&
		    memcmp(fields[i].name, key->data, key->value) == 0)
			return i;
	}
	return count;
}

static struct cr_error *missing(const struct field *field, size_t offset)
{
	return error_new(CR_IMAGE, "The record that ends at byte %zu has no %s", offset,
			 field->name);
}

static struct cr_error *get_map(struct record_reader *reader, const struct field *fields,
				void *object, unsigned int depth)
{
	bool seen[RECORD_FIELDS] = {false};
	struct item head, key;
	size_t count, next = 0;

	TRY(field_count(fields, depth, &count));
	TRY(item_expect(reader, ITEM_MAP, &head));
	for (uint64_t n = 0; n < head.value; n++) {
		size_t found;

		TRY(item_expect(reader, ITEM_TEXT, &key));
		found = find_field(fields, count, &key, next);
		if (found == count) {
			/* Not compared with one another: what has no meaning has none twice */
			TRY(skip(reader, 0));
			continue;
		}
		if (seen[found])
			return error_new(CR_IMAGE, "%s is given again at byte %zu",
					 fields[found].name, key.offset);
		seen[found] = true;
		next = found + 1;
		TRY(get_field(reader, &fields[found], object, depth));
	}
	for (size_t i = 0; i < count; i++)
		if (!seen[i] && !fields[i].optional)
			return missing(&fields[i], reader->offset);
	return NULL;
}

/* As maps skip unknown keys and miss optional ones, a row may have more at its end, or less. */
static struct cr_error *get_row(struct record_reader *reader, const struct field *fields,
				void *object, unsigned int depth)
{
	struct item head;
	size_t count;

	TRY(field_count(fields, depth, &count));
	TRY(item_expect(reader, ITEM_ARRAY, &head));
	for (size_t i = 0; i < count; i++) {
		bool absent = i >= head.value;

		if (fields[i].optional && (absent || item_skip_null(reader)))
			continue;
		if (absent)
			return missing(&fields[i], reader->offset);
		TRY(get_field(reader, &fields[i], object, depth));
	}
	for (uint64_t n = count; n < head.value; n++)
		TRY(skip(reader, 0));
	return NULL;
}

struct cr_error *record_get(struct record_reader *reader, const struct field *fields, void *object)
{
	return get_map(reader, fields, object, 0);
}
