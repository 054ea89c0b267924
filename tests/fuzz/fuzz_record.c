/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: arbitrary bytes as a record. What is accepted keeps to the table, and is the same
 * when written and read again.
 *
 * With clang -fsanitize=fuzzer it is libFuzzer's, guided by coverage. With -DSTANDALONE any
 * compiler will do: main() mutates records of its own.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../unit/native/sample.h"
#include "cleanup.h"

#define _cleanup_writer_ _cleanup_(record_writer_deinit)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A property does not hold. */
static _Noreturn void wrong(const char *what)
{
	fprintf(stderr, "%s\n", what);
	abort();
}

static bool succeeds(struct cr_error *error)
{
	_cleanup_error_ struct cr_error *owned = error;

	if (owned && owned->code != CR_IMAGE)
		wrong(owned->message);
	return !owned;
}

static void must_succeed(struct cr_error *error)
{
	if (error)
		wrong(error->message);
}

/* The limits of sample.h, said once more: no code that was handed a record looks at them again. */
static void check_limits(const struct sample *sample)
{
	const struct sample_leaf *leaves = sample->leaves.items;
	const struct sample_row *rows = sample->rows.items;

	if (sample->u64 == UINT64_MAX || sample->peer > 9 || sample->blob.len > 300)
		wrong("A value is out of its range");
	if (sample->path.len > 4096 || strlen((char *)sample->path.data) != sample->path.len)
		wrong("A path is too long, or not one string");
	if (sample->leaves.count > 20 || sample->rows.count > 20 || sample->extras.count > 3)
		wrong("A list is too long");
	for (size_t i = 0; i < sample->leaves.count; i++)
		if (leaves[i].id == 0 || leaves[i].points.count > 8 || leaves[i].label.len > 16)
			wrong("A leaf is out of its range");
	for (size_t i = 0; i < sample->rows.count; i++)
		if (rows[i].length == 0 || rows[i].length > 4096 || rows[i].node > 8)
			wrong("A row is out of its range");
}

static void fuzz_table(struct record_reader reader)
{
	_cleanup_writer_ struct record_writer first = {0}, second = {0};
	struct sample sample = {0}, again = {0};

	if (!succeeds(record_get(&reader, sample_fields, &sample)))
		return;
	if (reader.offset > reader.len)
		wrong("Read beyond the end");
	check_limits(&sample);
	must_succeed(record_put(&first, sample_fields, &sample));
	reader = (struct record_reader){.data = first.data, .len = first.len, .pool = reader.pool};
	must_succeed(record_get(&reader, sample_fields, &again));
	if (!record_at_end(&reader))
		wrong("Not all of a record of ours was read");
	must_succeed(record_put(&second, sample_fields, &again));
	if (first.len != second.len || memcmp(first.data, second.data, first.len) != 0)
		wrong("A record changed on its way");
}

static void fuzz_skip(struct record_reader reader)
{
	while (!record_at_end(&reader)) {
		size_t before = reader.offset;

		if (!succeeds(record_skip(&reader)))
			return;
		if (reader.offset <= before || reader.offset > reader.len)
			wrong("Skipped nothing or too much");
	}
}

static void fuzz_frames(struct record_reader reader)
{
	struct record_reader start = reader;
	const char *text;
	uint64_t number;
	size_t count;

	if (succeeds(record_get_array(&reader, 1000, &count)) && count > 1000)
		wrong("More members than allowed");
	reader = start;
	if (succeeds(record_get_map(&reader, SIZE_MAX, &count)) && count > reader.len / 2)
		wrong("More members than there can be");
	reader = start;
	if (succeeds(record_get_text(&reader, 20, &text)) && strlen(text) > 20)
		wrong("Text longer than allowed");
	reader = start;
	if (succeeds(record_get_uint(&reader, 1000, &number)) && number > 1000)
		wrong("Number larger than allowed");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_pool_ struct pool *pool = NULL;
	struct record_reader reader = {.data = data, .len = size};

	must_succeed(pool_create(1 << 14, &pool));
	reader.pool = pool;
	fuzz_table(reader);
	fuzz_skip(reader);
	fuzz_frames(reader);
	return 0;
}

#ifdef STANDALONE

enum {
	CORPUS = 8,
	INPUT_ROOM = 4096,
	MOST_MUTATIONS = 6,
};

/* An input under mutation. */
struct input {
	uint8_t data[INPUT_ROOM];
	size_t len;
};

struct fuzzer {
	struct input corpus[CORPUS];
	size_t count;
	uint64_t random; /* state of the generator */
};

/* What is tried now, for the message that tells how to try it again. */
static uint64_t current_seed, current_run;

/* splitmix64: good enough, and every run can start from its own number. */
static uint64_t draw(struct fuzzer *fuzzer, uint64_t below)
{
	uint64_t z = fuzzer->random += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (z ^ z >> 31) % below;
}

static void corpus_add(struct fuzzer *fuzzer, const void *data, size_t len)
{
	struct input *input = &fuzzer->corpus[fuzzer->count++];

	if (fuzzer->count > CORPUS || len > INPUT_ROOM)
		wrong("The corpus has no room");
	memcpy(input->data, data, len);
	input->len = len;
}

static void corpus_add_record(struct fuzzer *fuzzer, const struct sample *sample)
{
	_cleanup_writer_ struct record_writer writer = {0};

	must_succeed(record_put(&writer, sample_fields, sample));
	corpus_add(fuzzer, writer.data, writer.len);
}

