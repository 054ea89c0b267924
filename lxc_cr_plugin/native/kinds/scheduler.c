/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "../cleanup.h"
#include "../dump.h"
#include "../pin.h"
#include "../restore.h"
#include "scheduler.h"

enum { MOST_CPUS = 8192 };

struct scheduling {
	uint32_t policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period; /* SCHED_DEADLINE, ns */
	struct bytes affinity;		    /* bit mask of CPUs */
	uint32_t io_priority;
	uint64_t timer_slack, default_slack; /* ns */
	uint32_t death_signal;
	uint32_t mce_policy; /* PR_MCE_KILL_... */
};

static const struct field scheduler_fields[] = {
	FIELD_UINT(struct scheduling, policy, 0, 7, "SCHED_..."),
	FIELD_UINT(struct scheduling, flags, 0, UINT64_MAX, "SCHED_FLAG_..."),
	FIELD_INT(struct scheduling, nice, -20, 19, "nice value"),
	FIELD_UINT(struct scheduling, priority, 0, 99, "real-time priority"),
	FIELD_UINT(struct scheduling, runtime, 0, UINT64_MAX, "SCHED_DEADLINE runtime, ns"),
	FIELD_UINT(struct scheduling, deadline, 0, UINT64_MAX, "SCHED_DEADLINE deadline, ns"),
	FIELD_UINT(struct scheduling, period, 0, UINT64_MAX, "SCHED_DEADLINE period, ns"),
	FIELD_BYTES(struct scheduling, affinity, MOST_CPUS / 8, "CPUs it may run on, bit mask"),
	FIELD_UINT(struct scheduling, io_priority, 0, UINT32_MAX, "ioprio_set(2)"),
	FIELD_UINT(struct scheduling, timer_slack, 0, UINT64_MAX, "ns"),
	FIELD_UINT(struct scheduling, default_slack, 0, UINT64_MAX,
		   "what PR_SET_TIMERSLACK 0 sets it to, ns; inherited by clone(2)",
		   .optional = true),
	FIELD_UINT(struct scheduling, death_signal, 0, 64, "PR_SET_PDEATHSIG"),
	FIELD_UINT(struct scheduling, mce_policy, 0, 2, "PR_MCE_KILL_LATE, EARLY, DEFAULT"),
	FIELD_END,
};

/* sched_getattr(2); its struct is not in the C library's headers. */
struct attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

enum { IOPRIO_WHO_PROCESS = 1 };

/* The kernel's include/linux/sched.h; unchanged since 2.6.32. */
enum { PF_MCE_PROCESS = 0x80, PF_MCE_EARLY = 0x08000000 };

static uint32_t mce_policy(uint32_t flags)
{
	if (!(flags & PF_MCE_PROCESS))
		return PR_MCE_KILL_DEFAULT;
	return flags & PF_MCE_EARLY ? PR_MCE_KILL_EARLY : PR_MCE_KILL_LATE;
}

/* It comes when the thread ends that has made the child, not when its process does. */
static void warn_of_death_signal(struct dump *dump, const struct thread *thread)
{
	const struct kernel_task *kernel = thread->kernel;

	if (kernel->pdeath_signal && kernel->parent_thread != kernel->ppid)
		log_say(&dump->log, CR_WARNING,
			"Thread %d (%s) gets signal %u when one thread of its parent's ends (%d of "
			"the host); after a restart it is that of the first thread",
			thread->tid, kernel->comm, kernel->pdeath_signal, kernel->parent_thread);
}

static struct cr_error *scheduler_dump(struct dump *dump, struct thread *thread, void *state)
{
	struct scheduling *scheduling = state;
	struct attributes attributes = {.size = sizeof(attributes)};
	uint8_t mask[MOST_CPUS / 8];
	long len, io;

	if (syscall(SYS_sched_getattr, thread->host_tid, &attributes, sizeof(attributes), 0) < 0)
		return error_sys("Failed to read the scheduling policy of thread %d", thread->tid);
	scheduling->policy = attributes.policy;
	scheduling->flags = attributes.flags;
	scheduling->nice = attributes.nice;
	scheduling->priority = attributes.priority;
	scheduling->runtime = attributes.runtime;
	scheduling->deadline = attributes.deadline;
	scheduling->period = attributes.period;
	len = syscall(SYS_sched_getaffinity, thread->host_tid, sizeof(mask), mask);
	io = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, thread->host_tid);
	if (len < 0 || io < 0)
		return error_sys("Failed to read the CPU affinity of thread %d", thread->tid);
	scheduling->affinity.data = pool_memdup(dump->image.pool, mask, (size_t)len);
	scheduling->affinity.len = (size_t)len;
	scheduling->io_priority = (uint32_t)io;
	scheduling->death_signal = thread->kernel->pdeath_signal;
	warn_of_death_signal(dump, thread);
	scheduling->mce_policy = mce_policy(thread->kernel->flags);
	scheduling->timer_slack = thread->kernel->timer_slack;
	scheduling->default_slack = thread->kernel->default_timer_slack;
	return scheduling->affinity.data ? NULL : error_nomem();
}

