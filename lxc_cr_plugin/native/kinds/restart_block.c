/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Interrupted system calls. The kernel goes on with most of them by itself, from the registers
 * alone. The exceptions are waits with a relative time-out: those that it notes in
 * task->restart_block (ERESTART_RESTARTBLOCK, 516), and those that say EINTR (wait.c).
 */
#include "restart_block.h"

#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "../dump.h"
#include "wait.h"

static const struct field restart_block_fields[] = {
	FIELD_UINT(struct wait, syscall, 0, 4096,
		   "interrupted system call; 0 without an end: none of this sort"),
	FIELD_BOOL(struct wait, timed, "false: it waits without end"),
	FIELD_UINT(struct wait, remaining, 0, INT64_MAX, "ns left at the checkpoint"),
	FIELD_BOOL(struct wait, in_place, "the kernel has written what is left to the time-out",
		   .optional = true),
	FIELD_END,
};

static struct cr_error *clock_at(const struct dump *dump, const struct thread *thread, int clock,
				 uint64_t *ret)
{
	const struct cr_clocks *clocks = &dump->clocks;
	clockid_t cpu_time = (clockid_t)(~(uint32_t)thread->process->host_tgid << 3) | 2;
	struct timespec now = {0};

	switch (clock) {
	case CLOCK_REALTIME: *ret = clocks->realtime; return NULL;
	case CLOCK_BOOTTIME: *ret = clocks->boottime; return NULL;
	case CLOCK_MONOTONIC: *ret = clocks->monotonic; return NULL;
	case CLOCK_TAI: clock_gettime(CLOCK_TAI, &now); break;
	/* it stands still */
	case CLOCK_PROCESS_CPUTIME_ID: clock_gettime(cpu_time, &now); break;
	default:
		return error_new(CR_UNSUPPORTED, "Thread %d sleeps by clock %d, which is not known",
				 thread->tid, clock);
	}
	*ret = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	return NULL;
}

/* Absolute end of the wait; false: it has none. */
static bool deadline_of(const struct kernel_task *kernel, uint32_t nr, int *clock,
			uint64_t *deadline)
{
	*clock = CLOCK_MONOTONIC;
	switch (nr) {
	case SYS_nanosleep:
	case SYS_clock_nanosleep:
		*clock = kernel->nanosleep.clockid;
		*deadline = kernel->nanosleep.expires;
		return true;
	case SYS_poll:
		*deadline = kernel->poll.tv_sec * 1000000000u + kernel->poll.tv_nsec;
		return kernel->poll.has_timeout;
	case SYS_futex: *deadline = kernel->futex.time; return true;
	default: *deadline = 0; return false;
	}
}

/*
 * A wait that was interrupted before is in restart_syscall(2): what it was must be told from the
 * kernel's note, whose members repeat arguments that are still in the registers.
 */
