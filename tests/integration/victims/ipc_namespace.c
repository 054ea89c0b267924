/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Limits of the ipc namespace, which only an administrator changes: other ones than a new one has. */
#include <sys/mount.h>

#include "victim.h"

static const struct {
	const char *path, *value;
} limits[] = {
	{"kernel/msgmax", "9001\n"},
	{"kernel/msgmnb", "17001\n"},
	{"kernel/msgmni", "101\n"},
	{"kernel/sem", "250\t32000\t32\t128\n"},
	{"kernel/shmmax", "1000000007\n"},
	{"kernel/shmall", "300003\n"},
	{"kernel/shmmni", "203\n"},
	{"kernel/shm_rmid_forced", "1\n"},
	{"fs/mqueue/queues_max", "77\n"},
	{"fs/mqueue/msg_max", "13\n"},
	{"fs/mqueue/msgsize_max", "8193\n"},
	{"fs/mqueue/msg_default", "7\n"},
	{"fs/mqueue/msgsize_default", "511\n"},
};

enum { LIMITS = sizeof(limits) / sizeof(limits[0]) };

/* /proc/sys of a container can only be read; one that is mounted nowhere can be written. */
static int open_sysctls(void)
{
	int context = must(fsopen("proc", FSOPEN_CLOEXEC)), mount, sys;

	must(fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	mount = must(fsmount(context, FSMOUNT_CLOEXEC, 0));
	sys = must(openat(mount, "sys", O_PATH | O_DIRECTORY | O_CLOEXEC));
	must(close(context));
	must(close(mount));
	return sys;
}

int main(int argc, char **argv)
{
	int sys;

	victim_init(argc, argv);
	sys = open_sysctls();
	for (size_t i = 0; i < LIMITS; i++) {
		int fd = must(openat(sys, limits[i].path, O_WRONLY));

		must(write(fd, limits[i].value, strlen(limits[i].value)));
		must(close(fd));
	}
	must(close(sys));
	victim_ready();
	victim_wait();
	for (size_t i = 0; i < LIMITS; i++) {
		char path[64], text[64];

		snprintf(path, sizeof(path), "/proc/sys/%s", limits[i].path);
		victim_read(path, text, sizeof(text));
		check(strcmp(text, limits[i].value) == 0, "%s is %s", limits[i].path, text);
	}
	victim_ok();
	return 0;
}
