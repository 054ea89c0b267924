/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Records in and out. Without an argument the program checks itself; "write" prints a full sample
 * as CBOR; "describe" prints the table as JSON; "serve" answers frames (length as 4 bytes in host
 * order, CBOR): one byte 1 and the record written again, or 0 and the error.
 */
#include <stdlib.h>

#include "checks.h"
#include "cleanup.h"
#include "sample.h"

#define _cleanup_writer_ _cleanup_(record_writer_deinit)

struct small {
	uint8_t n;
	int8_t i;
	bool flag;
	struct bytes path;
	struct bytes text;
	struct list rows;
};

static const struct field small_fields[] = {
	/* A range beyond the member on purpose */
	FIELD_UINT(struct small, n, 2, 300, "number", .optional = true),
	FIELD_INT(struct small, i, -300, 300, "number", .optional = true),
	FIELD_BOOL(struct small, flag, "flag", .optional = true),
	FIELD_PATH(struct small, path, "path", .optional = true),
	FIELD_TEXT(struct small, text, 5, "text", .optional = true),
	FIELD_ROWS(struct small, rows, struct sample_row, sample_row_fields, 3, "rows",
		   .optional = true),
	FIELD_END,
};

/* From hexadecimal digits; spaces are for the reader. Returns the length; the caller frees. */
static size_t from_hex(const char *text, uint8_t **ret)
{
	uint8_t *data = malloc(strlen(text) / 2 + 1);
	size_t len = 0;
	unsigned int byte;
	int used;

	while (data && sscanf(text, " %2x%n", &byte, &used) == 1) {
		data[len++] = (uint8_t)byte;
		text += used;
	}
	/* Exactly as large as its content: reading beyond it is seen by the sanitizer */
	*ret = len ? realloc(data, len) : data;
	return len;
}

static struct cr_error *read_hex(struct pool *pool, const char *hex, const struct field *fields,
				 void *object)
{
	_cleanup_free_ uint8_t *data = NULL;
	struct record_reader reader = {.pool = pool};

	reader.len = from_hex(hex, &data);
	reader.data = data;
	TRY(record_get(&reader, fields, object));
	return record_at_end(&reader) ? NULL : error_new(CR_INTERNAL, "Left over");
}

static struct cr_error *skip_hex(const char *hex)
{
	_cleanup_free_ uint8_t *data = NULL;
	struct record_reader reader = {0};

	reader.len = from_hex(hex, &data);
	reader.data = data;
	TRY(record_skip(&reader));
	return record_at_end(&reader) ? NULL : error_new(CR_INTERNAL, "Left over");
}

