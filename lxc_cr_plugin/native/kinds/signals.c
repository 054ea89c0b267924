/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "../clock_ns.h"
#include "../dump.h"
#include "../restore.h"
#include "posix_timer.h"
#include "signals.h"

struct signals {
	uint64_t mask;
	struct list pending; /* struct pending_signal, oldest first */
	struct list shared;  /* the process's own queue, with the leader */
};

struct pending_signal {
	uint32_t signal;
	bool of_timer;
	int32_t timer;
	struct bytes info; /* siginfo_t as the kernel has it */
};

static const struct field pending_fields[] = {
	FIELD_UINT(struct pending_signal, signal, 1, KERNEL_SIGNALS, "signal number"),
	FIELD_BYTES(struct pending_signal, info, sizeof(siginfo_t), "siginfo_t"),
	FIELD_BOOL(struct pending_signal, of_timer, "a POSIX timer sent it, and waits for it"),
	FIELD_INT(struct pending_signal, timer, 0, INT32_MAX, "id of that timer"),
	FIELD_END,
};

static const struct field signals_fields[] = {
	FIELD_UINT(struct signals, mask, 0, UINT64_MAX, "blocked signals, bit signal - 1"),
	FIELD_LIST(struct signals, pending, struct pending_signal, pending_fields, 1 << 20,
		   "queue of the thread, oldest first"),
	FIELD_LIST(struct signals, shared, struct pending_signal, pending_fields, 1 << 20,
		   "queue of the process, with its leader"),
	FIELD_END,
};

static struct cr_error *append(struct dump *dump, struct list *queue, const siginfo_t *info)
{
	struct pending_signal *pending = list_append(dump->image.pool, queue, sizeof(*pending));

	if (!pending)
		return error_nomem();
	pending->signal = (uint32_t)info->si_signo;
	pending->info.data = pool_memdup(dump->image.pool, info, sizeof(*info));
	pending->info.len = sizeof(*info);
	return pending->info.data ? NULL : error_nomem();
}

/*
 * Timers go on firing while everything stands: their state was read before the queues. What has
 * fired since fires again after the restart, and what the kernel would drop is dropped.
 */
static struct cr_error *take(struct dump *dump, struct thread *thread, struct list *queue,
			     const siginfo_t *info)
{
	const struct kernel_task *leader = process_leader(thread->process)->kernel;
	const struct kernel_timer *timer = NULL;
	struct pending_signal *last;

	if (info->si_signo == SIGALRM && info->si_code == SI_KERNEL && leader->it_real_armed &&
	    leader->it_real_expires <= clock_ns(CLOCK_MONOTONIC))
		return NULL;
	if (info->si_code == SI_TIMER)
		TRY(posix_timer_find(dump, thread->process, info->si_timerid, &timer));
	if (timer && !timer->stale && !(timer->queued && timer->due))
		return NULL;
	TRY(append(dump, queue, info));
	if (!timer || timer->stale)
		return NULL;
	last = (struct pending_signal *)queue->items + queue->count - 1;
	last->of_timer = true;
	last->timer = info->si_timerid;
	return NULL;
}

static struct cr_error *peek(struct dump *dump, struct thread *thread, uint32_t flags, uint64_t set,
			     struct list *queue)
{
	siginfo_t infos[16];
	struct __ptrace_peeksiginfo_args args = {.flags = flags, .nr = 16};

	for (;;) {
		long got = ptrace(PTRACE_PEEKSIGINFO, thread->host_tid, &args, infos);

		if (got < 0)
			return error_sys("Failed to read the pending signals of thread %d",
					 thread->tid);
		if (!got)
			break;
		for (long i = 0; i < got; i++) {
			set &= ~(1ull << (infos[i].si_signo - 1));
			TRY(take(dump, thread, queue, &infos[i]));
		}
		args.off += (uint64_t)got;
	}
	/* a signal whose queue entry was lost to the limit is pending all the same */
	for (int signal = 1; signal <= KERNEL_SIGNALS; signal++) {
		siginfo_t info = {.si_signo = signal, .si_code = SI_USER};

		if (set & (1ull << (signal - 1)))
			TRY(append(dump, queue, &info));
	}
	return NULL;
}

static struct cr_error *signals_dump(struct dump *dump, struct thread *thread, void *state)
{
	struct signals *signals = state;

