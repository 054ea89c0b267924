/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Restartable sequences: the area that glibc registered is still the kernel's, for every thread. */
#include <linux/rseq.h>
#include <pthread.h>
#include <sched.h>
#include <sys/rseq.h>
#include <sys/syscall.h>

#include "victim.h"

enum { THREADS = 3 };

static uint32_t arrived;

static struct rseq *area(void)
{
	return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

/* The kernel writes the processor's number there whenever it has moved the thread. */
static void check_area(void)
{
	cpu_set_t all, one;

	must(sched_getaffinity(0, sizeof(all), &all));
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		must(sched_setaffinity(0, sizeof(one), &one));
		check((int)__atomic_load_n(&area()->cpu_id, __ATOMIC_RELAXED) == cpu,
		      "rseq says processor %u, it is %d", area()->cpu_id, cpu);
		check(sched_getcpu() == cpu, "sched_getcpu() says %d, it is %d", sched_getcpu(),
		      cpu);
	}
	must(sched_setaffinity(0, sizeof(all), &all));
	/* A second registration is EBUSY; that of an unregistered thread would work. */
	check(syscall(SYS_rseq, area(), 32, 0, RSEQ_SIG) < 0 && errno == EBUSY,
	      "rseq is not registered: %s", strerror(errno));
}

static void *run(void *unused)
{
	check_area();
	victim_arrive(&arrived);
	victim_wait();
	check_area();
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];

	victim_init(argc, argv);
	check(__rseq_size > 0, "glibc did not register rseq");
	for (int i = 0; i < THREADS; i++)
		check(pthread_create(&threads[i], NULL, run, NULL) == 0, "pthread_create");
	check_area();
	victim_meet(&arrived, THREADS);
	victim_ready();
	victim_wait();
	check_area();
	for (int i = 0; i < THREADS; i++)
		check(pthread_join(threads[i], NULL) == 0, "join");
	victim_ok();
	return 0;
}
