/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program is a vector of system calls that a stopped task executes in one go. The restore
 * functions of the kinds append to it; everything that decides happens out here.
 *
 *	int open = program_call(p, "open the file", SYS_openat, AT_FDCWD, path, O_RDONLY);
 *	program_call(p, "move it", SYS_dup3, program_result_of(p, open), 7, 0);
 *	program_indirect(p, 0);
 *	TRY(program_run(p));
 *
 * The area it runs from (code, ops and data) is one mapping in the target that no VMA of the image
 * touches.
 */
#ifndef CR_PROGRAM_H
#define CR_PROGRAM_H

#include "../error.h"
#include "../log.h"
#include "blob.h"
#include "task.h"

enum {
	PROGRAM_OPS = 1024,
	PROGRAM_DATA = 192 * 1024,
	PROGRAM_CODE_SIZE = ARCH_PAGE,
	PROGRAM_AREA = PROGRAM_CODE_SIZE + PROGRAM_OPS * (int)sizeof(struct blob_op) + PROGRAM_DATA,
};

struct program {
	pid_t tid;	 /* who runs it */
	uint64_t base;	 /* of the area in the target */
	struct log *log; /* every call is described before it runs */
	struct pool *pool;
	struct blob_op ops[PROGRAM_OPS];
	const char *what[PROGRAM_OPS]; /* for errors: "open the file" */
	size_t count;
	uint8_t data[PROGRAM_DATA];
	size_t data_len;
	bool full; /* something did not fit: program_run() says so */
	/* new threads and processes that the last run created, in order: pid_t */
	struct list children;
};

/* For another thread or process whose area is at the same address. */
void program_begin(struct program *program, pid_t tid);

/* Append a call of up to six arguments; returns its index. @what completes "Failed to ...". */
int program_append(struct program *program, const char *what, long nr, const uint64_t args[6]);
#define program_call(program, what, nr, ...)                                                       \
	program_append(program, what, nr, (const uint64_t[6]){__VA_ARGS__})

/* Argument @n of the last call is not a value but where it lies: see program_result_of(). */
void program_indirect(struct program *program, int n);
/* The last call may fail. */
void program_may_fail(struct program *program);
/* Address in the target of the result of call @index. */
uint64_t program_result_of(const struct program *program, int index);

/* Copy data into the area; returns its address there. @data NULL: zeroed space for output. */
uint64_t program_data(struct program *program, const void *data, size_t len);
uint64_t program_bytes(struct program *program, const struct bytes *bytes); /* with its NUL */

/* Would that many calls and bytes still fit? */
bool program_has_room(const struct program *program, size_t ops, size_t data);
/* Run what is there first if fewer than @ops calls or @data bytes would still fit. */
struct cr_error *program_reserve(struct program *program, size_t ops, size_t data);

/* The kernel's own: what an interrupted call has returned when its restart block says how to go on. */
enum { ERESTART_RESTARTBLOCK = 516 };

/*
 * Run a single call that is meant to block, and interrupt it there: *result is what the kernel
 * noted for it (-ERESTART_RESTARTBLOCK), or what it returned because it did not block after all.
 */
struct cr_error *program_run_interrupted(struct program *program, int64_t *result);

/* Let the task run a program that it does not come back from. */
struct cr_error *program_start(struct program *program);

/* Run and begin anew. Results stay readable by program_result() until the next append. */
struct cr_error *program_run(struct program *program);
int64_t program_result(const struct program *program, int index);
/* Bytes that a call wrote into program_data() space. */
struct cr_error *program_output(struct program *program, uint64_t address, void *buffer,
				size_t len);

#endif