	TRY(task_get_mask(thread->host_tid, &signals->mask));
	if (thread->status.signals_pending)
		TRY(peek(dump, thread, 0, thread->status.signals_pending, &signals->pending));
	if (thread == process_leader(thread->process) && thread->status.signals_shared_pending)
		TRY(peek(dump, thread, PTRACE_PEEKSIGINFO_SHARED,
			 thread->status.signals_shared_pending, &signals->shared));
	return NULL;
}

/* A task may queue anything to itself, even what only the kernel sends. */
static struct cr_error *queue(struct restore *restore, struct thread *thread,
			      const struct list *pending, bool shared)
{
	const struct pending_signal *signal = pending->items;
	struct program *p = restore->program;

	for (size_t i = 0; i < pending->count; i++) {
		siginfo_t info = {0};
		uint64_t address;

		if (signal[i].signal == SIGTRAP)
			continue;
		if (signal[i].of_timer) {
			TRY(posix_timer_fire(restore, thread->process, signal[i].timer));
			continue;
		}
		memcpy(&info, signal[i].info.data, signal[i].info.len);
		info.si_signo = (int)signal[i].signal;
		TRY(program_reserve(p, 1, sizeof(info) + 64));
		address = program_data(p, &info, sizeof(info));
		if (shared)
			program_call(p, "queue a pending signal", SYS_rt_sigqueueinfo,
				     (uint64_t)thread->process->pid, signal[i].signal, address);
		else
			program_call(p, "queue a pending signal", SYS_rt_tgsigqueueinfo,
				     (uint64_t)thread->process->pid, (uint64_t)thread->tid,
				     signal[i].signal, address);
	}
	return NULL;
}

struct cr_error *signals_queue(struct restore *restore, struct process *process)
{
	for_each (struct thread *, thread, &process->threads) {
		const struct signals *signals = thread_state(thread, &signals_kind);

		if (!signals->pending.count && !signals->shared.count)
			continue;
		program_begin(restore->program, thread->host_tid);
		TRY(queue(restore, thread, &signals->pending, false));
		TRY(queue(restore, thread, &signals->shared, true));
		TRY(program_run(restore->program));
	}
	return NULL;
}

static struct cr_error *queue_traps(struct restore *restore, struct thread *thread, uint64_t insn,
				    const struct list *pending, bool shared)
{
	const struct pending_signal *signal = pending->items;
	uint64_t pid = (uint64_t)thread->process->pid;

	for (size_t i = 0; i < pending->count; i++) {
		uint64_t to_thread[6] = {pid, (uint64_t)thread->tid, SIGTRAP, restore->area};
		uint64_t to_process[6] = {pid, SIGTRAP, restore->area};
		siginfo_t info = {0};
		int64_t result;

		if (signal[i].signal != SIGTRAP)
			continue;
		memcpy(&info, signal[i].info.data, signal[i].info.len);
		info.si_signo = SIGTRAP;
		TRY(task_set_mask(thread->host_tid, UINT64_MAX));
		TRY(task_write(thread->host_tid, restore->area, &info, sizeof(info)));
		TRY(task_syscall(thread->host_tid, insn,
				 shared ? SYS_rt_sigqueueinfo : SYS_rt_tgsigqueueinfo,
				 shared ? to_process : to_thread, &result));
		if (result < 0)
			return error_errno((int)result, "Failed to queue a pending SIGTRAP");
	}
	return NULL;
}

struct cr_error *signals_queue_traps(struct restore *restore, struct process *process,
				     uint64_t insn)
{
	for_each (struct thread *, thread, &process->threads) {
		const struct signals *signals = thread_state(thread, &signals_kind);

		TRY(queue_traps(restore, thread, insn, &signals->pending, false));
		TRY(queue_traps(restore, thread, insn, &signals->shared, true));
	}
	return NULL;
}

const struct kind signals_kind = {
	.name = "signals",
	.doc = "Signal mask and pending signals",
	.scope = SCOPE_THREAD,
	.size = sizeof(struct signals),
	.fields = signals_fields,
	.dump_thread = signals_dump,
	/* queued at the release, where timers fire; until the registers are set all are blocked */
};

uint64_t signals_mask(const struct thread *thread)
{
	const struct signals *signals = thread_state(thread, &signals_kind);

	return signals->mask;
}
