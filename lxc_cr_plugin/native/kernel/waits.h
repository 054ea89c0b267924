/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Until when do tasks sleep? A system call that waits keeps its timer on the task's kernel stack
 * while it sleeps, and nowhere else; once the task has been interrupted nobody knows. So the stacks
 * of sleeping tasks are looked at just before they are stopped.
 */
#ifndef CR_KERNEL_WAITS_H
#define CR_KERNEL_WAITS_H

#include <stdint.h>
#include <sys/types.h>

#include "../error.h"
#include "../pool.h"
#include "btf.h"
#include "peek.h"

struct kernel_wait {
	int32_t tid;	   /* in the initial pid namespace */
	uint64_t switches; /* how often it had gone to sleep until then */
	uint64_t deadline; /* CLOCK_MONOTONIC ns of the initial time namespace */
};

struct kernel_wait_reader;

/* Takes tens of milliseconds. */
struct cr_error *kernel_wait_reader_open(const struct btf *btf, struct kernel_wait_reader **ret);
void kernel_wait_reader_close(struct kernel_wait_reader *reader); /* NULL is fine */

/* *ret: list of struct kernel_wait, ascending by tid: tasks of the host that sleep with an end. */
struct cr_error *kernel_wait_reader_read(struct kernel_wait_reader *reader,
					 struct kernel_peek *peek, struct pool *pool,
					 struct list *ret);

#endif
