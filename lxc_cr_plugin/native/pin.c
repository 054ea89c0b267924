/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A restart is some thousand system calls by tasks, one at a time: the engine waits for the task, then
 * the task for the engine. On one processor that is two switches; on two, each has to be woken from
 * its idle sleep, which takes ten times as long, and differs so much from call to call that nobody
 * could tell when the container can be let go. The tasks get their own processors at the release
 * (kinds/scheduler.c). Where nothing is in common, or the kernel refuses, all stays as it was.
 */
#include "pin.h"

static int choose(const cpu_set_t *allowed)
{
	int here = sched_getcpu();

	if (here >= 0 && CPU_ISSET(here, allowed))
		return here;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, allowed))
			return cpu;
	}
	return -1;
}

void pin(struct restore *restore)
{
	cpu_set_t common;
	int cpu;

	if (sched_getaffinity(0, sizeof(cpu_set_t), &restore->processors) < 0 ||
	    sched_getaffinity(restore->init, sizeof(cpu_set_t), &restore->of_init) < 0)
		return;
	CPU_AND(&common, &restore->processors, &restore->of_init);
	cpu = choose(&common);
	if (cpu < 0)
		return;
	CPU_ZERO(&restore->shared_processor);
	CPU_SET(cpu, &restore->shared_processor);
	if (sched_setaffinity(restore->init, sizeof(cpu_set_t), &restore->shared_processor) < 0)
		return;
	restore->pinned = true;
	pin_return(restore);
}

void pin_lift(const struct restore *restore)
{
	if (restore->pinned)
		sched_setaffinity(0, sizeof(cpu_set_t), &restore->processors);
}

void pin_return(const struct restore *restore)
{
	if (restore->pinned)
		sched_setaffinity(0, sizeof(cpu_set_t), &restore->shared_processor);
}

void pin_free(const struct restore *restore, pid_t tid)
{
	if (restore->pinned)
		sched_setaffinity(tid, sizeof(cpu_set_t), &restore->of_init);
}
