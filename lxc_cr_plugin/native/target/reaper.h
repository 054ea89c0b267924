/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread that executes a program waits until all others of its process have ended, and those that are
 * traced until their tracer has waited for them. Meanwhile it holds what PTRACE_SEIZE of any of them
 * waits for (cred_guard_mutex): whoever traces some and seizes another one waits for himself, for ever.
 * So a timer interrupts that, and whoever has ended is waited for; the kernel then begins the call again.
 * That may be a thread of which we do not know yet: who is cloned by one of ours is traced at once.
 */
#ifndef CR_REAPER_H
#define CR_REAPER_H

#include <signal.h>
#include <sys/types.h>
#include <time.h>

#include "../error.h"
#include "../pool.h"

struct reaper {
	const struct list *tasks;     /* struct stopped_task: all that are traced */
	volatile sig_atomic_t seized; /* who is about to be: the list does not change; 0: nobody */
	volatile sig_atomic_t has_reaped; /* perhaps */
	struct sigaction action;	  /* of SIGALRM, before */
	timer_t timer;
	bool works;
};

/* Where there are no timers left we go on without: a container's root may use up what the host's has of them
 * (RLIMIT_SIGPENDING), and seldom does a seizure meet somebody who executes a program. */
struct cr_error *reaper_begin(struct reaper *reaper, const struct list *tasks);
void reaper_end(struct reaper *reaper); /* one that is zeroed is fine */

/* task_seize(), which comes back. Of who has ended meanwhile waitpid(2) tells ECHILD from then on. */
struct cr_error *reaper_seize(struct reaper *reaper, pid_t tid, unsigned long options);

/* Wait for each thread of the process of @tid that has ended. The number of that process; 0: none. */
pid_t reaper_reap(pid_t tid);

#endif
