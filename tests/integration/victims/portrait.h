/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What can be seen of a task from outside, as text, to be compared before and after: parent, exit
 * signal, directories, umask, descriptors; and which tasks share what, by kcmp(2).
 */
#ifndef PORTRAIT_H
#define PORTRAIT_H

#include <dirent.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>

#include "victim.h"

enum { PORTRAITS = 32, PORTRAIT_SIZE = 4096 };

struct gallery {
	uint32_t count;
	struct {
		pid_t tid;
		const char *name;
		char text[PORTRAIT_SIZE];
	} tasks[PORTRAITS];
	/* [a][b]: bits of what both have, 1 << KCMP_... */
	uint32_t common[PORTRAITS][PORTRAITS];
};

static struct gallery *gallery; /* victim_shared() */

/* To be called by the task itself or whoever has made it. */
__attribute__((unused)) static void portrait_add(const char *name, pid_t tid)
{
	uint32_t n = __atomic_fetch_add(&gallery->count, 1, __ATOMIC_SEQ_CST);

	check(n < PORTRAITS, "too many tasks");
	gallery->tasks[n].name = name;
	gallery->tasks[n].tid = tid;
}

__attribute__((unused)) static pid_t portrait_tid(const char *name)
{
	for (uint32_t i = 0; i < gallery->count; i++) {
		if (strcmp(gallery->tasks[i].name, name) == 0)
			return gallery->tasks[i].tid;
	}
	check(0, "there is no task %s", name);
	return -1;
}

static size_t portrait_link(pid_t tid, const char *name, char *text, size_t room)
{
	char path[64], target[200];
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/%d/%s", tid, name);
	len = readlink(path, target, sizeof(target) - 1);
	check(len >= 0, "readlink %s", path);
	target[len] = 0;
	return (size_t)snprintf(text, room, "%s=%s\n", name, target);
}

static size_t portrait_descriptors(pid_t tid, char *text, size_t room)
{
	char path[64], name[32];
	size_t used = 0;

	/* ascending, whatever the kernel's order is */
	for (int fd = 0; fd < 300; fd++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", tid, fd);
		snprintf(name, sizeof(name), "fd/%d", fd);
		if (access(path, F_OK) == 0 || readlink(path, (char[2]){0}, 1) >= 0)
			used += portrait_link(tid, name, text + used, room - used);
	}
	return used;
}

static void portrait_take(pid_t tid, char *text)
{
	static char all[16384]; /* of the task that looks */
	char path[64], *at;
	size_t used = 0;
	int ppid = 0, exit_signal = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	victim_read(path, all, sizeof(all));
	at = strrchr(all, ')');
	check(at && sscanf(at, ") %*c %d", &ppid) == 1, "stat: %.99s", all);
	for (int field = 2; at && field < 38; field++)
		at = strchr(at + 1, ' ');
	exit_signal = at ? atoi(at + 1) : -1;
	used += snprintf(text, PORTRAIT_SIZE, "ppid=%d exit_signal=%d\n", ppid, exit_signal);
	used += portrait_link(tid, "cwd", text + used, PORTRAIT_SIZE - used);
	used += portrait_link(tid, "root", text + used, PORTRAIT_SIZE - used);
	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	victim_read(path, all, sizeof(all));
	at = strstr(all, "Umask:");
	check(at, "no umask");
	used += snprintf(text + used, PORTRAIT_SIZE - used, "%.12s\n", at);
	portrait_descriptors(tid, text + used, PORTRAIT_SIZE - used);
}

static uint32_t portrait_common(pid_t a, pid_t b)
{
	static const int sorts[] = {KCMP_VM, KCMP_FILES, KCMP_FS, KCMP_SIGHAND};
	uint32_t bits = 0;

	for (size_t i = 0; i < sizeof(sorts) / sizeof(sorts[0]); i++) {
		if (must(syscall(SYS_kcmp, a, b, sorts[i], 0, 0)) == 0)
			bits |= 1u << sorts[i];
	}
	return bits;
}

__attribute__((unused)) static void portrait_take_all(void)
{
	for (uint32_t i = 0; i < gallery->count; i++) {
		portrait_take(gallery->tasks[i].tid, gallery->tasks[i].text);
		for (uint32_t j = 0; j < gallery->count; j++)
			gallery->common[i][j] =
				portrait_common(gallery->tasks[i].tid, gallery->tasks[j].tid);
	}
}

/* So that the test knows what it looks at: has the kernel made what was asked for? */
__attribute__((unused)) static void portrait_expect(const char *a, const char *b, int sort,
						    bool shared)
{
	int same = must(syscall(SYS_kcmp, portrait_tid(a), portrait_tid(b), sort, 0, 0));

	check((same == 0) == shared, "%s and %s: kcmp %d says %d", a, b, sort, same);
}

__attribute__((unused)) static void portrait_compare_all(void)
{
	static char now[PORTRAIT_SIZE];

	for (uint32_t i = 0; i < gallery->count; i++) {
		const char *name = gallery->tasks[i].name;

		portrait_take(gallery->tasks[i].tid, now);
		check(strcmp(now, gallery->tasks[i].text) == 0, "%s is \"%.150s\", was \"%.150s\"",
		      name, now, gallery->tasks[i].text);
		for (uint32_t j = 0; j < gallery->count; j++) {
			uint32_t common =
				portrait_common(gallery->tasks[i].tid, gallery->tasks[j].tid);

			check(common == gallery->common[i][j], "%s and %s share %#x, shared %#x",
			      name, gallery->tasks[j].name, common, gallery->common[i][j]);
		}
	}
}

#endif
