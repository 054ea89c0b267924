/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Limits of the ipc namespace (sysctl(8)). A new namespace has the kernel's defaults; what an
 * administrator or the runtime has set since must hold again, or objects that stand would be beyond
 * it.
 */
#include "ipc_namespace.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../cleanup.h"

struct ipc_namespace {
	uint64_t shmmax, shmall, shmmni, shm_rmid_forced;
	uint64_t msgmax, msgmnb, msgmni;
	uint64_t semmsl, semmns, semopm, semmni;
	uint64_t queues_max, msg_max, msgsize_max, msg_default, msgsize_default;
};

#define LIMIT(m, text) FIELD_UINT(struct ipc_namespace, m, 0, UINT64_MAX, text)
#define POSIX_LIMIT(m, text)                                                                       \
	FIELD_UINT(struct ipc_namespace, m, 0, UINT64_MAX, text, .optional = true)

static const struct field ipc_namespace_fields[] = {
	LIMIT(shmmax, "kernel.shmmax: bytes of a segment"),
	LIMIT(shmall, "kernel.shmall: pages of all segments"),
	LIMIT(shmmni, "kernel.shmmni: segments"),
	FIELD_UINT(struct ipc_namespace, shm_rmid_forced, 0, 1,
		   "kernel.shm_rmid_forced: segments go with their last user"),
	LIMIT(msgmax, "kernel.msgmax: bytes of a message"),
	LIMIT(msgmnb, "kernel.msgmnb: bytes of a new queue"),
	LIMIT(msgmni, "kernel.msgmni: queues"),
	LIMIT(semmsl, "kernel.sem: semaphores of a set"),
	LIMIT(semmns, "kernel.sem: semaphores of all sets"),
	LIMIT(semopm, "kernel.sem: operations of one semop(2)"),
	LIMIT(semmni, "kernel.sem: sets"),
	POSIX_LIMIT(queues_max, "fs.mqueue.queues_max; 0: a kernel without these"),
	POSIX_LIMIT(msg_max, "fs.mqueue.msg_max"),
	POSIX_LIMIT(msgsize_max, "fs.mqueue.msgsize_max"),
	POSIX_LIMIT(msg_default, "fs.mqueue.msg_default"),
	POSIX_LIMIT(msgsize_default, "fs.mqueue.msgsize_default"),
	FIELD_END,
};

/* The files below /proc/sys, each with one number or more of struct ipc_namespace. */
static const struct sysctl {
	const char *path;
	size_t offset, count;
	/* while objects are made, 0: as ever; the last step of a restart sets the true value */
	const char *meanwhile;
} sysctls[] = {
#define SYSCTL(dir, m, ...)                                                                        \
	{                                                                                          \
		dir #m, offsetof(struct ipc_namespace, m), 1, __VA_ARGS__                          \
	}
	SYSCTL("kernel/", shmmax, NULL),
	SYSCTL("kernel/", shmall, NULL),
	SYSCTL("kernel/", shmmni, NULL),
	/* a segment would be gone before whoever needs it attaches it */
	SYSCTL("kernel/", shm_rmid_forced, "0"),
	/* queues and messages may be older than the limit; only CAP_SYS_RESOURCE is above it */
	SYSCTL("kernel/", msgmax, "2147483647"),
	SYSCTL("kernel/", msgmnb, "2147483647"),
	SYSCTL("kernel/", msgmni, NULL),
	{"kernel/sem", offsetof(struct ipc_namespace, semmsl), 4, NULL},
	/* the defaults may not be above the others */
	SYSCTL("fs/mqueue/", queues_max, NULL),
	SYSCTL("fs/mqueue/", msg_max, NULL),
	SYSCTL("fs/mqueue/", msgsize_max, NULL),
	SYSCTL("fs/mqueue/", msg_default, NULL),
	SYSCTL("fs/mqueue/", msgsize_default, NULL),
#undef SYSCTL
};

enum { SYSCTLS = sizeof(sysctls) / sizeof(sysctls[0]) };

struct cr_error *ipc_namespace_enter(pid_t pid)
{
	_cleanup_close_ int proc = -1, ns = -1;

	TRY(proc_open(pid, pid, &proc));
	ns = openat(proc, "ns/ipc", O_RDONLY | O_CLOEXEC);
	if (ns < 0 || setns(ns, CLONE_NEWIPC) < 0)
		return error_sys("Failed to enter the container's ipc namespace");
	return NULL;
}

/* The members of @state that the file holds, in a row. */
static uint64_t *numbers_of(const struct sysctl *sysctl, void *state)
{
	return (uint64_t *)((char *)state + sysctl->offset);
}

static struct cr_error *read_sysctl(struct dump *dump, int dir, const struct sysctl *sysctl,
				    struct ipc_namespace *state)
{
	uint64_t *number = numbers_of(sysctl, state);
	char *text, *end;

	if (faccessat(dir, sysctl->path, F_OK, 0) < 0)
		return NULL; /* a kernel without it */
	TRY(proc_read(dir, sysctl->path, dump->image.pool, &text, NULL));
	for (size_t i = 0; i < sysctl->count; i++, text = end)
		number[i] = strtoull(text, &end, 10);
	return NULL;
}

/* Their file system, mounted where nobody sees it: kept open, since the kernel takes its time to
 * unmount. */
static struct cr_error *mount_queues(struct dump *dump)
{
	_cleanup_close_ int context = fsopen("mqueue", FSOPEN_CLOEXEC);

