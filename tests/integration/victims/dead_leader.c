/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Processes whose first thread has ended while others run: descriptors, memory, signals, end. */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "victim.h"

/* Which one is the process's depends on the kernel: since Linux 5.17 that of the last thread. */
enum { LEADER_STATUS = 42, LAST_STATUS = 43 };

static uint32_t *arrived;
static int file;
static uint64_t content[4096];
static volatile sig_atomic_t signals;

static void count_signal(int signal)
{
	(void)signal;
	signals++;
}

static void expect_name(const char *path, const char *wanted)
{
	char name[64];

	victim_read(path, name, sizeof(name));
	check(strcmp(name, wanted) == 0, "%s is '%s'", path, name);
}

static void verify_state(pid_t pid, pid_t tid)
{
	char path[64], text[16] = "";

	check(getpid() == pid, "pid was %d, is %d", pid, getpid());
	check(gettid() == tid, "thread was %d, is %d", tid, gettid());
	check(victim_differs(content, sizeof(content), 77) < 0, "memory has changed");
	check(pread(file, text, 7, 0) == 7 && !strcmp(text, "content"), "file holds '%s'", text);
	expect_name("/proc/self/comm", "first\n");
	snprintf(path, sizeof(path), "/proc/self/task/%d/comm", tid);
	expect_name(path, "second\n");
	must(kill(pid, SIGUSR1));
	while (!signals)
		sched_yield();
}

static void *second(void *unused)
{
	pid_t pid = getpid(), tid = gettid();

	(void)unused;
	must(prctl(PR_SET_NAME, "second"));
	victim_arrive(arrived);
	victim_wait();
	verify_state(pid, tid);
	victim_arrive(arrived);
	while (__atomic_load_n(arrived, __ATOMIC_SEQ_CST) < 4)
		victim_nap(1);
	syscall(SYS_exit, LAST_STATUS);
	return NULL;
}

static void *third(void *unused)
{
	(void)unused;
	victim_arrive(arrived);
	victim_wait();
	victim_arrive(arrived);
	/* either of the two may be the last, whose status is that of the process */
	syscall(SYS_exit, LAST_STATUS);
	return NULL;
}

static void lead(void *path)
{
	pthread_t thread;

	file = must(open(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
	check(write(file, "content", 7) == 7, "write");
	victim_fill(content, sizeof(content), 77);
	signal(SIGUSR1, count_signal);
	check(pthread_create(&thread, NULL, second, NULL) == 0, "create");
	check(pthread_create(&thread, NULL, third, NULL) == 0, "create");
	must(prctl(PR_SET_NAME, "first"));
	syscall(SYS_exit, LEADER_STATUS);
}

int main(int argc, char **argv)
{
	char path[256], state[512];
	int status;
	pid_t pid;

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	snprintf(path, sizeof(path), "%s.file", argv[1]);
	pid = victim_child(lead, path);
	victim_meet(arrived, 2);
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	do {
		victim_nap(1);
		victim_read(path, state, sizeof(state));
	} while (!strstr(state, ") Z "));
	victim_ready();
	victim_wait();
	victim_read(path, state, sizeof(state));
	check(strstr(state, "(first) Z "), "the leader is %s", state);
	check(waitpid(pid, &status, 0) == pid, "waitpid");
	check(WIFEXITED(status) &&
		      (WEXITSTATUS(status) == LEADER_STATUS || WEXITSTATUS(status) == LAST_STATUS),
	      "status %#x", status);
	victim_ok();
	return 0;
}
