/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <cbor.h>
#include <inttypes.h>

#include "record_item.h"

static void item_set(void *context, enum item_kind kind, uint64_t value)
{
	struct item *item = context;

	item->kind = kind;
	item->value = value;
}

static void on_uint8(void *context, uint8_t value)
{
	item_set(context, ITEM_UINT, value);
}

static void on_uint16(void *context, uint16_t value)
{
	item_set(context, ITEM_UINT, value);
}

static void on_uint32(void *context, uint32_t value)
{
	item_set(context, ITEM_UINT, value);
}

static void on_uint64(void *context, uint64_t value)
{
	item_set(context, ITEM_UINT, value);
}

static void on_negint8(void *context, uint8_t value)
{
	item_set(context, ITEM_NEGINT, value);
}

static void on_negint16(void *context, uint16_t value)
{
	item_set(context, ITEM_NEGINT, value);
}

static void on_negint32(void *context, uint32_t value)
{
	item_set(context, ITEM_NEGINT, value);
}

static void on_negint64(void *context, uint64_t value)
{
	item_set(context, ITEM_NEGINT, value);
}

static void on_bytes(void *context, cbor_data data, size_t length)
{
	((struct item *)context)->data = data;
	item_set(context, ITEM_BYTES, length);
}

static void on_text(void *context, cbor_data data, size_t length)
{
	((struct item *)context)->data = data;
	item_set(context, ITEM_TEXT, length);
}

static void on_array(void *context, size_t count)
{
	item_set(context, ITEM_ARRAY, count);
}

static void on_map(void *context, size_t count)
{
	item_set(context, ITEM_MAP, count);
}

static void on_tag(void *context, uint64_t value)
{
	item_set(context, ITEM_TAG, value);
}

static void on_float(void *context, float value)
{
	(void)value;
	item_set(context, ITEM_FLOAT, 0);
}

static void on_double(void *context, double value)
{
	(void)value;
	item_set(context, ITEM_FLOAT, 0);
}

static void on_bool(void *context, bool value)
{
	item_set(context, ITEM_BOOL, value);
}

static void on_null(void *context)
{
	item_set(context, ITEM_NULL, 0);
}

static void on_undefined(void *context)
{
	item_set(context, ITEM_OTHER, 0);
}

static void on_indefinite(void *context)
{
	item_set(context, ITEM_INDEFINITE, 0);
}

static const struct cbor_callbacks callbacks = {
	.uint8 = on_uint8,
	.uint16 = on_uint16,
	.uint32 = on_uint32,
	.uint64 = on_uint64,
	.negint8 = on_negint8,
	.negint16 = on_negint16,
	.negint32 = on_negint32,
	.negint64 = on_negint64,
	.byte_string = on_bytes,
	.byte_string_start = on_indefinite,
	.string = on_text,
	.string_start = on_indefinite,
	.array_start = on_array,
	.indef_array_start = on_indefinite,
	.map_start = on_map,
	.indef_map_start = on_indefinite,
	.tag = on_tag,
	.float2 = on_float,
	.float4 = on_float,
	.float8 = on_double,
	.undefined = on_undefined,
	.null = on_null,
	.boolean = on_bool,
	.indef_break = on_indefinite,
};

struct cr_error *item_get(struct record_reader *reader, struct item *item)
{
	struct cbor_decoder_result result;
	uint64_t most = UINT64_MAX;
	size_t left;

	if (record_at_end(reader))
		return error_new(CR_IMAGE, "The data ends at byte %zu, where more is expected",
				 reader->offset);
	left = reader->len - reader->offset;
	*item = (struct item){.offset = reader->offset};
	result = cbor_stream_decode(reader->data + reader->offset, left, &callbacks, item);
	if (result.status == CBOR_DECODER_NEDATA)
		return error_new(CR_IMAGE, "The item at byte %zu goes beyond the end of the data",
				 item->offset);
	if (result.status != CBOR_DECODER_FINISHED)
		return error_new(CR_IMAGE, "The item at byte %zu is not CBOR that we know",
				 item->offset);
	if (item->kind == ITEM_INDEFINITE)
		return error_new(CR_IMAGE, "The item at byte %zu is of indefinite length",
				 item->offset);

	reader->offset += result.read;
	left -= result.read;
	if (item->kind == ITEM_ARRAY)
		most = left; /* an item takes at least one byte */
	else if (item->kind == ITEM_MAP)
		most = left / 2;
	if (item->value > most)
		return error_new(CR_IMAGE,
				 "The item at byte %zu claims %" PRIu64 " members in %zu bytes",
				 item->offset, item->value, left);
	return NULL;
}

static const char *item_name(enum item_kind kind)
{
	switch (kind) {
	case ITEM_UINT: return "an unsigned number";
	case ITEM_NEGINT: return "a negative number";
	case ITEM_BYTES: return "a byte string";
	case ITEM_TEXT: return "a text";
	case ITEM_ARRAY: return "an array";
	case ITEM_MAP: return "a map";
	case ITEM_TAG: return "a tag";
	case ITEM_BOOL: return "a boolean";
	case ITEM_NULL: return "null";
	case ITEM_FLOAT: return "a float";
	case ITEM_OTHER:
	case ITEM_INDEFINITE: break;
	}
	return "something else";
}

struct cr_error *item_mismatch(const struct item *item, enum item_kind wanted)
{
	return error_new(CR_IMAGE, "The item at byte %zu is %s, not %s", item->offset,
			 item_name(item->kind), item_name(wanted));
}

struct cr_error *item_expect(struct record_reader *reader, enum item_kind kind, struct item *item)
{
	TRY(item_get(reader, item));
	return item->kind == kind ? NULL : item_mismatch(item, kind);
}

bool item_skip_null(struct record_reader *reader)
{
	enum { CBOR_NULL = 0xf6 };

	if (record_at_end(reader) || reader->data[reader->offset] != CBOR_NULL)
		return false;
	reader->offset++;
	return true;
}
