/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Scheduling: nice, policy, priority, affinity, I/O priority, out-of-memory score; per thread. */
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "victim.h"

enum { IDLE_CLASS = 3 << 13, BEST_EFFORT_7 = 2 << 13 | 7 };

struct settings {
	int nice, policy, priority, io, oom;
	cpu_set_t cpus;
};

static uint32_t *arrived;

static int read_number(const char *path)
{
	char text[64];

	victim_read(path, text, sizeof(text));
	return atoi(text);
}

static struct settings look(void)
{
	struct settings settings = {0};
	struct sched_param parameter;

	errno = 0;
	settings.nice = getpriority(PRIO_PROCESS, 0);
	settings.policy = must(sched_getscheduler(0));
	must(sched_getparam(0, &parameter));
	settings.priority = parameter.sched_priority;
	settings.io = must(syscall(SYS_ioprio_get, 1, 0));
	settings.oom = read_number("/proc/self/oom_score_adj");
	must(sched_getaffinity(0, sizeof(settings.cpus), &settings.cpus));
	return settings;
}

static void arrive_and_compare(const char *who)
{
	struct settings was = look(), is;

	victim_arrive(arrived);
	victim_wait();
	is = look();
	check(is.nice == was.nice, "%s: nice %d, was %d", who, is.nice, was.nice);
	check(is.policy == was.policy && is.priority == was.priority,
	      "%s: policy %d, priority %d, was %d, %d", who, is.policy, is.priority, was.policy,
	      was.priority);
	check(is.io == was.io, "%s: I/O priority %#x, was %#x", who, is.io, was.io);
	check(is.oom == was.oom, "%s: oom_score_adj %d, was %d", who, is.oom, was.oom);
	check(CPU_EQUAL(&is.cpus, &was.cpus), "%s: %d processors, %d before", who,
	      CPU_COUNT(&is.cpus), CPU_COUNT(&was.cpus));
}

static void pin_to_last_cpu(void)
{
	cpu_set_t cpus, last;

	must(sched_getaffinity(0, sizeof(cpus), &cpus));
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &cpus)) {
			CPU_ZERO(&last);
			CPU_SET(cpu, &last);
		}
	must(sched_setaffinity(0, sizeof(last), &last));
}

static void *nicer_thread(void *unused)
{
	must(setpriority(PRIO_PROCESS, 0, 13));
	pin_to_last_cpu();
	must(syscall(SYS_ioprio_set, 1, 0, BEST_EFFORT_7));
	arrive_and_compare("thread");
	return unused;
}

static void batch(void *unused)
{
	struct sched_param none = {0};

	(void)unused;
	must(sched_setscheduler(0, SCHED_BATCH | SCHED_RESET_ON_FORK, &none));
	/* nor where only the host's root may */
	if (setpriority(PRIO_PROCESS, 0, -5) < 0)
		check(errno == EACCES, "setpriority: %s", strerror(errno));
	arrive_and_compare("batch");
}

static void idle(void *unused)
{
	struct sched_param none = {0};
	FILE *file = fopen("/proc/self/oom_score_adj", "w");

	(void)unused;
	check(file && fprintf(file, "500\n") > 0 && fclose(file) == 0, "oom_score_adj");
	must(sched_setscheduler(0, SCHED_IDLE, &none));
	must(syscall(SYS_ioprio_set, 1, 0, IDLE_CLASS));
	arrive_and_compare("idle");
}

/* Where the cgroup allows none of it, there is nothing to look at. */
static void real_time(void *unused)
{
	struct sched_param parameter = {.sched_priority = 7};

	(void)unused;
	if (sched_setscheduler(0, SCHED_FIFO, &parameter) < 0)
		check(errno == EPERM, "SCHED_FIFO: %s", strerror(errno));
	arrive_and_compare("real time");
}

int main(int argc, char **argv)
{
	void (*processes[])(void *) = {batch, idle, real_time};
	pid_t pids[3];
	pthread_t thread;

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	for (int i = 0; i < 3; i++)
		pids[i] = victim_child(processes[i], NULL);
	check(pthread_create(&thread, NULL, nicer_thread, NULL) == 0, "pthread_create");
	victim_meet(arrived, 4);
	victim_ready();
	arrive_and_compare("main thread");
	check(pthread_join(thread, NULL) == 0, "join");
	for (int i = 0; i < 3; i++)
		victim_reap(pids[i]);
	victim_ok();
	return 0;
}
