/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the kernel will do to semaphores when a process ends (SEM_UNDO), which no call tells. */
#ifndef CR_KERNEL_SEMAPHORE_UNDO_H
#define CR_KERNEL_SEMAPHORE_UNDO_H

#include <stdint.h>

#include "../error.h"
#include "../pool.h"
#include "btf.h"
#include "peek.h"

/* The adjustments of one semaphore set. */
struct kernel_undo {
	int32_t set;	      /* its id; -1: it has been removed */
	uint64_t adjustments; /* address of as many short as the set has semaphores */
};

struct kernel_undo_reader;

/* @peek stays the caller's, and stays open as long. */
struct cr_error *kernel_undo_reader_open(const struct btf *btf, struct kernel_peek *peek,
					 struct kernel_undo_reader **ret);
void kernel_undo_reader_close(struct kernel_undo_reader *reader); /* NULL is fine */

/* Of the struct sem_undo_list at @address. *ret: list of struct kernel_undo. */
struct cr_error *kernel_undo_read(struct kernel_undo_reader *reader, uint64_t address,
				  struct pool *pool, struct list *ret);
struct cr_error *kernel_undo_adjustments(struct kernel_undo_reader *reader,
					 const struct kernel_undo *undo, size_t semaphores,
					 int16_t *ret);

#endif
