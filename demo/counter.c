/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the demonstration checkpoints: two threads count, each keeps its number and a floating-point
 * sum in memory only, and tells its progress by one descriptor that stays open. Nobody ever reads
 * that file back: a number that is lost or repeated was lost or repeated in memory.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int progress = -1;

static void *count(void *name)
{
	const struct timespec pause = {0, 2 * 1000 * 1000};
	double sum = 0;

	for (unsigned long number = 1;; number++) {
		char line[64];
		int length;

		sum += 1.0 / number;
		length = snprintf(line, sizeof(line), "%s %lu %.17g\n", (char *)name, number, sum);
		if (write(progress, line, length) != length)
			exit(1);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	if (argc != 2)
		return 2;
	progress = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (progress < 0 || pthread_create(&thread, NULL, count, "one") != 0)
		return 1;
	count("two");
}