	if (context < 0)
		return errno == ENODEV ? NULL : error_sys("Failed to look at POSIX message queues");
	if (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		dump->posix_queues = fsmount(context, FSMOUNT_CLOEXEC, 0);
	return dump->posix_queues < 0 ? error_sys("Failed to look at POSIX message queues") : NULL;
}

/*
 * A queue lives without any process that has it open, and what waits in it cannot be looked at
 * without being taken out. The mounted file system shows those of our namespace.
 */
static struct cr_error *check_posix_queues(struct dump *dump)
{
	_cleanup_closedir_ DIR *dir = NULL;
	const struct dirent *entry;
	struct cr_error *error;
	int fd;

	if (dump->posix_queues < 0)
		TRY(mount_queues(dump));
	if (dump->posix_queues < 0)
		return NULL; /* a kernel without them */
	fd = openat(dump->posix_queues, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir)
		return error_sys("Failed to look at POSIX message queues");
	while ((entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		error = error_new(CR_UNSUPPORTED, "The container has a POSIX message queue '/%s'",
				  entry->d_name);
		error = error_object(error, "posix_message_queue");
		TRY(dump_refuse(dump, error_remedy(error, "Not supported yet; end the program that "
							  "uses it, and remove it from "
							  "/dev/mqueue")));
	}
	return NULL;
}

struct cr_error *ipc_namespace_dump(struct dump *dump)
{
	_cleanup_close_ int dir = open("/proc/sys", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct object *object = image_add_object(&dump->image, &ipc_namespace_kind);

	if (!object)
		return error_nomem();
	if (dir < 0)
		return error_sys("Failed to open /proc/sys");
	for (size_t i = 0; i < SYSCTLS; i++)
		TRY(read_sysctl(dump, dir, &sysctls[i], object->state));
	return check_posix_queues(dump);
}

/* ---- restart ---- */

static bool write_text(const char *path, const char *text)
{
	_cleanup_close_ int dir = open("/proc/sys", O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -1;
	ssize_t len = (ssize_t)strlen(text);

	fd = openat(dir, path, O_WRONLY | O_CLOEXEC);
	return fd >= 0 && write(fd, text, (size_t)len) == len;
}

/* As the root of the container's user namespace, in this thread only: capabilities do not help here. */
static struct cr_error *write_sysctl(struct restore *restore, const struct sysctl *sysctl,
				     const char *text)
{
	struct cr_error *error = NULL;

	if (syscall(SYS_setresuid, -1, id_map_root(&restore->image.ids), -1) < 0)
		return error_sys("Failed to become the container's root");
	if (!write_text(sysctl->path, text))
		error = error_sys("Failed to set %s of the container to %s", sysctl->path, text);
	if (syscall(SYS_setresuid, -1, 0, -1) < 0 && !error)
		error = error_sys("Failed to become root again");
	return error;
}

static struct cr_error *set(struct restore *restore, const struct sysctl *sysctl, void *state)
{
	const uint64_t *number = numbers_of(sysctl, state);
	char text[128];
	int len = 0;

	for (size_t i = 0; i < sysctl->count; i++)
		len += snprintf(text + len, sizeof(text) - (size_t)len, "%s%llu", i ? " " : "",
				(unsigned long long)number[i]);
	/* zero where there was no such file: POSIX queues, whose limits are all above it */
	return !number[0] && !strncmp(sysctl->path, "fs/", 3) ? NULL
							      : write_sysctl(restore, sysctl, text);
}

/* The configuration may be another one than at the checkpoint: everything below would be done to the
 * host's own. */
static struct cr_error *check_apart(const struct restore *restore)
{
	_cleanup_close_ int proc = -1;
	struct stat ours, theirs;

	TRY(proc_open(restore->init, restore->init, &proc));
	if (stat("/proc/self/ns/ipc", &ours) < 0 || fstatat(proc, "ns/ipc", &theirs, 0) < 0)
		return error_sys("Failed to look at the container's ipc namespace");
	if (ours.st_ino != theirs.st_ino)
		return NULL;
	return error_remedy(
		error_new(CR_ISOLATION, "The container shares its ipc namespace with the host"),
		"Remove the lxc.namespace.keep or share setting that says so");
}

struct cr_error *ipc_namespace_begin(struct restore *restore)
{
	TRY(check_apart(restore));
	TRY(ipc_namespace_enter(restore->init));
	for_each (struct object *, object, &restore->image.objects) {
		for (size_t i = 0; object->kind == &ipc_namespace_kind && i < SYSCTLS; i++)
			TRY(sysctls[i].meanwhile
				    ? write_sysctl(restore, &sysctls[i], sysctls[i].meanwhile)
				    : set(restore, &sysctls[i], object->state));
	}
	return NULL;
}

struct cr_error *ipc_namespace_finish(struct restore *restore)
{
	for_each (struct object *, object, &restore->image.objects) {
		for (size_t i = 0; object->kind == &ipc_namespace_kind && i < SYSCTLS; i++) {
			if (sysctls[i].meanwhile)
				TRY(set(restore, &sysctls[i], object->state));
		}
	}
	return NULL;
}

const struct kind ipc_namespace_kind = {
	.name = "ipc_namespace",
	.doc = "Limits of the container's ipc namespace",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct ipc_namespace),
	.fields = ipc_namespace_fields,
};
