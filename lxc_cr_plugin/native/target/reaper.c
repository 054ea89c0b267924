/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "reaper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../cleanup.h"
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

/* No opendir(3): a signal handler must not allocate. Who is passed over because others vanish has his turn when
 * this is called again. */
pid_t reaper_reap(pid_t tid)
{
	_Alignas(struct dirent64) char buffer[4096];
	_cleanup_close_ int directory = -1;
	pid_t first = 0;
	char name[64];
	ssize_t got;

	snprintf(name, sizeof(name), "/proc/%d/task", tid);
	directory = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	while (directory >= 0 && (got = getdents64(directory, buffer, sizeof(buffer))) > 0) {
		for (char *at = buffer; at < buffer + got;
		     at += ((struct dirent64 *)at)->d_reclen) {
			pid_t thread = atoi(((struct dirent64 *)at)->d_name);

			if (!first)
				first = thread;
			if (thread) /* not . or .. */
				reap_one(thread);
		}
	}
	return first;
}

/* Each process once. */
static void reap_all(const struct list *tasks)
{
	pid_t process = 0;

	for (size_t i = 0; i < tasks->count; i++) {
		pid_t tid = ((const struct stopped_task *)tasks->items)[i].tid;

		if (tid && (!process || syscall(SYS_tgkill, process, tid, 0) < 0))
			process = reaper_reap(tid);
	}
}

static void reap(int signal, siginfo_t *info, void *context)
{
	struct reaper *reaper = info->si_value.sival_ptr;
	int number = errno;

	(void)signal, (void)context;
	/* somebody else may send that signal */
	if (info->si_code != SI_TIMER || !reaper->seized)
		return;
	reaper->has_reaped = true;
	/* one that has ended does not say of which process: the seizure may wait all the same */
	if (!reaper_reap(reaper->seized))
		reap_all(reaper->tasks);
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
		return errno == EAGAIN ? NULL : error_sys("Failed to make a timer");
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

	reaper->seized = tid;
	error = task_seize(tid, options);
	reaper->seized = 0;
	return error;
}
