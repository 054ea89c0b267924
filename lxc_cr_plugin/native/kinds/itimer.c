/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "../dump.h"
#include "../restore.h"

struct interval_timer {
	uint64_t remaining; /* ns, 0: not armed */
	uint64_t interval;  /* ns, 0: fires once */
};

struct interval_timers {
	struct interval_timer real, virtual, prof;
};

static const struct field timer_fields[] = {
	FIELD_UINT(struct interval_timer, remaining, 0, INT64_MAX,
		   "ns at the checkpoint, 0: not armed"),
	FIELD_UINT(struct interval_timer, interval, 0, INT64_MAX, "ns, 0: fires once"),
	FIELD_END,
};

static const struct field itimer_fields[] = {
	FIELD_STRUCT(struct interval_timers, real, timer_fields, "ITIMER_REAL, alarm(2)"),
	FIELD_STRUCT(struct interval_timers, virtual, timer_fields, "ITIMER_VIRTUAL"),
	FIELD_STRUCT(struct interval_timers, prof, timer_fields, "ITIMER_PROF"),
	FIELD_END,
};

/* ns to microseconds, rounded up: a timer that is armed must not become one that is not. */
static struct timeval to_timeval(uint64_t ns)
{
	uint64_t us = (ns + 999) / 1000;

	return (struct timeval){.tv_sec = (time_t)(us / 1000000),
				.tv_usec = (suseconds_t)(us % 1000000)};
}

/* CPU time of a process, as its timers count it: it stands still. */
static uint64_t cpu_time(const struct process *process, uint32_t which)
{
	clockid_t clock = (clockid_t)((~(uint32_t)process->host_tgid << 3) | which);
	struct timespec now = {0};

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t left(uint64_t expires, uint64_t now)
{
	return expires > now ? expires - now : 1;
}

/* One that has fired rests until SIGALRM is taken, and is then moved on by whole intervals. */
static uint64_t left_when_resting(const struct kernel_task *kernel, uint64_t now)
{
	uint64_t past = now > kernel->it_real_expires ? now - kernel->it_real_expires : 0;

	return kernel->it_real_incr - past % kernel->it_real_incr;
}

static struct cr_error *itimer_dump(struct dump *dump, struct process *process, void *state)
{
	enum { PROF, VIRTUAL }; /* the kernel's CPUCLOCK_ numbers */
	struct interval_timers *timers = state;
	const struct kernel_task *kernel = process_leader(process)->kernel;

	timers->real.interval = kernel->it_real_incr;
	if (kernel->it_real_armed)
		timers->real.remaining = left(kernel->it_real_expires, dump->clocks.monotonic);
	else if (kernel->it_real_incr)
		timers->real.remaining = left_when_resting(kernel, dump->clocks.monotonic);
	timers->virtual.interval = kernel->it_virt_incr;
	if (kernel->it_virt_expires)
		timers->virtual.remaining = left(kernel->it_virt_expires,
						 cpu_time(process, VIRTUAL));
	timers->prof.interval = kernel->it_prof_incr;
	if (kernel->it_prof_expires)
		timers->prof.remaining = left(kernel->it_prof_expires, cpu_time(process, PROF));
	return NULL;
}

/* @left: ns, 0: not armed */
static void arm(struct program *p, int which, const struct interval_timer *timer, uint64_t left)
{
	struct itimerval value = {
		.it_interval = to_timeval(timer->interval),
		.it_value = to_timeval(left),
	};

	program_call(p, "arm an interval timer", SYS_setitimer, (uint64_t)which,
		     program_data(p, &value, sizeof(value)), 0);
}

/* setitimer(2) adds a tick to a time of the CPU, and it was added before. */
static void arm_cpu(struct program *p, int which, const struct interval_timer *timer)
{
	uint64_t remaining = timer->remaining;
	struct timespec tick = {0};

	clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
	if (!timer->remaining)
		return;
	remaining -= remaining > (uint64_t)tick.tv_nsec ? (uint64_t)tick.tv_nsec : remaining - 1;
	arm(p, which, timer, remaining);
}

/*
 * One that came due while the container was away fires now, once. setitimer(2) takes no moment that
 * has passed, so that the rhythm is kept by the next expiry, and the signal of this one is sent as the
 * kernel sends it: that a thread which is not the first one may not do.
 */
static void arm_real(struct restore *restore, const struct process *process,
		     const struct interval_timer *timer)
{
	int64_t span = restore_span(restore, timer->remaining);
	int64_t interval = (int64_t)timer->interval;
	siginfo_t info = {.si_signo = SIGALRM, .si_code = SI_KERNEL};

	if (span > 0 || !interval || process_leader(process)->tid != process->pid) {
		arm(restore->program, ITIMER_REAL, timer, span > 0 ? (uint64_t)span : 1);
		return;
	}
	arm(restore->program, ITIMER_REAL, timer, (uint64_t)(interval - -span % interval));
	program_call(restore->program, "fire an interval timer", SYS_rt_sigqueueinfo,
		     (uint64_t)process->pid, SIGALRM,
		     program_data(restore->program, &info, sizeof(info)));
}

static struct cr_error *itimer_restore(struct restore *restore, struct process *process,
				       const void *state)
{
	const struct interval_timers *timers = state;

	if (timers->real.remaining)
		arm_real(restore, process, &timers->real);
	arm_cpu(restore->program, ITIMER_VIRTUAL, &timers->virtual);
	arm_cpu(restore->program, ITIMER_PROF, &timers->prof);
	return NULL;
}

const struct kind itimer_kind = {
	.name = "itimer",
	.doc = "Interval timers: setitimer(2), alarm(2)",
	.scope = SCOPE_PROCESS,
	.size = sizeof(struct interval_timers),
	.fields = itimer_fields,
	.dump_process = itimer_dump,
	.restore_at_release = itimer_restore,
};