static bool bytes_equal(struct bytes a, struct bytes b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static void check_round_trip(struct pool *pool, const struct sample *sample)
{
	_cleanup_writer_ struct record_writer first = {0}, second = {0};
	struct sample again = {0};
	struct record_reader reader = {.pool = pool};

	CHECK_SUCCESS(record_put(&first, sample_fields, sample));
	reader.data = first.data;
	reader.len = first.len;
	CHECK_SUCCESS(record_get(&reader, sample_fields, &again));
	CHECK(record_at_end(&reader));

	CHECK(again.u8 == sample->u8 && again.u16 == sample->u16 && again.u32 == sample->u32);
	CHECK(again.u64 == sample->u64 && again.flag == sample->flag);
	CHECK(again.i8 == sample->i8 && again.i16 == sample->i16 && again.i32 == sample->i32);
	CHECK(again.i64 == sample->i64 && again.peer == sample->peer);
	CHECK(bytes_equal(again.blob, sample->blob) && bytes_equal(again.path, sample->path));
	CHECK(bytes_equal(again.name, sample->name) && again.name.data[again.name.len] == 0);
	CHECK(again.leaves.count == sample->leaves.count && again.rows.count == sample->rows.count);
	CHECK(again.origin.x == sample->origin.x && again.pointer.y == sample->pointer.y);
	CHECK(again.extras.count == sample->extras.count);

	CHECK_SUCCESS(record_put(&second, sample_fields, &again));
	CHECK(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
}

/* A record that ends anywhere but at its end is refused, whatever is cut off. */
static void check_truncated(struct pool *pool, const struct sample *sample)
{
	_cleanup_writer_ struct record_writer writer = {0};

	CHECK_SUCCESS(record_put(&writer, sample_fields, sample));
	for (size_t len = 0; len < writer.len; len++) {
		_cleanup_free_ uint8_t *part = malloc(len + 1);
		uint8_t *end = part + 1; /* so that it touches the end of its allocation */
		struct record_reader reader = {.data = end, .len = len, .pool = pool};
		struct sample again = {0};

		memcpy(end, writer.data, len);
		CHECK_ERROR(record_get(&reader, sample_fields, &again), CR_IMAGE, "byte");
		reader.offset = 0;
		CHECK_ERROR(record_skip(&reader), CR_IMAGE, "byte");
	}
}

static void check_small(struct pool *pool)
{
	struct small small = {0};
	const struct sample_row *rows;

	CHECK_SUCCESS(read_hex(pool, "a0", small_fields, &small));
	CHECK(small.n == 0 && !small.path.data);
	/* Longer heads than needed say the same */
	CHECK_SUCCESS(read_hex(pool, "b80161 6e 1b00000000000000ff", small_fields, &small));
	CHECK(small.n == 255);
	CHECK_SUCCESS(read_hex(pool, "a1 6169 387f", small_fields, &small));
	CHECK(small.i == -128);
	CHECK_SUCCESS(read_hex(pool, "a1 6470617468 40", small_fields, &small));
	CHECK(small.path.len == 0 && small.path.data && small.path.data[0] == 0);

	/* Rows: without what is optional, with null for it, with more than we know */
	CHECK_SUCCESS(read_hex(pool, "a1 64726f7773 83 820102 840102f641ff 8501020340 82a0f5",
			       small_fields, &small));
	rows = small.rows.items;
	CHECK(small.rows.count == 3 && rows[0].length == 2 && rows[0].node == 0);
	CHECK(rows[1].node == 0 && rows[1].note.len == 1 && rows[1].note.data[0] == 0xff);
	CHECK(rows[2].node == 3 && rows[2].start == 1);
}

static void check_refused(struct pool *pool)
{
	static const struct {
		const char *hex, *part;
	} cases[] = {
		{"", "ends at byte 0"},
		{"80", "is an array, not a map"},
		{"f6", "is null, not a map"},
		{"bf 616e 03 ff", "indefinite length"},
		{"a1 616e", "ends at byte 3"},
		{"a1 01", "claims 1 members in 1 bytes"},
		{"a1 01 02 03", "unsigned number, not a text"},
		{"a1 7f 616e ff 03", "indefinite length"},
		{"a1 c1616e 03", "is a tag, not a text"},
		{"a1 616e 61", "goes beyond the end"},
		{"a1 616e c1 03", "Bad n at byte 3: The item at byte 3 is a tag"},
		{"a1 616e 01", "1 is not in the range of 2 to 300"},
		{"a1 616e 19012d", "301 is not in the range"},
		{"a1 616e 190100", "256 does not fit into 1 bytes"},
		{"a1 616e 22", "is a negative number, not an unsigned number"},
		{"a1 616e f5", "is a boolean, not"},
		{"a1 616e f93c00", "is a float, not"},
		{"a1 616e f7", "is something else, not"},
		{"a1 616e f8ff", "not CBOR that we know"},
		{"a1 616e 1c", "not CBOR that we know"},
		{"a2 616e 03 616e 03", "n is given again at byte 4"},
		{"a1 6169 1880", "128 does not fit into 1 bytes"},
		{"a1 6169 3880", "-129 does not fit into 1 bytes"},
		{"a1 6169 39012c", "-301 is not in the range of -300 to 300"},
		{"a1 6169 3b8000000000000000", "does not fit into 64 bits"},
		{"a1 6169 1b8000000000000000", "does not fit into 64 bits"},
		{"a1 6169 61 31", "is a text, not"},
		{"a1 64666c6167 01", "is an unsigned number, not a boolean"},
		{"a1 6470617468 6161", "is a text, not a byte string"},
		{"a1 6470617468 43 610062", "contains a NUL"},
		{"a1 6470617468 5bffffffffffffffff 61", "goes beyond the end"},
		{"a1 6470617468 5f 4161 ff", "indefinite length"},
		{"a1 6474657874 66 616161616161", "6 bytes are more than 5"},
		{"a1 6474657874 63 610062", "contains a NUL"},
		{"a1 6474657874 41 61", "is a byte string, not a text"},
		{"a1 64726f7773 84", "claims 4 members in 0 bytes"},
		{"a1 64726f7773 84 80808080", "4 items are more than 3"},
		{"a1 64726f7773 9bffffffffffffffff 80", "claims 18446744073709551615 members"},
		{"a1 64726f7773 9f 820102 ff", "indefinite length"},
		{"a1 64726f7773 82 820102 8101",
		 "Bad item 1: The record that ends at byte 12 has no"},
		{"a1 64726f7773 81 a0", "is a map, not an array"},
		{"a1 64726f7773 81 82f602", "is null, not an unsigned number"},
		{"a1 64726f7773 81 83010200",
		 "Bad rows at byte 6: Bad item 0: Bad node at byte 10: "
		 "0 is not in the range of 1 to 8"},
		{"bbffffffffffffffff 616e", "claims 18446744073709551615 members in 2 bytes"},
		/* Unknown keys are skipped, what they hold is still looked at */
		{"a1 6178 ff", "indefinite length"},
		{"a1 6178 9b00000000ffffffff 00", "claims 4294967295 members"},
		{"a1 6178 818181818181818181 00", "nested deeper than 8"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct small small = {0};

		CHECK_ERROR(read_hex(pool, cases[i].hex, small_fields, &small), CR_IMAGE,
			    cases[i].part);
	}
}

static void check_utf8(struct pool *pool)
{
	static const char *const good[] = {
		"60",	    "62c280",	"62dfbf",     "63e0a080",
		"63ed9fbf", "63ee8080", "64f0908080", "64f48fbfbf",
	};
	static const char *const bad[] = {
		"6180",	      "61ff",	      "61c3",	  "62c0af",	"62c1bf",
		"63e08080",   "63eda080",     "63edbfbf", "64f0808080", "64f4908080",
		"64f5808080", "65f888808080", "63e28261", "62c3c3",	"64f09f90ff",
	};
	struct record_reader reader = {.pool = pool};
	const char *text;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		_cleanup_free_ uint8_t *data = NULL;

		reader = (struct record_reader){.len = from_hex(good[i], &data), .pool = pool};
		reader.data = data;
		CHECK_SUCCESS(record_get_text(&reader, 4, &text));
		CHECK(strlen(text) == reader.len - 1);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		_cleanup_free_ uint8_t *data = NULL;

		reader = (struct record_reader){.len = from_hex(bad[i], &data), .pool = pool};
		reader.data = data;
		CHECK_ERROR(record_get_text(&reader, 5, &text), CR_IMAGE, "not UTF-8");
	}
}

static void check_skip(void)
{
	CHECK_SUCCESS(skip_hex("1bffffffffffffffff"));
	CHECK_SUCCESS(skip_hex("a2 01 d903e8 82 c1 00 f97e00 4161 a1 80 f7"));
	CHECK_SUCCESS(skip_hex("8181818181818181 00"));
	CHECK_SUCCESS(skip_hex("81818181818181c1 00"));
	CHECK_SUCCESS(skip_hex("818181818181818180"));
	CHECK_ERROR(skip_hex("818181818181818181 00"), CR_IMAGE, "nested deeper than 8");
	CHECK_ERROR(skip_hex("c1c1c1c1c1c1c1c1c1 00"), CR_IMAGE, "nested deeper than 8");
	CHECK_ERROR(skip_hex("c1"), CR_IMAGE, "ends at byte 1");
	CHECK_ERROR(skip_hex("82 00"), CR_IMAGE, "claims 2 members in 1 bytes");
	CHECK_ERROR(skip_hex("a1 00"), CR_IMAGE, "claims 1 members in 1 bytes");
	CHECK_ERROR(skip_hex("5f ff"), CR_IMAGE, "indefinite length");
}

static void check_write_refused(struct pool *pool)
{
	_cleanup_writer_ struct record_writer writer = {0};
	struct sample sample = sample_least();
	struct small small = {.n = 1};
	size_t before;

	CHECK_SUCCESS(record_put_uint(&writer, 7));
	before = writer.len;
	CHECK_ERROR(record_put(&writer, small_fields, &small), CR_INTERNAL, "Cannot write n: 1 is");
	small = (struct small){.path = SAMPLE_BYTES("a\0b")};
	CHECK_ERROR(record_put(&writer, small_fields, &small), CR_INTERNAL, "contains a NUL");
	small = (struct small){.text = SAMPLE_BYTES("\xff")};
	CHECK_ERROR(record_put(&writer, small_fields, &small), CR_INTERNAL, "not UTF-8");
	small = (struct small){.text = SAMPLE_BYTES("123456")};
	CHECK_ERROR(record_put(&writer, small_fields, &small), CR_INTERNAL, "6 bytes are more");
	sample.origin.y = -1001;
	CHECK_ERROR(record_put(&writer, sample_fields, &sample), CR_INTERNAL,
		    "Cannot write origin: Cannot write y: -1001 is not in the range");
	sample = sample_least();
	for (size_t i = 0; i < 4; i++)
		CHECK(list_append(pool, &sample.extras, sizeof(struct sample_point)));
	CHECK_ERROR(record_put(&writer, sample_fields, &sample), CR_INTERNAL, "4 items are more");
	CHECK_ERROR(record_put_text(&writer, "\xc3"), CR_INTERNAL, "not UTF-8");
	CHECK(writer.len == before);
}

/* A table that holds itself, and tables that are wrong. */
struct tree {
	struct list children;
	uint8_t big[16];
};

static const struct field tree_fields[] = {
	FIELD_LIST(struct tree, children, struct tree, tree_fields, 9, "", .optional = true),
	FIELD_END,
};

static void check_tables(struct pool *pool)
{
	static const struct field odd_fields[] = {
		FIELD_UINT(struct tree, big, 0, 1, ""),
		FIELD_END,
	};
	_cleanup_writer_ struct record_writer writer = {0};
	struct field many[130] = {0};
	struct tree tree = {0}, *leaf = &tree;
	char *text;

	CHECK_SUCCESS(read_hex(pool, "a1 686368696c6472656e 81 a0", tree_fields, &tree));
	CHECK(tree.children.count == 1);
	tree = (struct tree){0};
	for (int i = 0; i < 10; i++) {
		leaf = list_append(pool, &leaf->children, sizeof(*leaf));
		CHECK(leaf);
	}
	CHECK_ERROR(record_put(&writer, tree_fields, &tree), CR_INTERNAL, "deeper than 8");
	CHECK_ERROR(record_describe(tree_fields, &text), CR_INTERNAL, "deeper than 8");
	CHECK_ERROR(read_hex(pool, "a1 63626967 00", odd_fields, &tree), CR_INTERNAL, "16 bytes");
	for (size_t i = 0; i < 129; i++)
		many[i] = small_fields[0];
	CHECK_ERROR(record_put(&writer, many, &tree), CR_INTERNAL, "129 fields");
	many[0].type = (enum field_type)99;
	many[0].optional = false;
	many[1] = (struct field)FIELD_END;
	CHECK_ERROR(record_put(&writer, many, &tree), CR_INTERNAL, "Unknown type 99");
	CHECK_ERROR(read_hex(pool, "a1 616e 00", many, &tree), CR_INTERNAL, "Unknown type 99");
}

static void check_frames(struct pool *pool)
{
	_cleanup_writer_ struct record_writer writer = {0};
	struct record_reader reader = {.pool = pool};
	const char *text;
	uint64_t number;
	size_t count;

	CHECK_SUCCESS(record_put_array(&writer, 300));
	CHECK_SUCCESS(record_put_map(&writer, 2));
	CHECK_SUCCESS(record_put_text(&writer, "eventfd"));
	CHECK_SUCCESS(record_put_uint(&writer, UINT64_MAX));
	for (int i = 0; i < 300; i++)
		CHECK_SUCCESS(record_put_uint(&writer, 0));
	reader.data = writer.data;
	reader.len = writer.len;
	CHECK_ERROR(record_get_array(&reader, 299, &count), CR_IMAGE, "300 members, more than 299");
	reader.offset = 0;
	CHECK_SUCCESS(record_get_array(&reader, 300, &count));
	CHECK(count == 300);
	CHECK_SUCCESS(record_get_map(&reader, 2, &count));
	CHECK(count == 2);
	CHECK_SUCCESS(record_get_text(&reader, 7, &text));
	CHECK(strcmp(text, "eventfd") == 0);
	CHECK_SUCCESS(record_get_uint(&reader, UINT64_MAX, &number));
	CHECK(number == UINT64_MAX);

	reader.offset = 4;
	CHECK_ERROR(record_get_text(&reader, 6, &text), CR_IMAGE, "7 bytes, more than 6");
	CHECK_ERROR(record_get_uint(&reader, 99, &number), CR_IMAGE, "more than 99");
	CHECK_ERROR(record_get_map(&reader, 9, &count), CR_IMAGE, "not a map");
	reader.offset = reader.len + 5;
	CHECK(record_at_end(&reader));
	CHECK_ERROR(record_skip(&reader), CR_IMAGE, "more is expected");
}

static int self_check(void)
{
	_cleanup_pool_ struct pool *pool = NULL;
	struct sample sample = sample_least();

	if (!CHECK_SUCCESS(pool_create(0, &pool)))
		return checks_done();
	check_round_trip(pool, &sample);
	if (CHECK(sample_full(pool, &sample))) {
		check_round_trip(pool, &sample);
		check_truncated(pool, &sample);
	}
	check_small(pool);
	check_refused(pool);
	check_utf8(pool);
	check_skip();
	check_write_refused(pool);
	check_tables(pool);
	check_frames(pool);
	return checks_done();
}

static int print_sample(void)
{
	_cleanup_writer_ struct record_writer writer = {0};
	_cleanup_pool_ struct pool *pool = NULL;
	_cleanup_error_ struct cr_error *error = pool_create(0, &pool);
	struct sample sample;

	if (error || !sample_full(pool, &sample))
		return 1;
	error = record_put(&writer, sample_fields, &sample);
	return error || fwrite(writer.data, 1, writer.len, stdout) != writer.len;
}

static int print_table(void)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_error_ struct cr_error *error = record_describe(sample_fields, &text);

	return error || puts(text) < 0;
}

static void reply(char verdict, const void *data, size_t len)
{
	uint32_t size = (uint32_t)len + 1;

	fwrite(&size, sizeof(size), 1, stdout);
	fputc(verdict, stdout);
	fwrite(data, 1, len, stdout);
	fflush(stdout);
}

static void answer(const uint8_t *data, size_t len)
{
	_cleanup_writer_ struct record_writer writer = {0};
	_cleanup_pool_ struct pool *pool = NULL;
	_cleanup_error_ struct cr_error *error = pool_create(1 << 16, &pool);
	struct record_reader reader = {.data = data, .len = len, .pool = pool};
	struct sample sample = {0};

	if (!error)
		error = record_get(&reader, sample_fields, &sample);
	if (!error && !record_at_end(&reader))
		error = error_new(CR_IMAGE, "Left over");
	if (!error)
		error = record_put(&writer, sample_fields, &sample);
	if (error)
		reply(0, error->message, strlen(error->message));
	else
		reply(1, writer.data, writer.len);
}

static int serve(void)
{
	uint32_t size;

	while (fread(&size, sizeof(size), 1, stdin) == 1) {
		_cleanup_free_ uint8_t *data = malloc(size ? size : 1);

		if (!data || fread(data, 1, size, stdin) != size)
			return 1;
		answer(data, size);
	}
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (strcmp(what, "write") == 0)
		return print_sample();
	if (strcmp(what, "describe") == 0)
		return print_table();
	if (strcmp(what, "serve") == 0)
		return serve();
	return self_check();
}
