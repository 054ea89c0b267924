/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>

enum {
	MOST_THREADS = 4, /* memory bandwidth, not processors, is the limit beyond */
	PARTS_OF_A_THREAD =
		16 /* whoever is slow, or was not let run, has less left to be waited for */
};

struct work {
	parallel_work function;
	void *context;
	uint64_t count, part;
	uint64_t next; /* item that nobody has taken; all threads add to it */
};

struct worker {
	struct work *work;
	pthread_t thread;
	bool started;
	struct cr_error *error;
};

static void *run(void *argument)
{
	struct worker *worker = argument;
	struct work *work = worker->work;
	uint64_t begin;

	while (!worker->error && (begin = __atomic_fetch_add(&work->next, work->part,
							     __ATOMIC_RELAXED)) < work->count)
		worker->error = work->function(
			work->context, begin,
			work->count - begin < work->part ? work->count : begin + work->part);
	return NULL;
}

static uint64_t threads_for(uint64_t count, uint64_t grain)
{
	cpu_set_t usable;
	uint64_t threads = MOST_THREADS;

	if (sched_getaffinity(0, sizeof(usable), &usable) == 0 &&
	    (uint64_t)CPU_COUNT(&usable) < threads)
		threads = (uint64_t)CPU_COUNT(&usable);
	return count / grain < threads ? count / grain : threads;
}

struct cr_error *parallel(uint64_t count, uint64_t grain, parallel_work function, void *context)
{
	struct worker workers[MOST_THREADS] = {0};
	struct work work = {.function = function, .context = context, .count = count};
	struct cr_error *error = NULL;
	uint64_t n = threads_for(count, grain);

	if (n < 2)
		return function(context, 0, count);
	work.part = count / (n * PARTS_OF_A_THREAD);
	if (work.part < grain)
		work.part = grain;
	for (uint64_t i = 0; i < n; i++)
		workers[i].work = &work;
	for (uint64_t i = 1; i < n; i++)
		workers[i].started =
			pthread_create(&workers[i].thread, NULL, run, &workers[i]) == 0;
	run(&workers[0]);
	for (uint64_t i = 0; i < n; i++) {
		if (workers[i].started)
			pthread_join(workers[i].thread, NULL);
		if (error)
			cr_error_free(workers[i].error);
		else
			error = workers[i].error;
	}
	return error;
}