static uint32_t interrupted_call(const struct arch_regs *regs, const struct kernel_task *kernel)
{
	uint64_t args[4];

	if (arch_syscall_nr(regs) != SYS_restart_syscall)
		return (uint32_t)arch_syscall_nr(regs);
	for (int i = 0; i < 4; i++)
		args[i] = arch_syscall_arg(regs, i);
	if (kernel->futex.uaddr == args[0] && kernel->futex.val == (uint32_t)args[2] &&
	    ((args[1] & FUTEX_CMD_MASK) == FUTEX_WAIT ||
	     (args[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET))
		return SYS_futex;
	if (kernel->poll.ufds == args[0] && kernel->poll.nfds == (int32_t)args[1])
		return SYS_poll;
	/* clocks are small numbers, pointers are not */
	return args[0] < PAGE ? SYS_clock_nanosleep : SYS_nanosleep;
}

/* Also the only calls that an image may have made for it: whatever else it names is an attack. */
static bool is_known(uint32_t nr)
{
	return nr == SYS_nanosleep || nr == SYS_clock_nanosleep || nr == SYS_poll ||
	       nr == SYS_futex;
}

static struct cr_error *restart_block_dump(struct dump *dump, struct thread *thread, void *state)
{
	struct wait *block = state;
	struct arch_regs regs;
	uint64_t deadline, now = 0;
	int clock;

	TRY(task_get_regs(thread->host_tid, &regs));
	if (arch_syscall_nr(&regs) < 0)
		return NULL;
	if (arch_result(&regs) != -ERESTART_RESTARTBLOCK)
		return wait_dump(dump, thread, &regs, block);
	block->syscall = interrupted_call(&regs, thread->kernel);
	if (!is_known(block->syscall))
		return error_new(CR_UNSUPPORTED,
				 "Thread %d waits in system call %u, whose restart is not known",
				 thread->tid, block->syscall);
	block->timed = deadline_of(thread->kernel, block->syscall, &clock, &deadline);
	TRY(clock_at(dump, thread, clock, &now));
	block->remaining = block->timed && deadline > now ? deadline - now : 0;
	return NULL;
}

/* Arguments of the call that is made in place of the interrupted one: its own, but for the time. */
static void fill_args(struct restore *restore, const struct wait *block,
		      const struct arch_regs *regs, uint64_t args[6])
{
	struct program *p = restore->program;
	bool on_cpu = block->syscall == SYS_clock_nanosleep &&
		      arch_syscall_arg(regs, 0) == CLOCK_PROCESS_CPUTIME_ID;
	uint64_t remaining = on_cpu ? block->remaining : restore_left(restore, block->remaining);
	struct timespec time = {.tv_sec = (time_t)(remaining / 1000000000u),
				.tv_nsec = (long)(remaining % 1000000000u)};

	for (int i = 0; i < 6; i++)
		args[i] = arch_syscall_arg(regs, i);
	switch (block->syscall) {
	case SYS_nanosleep: args[0] = program_data(p, &time, sizeof(time)); break;
	case SYS_clock_nanosleep: args[2] = program_data(p, &time, sizeof(time)); break;
	case SYS_poll:
		args[2] = block->timed ? (remaining + 999999) / 1000000 : (uint64_t)-1;
		break;
	default:
		/* the time of FUTEX_WAIT_BITSET is absolute: it is as good as it was */
		if ((args[1] & FUTEX_CMD_MASK) == FUTEX_WAIT)
			args[3] = program_data(p, &time, sizeof(time));
	}
}

struct cr_error *restart_block_arm(struct restore *restore, struct thread *thread,
				   struct arch_regs *regs)
{
	const struct wait *block = thread_state(thread, &restart_block_kind);
	struct program *p = restore->program;
	uint64_t args[6];
	int64_t result;

	if (!block || !block->syscall)
		return NULL;
	/* right as it is, unless the time away counts */
	if (block->in_place && restore->clocks.passed)
		return wait_rewrite(thread->host_tid, regs, block->syscall,
				    restore_left_then(restore, block->remaining));
	if (block->in_place ||
	    (block->timed && wait_shorten(thread->host_tid, regs, block->syscall,
					  restore_left_then(restore, block->remaining))))
		return NULL;
	if (arch_result(regs) != -ERESTART_RESTARTBLOCK)
		return NULL;
	if (!is_known(block->syscall))
		return error_new(CR_IMAGE, "Thread %d waits in system call %u, which no image has",
				 thread->tid, block->syscall);
	program_begin(p, thread->host_tid);
	fill_args(restore, block, regs, args);
	program_append(p, "wait again", block->syscall, args);
	TRY(program_run_interrupted(p, &result));
	if (result != -ERESTART_RESTARTBLOCK) {
		/* it was over at once: the descriptor is ready, the futex has changed, the time is
		 * up */
		arch_set_ip(regs, arch_ip(regs));
		arch_set_result(regs, result);
	}
	return NULL;
}

const struct kind restart_block_kind = {
	.name = "restart_block",
	.doc = "Interrupted waits with a relative time-out",
	.scope = SCOPE_THREAD,
	.size = sizeof(struct wait),
	.fields = restart_block_fields,
	.dump_thread = restart_block_dump,
};
