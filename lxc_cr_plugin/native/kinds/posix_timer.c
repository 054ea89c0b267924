/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * POSIX timers: timer_create(2). A timer whose signal waits in a queue rests until the signal is
 * taken, and counts its overruns from when it should have fired. The restart makes it fire once
 * more, at its place in the queue and for that same moment, so that the kernel goes on as before.
 */
#include "posix_timer.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "../clock_ns.h"
#include "../clocks.h"
#include "../dump.h"

#ifndef PR_TIMER_CREATE_RESTORE_IDS
#define PR_TIMER_CREATE_RESTORE_IDS	77
#define PR_TIMER_CREATE_RESTORE_IDS_OFF 0
#define PR_TIMER_CREATE_RESTORE_IDS_ON	1
#define PR_TIMER_CREATE_RESTORE_IDS_GET 2
#endif

enum { SECOND = 1000000000 };

struct posix_timers {
	struct list timers; /* struct posix_timer */
};

struct posix_timer {
	int32_t id, clock;
	uint32_t notify, signal;
	uint64_t value;
	int32_t thread;
	uint64_t interval;
	bool armed, due, queued;
	bool realtime;
	int64_t remaining; /* ns; below 0: has passed; realtime: the moment itself */
	uint64_t overruns;
};

static const struct field timer_fields[] = {
	FIELD_INT(struct posix_timer, id, 0, INT32_MAX, "as timer_create(2) gave it"),
	FIELD_INT(struct posix_timer, clock, INT32_MIN, 15, "CLOCK_..."),
	FIELD_UINT(struct posix_timer, notify, 0, 4, "SIGEV_SIGNAL, NONE or THREAD_ID"),
	FIELD_UINT(struct posix_timer, signal, 0, KERNEL_SIGNALS, "signal number"),
	FIELD_UINT(struct posix_timer, value, 0, UINT64_MAX, "union sigval"),
	FIELD_INT(struct posix_timer, thread, 0, MAX_TASKS, "who gets it, SIGEV_THREAD_ID"),
	FIELD_UINT(struct posix_timer, interval, 0, INT64_MAX, "ns, 0: fires once"),
	FIELD_BOOL(struct posix_timer, armed, "it will fire"),
	FIELD_BOOL(struct posix_timer, due, "it has fired, and rests until its signal is taken"),
	FIELD_BOOL(struct posix_timer, queued, "its signal is among the pending ones"),
	FIELD_BOOL(struct posix_timer, realtime,
		   "set for a moment of CLOCK_REALTIME: time away counts"),
	FIELD_INT(struct posix_timer, remaining, INT64_MIN / 2, INT64_MAX / 2,
		  "ns at the checkpoint; below 0: has passed; realtime: the moment"),
	FIELD_UINT(struct posix_timer, overruns, 0, INT32_MAX, "timer_getoverrun(2)"),
	FIELD_END,
};

static const struct field posix_timer_fields[] = {
	FIELD_LIST(struct posix_timers, timers, struct posix_timer, timer_fields, KERNEL_TIMERS_MAX,
		   "timers of the process"),
	FIELD_END,
};

/* *ret: the first timer of the process, *count how many there are. Those of the last one are kept. */
static struct cr_error *timers_of(struct dump *dump, const struct process *process,
				  const struct kernel_timer **ret, size_t *count)
{
	uint64_t first = process_leader(process)->kernel->posix_timers;

	*count = 0;
	if (!first)
		return NULL;
	if (!dump->timer_reader)
		TRY(kernel_timer_reader_open(dump->btf, &dump->timer_reader));
	if (dump->timers_first != first) {
		dump->timers_first = 0;
		dump->kernel_timers = (struct list){0};
		TRY(kernel_timer_reader_read(dump->timer_reader, dump->peek, first,
					     dump->image.pool, &dump->kernel_timers));
		dump->timers_first = first;
	}
	*ret = dump->kernel_timers.items;
	*count = dump->kernel_timers.count;
	return NULL;
}