uint64_t scheduler_default_slack(const struct thread *thread)
{
	const struct scheduling *scheduling = thread_state(thread, &scheduler_kind);

	return scheduling ? scheduling->default_slack : 0;
}

/* Everybody else is cloned by somebody who has that slack at this moment: clone.c. */
static struct cr_error *check_default_slack(struct restore *restore, const struct thread *thread,
					    uint64_t wanted)
{
	_cleanup_close_ int proc = -1, file = -1;
	char text[32] = "";

	if (thread->host_tid != restore->init || !wanted)
		return NULL;
	TRY(proc_open(thread->host_tid, thread->host_tid, &proc));
	file = openat(proc, "timerslack_ns", O_RDWR | O_CLOEXEC);
	/* 0: the default, which can then be read */
	if (file < 0 || pwrite(file, "0", 1, 0) != 1 ||
	    pread(file, text, sizeof(text) - 1, 0) <= 0 || strtoull(text, NULL, 10) == wanted)
		return NULL;
	text[strcspn(text, "\n")] = 0;
	log_say(&restore->log, CR_WARNING,
		"Init: its default timer slack is %s ns, which the runtime has given it, and was "
		"%lu ns; only the default differs",
		text, (unsigned long)wanted);
	return NULL;
}

/* A host with other CPUs: where none of them is here, it may run wherever init may. */
void scheduler_place(struct restore *restore, const struct thread *thread)
{
	const struct scheduling *scheduling = thread_state(thread, &scheduler_kind);

	if (!scheduling || syscall(SYS_sched_setaffinity, thread->host_tid,
				   scheduling->affinity.len, scheduling->affinity.data) == 0)
		return;
	log_say(&restore->log, CR_WARNING, "Thread %d: none of its CPUs is on this host",
		thread->tid);
	pin_free(restore, thread->host_tid);
}

/* From outside: the container may not have CAP_SYS_NICE. */
static struct cr_error *scheduler_restore(struct restore *restore, struct thread *thread,
					  const void *state)
{
	const struct scheduling *scheduling = state;
	struct attributes attributes = {
		.size = sizeof(attributes),
		.policy = scheduling->policy,
		.flags = scheduling->flags,
		.nice = scheduling->nice,
		.priority = scheduling->priority,
		.runtime = scheduling->runtime,
		.deadline = scheduling->deadline,
		.period = scheduling->period,
	};

	/* only who may run anywhere can have a deadline */
	if (scheduling->policy == SCHED_DEADLINE)
		scheduler_place(restore, thread);
	if (syscall(SYS_sched_setattr, thread->host_tid, &attributes, 0) < 0)
		return error_sys("Failed to set the scheduling policy of thread %d", thread->tid);
	if (scheduling->io_priority && syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, thread->host_tid,
					       scheduling->io_priority) < 0)
		return error_sys("Failed to set the I/O priority of thread %d", thread->tid);
	if (scheduling->death_signal)
		program_call(restore->program, "set the parent death signal", SYS_prctl,
			     PR_SET_PDEATHSIG, scheduling->death_signal);
	if (scheduling->mce_policy != PR_MCE_KILL_DEFAULT)
		program_call(restore->program, "set the machine check policy", SYS_prctl,
			     PR_MCE_KILL, PR_MCE_KILL_SET, scheduling->mce_policy, 0, 0);
	TRY(check_default_slack(restore, thread, scheduling->default_slack));
	/* real-time policies have no slack; 0 would mean the default */
	if (scheduling->timer_slack)
		program_call(restore->program, "set the timer slack", SYS_prctl, PR_SET_TIMERSLACK,
			     scheduling->timer_slack);
	return NULL;
}

const struct kind scheduler_kind = {
	.name = "scheduler",
	.doc = "Policy, nice, affinity, I/O priority, timer slack, parent death signal, machine "
	       "check "
	       "policy",
	.scope = SCOPE_THREAD,
	.size = sizeof(struct scheduling),
	.fields = scheduler_fields,
	.dump_thread = scheduler_dump,
	.restore_thread = scheduler_restore,
};
