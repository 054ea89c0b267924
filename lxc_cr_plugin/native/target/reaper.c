/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper.h"

#include <errno.h>
#include <sys/wait.h>

#include "stop.h"
#include "task.h"

enum { PERIOD_NS = 20000000 }; /* far more than it takes to seize one */

/* A wait for whoever has ended would take the stops of others, too: ptrace(2) tells of them always. */
static void reap_one(pid_t tid)
{
	siginfo_t info = {0};

	if (waitid(P_PID, (id_t)tid, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) || !info.si_pid)
		return;
	if (info.si_code == CLD_EXITED || info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED)
		waitid(P_PID, (id_t)tid, &info, WEXITED | WNOHANG | __WALL);
}

static void reap(int signal, siginfo_t *info, void *context)
{
	const struct reaper *reaper = info->si_value.sival_ptr;
	int number = errno;

	(void)signal, (void)context;
	/* somebody else may send that signal */
	if (info->si_code != SI_TIMER || !reaper->may_reap)
		return;
	for (size_t i = 0; i < reaper->tasks->count; i++) {
		pid_t tid = ((const struct stopped_task *)reaper->tasks->items)[i].tid;

		if (tid)
			reap_one(tid);
	}
	errno = number;
}

struct cr_error *reaper_begin(struct reaper *reaper, const struct list *tasks)
{
	const struct itimerspec period = {{.tv_nsec = PERIOD_NS}, {.tv_nsec = PERIOD_NS}};
	struct sigaction action = {.sa_sigaction = reap, .sa_flags = SA_RESTART | SA_SIGINFO};
	struct sigevent event = {
		.sigev_notify = SIGEV_SIGNAL,
		.sigev_signo = SIGALRM,
		.sigev_value = {.sival_ptr = reaper},
	};

	*reaper = (struct reaper){.tasks = tasks};
	if (timer_create(CLOCK_MONOTONIC, &event, &reaper->timer) < 0)
		return error_sys("Failed to make a timer");
	sigaction(SIGALRM, &action, &reaper->action);
	reaper->works = true;
	return timer_settime(reaper->timer, 0, &period, NULL) < 0
		       ? error_sys("Failed to set a timer")
		       : NULL;
}

void reaper_end(struct reaper *reaper)
{
	if (!reaper->works)
		return;
	timer_delete(reaper->timer);
	sigaction(SIGALRM, &reaper->action, NULL);
	reaper->works = false;
}

struct cr_error *reaper_seize(struct reaper *reaper, pid_t tid, unsigned long options)
{
	struct cr_error *error;

	reaper->may_reap = true;
	error = task_seize(tid, options);
	reaper->may_reap = false;
	return error;
}
