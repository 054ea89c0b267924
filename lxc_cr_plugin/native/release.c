/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "release.h"

#include <sys/syscall.h>
#include <time.h>

#include "clock_ns.h"
#include "clocks.h"
#include "kinds/lease.h"
#include "kinds/lease_outside.h"
#include "kinds/lock.h"
#include "kinds/memory.h"
#include "kinds/posix_timer.h"
#include "kinds/registers.h"
#include "kinds/restart_block.h"
#include "kinds/scheduler.h"
#include "kinds/sigaction.h"
#include "kinds/signals.h"
#include "kinds/socket_wait.h"
#include "kinds/syscall_dispatch.h"
#include "sharing.h"

/* R: soon, but so that everything can be armed before. */
static void choose_release(struct restore *restore)
{
	restore->release = clock_ns(CLOCK_MONOTONIC) + clocks_arming_ns(restore);
	clocks_settle(restore);
}

static struct cr_error *last_kinds(struct restore *restore, struct process *process)
{
	restore_begin(restore, process);
	for (unsigned int k = 0; k < kinds_count(); k++) {
		if (kinds[k]->restore_at_release)
			TRY(kinds[k]->restore_at_release(restore, process, process->states[k]));
	}
	return program_run(restore->program);
}

/* Nothing of ours stays in the address space. */
static struct cr_error *leave(struct restore *restore, struct process *process)
{
	uint64_t insn = memory_vdso(process) + restore->insn;
	uint64_t args[6] = {restore->area, (PROGRAM_AREA + PAGE - 1) & ~(PAGE - 1)};
	int64_t result;

	if (!sharing_is_first(process, SHARE_MEMORY))
		return NULL;
	TRY(task_syscall(process_leader(process)->host_tid, insn, SYS_munmap, args, &result));
	return result < 0 ? error_errno((int)result, "Failed to leave process %d", process->pid)
			  : NULL;
}

/* The restart block is armed while the program area is still there; the registers go in behind it.
 */
static struct cr_error *arm_threads(struct restore *restore, struct process *process,
				    struct arch_regs *regs)
{
	for_each (struct thread *, thread, &process->threads) {
		TRY(registers_of(thread, regs));
		TRY(restart_block_arm(restore, thread, regs));
		regs++;
	}
	return NULL;
}

static struct cr_error *set_threads(struct restore *restore, struct process *process,
				    const struct arch_regs *regs)
{
	for_each (struct thread *, thread, &process->threads) {
		TRY(syscall_dispatch_call(thread, memory_vdso(process) + restore->insn));
		TRY(task_settle(thread->host_tid));
		TRY(registers_set(thread, regs++));
		TRY(task_set_mask(thread->host_tid, signals_mask(thread)));
		TRY(syscall_dispatch_set(thread));
		scheduler_place(restore, thread);
	}
	return NULL;
}

/* The last programs of a process. *ret: what its threads go on with. */
static struct cr_error *arm_process(struct restore *restore, struct process *process,
				    struct arch_regs **ret)
{
	*ret = pool_calloc(restore->image.pool, process->threads.count, sizeof(**ret));
	if (!*ret)
		return error_nomem();
	TRY(posix_timer_arm(restore, process));
	TRY(signals_queue(restore, process));
	TRY(last_kinds(restore, process));
	TRY(arm_threads(restore, process, *ret));
	TRY(signals_queue_traps(restore, process, memory_vdso(process) + restore->insn));
	return sigaction_finish(restore, process, memory_vdso(process) + restore->insn);
}

/* Processes that share memory have one program area: nobody leaves it before all are done. */
static struct cr_error *finish_all(struct restore *restore)
{
	const struct list *processes = &restore->image.processes;
	struct arch_regs **regs = pool_calloc(restore->image.pool, processes->count, sizeof(*regs));
	size_t i = 0;

	if (!regs)
		return error_nomem();
	for_each (struct process *, process, processes)
		TRY(error_task(arm_process(restore, process, &regs[i++]), process->pid, ""));
	for_each (struct process *, owner, processes)
		TRY(error_task(leave(restore, owner), owner->pid, ""));
	i = 0;
	for_each (struct process *, member, processes)
		TRY(error_task(set_threads(restore, member, regs[i++]), member->pid, ""));
	return NULL;
}

static void wait_until(uint64_t release)
{
	struct timespec at = {.tv_sec = (time_t)(release / 1000000000u),
			      .tv_nsec = (long)(release % 1000000000u)};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
		continue;
}

/* The first ones run already while the last ones are let go, and may end any of them. */
static struct cr_error *detach(pid_t tid)
{
	struct cr_error *error = task_detach(tid, 0);

	if (!error || error->code != CR_GONE)
		return error;
	cr_error_free(error);
	return NULL;
}

/* Init last: until then the end of this process would end the container. */
static struct cr_error *detach_all(struct restore *restore)
{
	for_each (struct process *, process, &restore->image.processes) {
		for_each (struct thread *, thread, &process->threads) {
			if (thread->host_tid != restore->init)
				TRY(detach(thread->host_tid));
		}
	}
	return detach(restore->init);
}

static struct cr_error *last_files(struct restore *restore)
{
	for_each (struct object *, object, &restore->image.objects) {
		if (object->kind->release_file)
			TRY(object->kind->release_file(restore, object, object->state));
	}
	return NULL;
}

struct cr_error *release_all(struct restore *restore)
{
	TRY(leases_prepare(restore));
	choose_release(restore);
	TRY(last_files(restore));
	TRY(finish_all(restore));
	TRY(leases_break(restore));
	TRY(lock_waiters_restore(restore));
	TRY(socket_waits_restore(restore));
	wait_until(restore->release);
	TRY(detach_all(restore));
	leases_outside_tell(restore);
	return NULL;
}
