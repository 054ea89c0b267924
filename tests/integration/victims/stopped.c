/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Processes stopped by job control: waited for, looked at or not; by several signals; with threads;
 * in system calls. They stay stopped, nobody is told twice, and SIGCONT lets them go on.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>

#include "victim.h"

struct shared {
	uint32_t arrived, woken, count;
	int64_t continued; /* when the sleeper got its SIGCONT, ms */
};

static struct shared *shared;
static int data[2];

static volatile sig_atomic_t told;

static void count_signal(int signal)
{
	(void)signal;
	told++;
}

/* Only its own group is not orphaned, and then SIGTSTP stops. */
static void own_group(void)
{
	must(setpgid(0, 0));
}

static void stop_itself(void *signal)
{
	own_group();
	must(kill(getpid(), *(int *)signal));
	victim_arrive(&shared->woken);
}

static void *count_on(void *unused)
{
	(void)unused;
	for (;;) {
		__atomic_add_fetch(&shared->count, 1, __ATOMIC_SEQ_CST);
		victim_nap(2);
	}
	return NULL;
}

static void have_threads(void *unused)
{
	pthread_t thread;

	(void)unused;
	for (int i = 0; i < 3; i++)
		check(pthread_create(&thread, NULL, count_on, NULL) == 0, "create");
	victim_arrive(&shared->arrived);
	for (;;)
		pause();
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Whoever is stopped while he sleeps wakes when he would have, or as soon as he may. */
static void sleep_long(void *unused)
{
	enum { SLEEP = 3000, LATE = 500 };
	int64_t end, due;

	(void)unused;
	due = now_ms() + SLEEP;
	victim_arrive(&shared->arrived);
	victim_nap(SLEEP);
	end = now_ms();
	check(end >= due - 1, "it woke %d ms too early", (int)(due - end));
	due = due > shared->continued ? due : shared->continued;
	check(end < due + LATE, "it woke %d ms too late", (int)(end - due));
	victim_arrive(&shared->woken);
}

static void read_data(void *unused)
{
	char text[8] = "";

	(void)unused;
	victim_arrive(&shared->arrived);
	check(read(data[0], text, 4) == 4, "read: %s", strerror(errno));
	check(strcmp(text, "data") == 0, "read '%s'", text);
	victim_arrive(&shared->woken);
}

static void go_on_forever(void *unused)
{
	(void)unused;
	for (;;)
		pause();
}

/* What wait(2) would tell now; 0: nothing. */
static int waitable(pid_t pid)
{
	siginfo_t info = {0};

	must(waitid(P_PID, pid, &info, WSTOPPED | WCONTINUED | WEXITED | WNOHANG | WNOWAIT));
	if (!info.si_pid)
		return 0;
	return info.si_code == CLD_CONTINUED ? SIGCONT : info.si_status;
}

static char state_of(pid_t pid)
{
	char path[64], text[512];

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	victim_read(path, text, sizeof(text));
	return strrchr(text, ')')[2];
}

static pid_t stop_child(void (*function)(void *), uint32_t arrived)
{
	pid_t pid = victim_child(function, NULL);
	int status;

	victim_meet(&shared->arrived, arrived);
	victim_nap(20);
	must(kill(pid, SIGSTOP));
	check(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status), "%#x", status);
	return pid;
}

int main(int argc, char **argv)
{
	int signals[] = {SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};
	pid_t waited, unwaited[4], threads, sleeping, reading, continued;
	uint32_t count;
	int status;

	victim_init(argc, argv);
	shared = victim_shared(4096);
	must(pipe(data));
	waited = victim_child(stop_itself, &signals[1]);
	check(waitpid(waited, &status, WUNTRACED) == waited && WIFSTOPPED(status), "%#x", status);
	check(WSTOPSIG(status) == SIGTSTP, "stopped by %d", WSTOPSIG(status));
	for (int i = 0; i < 4; i++) {
		unwaited[i] = victim_child(stop_itself, &signals[i]);
		while (!waitable(unwaited[i]))
			victim_nap(1);
	}
	threads = stop_child(have_threads, 1);
	sleeping = stop_child(sleep_long, 2);
	reading = stop_child(read_data, 3);
	continued = stop_child(go_on_forever, 3);
	must(kill(continued, SIGCONT));
	while (waitable(continued) != SIGCONT)
		victim_nap(1);
	/* the signals of all that come a little later */
	victim_nap(100);
	count = shared->count;

	signal(SIGCHLD, count_signal);
	victim_ready();
	victim_wait();

	check(!told, "SIGCHLD came again, %d times", (int)told);
	check(shared->count == count, "the threads of a stopped process have run");
	check(shared->woken == 0, "%u have woken", shared->woken);
	check(waitable(waited) == 0, "its stop was waited for, and is told again");
	check(state_of(waited) == 'T', "state %c", state_of(waited));
	for (int i = 0; i < 4; i++) {
		check(waitable(unwaited[i]) == signals[i], "stopped by %d, wait says %d",
		      signals[i], waitable(unwaited[i]));
		check(state_of(unwaited[i]) == 'T', "state %c", state_of(unwaited[i]));
	}
	check(waitable(continued) == SIGCONT, "going on is not told: %d", waitable(continued));
	check(state_of(continued) == 'S', "state %c", state_of(continued));

	signal(SIGCHLD, SIG_DFL);
	check(write(data[1], "data", 4) == 4, "write");
	victim_nap(100);
	check(shared->woken == 0, "a stopped process has read");
	must(kill(waited, SIGCONT));
	victim_reap(waited);
	for (int i = 0; i < 4; i++) {
		must(kill(unwaited[i], SIGCONT));
		victim_reap(unwaited[i]);
	}
	shared->continued = now_ms();
	must(kill(sleeping, SIGCONT));
	victim_reap(sleeping);
	must(kill(reading, SIGCONT));
	victim_reap(reading);
	check(shared->woken == 7, "%u have woken", shared->woken);
	must(kill(threads, SIGCONT));
	check(waitpid(threads, &status, WCONTINUED) == threads && WIFCONTINUED(status), "%#x",
	      status);
	while (shared->count == count)
		victim_nap(1);
	must(kill(threads, SIGKILL));
	must(kill(continued, SIGKILL));
	check(waitpid(threads, &status, 0) == threads && WIFSIGNALED(status), "%#x", status);
	check(waitpid(continued, &status, 0) == continued && WIFSIGNALED(status), "%#x", status);
	victim_ok();
	return 0;
}
