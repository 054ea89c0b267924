/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A program's start as the kernel knows it: executable, arguments, environment, auxv, areas. */
#include <sys/auxv.h>

#include "victim.h"

enum { TEXT = 8192 };

struct start {
	char exe[256], cmdline[TEXT], environ[TEXT], auxv[TEXT];
	size_t cmdline_size, environ_size, auxv_size;
	unsigned long areas[10]; /* start_code to env_end of /proc/self/stat */
};

/* Fields 26 to 28 and 45 to 51 of proc(5). */
static void read_areas(unsigned long *areas)
{
	char text[2048], *at, *save;
	int field = 3, found = 0;

	victim_read("/proc/self/stat", text, sizeof(text));
	at = strrchr(text, ')') + 2;
	for (char *word = strtok_r(at, " ", &save); word;
	     word = strtok_r(NULL, " ", &save), field++)
		if ((field >= 26 && field <= 28) || (field >= 45 && field <= 51))
			areas[found++] = strtoul(word, NULL, 10);
	check(found == 10, "%d areas", found);
}

static void look(struct start *start)
{
	ssize_t length = must(readlink("/proc/self/exe", start->exe, sizeof(start->exe) - 1));

	start->exe[length] = 0;
	start->cmdline_size = victim_read("/proc/self/cmdline", start->cmdline, TEXT);
	start->environ_size = victim_read("/proc/self/environ", start->environ, TEXT);
	start->auxv_size = victim_read("/proc/self/auxv", start->auxv, TEXT);
	read_areas(start->areas);
}

static void verify(void)
{
	static struct start before, now;

	look(&before);
	victim_ready();
	victim_wait();
	look(&now);
	check(strcmp(before.exe, now.exe) == 0, "executable was %s, is %s", before.exe, now.exe);
	check(before.cmdline_size == now.cmdline_size &&
		      memcmp(before.cmdline, now.cmdline, now.cmdline_size) == 0,
	      "arguments");
	check(before.environ_size == now.environ_size &&
		      memcmp(before.environ, now.environ, now.environ_size) == 0,
	      "environment");
	check(before.auxv_size == now.auxv_size &&
		      memcmp(before.auxv, now.auxv, now.auxv_size) == 0,
	      "auxiliary vector");
	for (int i = 0; i < 10; i++)
		check(before.areas[i] == now.areas[i], "area %d was %#lx, is %#lx", i,
		      before.areas[i], now.areas[i]);
	check(strcmp(getenv("SOME_NAME"), "some value") == 0, "getenv");
	/* The vdso is where the auxiliary vector says, and works. */
	check(memcmp((void *)getauxval(AT_SYSINFO_EHDR), "\177ELF", 4) == 0, "vdso");
	check(time(NULL) > 1600000000, "time");
	close(must(open(now.exe, O_RDONLY)));
}

int main(int argc, char **argv)
{
	victim_init(argc, argv);
	if (argc == 2) {
		/* Again, with arguments and environment worth looking at. */
		char *arguments[] = {"another name", argv[1], "", "two words", "\xff\xfe", NULL};
		char *environment[] = {"SOME_NAME=some value", "EMPTY=", NULL};

		execve("/proc/self/exe", arguments, environment);
		check(false, "execve");
	}
	verify();
	victim_ok();
	return 0;
}