struct cr_error *posix_timer_find(struct dump *dump, struct process *process, int32_t id,
				  const struct kernel_timer **ret)
{
	const struct kernel_timer *timers;
	size_t count;

	*ret = NULL;
	TRY(timers_of(dump, process, &timers, &count));
	for (size_t i = 0; i < count; i++) {
		if (timers[i].id == id)
			*ret = &timers[i];
	}
	return NULL;
}

static struct cr_error *refuse(const struct process *process, const struct kernel_timer *timer,
			       const char *what)
{
	struct cr_error *error = error_new(CR_UNSUPPORTED, "POSIX timer %d of process %d (%s) %s",
					   timer->id, process->pid, process->stat.comm, what);

	error = error_task(error, process->pid, process->stat.comm);
	return error_remedy(error_object(error, "posix_timer"), "Not supported; end the process");
}

/* clockid_t of CPU time: the low bits of a negative number, the kernel's posix-timers.h. */
enum { CPU_PER_THREAD = 4, CPU_WHICH = 3, CPU_SCHED = 2 };

static bool counts_thread_time(int32_t clock)
{
	return clock == CLOCK_THREAD_CPUTIME_ID || (clock < 0 && clock & CPU_PER_THREAD);
}

static int cpu_which(int32_t clock)
{
	return clock < 0 ? clock & CPU_WHICH : CPU_SCHED;
}

/* CPU time that the clock of the timer shows: nothing runs, so it stands. */
static struct cr_error *cpu_time(struct dump *dump, const struct kernel_timer *timer, int64_t *ret)
{
	char *text;

	if (counts_thread_time(timer->clock)) {
		/* other processes may not read the clock of a thread */
		TRY(proc_read_of(timer->on_cpu, "schedstat", dump->image.pool, &text));
		*ret = strtoll(text, NULL, 10);
	} else {
		*ret = (int64_t)clock_ns((clockid_t)(~(uint32_t)timer->on_cpu << 3) |
					 cpu_which(timer->clock));
	}
	return NULL;
}

static struct cr_error *remaining_of(struct dump *dump, const struct kernel_timer *timer,
				     int64_t *ret)
{
	int64_t now = 0;

	if (timer->on_cpu)
		TRY(cpu_time(dump, timer, &now));
	else if (timer->realtime)
		now = 0;
	else if (timer->clock == CLOCK_BOOTTIME || timer->clock == CLOCK_BOOTTIME_ALARM)
		now = (int64_t)dump->clocks.boottime;
	else if (timer->clock == CLOCK_TAI)
		now = (int64_t)(dump->clocks.realtime + clock_ns(CLOCK_TAI) -
				clock_ns(CLOCK_REALTIME));
	else
		now = (int64_t)dump->clocks.monotonic;
	*ret = timer->expires - now;
	return NULL;
}

/* The kernel counts on, but never tells more than this. */
static uint64_t told_overruns(int64_t overruns)
{
	if (overruns <= 0)
		return 0;
	return overruns < INT32_MAX ? (uint64_t)overruns : INT32_MAX;
}

static struct cr_error *dump_timer(struct dump *dump, struct process *process,
				   const struct kernel_timer *kernel, struct posix_timer *timer)
{
	timer->id = kernel->id;
	timer->clock = kernel->clock;
	timer->notify = (uint32_t)kernel->notify;
	timer->signal = (uint32_t)kernel->signal;
	timer->value = kernel->value;
	timer->interval = kernel->interval;
	timer->armed = kernel->armed;
	timer->due = kernel->due;
	timer->queued = kernel->queued;
	timer->realtime = kernel->realtime;
	timer->overruns = told_overruns(kernel->overruns);
	if (kernel->notify == SIGEV_THREAD_ID) {
		const struct thread *thread = image_thread(&dump->image, kernel->thread);

		timer->thread = thread && thread->process == process ? thread->tid : 0;
		if (!timer->thread)
			return refuse(process, kernel, "is for a thread that has ended");
	}
	if (!timer->armed && !timer->due)
		return NULL;
	return remaining_of(dump, kernel, &timer->remaining);
}

static struct cr_error *posix_timer_check(struct dump *dump, struct process *process)
{
	const struct kernel_timer *timers;
	size_t count;

