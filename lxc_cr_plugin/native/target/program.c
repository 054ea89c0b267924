/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "program.h"

#include <string.h>
#include <sys/uio.h>

static uint64_t ops_address(const struct program *program)
{
	return program->base + PROGRAM_CODE_SIZE;
}

static uint64_t data_address(const struct program *program)
{
	return ops_address(program) + sizeof(program->ops);
}

void program_begin(struct program *program, pid_t tid)
{
	program->tid = tid;
	program->count = 0;
	program->data_len = 0;
	program->full = false;
	program->children.count = 0;
}

int program_append(struct program *program, const char *what, long nr, const uint64_t args[6])
{
	struct blob_op *op;

	if (program->count == PROGRAM_OPS) {
		program->full = true;
		return 0;
	}
	op = &program->ops[program->count];
	op->nr = (uint32_t)nr;
	op->flags = 0;
	memcpy(op->args, args, sizeof(op->args));
	op->result = 0;
	program->what[program->count] = what;
	return (int)program->count++;
}

void program_indirect(struct program *program, int n)
{
	program->ops[program->count - 1].flags |= (uint32_t)OP_INDIRECT << n;
}

void program_may_fail(struct program *program)
{
	program->ops[program->count - 1].flags |= OP_IGNORE_ERROR;
}

uint64_t program_result_of(const struct program *program, int index)
{
	return ops_address(program) + (uint64_t)index * sizeof(struct blob_op) +
	       offsetof(struct blob_op, result);
}

uint64_t program_data(struct program *program, const void *data, size_t len)
{
	size_t at = (program->data_len + 15) & ~(size_t)15;

	if (len > PROGRAM_DATA || at > PROGRAM_DATA - len) {
		program->full = true;
		return 0;
	}
	if (data)
		memcpy(program->data + at, data, len);
	else
		memset(program->data + at, 0, len);
	program->data_len = at + len;
	return data_address(program) + at;
}

uint64_t program_bytes(struct program *program, const struct bytes *bytes)
{
	return program_data(program, bytes->data, bytes->len + 1);
}

bool program_has_room(const struct program *program, size_t ops, size_t data)
{
	return program->count + ops <= PROGRAM_OPS && program->data_len + data + 64 <= PROGRAM_DATA;
}

struct cr_error *program_reserve(struct program *program, size_t ops, size_t data)
{
	return program_has_room(program, ops, data) ? NULL : program_run(program);
}

static void describe(struct program *program)
{
	for (size_t i = 0; i < program->count; i++) {
		const struct blob_op *op = &program->ops[i];

		log_say(program->log, CR_DEBUG,
			"+ task %d: %s: syscall %u(0x%lx, 0x%lx, 0x%lx, 0x%lx, 0x%lx, 0x%lx)",
			program->tid, program->what[i], op->nr, (unsigned long)op->args[0],
			(unsigned long)op->args[1], (unsigned long)op->args[2],
			(unsigned long)op->args[3], (unsigned long)op->args[4],
			(unsigned long)op->args[5]);
	}
}

static struct cr_error *upload(struct program *program)
{
	size_t ops = program->count * sizeof(struct blob_op);
	struct iovec local[] = {
		{.iov_base = program->ops, .iov_len = ops},
		{.iov_base = program->data, .iov_len = program->data_len},
	};
	struct iovec remote[] = {
		{.iov_base = (void *)ops_address(program), .iov_len = ops},
		{.iov_base = (void *)data_address(program), .iov_len = program->data_len},
	};
	ssize_t put = process_vm_writev(program->tid, local, 2, remote, 2, 0);

	if (put < 0 && errno == ESRCH)
		return error_new(CR_GONE, "Task %d is gone", program->tid);
	if (put < 0)
		return error_sys("Failed to write a program into task %d", program->tid);
	if ((size_t)put != ops + program->data_len)
		return error_errno(EFAULT, "Failed to write a program into task %d", program->tid);
	return NULL;
}

