/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tty_input.h"

#include <stdlib.h>
#include <string.h>

#include "../cleanup.h"

/* Offsets of this kernel. */
struct kernel_tty_reader {
	struct kernel_peek *peek;
	uint32_t private_data, tty, discipline, port, buffer;
	/* in struct tty_buffer */
	uint32_t next, commit, read;
	/* in struct n_tty_data: counters that only grow, of bytes in the ring */
	uint32_t head, tail, text, flags;
	uint32_t size; /* of the ring */
};

static const struct btf_wanted members[] = {
	{offsetof(struct kernel_tty_reader, private_data), "file", "private_data"},
	{offsetof(struct kernel_tty_reader, tty), "tty_file_private", "tty"},
	{offsetof(struct kernel_tty_reader, discipline), "tty_struct", "disc_data"},
	{offsetof(struct kernel_tty_reader, port), "tty_struct", "port"},
	{offsetof(struct kernel_tty_reader, buffer), "tty_port", "buf.head"},
	{offsetof(struct kernel_tty_reader, next), "tty_buffer", "next"},
	{offsetof(struct kernel_tty_reader, commit), "tty_buffer", "commit"},
	{offsetof(struct kernel_tty_reader, read), "tty_buffer", "read"},
	{offsetof(struct kernel_tty_reader, head), "n_tty_data", "read_head"},
	{offsetof(struct kernel_tty_reader, tail), "n_tty_data", "read_tail"},
	{offsetof(struct kernel_tty_reader, text), "n_tty_data", "read_buf"},
	{offsetof(struct kernel_tty_reader, flags), "n_tty_data", "read_flags"},
};

static struct cr_error *locate_all(const struct btf *btf, struct kernel_tty_reader *reader)
{
	struct btf_place place;

	TRY(btf_offsets(btf, members, sizeof(members) / sizeof(members[0]), reader));
	TRY(btf_require(btf, "n_tty_data", "read_buf", &place));
	reader->size = place.size;
	return reader->size % PEEK_MAX || reader->size & (reader->size - 1)
		       ? error_new(CR_HOST, "The buffer of a terminal is another one here")
		       : NULL;
}

struct cr_error *kernel_tty_reader_open(const struct btf *btf, struct kernel_peek *peek,
					struct kernel_tty_reader **ret)
{
	_cleanup_free_ struct kernel_tty_reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		return error_nomem();
	TRY(locate_all(btf, reader));
	reader->peek = peek;
	*ret = steal_pointer(&reader);
	return NULL;
}

void kernel_tty_reader_close(struct kernel_tty_reader *reader)
{
	free(reader);
}

static struct cr_error *read_pointer(struct kernel_tty_reader *reader, uint64_t address,
				     uint64_t *ret)
{
	return kernel_peek(reader->peek, address, ret, sizeof(*ret));
}

/* A terminal whose buffer is full leaves the rest where the driver has put it. */
static struct cr_error *look_in_front(struct kernel_tty_reader *reader, uint64_t tty, bool *ret)
{
	uint64_t buffer, next;
	uint32_t commit, read;

	TRY(read_pointer(reader, tty + reader->port, &buffer));
	TRY(read_pointer(reader, buffer + reader->buffer, &buffer));
	TRY(read_pointer(reader, buffer + reader->next, &next));
	TRY(kernel_peek(reader->peek, buffer + reader->commit, &commit, sizeof(commit)));
	TRY(kernel_peek(reader->peek, buffer + reader->read, &read, sizeof(read)));
	*ret = next || commit != read;
	return NULL;
}

static struct cr_error *read_all(struct kernel_tty_reader *reader, uint64_t address, size_t size,
				 uint8_t *ret)
{
	for (size_t done = 0; done < size; done += PEEK_MAX) {
		size_t part = size - done < PEEK_MAX ? size - done : PEEK_MAX;

		TRY(kernel_peek(reader->peek, address + done, ret + done, part));
	}
	return NULL;
}

/* The ring, from @tail on, made straight. */
static struct cr_error *copy_ring(struct kernel_tty_reader *reader, uint64_t discipline,
				  uint64_t tail, size_t count, struct pool *pool,
				  struct kernel_tty_input *ret)
{
	size_t size = reader->size;
	_cleanup_free_ uint8_t *ring = malloc(size), *flags = malloc(size / 8);

	ret->text = (struct bytes){pool_alloc(pool, count + 1), count};
	ret->ends = (struct bytes){pool_alloc(pool, count + 1), count};
	if (!ring || !flags || !ret->text.data || !ret->ends.data)
		return error_nomem();
	TRY(read_all(reader, discipline + reader->text, size, ring));
	TRY(read_all(reader, discipline + reader->flags, size / 8, flags));
	for (size_t i = 0; i < count; i++) {
		size_t at = (tail + i) & (size - 1);

		ret->text.data[i] = ring[at];
		ret->ends.data[i] = flags[at / 8] >> at % 8 & 1;
	}
	return NULL;
}

struct cr_error *kernel_tty_input_read(struct kernel_tty_reader *reader, uint64_t file,
				       struct pool *pool, struct kernel_tty_input *ret)
{
	uint64_t discipline, head, tail;

	*ret = (struct kernel_tty_input){0};
	TRY(read_pointer(reader, file + reader->private_data, &ret->tty));
	TRY(read_pointer(reader, ret->tty + reader->tty, &ret->tty));
	TRY(look_in_front(reader, ret->tty, &ret->waits));
	TRY(read_pointer(reader, ret->tty + reader->discipline, &discipline));
	TRY(read_pointer(reader, discipline + reader->head, &head));
	TRY(read_pointer(reader, discipline + reader->tail, &tail));
	if (head == tail)
		return NULL;
	if (head - tail > reader->size)
		return error_new(CR_INTERNAL, "The buffer of a terminal changes while it is read");
	return copy_ring(reader, discipline, tail, head - tail, pool, ret);
}
