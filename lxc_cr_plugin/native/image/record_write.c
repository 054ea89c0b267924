/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <cbor.h>
#include <stdlib.h>
#include <string.h>

#include "record_field.h"

enum {
	CBOR_HEAD = 9, /* longest head of an item, all of a number */
	WRITER_ROOM = 4096,
};

void record_writer_deinit(struct record_writer *writer)
{
	free(writer->data);
	*writer = (struct record_writer){0};
}

static struct cr_error *reserve(struct record_writer *writer, size_t size)
{
	size_t room = writer->room ? writer->room : WRITER_ROOM;
	size_t needed;
	uint8_t *data;

	if (__builtin_add_overflow(writer->len, size, &needed))
		return error_nomem();
	if (needed <= writer->room)
		return NULL;
	while (room < needed)
		if (__builtin_mul_overflow(room, (size_t)2, &room))
			return error_nomem();
	data = realloc(writer->data, room);
	if (!data)
		return error_nomem();
	writer->data = data;
	writer->room = room;
	return NULL;
}

/* @encode writes a head that carries @value. */
static struct cr_error *put_head(struct record_writer *writer,
				 size_t (*encode)(uint64_t, unsigned char *, size_t),
				 uint64_t value)
{
	TRY(reserve(writer, CBOR_HEAD));
	writer->len += encode(value, writer->data + writer->len, writer->room - writer->len);
	return NULL;
}

static struct cr_error *put_content(struct record_writer *writer, const void *data, size_t len)
{
	TRY(reserve(writer, len));
	if (len)
		memcpy(writer->data + writer->len, data, len);
	writer->len += len;
	return NULL;
}

static struct cr_error *put_text(struct record_writer *writer, const void *data, size_t len)
{
	TRY(put_head(writer, cbor_encode_string_start, len));
	return put_content(writer, data, len);
}

static struct cr_error *put_bytes(struct record_writer *writer, const void *data, size_t len)
{
	TRY(put_head(writer, cbor_encode_bytestring_start, len));
	return put_content(writer, data, len);
}

static struct cr_error *put_int(struct record_writer *writer, int64_t value)
{
	if (value >= 0)
		return put_head(writer, cbor_encode_uint, (uint64_t)value);
	/* CBOR carries -1 - value, which is the complement */
	return put_head(writer, cbor_encode_negint, ~(uint64_t)value);
}

static struct cr_error *put_bool(struct record_writer *writer, bool value)
{
	TRY(reserve(writer, CBOR_HEAD));
	writer->len += cbor_encode_bool(value, writer->data + writer->len, CBOR_HEAD);
	return NULL;
}

static struct cr_error *put_null(struct record_writer *writer)
{
	TRY(reserve(writer, CBOR_HEAD));
	writer->len += cbor_encode_null(writer->data + writer->len, CBOR_HEAD);
	return NULL;
}

struct cr_error *record_put_array(struct record_writer *writer, size_t count)
{
	return put_head(writer, cbor_encode_array_start, count);
}

struct cr_error *record_put_map(struct record_writer *writer, size_t count)
{
	return put_head(writer, cbor_encode_map_start, count);
}

struct cr_error *record_put_uint(struct record_writer *writer, uint64_t value)
{
	return put_head(writer, cbor_encode_uint, value);
}

struct cr_error *record_put_text(struct record_writer *writer, const char *text)
{
	size_t len = strlen(text);

	TRY(text_check((const uint8_t *)text, len, CR_INTERNAL));
	return put_text(writer, text, len);
}

static struct cr_error *put_map(struct record_writer *writer, const struct field *fields,
				const void *object, unsigned int depth);
static struct cr_error *put_row(struct record_writer *writer, const struct field *fields,
				const void *object, unsigned int depth);

static struct cr_error *put_string(struct record_writer *writer, const struct field *field,
				   const struct bytes *bytes)
{
	TRY(field_check_bytes(field, bytes->data, bytes->len, CR_INTERNAL));
	if (field->type == FIELD_TYPE_TEXT)
		return put_text(writer, bytes->data, bytes->len);
	return put_bytes(writer, bytes->data, bytes->len);
}

static struct cr_error *put_list(struct record_writer *writer, const struct field *field,
				 const struct list *list, unsigned int depth)
{
	TRY(field_check_items(field, list->count, CR_INTERNAL));
	TRY(record_put_array(writer, list->count));
	for (size_t i = 0; i < list->count; i++) {
		const void *item = (const char *)list->items + i * field->size;

		if (field->type == FIELD_TYPE_ROWS)
			TRY(put_row(writer, field->sub, item, depth));
		else
			TRY(put_map(writer, field->sub, item, depth));
	}
	return NULL;
}

static struct cr_error *put_value(struct record_writer *writer, const struct field *field,
				  const void *member, unsigned int depth)
{
	switch (field->type) {
	case FIELD_TYPE_END: break;
	case FIELD_TYPE_UINT: {
		uint64_t value = field_load(field, member);

		TRY(field_check_uint(field, value, CR_INTERNAL));
		return record_put_uint(writer, value);
	}
	case FIELD_TYPE_INT: {
		int64_t value = (int64_t)field_load(field, member);

		TRY(field_check_int(field, value, CR_INTERNAL));
		return put_int(writer, value);
	}
	case FIELD_TYPE_BOOL: return put_bool(writer, field_load(field, member) != 0);
	case FIELD_TYPE_BYTES:
	case FIELD_TYPE_PATH:
	case FIELD_TYPE_TEXT: return put_string(writer, field, member);
	case FIELD_TYPE_LIST:
	case FIELD_TYPE_ROWS: return put_list(writer, field, member, depth + 1);
	case FIELD_TYPE_STRUCT: return put_map(writer, field->sub, member, depth + 1);
	}
	return error_new(CR_INTERNAL, "Unknown type %d", (int)field->type);
}

static struct cr_error *put_field(struct record_writer *writer, const struct field *field,
				  const void *member, unsigned int depth)
{
	return error_wrap(put_value(writer, field, member, depth), "Cannot write %s", field->name);
}

static bool is_absent(const struct field *field, const void *object)
{
	return field->optional && field_is_zero(field, (const char *)object + field->offset);
}

static struct cr_error *put_map(struct record_writer *writer, const struct field *fields,
				const void *object, unsigned int depth)
{
	size_t count, present = 0;

	TRY(field_count(fields, depth, &count));
	for (size_t i = 0; i < count; i++)
		present += !is_absent(&fields[i], object);

	TRY(record_put_map(writer, present));
	for (size_t i = 0; i < count; i++) {
		if (is_absent(&fields[i], object))
			continue;
		TRY(put_text(writer, fields[i].name, strlen(fields[i].name)));
		TRY(put_field(writer, &fields[i], (const char *)object + fields[i].offset, depth));
	}
	return NULL;
}

static struct cr_error *put_row(struct record_writer *writer, const struct field *fields,
				const void *object, unsigned int depth)
{
	size_t count;

	TRY(field_count(fields, depth, &count));
	TRY(record_put_array(writer, count));
	for (size_t i = 0; i < count; i++) {
		if (is_absent(&fields[i], object))
			TRY(put_null(writer));
		else
			TRY(put_field(writer, &fields[i], (const char *)object + fields[i].offset,
				      depth));
	}
	return NULL;
}

struct cr_error *record_put(struct record_writer *writer, const struct field *fields,
			    const void *object)
{
	size_t start = writer->len;
	struct cr_error *error = put_map(writer, fields, object, 0);

	if (error)
		writer->len = start; /* no half record */
	return error;
}