	TRY(timers_of(dump, process, &timers, &count));
	for (size_t i = 0; i < count; i++) {
		int which = cpu_which(timers[i].clock);

		if (counts_thread_time(timers[i].clock) && which != CPU_SCHED)
			return refuse(process, &timers[i],
				      "counts user or system time of a thread");
	}
	return NULL;
}

static struct cr_error *posix_timer_dump(struct dump *dump, struct process *process, void *state)
{
	struct posix_timers *saved = state;
	const struct kernel_timer *timers;
	size_t count;

	TRY(timers_of(dump, process, &timers, &count));
	for (size_t i = 0; i < count; i++) {
		struct posix_timer *timer =
			list_append(dump->image.pool, &saved->timers, sizeof(*timer));

		if (!timer)
			return error_nomem();
		TRY(dump_timer(dump, process, &timers[i], timer));
	}
	return NULL;
}

/* By pairs of calls; a program that makes and deletes timers all the time has high numbers. */
enum { BATCH = 128, SKIPPED_MAX = 1 << 20 };

/* Since Linux 6.16 a process may say which ids it wants. */
static bool can_choose_ids(void)
{
	return prctl(PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_GET, 0, 0, 0) >= 0;
}

static uint64_t append_create(struct program *p, const struct posix_timer *timer, uint64_t id)
{
	struct sigevent event = {
		.sigev_notify = (int)timer->notify,
		.sigev_signo = (int)timer->signal,
		.sigev_value.sival_ptr = (void *)timer->value,
		._sigev_un._tid = timer->thread,
	};

	program_call(p, "make a POSIX timer", SYS_timer_create, (uint64_t)(int64_t)timer->clock,
		     program_data(p, &event, sizeof(event)), id);
	return id;
}

/* The kernel reads the id that is wanted from where it will write the id that it gave. */
static struct cr_error *create(struct restore *restore, const struct posix_timer *timers,
			       size_t count)
{
	struct program *p = restore->program;
	int32_t wanted[BATCH], got[BATCH];
	uint64_t ids;

	for (size_t i = 0; i < count; i++)
		wanted[i] = timers[i].id;
	TRY(program_reserve(p, count + 2, count * (sizeof(struct sigevent) + 32)));
	ids = program_data(p, wanted, count * sizeof(wanted[0]));
	program_call(p, "keep the ids of POSIX timers", SYS_prctl, PR_TIMER_CREATE_RESTORE_IDS,
		     PR_TIMER_CREATE_RESTORE_IDS_ON, 0, 0, 0);
	for (size_t i = 0; i < count; i++)
		append_create(p, &timers[i], ids + i * sizeof(wanted[0]));
	program_call(p, "leave ids to the kernel again", SYS_prctl, PR_TIMER_CREATE_RESTORE_IDS,
		     PR_TIMER_CREATE_RESTORE_IDS_OFF, 0, 0, 0);
	TRY(program_run(p));
	TRY(program_output(p, ids, got, count * sizeof(got[0])));
	if (memcmp(wanted, got, count * sizeof(got[0])))
		return error_new(CR_HOST, "This kernel gives POSIX timers other ids");
	return NULL;
}

/* Before: in a new process ids count up from 0, and what is deleted does not come back. */
static struct cr_error *create_next(struct restore *restore, const struct posix_timer *timer,
				    int32_t *next)
{
	static const struct posix_timer scrap = {.clock = CLOCK_MONOTONIC, .notify = SIGEV_NONE};
	struct program *p = restore->program;
	int32_t got = -1;
	uint64_t id;

	for (; *next < timer->id; ++*next) {
		TRY(program_reserve(p, 2, sizeof(struct sigevent) + 32));
		append_create(p, &scrap, program_data(p, &got, sizeof(got)));
		program_call(p, "delete a POSIX timer", SYS_timer_delete, (uint64_t)*next);
	}
	TRY(program_reserve(p, 1, sizeof(struct sigevent) + 32));
	id = append_create(p, timer, program_data(p, &got, sizeof(got)));
	TRY(program_run(p));
	TRY(program_output(p, id, &got, sizeof(got)));
	if (got != (*next)++)
		return error_new(CR_HOST, "This kernel gives POSIX timers other ids");
	return NULL;
}

