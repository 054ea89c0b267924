/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* set_tid_address(2): the kernel clears a word when a thread ends, so pthread_join() returns. */
#include <pthread.h>
#include <sys/prctl.h>

#include "victim.h"

enum { THREADS = 5 };

static uint32_t arrived;

static uint64_t address(void)
{
	uint64_t address = 0;

	must(prctl(PR_GET_TID_ADDRESS, &address));
	return address;
}

static void *run(void *unused)
{
	uint64_t before = address();

	check(*(pid_t *)before == gettid(), "the word holds %d", *(pid_t *)before);
	victim_arrive(&arrived);
	victim_wait();
	check(address() == before, "address was %#lx, is %#lx", before, address());
	check(*(pid_t *)before == gettid(), "the word holds %d, not %d", *(pid_t *)before,
	      gettid());
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];
	uint64_t before = address();

	victim_init(argc, argv);
	for (int i = 0; i < THREADS; i++)
		check(pthread_create(&threads[i], NULL, run, NULL) == 0, "pthread_create");
	victim_meet(&arrived, THREADS);
	victim_ready();
	victim_wait();
	check(address() == before, "address was %#lx, is %#lx", before, address());
	for (int i = 0; i < THREADS; i++) {
		struct timespec limit;
		int error;

		clock_gettime(CLOCK_REALTIME, &limit);
		limit.tv_sec += 5;
		error = pthread_timedjoin_np(threads[i], NULL, &limit);
		check(error == 0, "join: %s", strerror(error));
	}
	victim_ok();
	return 0;
}
