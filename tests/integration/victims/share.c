/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory, directories, signal dispositions and descriptors shared by tasks that are not parent and
 * child: brothers, cousins, grandchild and grandparent, orphans of a parent that has ended, uncle and
 * nephew; twins whose parent has had one thing after the other. Who shares what, and what it is, is
 * looked at from outside; what is in memory, by everybody.
 */
#include <sched.h>
#include <signal.h>

#include "portrait.h"

enum { STACK = 64 << 10, TASKS = 20 };

enum {
	TABLES = CLONE_FS | CLONE_FILES,
	EVERYTHING = CLONE_VM | CLONE_SIGHAND | TABLES,
};

static uint32_t *arrived, *mothers;
static uint32_t settlers; /* as many as have this memory */

struct start {
	const char *name;
	void (*work)(void);
};

/* A directory and a descriptor that only those know who share. */
static void settle(const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/tmp/share-%s", name);
	mkdir(path, 0755);
	must(chdir(path));
	umask(strlen(name) & 7);
	fd = must(open(".", O_RDONLY | O_DIRECTORY));
	must(dup2(fd, 50 + (name[0] & 31)));
	must(close(fd));
}

static int run(void *argument)
{
	struct start *start = argument;
	uint32_t before;

	portrait_add(start->name, getpid());
	if (start->work)
		start->work();
	victim_arrive(&settlers);
	victim_arrive(arrived);
	victim_meet(arrived, TASKS - 1);
	before = settlers;
	victim_wait();
	check(settlers == before, "%s: memory shows %u, not %u", start->name, settlers, before);
	for (;;)
		victim_nap(50);
	return 0;
}

static pid_t begin(const char *name, int flags, void (*work)(void))
{
	struct start *start = victim_shared(sizeof(*start));
	char *stack = victim_shared(STACK);

	*start = (struct start){name, work};
	return must(clone(run, stack + STACK, flags, start));
}

/* Ends when it has done its work. */
static int pass(void *argument)
{
	((struct start *)argument)->work();
	_exit(0);
}

static void pass_through(int flags, void (*work)(void))
{
	struct start *start = victim_shared(sizeof(*start));
	char *stack = victim_shared(STACK);
	pid_t pid;

	start->work = work;
	pid = must(clone(pass, stack + STACK, flags, start));
	check(waitpid(pid, NULL, __WALL) == pid, "waitpid");
}

/* ---- brothers ---- */

static void make_brothers(void)
{
	settle("eldest");
	begin("memory", CLONE_PARENT | CLONE_VM | CLONE_FILES, NULL);
	begin("directories", CLONE_PARENT | CLONE_FS, NULL);
	begin("handlers", CLONE_PARENT | CLONE_VM | CLONE_SIGHAND, NULL);
	begin("descriptors", CLONE_PARENT | CLONE_FILES, NULL);
}

/* ---- grandchild and grandparent, twins in between ---- */

static void make_grandchild(void)
{
	begin("grandchild", TABLES | SIGCHLD, NULL);
	must(unshare(TABLES));
	settle("twins");
	begin("twin a", TABLES | SIGCHLD, NULL);
	begin("twin b", TABLES | SIGCHLD, NULL);
	must(unshare(TABLES));
	settle("between");
}

/* ---- cousins ---- */

static void make_cousin_a(void)
{
	begin("cousin a", TABLES | SIGCHLD, NULL);
	must(unshare(TABLES));
	settle("mother a");
	victim_arrive(mothers);
}

static void make_cousin_b(void)
{
	begin("cousin b", CLONE_FILES | SIGUSR1, NULL);
	must(unshare(CLONE_FILES));
	victim_arrive(mothers);
}

static void make_cousins(void)
{
	settle("forebear");
	begin("mother a", TABLES | SIGCHLD, make_cousin_a);
	begin("mother b", TABLES | SIGUSR2, make_cousin_b);
	victim_meet(mothers, 2);
	must(unshare(TABLES));
	settle("grandmother");
}

/* ---- orphans ---- */

static void leave_orphans(void)
{
	settle("lost");
	begin("orphan a", CLONE_VM | CLONE_FILES | SIGCHLD, NULL);
	begin("orphan b", CLONE_VM | CLONE_FS | SIGCHLD, NULL);
	begin("orphan c", TABLES | SIGCHLD, NULL);
}

/* ---- uncle and nephew ---- */

static void leave_nephew(void)
{
	begin("nephew", CLONE_VM | CLONE_FILES | SIGCHLD, NULL);
}

static void have_nephew(void)
{
	settle("uncle");
	pass_through(CLONE_VM | CLONE_FILES | SIGCHLD, leave_nephew);
}

static void expect(void)
{
	portrait_expect("memory", "eldest", KCMP_VM, true);
	portrait_expect("memory", "handlers", KCMP_VM, true);
	portrait_expect("memory", "descriptors", KCMP_FILES, true);
	portrait_expect("handlers", "eldest", KCMP_SIGHAND, true);
	portrait_expect("directories", "eldest", KCMP_FS, true);
	portrait_expect("grandchild", "victim", KCMP_FILES, true);
	portrait_expect("grandchild", "between", KCMP_FILES, false);
	portrait_expect("twin a", "twin b", KCMP_FILES, true);
	portrait_expect("twin a", "twin b", KCMP_FS, true);
	portrait_expect("twin a", "between", KCMP_FILES, false);
	portrait_expect("twin a", "grandchild", KCMP_FILES, false);
	portrait_expect("cousin a", "cousin b", KCMP_FILES, true);
	portrait_expect("cousin a", "grandmother", KCMP_FILES, false);
	portrait_expect("cousin a", "mother b", KCMP_FS, true);
	portrait_expect("orphan a", "orphan b", KCMP_VM, true);
	portrait_expect("orphan a", "orphan c", KCMP_FILES, true);
	portrait_expect("orphan b", "orphan c", KCMP_FS, true);
	portrait_expect("nephew", "uncle", KCMP_VM, true);
	portrait_expect("nephew", "uncle", KCMP_FILES, true);
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	gallery = victim_shared(sizeof(*gallery));
	arrived = victim_shared(4096);
	mothers = victim_shared(4096);
	settle("victim");
	portrait_add("victim", getpid());
	begin("eldest", SIGCHLD, make_brothers);
	begin("between", TABLES | SIGCHLD, make_grandchild);
	begin("grandmother", SIGCHLD, make_cousins);
	pass_through(SIGCHLD, leave_orphans);
	begin("uncle", SIGCHLD, have_nephew);
	victim_meet(arrived, TASKS - 1);
	check(gallery->count == TASKS, "%u tasks", gallery->count);
	expect();
	portrait_take_all();
	victim_ready();
	victim_wait();
	portrait_compare_all();
	for (uint32_t i = 1; i < gallery->count; i++)
		must(kill(gallery->tasks[i].tid, SIGKILL));
	victim_ok();
	return 0;
}
