/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checks of a stop that is given up, or that meets somebody who ends. */
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>

#include "stopped.h"
#include "target/stop.h"
#include "target/task.h"

static void await_state(pid_t tid, char wanted)
{
	for (int i = 0; i < 5000 && state_of(tid) != wanted; i++)
		usleep(1000);
	CHECK(state_of(tid) == wanted);
}

static void begin(struct stop_set *set, struct log *log)
{
	log_init(log, NULL);
	*set = (struct stop_set){.log = log};
	CHECK_SUCCESS(pool_create(1 << 16, &set->pool));
}

static void add(struct stop_set *set, pid_t tid)
{
	struct stopped_task *task = list_append(set->pool, &set->tasks, sizeof(*task));

	if (CHECK(task != NULL))
		task->tid = tid;
}

static void end(struct stop_set *set, struct log *log)
{
	pool_destroy(set->pool);
	log_deinit(log);
}

static void leave(int signal)
{
	_exit(signal);
}

/* A signal that came between the seizure and the stop is still delivered. */
static void check_signal_is_kept(void)
{
	pid_t child = fork();
	struct stop_set set;
	struct log log;
	int status = 0;

	if (!child) {
		signal(SIGUSR1, leave);
		for (;;)
			pause();
	}
	begin(&set, &log);
	await_state(child, 'S');
	CHECK_SUCCESS(task_seize(child, PTRACE_O_EXITKILL));
	add(&set, child);
	CHECK(!kill(child, SIGUSR1));
	await_state(child, 't');
	stop_release(&set, 0);
	for (int i = 0; i < 2000 && !waitpid(child, &status, WNOHANG); i++)
		usleep(1000);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == SIGUSR1);
	kill(child, SIGKILL);
	end(&set, &log);
}

static void *stay(void *shared)
{
	*(_Atomic pid_t *)shared = (pid_t)syscall(SYS_gettid);
	while (shared)
		pause();
	return NULL;
}

static void leave_thread(int unused)
{
	(void)unused;
	syscall(SYS_exit, 0);
}

/* @directory: a cgroup as cgroup.c sees it. */
static void check_first_thread_that_ends(char *directory)
{
	_Atomic pid_t *second =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t first = fork();
	struct stop_set set;
	struct log log;
	char path[4096];
	FILE *tasks;

	if (!first) {
		pthread_t thread;

		signal(SIGUSR1, leave_thread);
		pthread_create(&thread, NULL, stay, (void *)second);
		for (;;)
			pause();
	}
	begin(&set, &log);
	set.cgroup = directory;
	while (!*second)
		usleep(1000);
	await_state(first, 'S');
	CHECK_SUCCESS(task_seize(first, 0));
	add(&set, first);
	CHECK(!syscall(SYS_tgkill, first, first, SIGUSR1));
	await_state(first, 't');
	CHECK(waitpid(first, NULL, __WALL) == first);
	CHECK_SUCCESS(task_continue(first, SIGUSR1));
	await_state(first, 'Z');
	snprintf(path, sizeof(path), "%s/tasks", directory);
	tasks = fopen(path, "we");
	fprintf(tasks, "%d\n%d\n", first, *second);
	fclose(tasks);
	CHECK_SUCCESS(stop_all(&set));
	CHECK(set.tasks.count == 1 && stop_find(&set, *second));
	stop_release(&set, 0);
	kill(first, SIGKILL);
	waitpid(first, NULL, __WALL);
	end(&set, &log);
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	check_signal_is_kept();
	check_first_thread_that_ends(argv[1]);
	return checks_done();
}
