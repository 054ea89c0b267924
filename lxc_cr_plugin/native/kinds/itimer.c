/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>

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

/* CPU time: getitimer(2) tells what is left, and is the only one that knows how much has been used.
 */
static struct cr_error *itimer_dump(struct dump *dump, struct process *process, void *state)
{
	struct interval_timers *timers = state;
	const struct kernel_task *kernel = process_leader(process)->kernel;

	timers->real.interval = kernel->it_real_incr;
	if (kernel->it_real_expires)
		timers->real.remaining = kernel->it_real_expires > dump->clocks.monotonic
						 ? kernel->it_real_expires - dump->clocks.monotonic
						 : 1;
	return NULL;
}

static struct cr_error *itimer_check(struct dump *dump, struct process *process)
{
	const struct kernel_task *kernel = process_leader(process)->kernel;
	struct cr_error *error;
	char *timers;
	size_t len;

	if (kernel->it_virt_expires || kernel->it_prof_expires) {
		error = error_new(CR_UNSUPPORTED,
				  "Process %d (%s) has a timer on its CPU time "
				  "(ITIMER_VIRTUAL or ITIMER_PROF)",
				  process->pid, process->stat.comm);
		return error_remedy(error_object(error, "itimer"),
				    "Not supported yet; stop profiling");
	}
	TRY(proc_read(process->proc, "timers", dump->image.pool, &timers, &len));
	if (!len)
		return NULL;
	error = error_new(CR_UNSUPPORTED, "Process %d (%s) has a POSIX timer", process->pid,
			  process->stat.comm);
	error = error_task(error, process->pid, process->stat.comm);
	return error_remedy(error_object(error, "posix_timer"),
			    "Not supported yet; end the process, or let it use setitimer(2)");
}

static void arm(struct program *p, int which, const struct interval_timer *timer, uint64_t delay)
{
	struct itimerval value = {
		.it_interval = to_timeval(timer->interval),
		.it_value = to_timeval(timer->remaining ? timer->remaining + delay : 0),
	};

	program_call(p, "arm an interval timer", SYS_setitimer, (uint64_t)which,
		     program_data(p, &value, sizeof(value)), 0);
}

static struct cr_error *itimer_restore(struct restore *restore, struct process *process,
				       const void *state)
{
	const struct interval_timers *timers = state;

	(void)process;
	arm(restore->program, ITIMER_REAL, &timers->real, restore_delay(restore));
	return NULL;
}

const struct kind itimer_kind = {
	.name = "itimer",
	.doc = "Interval timers: setitimer(2), alarm(2)",
	.scope = SCOPE_PROCESS,
	.size = sizeof(struct interval_timers),
	.fields = itimer_fields,
	.check_process = itimer_check,
	.dump_process = itimer_dump,
	.restore_at_release = itimer_restore,
};
