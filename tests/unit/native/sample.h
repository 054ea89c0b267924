/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A record with every type of field, for the tests and the fuzzer. */
#ifndef CR_TEST_SAMPLE_H
#define CR_TEST_SAMPLE_H

#include "image/record.h"

struct sample_point {
	int32_t x;
	int32_t y;
};

struct sample_leaf {
	uint32_t id;
	struct bytes label;
	struct list points;
};

struct sample_row {
	uint64_t start;
	uint16_t length;
	uint8_t node; /* optional, and zero is out of its range */
	struct bytes note;
};

struct sample {
	uint8_t u8;
	uint16_t u16;
	uint32_t u32;
	uint64_t u64;
	int8_t i8;
	int16_t i16;
	int32_t i32;
	int64_t i64;
	bool flag;
	struct bytes blob;
	struct bytes path;
	struct bytes name;
	struct list leaves;
	struct list rows;
	struct sample_point origin;
	uint32_t peer;		     /* optional, and zero is out of its range */
	struct sample_point pointer; /* optional */
	struct list extras;	     /* optional */
};

static const struct field sample_point_fields[] = {
	FIELD_INT(struct sample_point, x, -1000, 1000, "to the right"),
	FIELD_INT(struct sample_point, y, -1000, 1000, "upwards"),
	FIELD_END,
};

static const struct field sample_leaf_fields[] = {
	FIELD_UINT(struct sample_leaf, id, 1, UINT32_MAX, "number"),
	FIELD_TEXT(struct sample_leaf, label, 16, "what is written on it", .optional = true),
	FIELD_LIST(struct sample_leaf, points, struct sample_point, sample_point_fields, 8,
		   "veins"),
	FIELD_END,
};

static const struct field sample_row_fields[] = {
	FIELD_UINT(struct sample_row, start, 0, UINT64_MAX, "first"),
	FIELD_UINT(struct sample_row, length, 1, 4096, "how many"),
	FIELD_UINT(struct sample_row, node, 1, 8, "where", .optional = true),
	FIELD_BYTES(struct sample_row, note, 32, "remark", .optional = true),
	FIELD_END,
};

static const struct field sample_fields[] = {
	FIELD_UINT(struct sample, u8, 0, UINT8_MAX, "one byte"),
	FIELD_UINT(struct sample, u16, 0, UINT16_MAX, "two bytes"),
	FIELD_UINT(struct sample, u32, 0, UINT32_MAX, "four bytes"),
	FIELD_UINT(struct sample, u64, 0, UINT64_MAX - 1, "eight bytes, a \"limit\" below all"),
	FIELD_INT(struct sample, i8, INT8_MIN, INT8_MAX, "one byte"),
	FIELD_INT(struct sample, i16, INT16_MIN, INT16_MAX, "two bytes"),
	FIELD_INT(struct sample, i32, INT32_MIN, INT32_MAX, "four bytes"),
	FIELD_INT(struct sample, i64, INT64_MIN, INT64_MAX, "eight bytes"),
	FIELD_BOOL(struct sample, flag, "yes or no"),
	FIELD_BYTES(struct sample, blob, 300, "anything"),
	FIELD_PATH(struct sample, path, "without a NUL"),
	FIELD_TEXT(struct sample, name, 64, "UTF-8"),
	FIELD_LIST(struct sample, leaves, struct sample_leaf, sample_leaf_fields, 20, "of maps"),
	FIELD_ROWS(struct sample, rows, struct sample_row, sample_row_fields, 20, "of arrays"),
	FIELD_STRUCT(struct sample, origin, sample_point_fields, "embedded"),
	FIELD_UINT(struct sample, peer, 1, 9, "none when zero", .optional = true),
	FIELD_STRUCT(struct sample, pointer, sample_point_fields, "C:\\tmp", .optional = true),
	FIELD_LIST(struct sample, extras, struct sample_point, sample_point_fields, 3, "last\n",
		   .optional = true),
	FIELD_END,
};

#define SAMPLE_BYTES(text) ((struct bytes){(uint8_t *)(uintptr_t)(text), sizeof(text) - 1})

/* All members zero or at their least, nothing optional. */
static inline struct sample sample_least(void)
{
	return (struct sample){
		.i8 = INT8_MIN, .i16 = INT16_MIN, .i32 = INT32_MIN, .i64 = INT64_MIN};
}

/* Something in every member; false when memory is out. */
static inline bool sample_full(struct pool *pool, struct sample *sample)
{
	struct sample_leaf *leaf;
	struct sample_row *row;
	struct sample_point *point;

	*sample = (struct sample){
		.u8 = 200,
		.u16 = 60000,
		.u32 = 4000000000,
		.u64 = UINT64_MAX - 1,
		.i8 = -100,
		.i16 = -30000,
		.i32 = -2000000000,
		.i64 = INT64_MAX,
		.flag = true,
		.blob = SAMPLE_BYTES("\0\1\2\xff"),
		.path = SAMPLE_BYTES("/srv/caf\xe9"),
		.name = SAMPLE_BYTES("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xa7"),
		.origin = {-3, 4},
		.peer = 9,
		.pointer = {0, 1},
	};
	for (uint32_t i = 0; i < 10; i++) {
		leaf = list_append(pool, &sample->leaves, sizeof(*leaf));
		if (!leaf)
			return false;
		leaf->id = i + 1;
		if (i % 2)
			leaf->label = SAMPLE_BYTES("odd");
		point = list_append(pool, &leaf->points, sizeof(*point));
		row = list_append(pool, &sample->rows, sizeof(*row));
		if (!point || !row)
			return false;
		*point = (struct sample_point){-(int32_t)i, (int32_t)i};
		*row = (struct sample_row){.start = i << 12, .length = 1, .node = i % 3};
	}
	point = list_append(pool, &sample->extras, sizeof(*point));
	return point;
}

#endif
