/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Records: C structs to CBOR (RFC 8949) and back, driven by field tables. A field is declared once;
 * that line drives the writer, the reader, the range check, the documentation and `lxc-cr inspect`.
 *
 *	static const struct field eventfd_fields[] = {
 *		FIELD_UINT(struct eventfd, count, 0, UINT64_MAX - 1, "counter"),
 *		FIELD_BOOL(struct eventfd, semaphore, "EFD_SEMAPHORE was given"),
 *		FIELD_END,
 *	};
 *
 * What follows the text of a field goes into its initializer: FIELD_BOOL(..., "text", .optional =
 * true).
 */
#ifndef CR_RECORD_H
#define CR_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../error.h"
#include "../pool.h"

enum field_type {
	FIELD_TYPE_END = 0,
	FIELD_TYPE_UINT, /* unsigned member of 1, 2, 4 or 8 bytes */
	FIELD_TYPE_INT,	 /* signed member of 1, 2, 4 or 8 bytes */
	FIELD_TYPE_BOOL,
	FIELD_TYPE_BYTES, /* struct bytes, any content: CBOR byte string */
	FIELD_TYPE_PATH,  /* struct bytes without a NUL in it: CBOR byte string */
	/* struct bytes, UTF-8 without a NUL: CBOR text string (names we made ourselves) */
	FIELD_TYPE_TEXT,
	FIELD_TYPE_LIST, /* struct list of items described by sub: CBOR array of maps */
	/*
	 * The same, each item a CBOR array of the members in table order: for long lists. null
	 * stands for an optional member that is zero.
	 */
	FIELD_TYPE_ROWS,
	FIELD_TYPE_STRUCT, /* embedded struct described by sub: CBOR map */
};

struct field {
	const char *name;
	enum field_type type;
	bool optional; /* not written while zero; may be missing when read: the member stays zero */
	size_t offset;
	size_t size; /* of the member; of one item for LIST and ROWS */
	/* INT: its range */
	int64_t min, max;
	/* UINT: its range; BYTES, PATH, TEXT: at most umax bytes; LIST, ROWS: at most umax items */
	uint64_t umin, umax;
	const struct field *sub;
	const char *doc;
};

#define FIELD_UINT(s, m, lo, hi, text, ...)                                                        \
	{                                                                                          \
		.name = #m, .type = FIELD_TYPE_UINT, .offset = offsetof(s, m),                     \
		.size = sizeof(((s *)0)->m), .umin = (lo), .umax = (hi), .doc = (text),            \
		##__VA_ARGS__                                                                      \
	}
#define FIELD_INT(s, m, lo, hi, text, ...)                                                         \
	{                                                                                          \
		.name = #m, .type = FIELD_TYPE_INT, .offset = offsetof(s, m),                      \
		.size = sizeof(((s *)0)->m), .min = (lo), .max = (hi), .doc = (text),              \
		##__VA_ARGS__                                                                      \
	}
#define FIELD_BOOL(s, m, text, ...)                                                                \
	{                                                                                          \
		.name = #m, .type = FIELD_TYPE_BOOL, .offset = offsetof(s, m),                     \
		.size = sizeof(((s *)0)->m), .doc = (text), ##__VA_ARGS__                          \
	}
#define FIELD_BYTES(s, m, longest, text, ...)                                                      \
	{                                                                                          \
		.name = #m, .type = FIELD_TYPE_BYTES, .offset = offsetof(s, m),                    \
		.size = sizeof(struct bytes), .umax = (longest), .doc = (text), ##__VA_ARGS__      \
	}
#define FIELD_PATH(s, m, text, ...)                                                                \
	{                                                                                          \
		.name = #m, .type = FIELD_TYPE_PATH, .offset = offsetof(s, m),                     \
		.size = sizeof(struct bytes), .umax = 4096, .doc = (text), ##__VA_ARGS__           \
	}
#define FIELD_TEXT(s, m, longest, text, ...)                                                       \
	{                                                                                          \
		.name = #m, .type = FIELD_TYPE_TEXT, .offset = offsetof(s, m),                     \
		.size = sizeof(struct bytes), .umax = (longest), .doc = (text), ##__VA_ARGS__      \
	}
#define FIELD_LIST(s, m, item, table, most, text, ...)                                             \
	{                                                                                          \
		.name = #m, .type = FIELD_TYPE_LIST, .offset = offsetof(s, m),                     \
		.size = sizeof(item), .sub = (table), .umax = (most), .doc = (text), ##__VA_ARGS__ \
	}
#define FIELD_ROWS(s, m, item, table, most, text, ...)                                             \
	{                                                                                          \
		.name = #m, .type = FIELD_TYPE_ROWS, .offset = offsetof(s, m),                     \
		.size = sizeof(item), .sub = (table), .umax = (most), .doc = (text), ##__VA_ARGS__ \
	}
#define FIELD_STRUCT(s, m, table, text, ...)                                                       \
	{                                                                                          \
		.name = #m, .type = FIELD_TYPE_STRUCT, .offset = offsetof(s, m),                   \
		.size = sizeof(((s *)0)->m), .sub = (table), .doc = (text), ##__VA_ARGS__          \
	}
#define FIELD_END                                                                                  \
	{                                                                                          \
		.type = FIELD_TYPE_END                                                             \
	}

/* A growing buffer of encoded bytes (malloc'ed). */
struct record_writer {
	uint8_t *data;
	size_t len, room;
};

void record_writer_deinit(struct record_writer *writer);

/* Raw CBOR items, to frame records: array and map headers, text, unsigned numbers. */
struct cr_error *record_put_array(struct record_writer *writer, size_t count);
struct cr_error *record_put_map(struct record_writer *writer, size_t count);
struct cr_error *record_put_text(struct record_writer *writer, const char *text);
struct cr_error *record_put_uint(struct record_writer *writer, uint64_t value);
/* @object as a map of @fields. */
struct cr_error *record_put(struct record_writer *writer, const struct field *fields,
			    const void *object);

/* Reads from memory that it does not own. Every error is CR_IMAGE and names offset and field. */
struct record_reader {
	const uint8_t *data;
	size_t len, offset;
	struct pool *pool; /* owns what is decoded */
};

bool record_at_end(const struct record_reader *reader);
struct cr_error *record_get_array(struct record_reader *reader, size_t most, size_t *count);
struct cr_error *record_get_map(struct record_reader *reader, size_t most, size_t *count);
/* A text of at most @longest bytes; *ret lives in the pool, NUL-terminated, without other NULs. */
struct cr_error *record_get_text(struct record_reader *reader, size_t longest, const char **ret);
struct cr_error *record_get_uint(struct record_reader *reader, uint64_t max, uint64_t *ret);
/*
 * A map of @fields into the zeroed @object. Unknown keys are skipped (at most 8 levels deep), a
 * missing mandatory field, a key given twice, a value out of range or of another type is an error.
 * List items are allocated as they are read: a claimed length costs nothing. A row may end before
 * its optional members or go on after the ones known here.
 */
struct cr_error *record_get(struct record_reader *reader, const struct field *fields, void *object);
struct cr_error *record_skip(struct record_reader *reader);

/*
 * The table as a JSON array of {name, type, doc, optional, min, max, fields}, without what a type
 * has not; malloc'ed text.
 */
struct cr_error *record_describe(const struct field *fields, char **ret);

#endif
