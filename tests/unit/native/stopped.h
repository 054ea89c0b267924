/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A child that sets something up and is then held in a ptrace stop while somebody looks at it. */
#ifndef CR_TEST_STOPPED_H
#define CR_TEST_STOPPED_H

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "checks.h"
#include "cleanup.h"

/* What the child says about itself; shared with it. */
struct facts {
	_Atomic bool ready;
	uint64_t started; /* CLOCK_MONOTONIC, ns */
	uint64_t values[8];
	struct thread_facts {
		int32_t tid;
		uint64_t stack;
	} threads[64];
	uint64_t actions[64][4]; /* as rt_sigaction(2) reports them */
};

struct child {
	pid_t pid;
	struct facts *facts;
};

static inline uint64_t now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static inline char state_of(pid_t pid)
{
	char path[64], state = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file)
		return 0;
	if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
		state = 0;
	fclose(file);
	return state;
}

/* @live does the set-up, sets ready and then blocks for good; it must not return. */
static inline struct child child_start(void (*live)(struct facts *facts))
{
	struct child child;

	fflush(stdout);
	child.facts = mmap(NULL, sizeof(*child.facts), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (child.facts == MAP_FAILED)
		abort();
	child.pid = fork();
	if (child.pid < 0)
		abort(); /* -1 would be everybody, in kill() below */
	if (child.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		live(child.facts);
		_exit(1);
	}
	for (int i = 0; i < 5000; i++) {
		if (child.facts->ready && state_of(child.pid) == 'S')
			break;
		usleep(1000);
	}
	CHECK(child.facts->ready);
	return child;
}

/* All threads of interest sleep; the leader's stop is what the kernel's restart data comes from. */
static inline void child_stop(const struct child *child)
{
	int status;

	CHECK(ptrace(PTRACE_SEIZE, child->pid, 0, 0) == 0);
	CHECK(ptrace(PTRACE_INTERRUPT, child->pid, 0, 0) == 0);
	CHECK(waitpid(child->pid, &status, __WALL) == child->pid && WIFSTOPPED(status));
}

static inline void child_end(const struct child *child)
{
	kill(child->pid, SIGKILL);
	waitpid(child->pid, NULL, __WALL);
	munmap(child->facts, sizeof(*child->facts));
}

#endif
