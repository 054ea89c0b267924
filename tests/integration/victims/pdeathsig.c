/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The signal for the end of a parent, of root and of another user; and that it still comes. */
#include <signal.h>
#include <sys/prctl.h>

#include "victim.h"

enum { USER = 1234 };

static uint32_t *arrived;

static int signal_now(void)
{
	int now = -1;

	must(prctl(PR_GET_PDEATHSIG, &now));
	return now;
}

static void expect(void *wanted)
{
	int signal = *(int *)wanted;

	if (signal == SIGUSR1)
		must(setresuid(USER, USER, USER));
	must(prctl(PR_SET_PDEATHSIG, signal));
	victim_arrive(arrived);
	victim_wait();
	check(signal_now() == signal, "signal %d, was %d", signal_now(), signal);
}

static volatile sig_atomic_t came;

static void note(int signal)
{
	came = signal;
}

/* Its parent ends when it is told to go on. */
static void lose_parent(void *unused)
{
	(void)unused;
	signal(SIGRTMIN + 3, note);
	must(prctl(PR_SET_PDEATHSIG, SIGRTMIN + 3));
	victim_arrive(arrived);
	while (!came)
		usleep(10000);
	check(victim_told_to_go(), "the signal came early");
	victim_arrive(arrived);
}

static void have_child(void *unused)
{
	(void)unused;
	victim_child(lose_parent, NULL);
	victim_wait();
}

int main(int argc, char **argv)
{
	int signals[] = {SIGTERM, SIGUSR1, 0};
	pid_t pids[3], parent;

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	for (int i = 0; i < 3; i++)
		pids[i] = victim_child(expect, &signals[i]);
	parent = victim_child(have_child, NULL);
	victim_meet(arrived, 4);
	victim_ready();
	victim_wait();
	for (int i = 0; i < 3; i++)
		victim_reap(pids[i]);
	victim_reap(parent);
	victim_meet(arrived, 5);
	victim_ok();
	return 0;
}
