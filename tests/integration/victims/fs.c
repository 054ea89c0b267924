/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* umask, working directory, root directory. */
#include <libgen.h>
#include <sys/stat.h>

#include "victim.h"

static char directory[256], deep[512];
static uint32_t *arrived;

static void check_where(const char *wanted, mode_t mask, const char *who)
{
	char now[512];
	mode_t old;

	must((long)getcwd(now, sizeof(now)));
	check(strcmp(now, wanted) == 0, "%s: in %s, was in %s", who, now, wanted);
	old = umask(mask);
	check(old == mask, "%s: umask was %#o, is %#o", who, mask, old);
}

/* The directory of the status file becomes the root, so that what is found can still be said. */
static void jailed(void *unused)
{
	static char name[256];

	(void)unused;
	must(chroot(directory));
	must(chdir("/"));
	snprintf(name, sizeof(name), "/%s", basename(strdup(victim_path)));
	victim_path = name;
	umask(0111);
	victim_arrive(arrived);
	victim_wait();
	check_where("/", 0111, "jailed");
	check(access(name, F_OK) == 0, "the root directory is another one");
	check(access("/bin/busybox", F_OK) < 0 && errno == ENOENT, "the jail is open");
}

int main(int argc, char **argv)
{
	pid_t jail;

	victim_init(argc, argv);
	snprintf(directory, sizeof(directory), "%s", dirname(strdup(argv[1])));
	snprintf(deep, sizeof(deep), "%s.dir with space", argv[1]);
	must(mkdir(deep, 0755));
	arrived = victim_shared(4096);
	jail = victim_child(jailed, NULL);
	must(chdir(deep));
	umask(0123);
	victim_meet(arrived, 1);
	victim_ready();
	victim_wait();

	check_where(deep, 0123, "parent");
	victim_reap(jail);
	victim_ok();
	return 0;
}
