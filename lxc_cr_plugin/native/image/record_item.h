/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One CBOR data item out of a record_reader: the only place that knows how libcbor decodes. */
#ifndef CR_RECORD_ITEM_H
#define CR_RECORD_ITEM_H

#include "record.h"

enum item_kind {
	ITEM_UINT,
	ITEM_NEGINT,
	ITEM_BYTES,
	ITEM_TEXT,
	ITEM_ARRAY,
	ITEM_MAP,
	ITEM_TAG,
	ITEM_BOOL,
	ITEM_NULL,
	ITEM_FLOAT,
	ITEM_OTHER,	 /* undefined */
	ITEM_INDEFINITE, /* length not given in front; item_get() refuses it */
};

struct item {
	enum item_kind kind;
	/* Number (NEGINT: -1 - value), 0 or 1, length of a string, count of items or of pairs */
	uint64_t value;
	const uint8_t *data; /* of a string, inside the reader's memory */
	size_t offset;	     /* where it began */
};

/*
 * The next item; of a container or a tag only its head. A string lies within the data, a count is
 * not more than the bytes that are left could hold.
 */
struct cr_error *item_get(struct record_reader *reader, struct item *item);

/* The same, but anything else than @kind is refused. */
struct cr_error *item_expect(struct record_reader *reader, enum item_kind kind, struct item *item);
struct cr_error *item_mismatch(const struct item *item, enum item_kind wanted);

/* Is null next? Consumes it then, and nothing otherwise. */
bool item_skip_null(struct record_reader *reader);

#endif
