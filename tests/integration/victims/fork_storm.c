/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Processes that come and go faster than they can be listed: chains of forks, each child's status
 * passed on by its parent. A checkpoint meets them being born, dying and dead.
 */
#include "victim.h"

enum { WORKERS = 3, DEPTH = 5, BURST = 20 };

static uint32_t *done;

/* The status counts the generations below. */
static int chain(int depth)
{
	int status;
	pid_t pid;

	if (!depth)
		return 0;
	pid = must(fork());
	if (pid == 0)
		_exit(chain(depth - 1));
	check(waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
	check(WIFEXITED(status), "status %#x", status);
	return WEXITSTATUS(status) + 1;
}

static void work(void *unused)
{
	(void)unused;
	while (!victim_told_to_go()) {
		for (int i = 0; i < BURST; i++) {
			int depth = chain(DEPTH);

			check(depth == DEPTH, "%d generations of %d", depth, DEPTH);
		}
		victim_arrive(done);
		victim_nap(2);
	}
}

int main(int argc, char **argv)
{
	pid_t pids[WORKERS];

	victim_init(argc, argv);
	done = victim_shared(4096);
	for (int i = 0; i < WORKERS; i++)
		pids[i] = victim_child(work, NULL);
	victim_meet(done, WORKERS);
	victim_ready();
	for (int i = 0; i < WORKERS; i++)
		victim_reap(pids[i]);
	check(waitpid(-1, NULL, 0) < 0 && errno == ECHILD, "there are more children");
	victim_ok();
	return 0;
}