/* The smaller a record, the more likely a mutation hits its structure. */
static void corpus_fill(struct fuzzer *fuzzer)
{
	static const uint8_t strange[] =
		"\xa4\x61x\xd9\x03\xe8\x82\x01\xc1\xf9\x7e\x00\x61y\x9b\0\0\0\0\0\0\0\x01\xf6"
		"\x61z\xa1\x20\x5a\0\0\0\x01\xff\x61t\xfb\0\0\0\0\0\0\0\0";
	_cleanup_pool_ struct pool *pool = NULL;
	struct sample sample = sample_least();
	struct sample_leaf *leaf;
	struct sample_row *row;

	must_succeed(pool_create(0, &pool));
	corpus_add_record(fuzzer, &sample);
	leaf = list_append(pool, &sample.leaves, sizeof(*leaf));
	row = list_append(pool, &sample.rows, sizeof(*row));
	if (!leaf || !row)
		wrong("Out of memory");
	leaf->id = 1;
	leaf->label = SAMPLE_BYTES("\xc3\xa9");
	*row = (struct sample_row){.length = 2, .note = SAMPLE_BYTES("x")};
	corpus_add_record(fuzzer, &sample);
	if (!sample_full(pool, &sample))
		wrong("Out of memory");
	corpus_add_record(fuzzer, &sample);
	corpus_add(fuzzer, strange, sizeof(strange) - 1);
	corpus_add(fuzzer, "", 0);
}

/* Makes room for @len bytes at @at, or takes them out. */
static void input_insert(struct input *input, size_t at, const uint8_t *data, size_t len)
{
	if (len > INPUT_ROOM - input->len)
		len = INPUT_ROOM - input->len;
	memmove(input->data + at + len, input->data + at, input->len - at);
	memcpy(input->data + at, data, len);
	input->len += len;
}

static void input_remove(struct input *input, size_t at, size_t len)
{
	memmove(input->data + at, input->data + at + len, input->len - at - len);
	input->len -= len;
}

static void mutate(struct fuzzer *fuzzer, struct input *input)
{
	/* Heads of items, and ends of ranges */
	static const uint8_t heads[] = {
		0x00, 0x17, 0x18, 0x1b, 0x1c, 0x20, 0x38, 0x3b, 0x40, 0x41, 0x58, 0x5b, 0x5f,
		0x60, 0x61, 0x7b, 0x7f, 0x80, 0x81, 0x98, 0x9b, 0x9f, 0xa0, 0xa1, 0xb8, 0xbb,
		0xbf, 0xc0, 0xc6, 0xd8, 0xdb, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfb, 0xff,
	};
	const struct input *other = &fuzzer->corpus[draw(fuzzer, fuzzer->count)];
	uint8_t head = heads[draw(fuzzer, sizeof(heads))];
	size_t at = draw(fuzzer, input->len + 1), left = input->len - at;
	size_t from = draw(fuzzer, other->len + 1);
	uint8_t copy[16];
	size_t some = draw(fuzzer, left < sizeof(copy) ? left + 1 : sizeof(copy));

	memcpy(copy, input->data + at, some);
	switch (draw(fuzzer, 9)) {
	case 0: input_insert(input, at, &head, 1); break;
	case 1: input_insert(input, draw(fuzzer, input->len + 1), copy, some); break;
	case 2:
		input_insert(input, at, other->data + from, draw(fuzzer, other->len - from + 1));
		break;
	case 3: input_remove(input, at, some); break;
	case 4: input->len = at; break;
	case 5: memset(input->data + at, draw(fuzzer, 2) ? 0xff : 0, some); break;
	default: /* most often one byte: the rest stays a record */
		if (left == 0)
			break;
		if (draw(fuzzer, 2))
			input->data[at] = head;
		else
			input->data[at] ^= (uint8_t)(1U << draw(fuzzer, 8));
	}
}

static void fuzz_once(struct fuzzer *fuzzer, uint64_t seed, uint64_t run)
{
	_cleanup_free_ uint8_t *exact = NULL;
	struct input input;

	fuzzer->random = seed ^ run << 24;
	input = fuzzer->corpus[draw(fuzzer, fuzzer->count)];
	for (uint64_t n = draw(fuzzer, MOST_MUTATIONS + 1); n > 0; n--)
		mutate(fuzzer, &input);
	/* Exactly as large as its content: reading beyond it is seen by the sanitizer */
	exact = malloc(input.len);
	if (!exact)
		wrong("Out of memory");
	memcpy(exact, input.data, input.len);
	LLVMFuzzerTestOneInput(exact, input.len);
}

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>

/* An abort of our own shall tell it as well. */
const char *__asan_default_options(void);

const char *__asan_default_options(void)
{
	return "handle_abort=1";
}

static void tell_how_to_repeat(void)
{
	fprintf(stderr, "Repeat with: fuzz_record %llu 0 %llu\n", (unsigned long long)current_seed,
		(unsigned long long)current_run);
}
#endif

/* fuzz_record SEED SECONDS, or fuzz_record SEED 0 RUN for a single run of that seed. */
int main(int argc, char **argv)
{
	_cleanup_free_ struct fuzzer *fuzzer = calloc(1, sizeof(*fuzzer));
	time_t end = time(NULL);

	if (!fuzzer || argc < 3) {
		fprintf(stderr, "Usage: fuzz_record SEED SECONDS [RUN]\n");
		return 2;
	}
	current_seed = strtoull(argv[1], NULL, 0);
	end += (time_t)strtoull(argv[2], NULL, 0);
	corpus_fill(fuzzer);
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_set_death_callback(tell_how_to_repeat);
#endif
	if (argc > 3) {
		current_run = strtoull(argv[3], NULL, 0);
		fuzz_once(fuzzer, current_seed, current_run);
		return 0;
	}
	while (time(NULL) < end)
		fuzz_once(fuzzer, current_seed, ++current_run);
	printf("seed %llu: %llu runs\n", (unsigned long long)current_seed,
	       (unsigned long long)current_run);
	return 0;
}

#endif
