/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "semaphore_undo.h"

#include <linux/btf.h>
#include <stdlib.h>
#include <string.h>

#include "../cleanup.h"

enum { MOST_SETS = 1 << 20 };

struct kernel_undo_reader {
	struct kernel_peek *peek;
	/* offsets of this kernel: in struct sem_undo_list, and in struct sem_undo */
	uint32_t list, next, set, adjustments;
	bool adjustments_apart; /* struct sem_undo points to them */
};

#define WANTED(member, root, path)                                                                 \
	{                                                                                          \
		offsetof(struct kernel_undo_reader, member), root, path                            \
	}

static const struct btf_wanted members[] = {
	WANTED(list, "sem_undo_list", "list_proc"),
	WANTED(next, "sem_undo", "list_proc"),
	WANTED(set, "sem_undo", "semid"),
};

/* The adjustments stand at the end of the struct since Linux 6.11; before, it points to them. */
static const struct btf_wanted inside = WANTED(adjustments, "sem_undo", "semadj[0]"),
			       apart = WANTED(adjustments, "sem_undo", "semadj");

static struct cr_error *locate_all(const struct btf *btf, struct kernel_undo_reader *reader)
{
	struct btf_place place;

	reader->adjustments_apart =
		!btf_locate(btf, btf_find(btf, BTF_KIND_STRUCT, "sem_undo"), inside.path, &place);
	TRY(btf_offsets(btf, members, sizeof(members) / sizeof(members[0]), reader));
	return btf_offsets(btf, reader->adjustments_apart ? &apart : &inside, 1, reader);
}

struct cr_error *kernel_undo_reader_open(const struct btf *btf, struct kernel_peek *peek,
					 struct kernel_undo_reader **ret)
{
	_cleanup_free_ struct kernel_undo_reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		return error_nomem();
	TRY(locate_all(btf, reader));
	reader->peek = peek;
	*ret = steal_pointer(&reader);
	return NULL;
}

void kernel_undo_reader_close(struct kernel_undo_reader *reader)
{
	free(reader);
}

struct cr_error *kernel_undo_read(struct kernel_undo_reader *reader, uint64_t address,
				  struct pool *pool, struct list *ret)
{
	uint64_t head = address + reader->list, at = head;

	for (;;) {
		struct kernel_undo *undo;
		uint64_t start;

		/* at: the link of one, which leads to that of the next, and from the last to head */
		TRY(kernel_peek(reader->peek, at, &at, sizeof(at)));
		if (at == head)
			return NULL;
		if (ret->count > MOST_SETS)
			return error_new(CR_INTERNAL, "Adjustments of semaphores go in circles");
		undo = list_append(pool, ret, sizeof(*undo));
		if (!undo)
			return error_nomem();
		start = at - reader->next;
		TRY(kernel_peek(reader->peek, start + reader->set, &undo->set, sizeof(undo->set)));
		undo->adjustments = start + reader->adjustments;
		if (reader->adjustments_apart)
			TRY(kernel_peek(reader->peek, undo->adjustments, &undo->adjustments,
					sizeof(undo->adjustments)));
	}
}

struct cr_error *kernel_undo_adjustments(struct kernel_undo_reader *reader,
					 const struct kernel_undo *undo, size_t semaphores,
					 int16_t *ret)
{
	size_t left = semaphores * sizeof(*ret), done = 0;

	for (; done < left; done += PEEK_MAX) {
		size_t size = left - done < PEEK_MAX ? left - done : PEEK_MAX;

		TRY(kernel_peek(reader->peek, undo->adjustments + done, (char *)ret + done, size));
	}
	return NULL;
}