static int by_id(const void *a, const void *b)
{
	int32_t x = ((const struct posix_timer *)a)->id, y = ((const struct posix_timer *)b)->id;

	return (x > y) - (x < y);
}

static struct cr_error *create_in_turn(struct restore *restore, const struct process *process,
				       const struct list *timers)
{
	struct posix_timer *sorted =
		pool_memdup(restore->image.pool, timers->items, timers->count * sizeof(*sorted));
	int32_t next = 0;

	if (!sorted)
		return error_nomem();
	qsort(sorted, timers->count, sizeof(*sorted), by_id);
	if (sorted[timers->count - 1].id > SKIPPED_MAX)
		return error_remedy(
			error_new(CR_HOST,
				  "POSIX timer %d of process %d: ids above %d take a kernel that "
				  "lets us choose them",
				  sorted[timers->count - 1].id, process->pid, SKIPPED_MAX),
			"Restart on Linux 6.16 or newer");
	for (size_t i = 0; i < timers->count; i++)
		TRY(create_next(restore, &sorted[i], &next));
	return NULL;
}

static struct cr_error *posix_timer_restore(struct restore *restore, struct process *process,
					    const void *state)
{
	const struct posix_timers *saved = state;
	const struct posix_timer *timers = saved->timers.items;
	size_t count = saved->timers.count;

	if (count && !can_choose_ids())
		return create_in_turn(restore, process, &saved->timers);
	for (size_t i = 0; i < count; i += BATCH)
		TRY(create(restore, timers + i, count - i < BATCH ? count - i : BATCH));
	return NULL;
}

static void set_time(struct program *p, const struct posix_timer *timer, uint64_t flags,
		     int64_t value)
{
	struct itimerspec time = {
		.it_interval = {.tv_sec = (time_t)(timer->interval / SECOND),
				.tv_nsec = (long)(timer->interval % SECOND)},
	};

	/* a value of 0 would disarm it */
	if (value < 1)
		value = 1;
	time.it_value.tv_sec = value / SECOND;
	time.it_value.tv_nsec = value % SECOND;
	program_call(p, "arm a POSIX timer", SYS_timer_settime, (uint64_t)timer->id, flags,
		     program_data(p, &time, sizeof(time)), 0);
}

static bool counts_cpu_time(const struct posix_timer *timer)
{
	return timer->clock < 0 || timer->clock == CLOCK_PROCESS_CPUTIME_ID ||
	       timer->clock == CLOCK_THREAD_CPUTIME_ID;
}

/* From now to when it fires; below 0: it should have fired. */
static int64_t span(const struct restore *restore, const struct posix_timer *timer)
{
	/* what has passed at the checkpoint already counts from there too */
	return counts_cpu_time(timer) ? timer->remaining
				      : timer->remaining + restore_span(restore, 0);
}

/* The moment when it fires, or should have fired, on its own clock. */
static int64_t moment(const struct restore *restore, const struct posix_timer *timer)
{
	if (timer->realtime)
		return timer->remaining;
	/* the CPU time of the new process has just begun */
	return counts_cpu_time(timer) ? timer->remaining
				      : clocks_now(restore, timer->clock) + span(restore, timer);
}

/* Clocks of which a moment and a span mean the same: on CLOCK_REALTIME a moment is a date. */
static bool has_absolute(const struct posix_timer *timer)
{
	return timer->clock == CLOCK_MONOTONIC || timer->clock == CLOCK_BOOTTIME ||
	       timer->clock == CLOCK_BOOTTIME_ALARM;
}

static void arm(struct restore *restore, const struct posix_timer *timer)
{
	int64_t value = span(restore, timer);

	if (timer->realtime) {
		set_time(restore->program, timer, TIMER_ABSTIME, timer->remaining);
		return;
	}
	/* due while the container was away: it fires once, at once, and says how often it would have */
	if (value <= 0 && timer->interval && timer->notify != SIGEV_NONE && has_absolute(timer)) {
		set_time(restore->program, timer, TIMER_ABSTIME, moment(restore, timer));
		return;
	}
	/* with SIGEV_NONE the kernel moves it on only when it is asked for it */
	if (timer->notify == SIGEV_NONE && value <= 0 && timer->interval)
		value = (int64_t)timer->interval - -value % (int64_t)timer->interval;
	if (timer->notify != SIGEV_NONE || value > 0)
		set_time(restore->program, timer, 0, value);
}

