/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers up to the kernel's limit, and threads whose numbers lie below that of the first one, as
 * they do when numbers have wrapped around; and a number that was somebody else's before: told to,
 * the child ends and another one gets its number.
 */
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

#include "victim.h"

static uint32_t *arrived;

/* fork(2) under a chosen number */
static pid_t fork_as(pid_t number)
{
	struct clone_args args = {
		.exit_signal = SIGCHLD,
		.set_tid = (uintptr_t)&number,
		.set_tid_size = 1,
	};

	return must(syscall(SYS_clone3, &args, sizeof(args)));
}

static void *thread(void *unused)
{
	pid_t number = gettid();

	check(number < getpid(), "thread %d of process %d", number, getpid());
	victim_arrive(arrived);
	victim_wait();
	check(gettid() == number, "thread %d was %d", gettid(), number);
	return unused;
}

static void have_threads(pid_t number)
{
	pthread_t threads[3];

	for (int i = 0; i < 3; i++)
		check(pthread_create(&threads[i], NULL, thread, NULL) == 0, "pthread_create");
	victim_wait();
	for (int i = 0; i < 3; i++)
		check(pthread_join(threads[i], NULL) == 0, "join");
	check(getpid() == number && gettid() == number, "process %d was %d", getpid(), number);
	_exit(0);
}

/* Has the number that the first one had. */
static void be_second(pid_t number)
{
	must(chdir("/tmp"));
	victim_arrive(arrived);
	victim_wait();
	check(getpid() == number, "process %d was %d", getpid(), number);
	_exit(42);
}

static bool told_to_change(void)
{
	char path[256];

	snprintf(path, sizeof(path), "%s.change", victim_path);
	return access(path, F_OK) == 0;
}

static void be_first(pid_t number)
{
	victim_arrive(arrived);
	while (!victim_told_to_go() && !told_to_change())
		victim_nap(10);
	check(getpid() == number, "process %d was %d", getpid(), number);
	_exit(41);
}

static void change(pid_t number)
{
	int status;

	check(waitpid(number, &status, 0) == number && WEXITSTATUS(status) == 41, "%#x", status);
	if (fork_as(number) == 0)
		be_second(number);
	victim_meet(arrived, 5);
	victim_say("changed");
}

static pid_t highest(void)
{
	char text[32];

	victim_read("/proc/sys/kernel/pid_max", text, sizeof(text));
	return atoi(text) - 1;
}

int main(int argc, char **argv)
{
	pid_t high = -1, reused = 30000;
	bool changed = false;
	int status;

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	high = highest();
	if (fork_as(high) == 0)
		have_threads(high);
	if (fork_as(reused) == 0)
		be_first(reused);
	victim_meet(arrived, 4);
	victim_ready();
	while (!victim_told_to_go()) {
		if (!changed && told_to_change()) {
			change(reused);
			changed = true;
		}
		victim_nap(10);
	}
	victim_reap(high);
	check(waitpid(reused, &status, 0) == reused, "waitpid");
	check(WIFEXITED(status) && WEXITSTATUS(status) == (changed ? 42 : 41), "%#x", status);
	victim_ok();
	return 0;
}