/* A child is traced from its first instant; take its first stop and let the parent go on. */
static struct cr_error *adopt_child(struct program *program, pid_t child)
{
	pid_t *slot = list_append(program->pool, &program->children, sizeof(*slot));
	struct stop stop;

	if (!slot)
		return error_nomem();
	*slot = child;
	TRY(task_wait(child, &stop));
	return task_continue(program->tid, 0);
}

static struct cr_error *run_to_breakpoint(struct program *program)
{
	struct stop stop;

	TRY(task_continue(program->tid, 0));
	for (;;) {
		TRY(task_wait(program->tid, &stop));
		if (stop.reason == STOP_SIGNAL && stop.signal == SIGTRAP)
			return NULL;
		if (stop.reason == STOP_NEW_TASK)
			TRY(adopt_child(program, stop.child));
		else if (stop.reason == STOP_SIGNAL && stop.signal != SIGSTOP)
			return error_new(CR_INTERNAL, "Task %d got signal %d in a program",
					 program->tid, stop.signal);
		else
			TRY(task_continue(program->tid, 0));
	}
}

/* Code, ops and registers in place; the task still stands. */
static struct cr_error *load(struct program *program)
{
	struct arch_regs regs;

	if (program->full)
		return error_new(CR_INTERNAL, "A program for task %d is too long", program->tid);
	describe(program);
	TRY(upload(program));
	TRY(task_get_regs(program->tid, &regs));
	arch_set_blob(&regs, program->base, ops_address(program), program->count);
	return task_set_regs(program->tid, &regs);
}

static void clear(struct program *program)
{
	program->count = 0;
	program->data_len = 0;
}

struct cr_error *program_run(struct program *program)
{
	struct arch_regs regs;
	uint64_t left;
	size_t count = program->count;

	if (!count && !program->full)
		return NULL;
	program->children.count = 0;
	TRY(load(program));
	TRY(run_to_breakpoint(program));
	TRY(task_read(program->tid, ops_address(program), program->ops,
		      count * sizeof(struct blob_op)));
	TRY(task_get_regs(program->tid, &regs));
	left = arch_blob_left(&regs);
	clear(program);
	if (left > count)
		return error_new(CR_INTERNAL, "Task %d lost its place in a program", program->tid);
	if (left)
		return error_errno((int)program->ops[count - left].result, "Failed to %s",
				   program->what[count - left]);
	return NULL;
}

struct cr_error *program_start(struct program *program)
{
	TRY(load(program));
	clear(program);
	return task_continue(program->tid, 0);
}

/* Let it run until it sleeps in the call or is done with the program, and stop it there. */
static struct cr_error *stop_asleep(pid_t tid, struct stop *stop)
{
	TRY(task_continue(tid, 0));
	TRY(task_wait_asleep(tid));
	TRY(task_interrupt(tid));
	return task_wait(tid, stop);
}

struct cr_error *program_run_interrupted(struct program *program, int64_t *result)
{
	struct arch_regs regs;
	struct stop stop;

	TRY(load(program));
	for (;;) {
		TRY(stop_asleep(program->tid, &stop));
		/* the end of the program; its signal must not stay behind, it would be the task's end */
		if (stop.reason == STOP_SIGNAL && stop.signal == SIGTRAP)
			break;
		TRY(task_get_regs(program->tid, &regs));
		/* the stop may as well have come before the call, or between it and the end */
		if (stop_is_trap(&stop) && arch_syscall_nr(&regs) >= 0 &&
		    arch_result(&regs) == -ERESTART_RESTARTBLOCK) {
			*result = arch_result(&regs);
			clear(program);
			return NULL;
		}
	}
	TRY(task_read(program->tid, ops_address(program), program->ops, sizeof(struct blob_op)));
	*result = program->ops[0].result;
	clear(program);
	return NULL;
}

int64_t program_result(const struct program *program, int index)
{
	return program->ops[index].result;
}

struct cr_error *program_output(struct program *program, uint64_t address, void *buffer, size_t len)
{
	return task_read(program->tid, address, buffer, len);
}