/*
 * The count of overruns belongs to the last signal that was taken: the timer is armed for a moment
 * so many intervals ago, and the signal, which comes with the next interrupt, is taken.
 */
static struct cr_error *arm_with_overruns(struct restore *restore, struct process *process,
					  const struct posix_timer *timer)
{
	int64_t interval = (int64_t)timer->interval, wait = span(restore, timer);
	int64_t ahead = wait > 0 ? (wait - 1) / interval + 1 : 1;
	int64_t at = moment(restore, timer), most = at / interval - ahead;
	int64_t overruns = (int64_t)timer->overruns < most ? (int64_t)timer->overruns : most;
	uint64_t set = 1ull << (timer->signal - 1);
	const struct thread *thread = image_thread(&restore->image, timer->thread);
	struct program *p = restore->program;
	struct timespec patience = {.tv_sec = 1};

	TRY(program_run(p));
	if (thread && thread->process == process)
		program_begin(p, thread->host_tid);
	set_time(p, timer, TIMER_ABSTIME, at - (overruns + ahead) * interval);
	program_call(p, "take the signal of a POSIX timer", SYS_rt_sigtimedwait,
		     program_data(p, &set, sizeof(set)), 0,
		     program_data(p, &patience, sizeof(patience)), sizeof(set));
	TRY(program_run(p));
	restore_begin(restore, process);
	return NULL;
}

struct cr_error *posix_timer_arm(struct restore *restore, struct process *process)
{
	const struct posix_timers *saved = process_state(process, &posix_timer_kind);
	const struct posix_timer *timer = saved ? saved->timers.items : NULL;

	restore_begin(restore, process);
	for (size_t i = 0; saved && i < saved->timers.count; i++, timer++) {
		TRY(program_reserve(restore->program, 1, sizeof(struct itimerspec)));
		if (timer->due && !timer->queued) /* its signal is ignored */
			set_time(restore->program, timer, TIMER_ABSTIME, moment(restore, timer));
		else if (timer->armed && timer->overruns && timer->interval && timer->signal &&
			 !counts_cpu_time(timer))
			TRY(arm_with_overruns(restore, process, timer));
		else if (timer->armed)
			arm(restore, timer);
	}
	return program_run(restore->program);
}

struct cr_error *posix_timer_fire(struct restore *restore, struct process *process, int32_t id)
{
	const struct posix_timers *saved = process_state(process, &posix_timer_kind);
	const struct posix_timer *timer = saved ? saved->timers.items : NULL;
	const struct timespec instant = {.tv_nsec = 1};
	struct program *p = restore->program;

	for (size_t i = 0; saved && i < saved->timers.count; i++, timer++) {
		if (timer->id != id || !timer->due)
			continue;
		TRY(program_reserve(p, 2, 2 * sizeof(struct itimerspec)));
		/* whatever its clock says, the moment has passed */
		set_time(p, timer, TIMER_ABSTIME,
			 counts_cpu_time(timer) ? 1 : moment(restore, timer));
		/* it fires in an interrupt, which comes before that of a timer with a later end */
		program_call(p, "wait for a POSIX timer", SYS_nanosleep,
			     program_data(p, &instant, sizeof(instant)), 0);
		return NULL;
	}
	return error_new(CR_IMAGE,
			 "A signal of process %d is of POSIX timer %d, which has not fired",
			 process->pid, id);
}

const struct kind posix_timer_kind = {
	.name = "posix_timer",
	.doc = "POSIX timers: clock, notification, id, time left, overruns",
	.scope = SCOPE_PROCESS,
	.size = sizeof(struct posix_timers),
	.fields = posix_timer_fields,
	.check_process = posix_timer_check,
	.dump_process = posix_timer_dump,
	.restore_with_threads = posix_timer_restore,
	/* armed at the release, before the pending signals: release.c */
};
