/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The instant of an image: processes count in memory and append each number to a file. A process
 * that runs on for a moment after its image was made writes numbers that it writes again later.
 */
#include "victim.h"

enum { CHILDREN = 8, BURST = 600 };

static void append(int fd, int number)
{
	char line[32];
	int length = snprintf(line, sizeof(line), "%d\n", number);

	check(write(fd, line, length) == length, "write of %d", number);
}

static void compare(const char *path, int last)
{
	FILE *file = fopen(path, "r");
	int number, expected = 0;

	check(file, "fopen of %s", path);
	while (fscanf(file, "%d", &number) == 1)
		check(number == ++expected, "%s: %d where %d should be", path, number, expected);
	check(expected == last, "%s ends with %d, %d was the last", path, expected, last);
	fclose(file);
}

static void count(void *argument)
{
	char path[256];
	int number = 0, fd;

	snprintf(path, sizeof(path), "%s.%d", victim_path, *(int *)argument);
	fd = must(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600));
	while (!victim_told_to_go()) {
		for (int i = 0; i < BURST; i++)
			append(fd, ++number);
		victim_nap(2);
	}
	compare(path, number);
}

int main(int argc, char **argv)
{
	pid_t children[CHILDREN];

	victim_init(argc, argv);
	for (int i = 0; i < CHILDREN; i++)
		children[i] = victim_child(count, &i);
	victim_nap(20);
	victim_ready();
	victim_wait();
	for (int i = 0; i < CHILDREN; i++)
		victim_reap(children[i]);
	victim_ok();
	return 0;
}
