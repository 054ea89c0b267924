/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>

/* Memory bandwidth, not processors, is the limit beyond. */
enum { MOST_PARTS = 4 };

struct part {
	parallel_work work;
	void *context;
	uint64_t begin, end;
	pthread_t thread;
	bool started;
	struct cr_error *error;
};

static void *run(void *argument)
{
	struct part *part = argument;

	part->error = part->work(part->context, part->begin, part->end);
	return NULL;
}

static uint64_t parts_for(uint64_t count, uint64_t grain)
{
	cpu_set_t usable;
	uint64_t parts = MOST_PARTS;

	if (sched_getaffinity(0, sizeof(usable), &usable) == 0 &&
	    (uint64_t)CPU_COUNT(&usable) < parts)
		parts = (uint64_t)CPU_COUNT(&usable);
	return count / grain < parts ? count / grain : parts;
}

struct cr_error *parallel(uint64_t count, uint64_t grain, parallel_work work, void *context)
{
	struct part parts[MOST_PARTS] = {0};
	struct cr_error *error = NULL;
	uint64_t n = parts_for(count, grain);

	if (n < 2)
		return work(context, 0, count);
	for (uint64_t i = 0; i < n; i++) {
		parts[i].work = work;
		parts[i].context = context;
		parts[i].begin = count / n * i;
		parts[i].end = i + 1 < n ? count / n * (i + 1) : count;
	}
	for (uint64_t i = 1; i < n; i++)
		parts[i].started = pthread_create(&parts[i].thread, NULL, run, &parts[i]) == 0;
	for (uint64_t i = 0; i < n; i++) {
		if (parts[i].started)
			pthread_join(parts[i].thread, NULL);
		else
			run(&parts[i]);
		if (error)
			cr_error_free(parts[i].error);
		else
			error = parts[i].error;
	}
	return error;
}
