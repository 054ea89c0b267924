/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A fork bomb that goes off while the checkpoint begins: every process makes others until there are
 * too many, some end and make room, and what they leave behind is adopted. Nobody gets lost.
 */
#include <sys/prctl.h>

#include "victim.h"

enum { FIRST = 4, MOST = 150, PATTERN = 512 };

static struct {
	uint32_t alive, born, over;
} * bomb;

static uint64_t pattern[PATTERN]; /* of one's generation */

static void make_room(void)
{
	__atomic_sub_fetch(&bomb->alive, 1, __ATOMIC_SEQ_CST);
	_exit(0);
}

static bool take_room(void)
{
	if (__atomic_add_fetch(&bomb->alive, 1, __ATOMIC_SEQ_CST) <= MOST)
		return true;
	__atomic_sub_fetch(&bomb->alive, 1, __ATOMIC_SEQ_CST);
	return false;
}

static void reap_children(void)
{
	int status;

	while (waitpid(-1, &status, WNOHANG) > 0)
		check(status == 0, "a child ended with status %#x", status);
}

static void explode(uint64_t generation);

static void have_child(uint64_t generation)
{
	pid_t parent = getpid(), pid = must(fork());

	if (pid)
		return;
	__atomic_add_fetch(&bomb->born, 1, __ATOMIC_SEQ_CST);
	check(getpid() != parent, "the child has its parent's number");
	check(victim_differs(pattern, sizeof(pattern), generation) < 0,
	      "generation %d has other memory than its parent", (int)generation + 1);
	explode(generation + 1);
}

static void explode(uint64_t generation)
{
	uint32_t turn = getpid();

	victim_fill(pattern, sizeof(pattern), generation);
	while (!__atomic_load_n(&bomb->over, __ATOMIC_SEQ_CST)) {
		if (take_room())
			have_child(generation);
		reap_children();
		turn = turn * 1664525 + 1013904223;
		if (generation && turn >> 28 == 0)
			make_room();
		victim_nap(3);
	}
	check(victim_differs(pattern, sizeof(pattern), generation) < 0, "memory has changed");
	make_room();
}

int main(int argc, char **argv)
{
	int status;
	pid_t pid;

	victim_init(argc, argv);
	bomb = victim_shared(4096);
	must(prctl(PR_SET_CHILD_SUBREAPER, 1));
	for (int i = 0; i < FIRST && take_room(); i++) {
		if (must(fork()) == 0)
			explode(0);
	}
	victim_ready();
	while (!victim_told_to_go()) {
		reap_children();
		victim_nap(3);
	}
	bomb->over = 1;
	while ((pid = waitpid(-1, &status, 0)) > 0)
		check(status == 0, "process %d ended with status %#x", pid, status);
	check(errno == ECHILD, "waitpid: %s", strerror(errno));
	check(bomb->alive == 0, "%u processes are missing", bomb->alive);
	check(bomb->born > MOST, "only %u were born", bomb->born);
	victim_ok();
	return 0;
}
